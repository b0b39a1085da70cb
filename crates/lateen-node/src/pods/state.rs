//! What the node knows of a running pod, and the status that the API shows of it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::resources;

/// Reason of a container that waits for its pod's volumes and network.
pub(crate) const CREATING: &str = "ContainerCreating";

/// Reason of a container that waits for init containers.
pub(crate) const INITIALIZING: &str = "PodInitializing";

/// What a container is to its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: the next one starts when it has started.
    Sidecar,
    /// One of `spec.containers`.
    Main,
}

/// How a container's run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terminated {
    pub(crate) code: i32,
    pub(crate) reason: String,
    pub(crate) message: Option<String>,
    pub(crate) started: Option<Timestamp>,
    pub(crate) finished: Timestamp,
    pub(crate) id: String,
}

/// What a container does now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Waiting {
        reason: &'static str,
        message: Option<String>,
    },
    Running {
        since: Timestamp,
    },
    Terminated(Terminated),
}

/// One container.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) image: String,
    /// The image that runs, with its digest; empty for what runs in an image's place.
    pub(crate) image_id: String,
    pub(crate) role: Role,
    pub(crate) phase: Phase,
    pub(crate) last: Option<Terminated>,
    pub(crate) restarts: i32,
    pub(crate) ready: bool,
    pub(crate) started: bool,
    pub(crate) id: String,
    /// Will it never run again?
    pub(crate) finished: bool,
}

/// The pod.
#[derive(Clone, Debug)]
pub(crate) struct PodState {
    pub(crate) records: Vec<Record>,
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) node: Ipv4Addr,
    pub(crate) accepted: Timestamp,
    /// Set while the pod is being deleted: its containers will not start again.
    pub(crate) ending: bool,
    /// When each condition took its present value.
    conditions: BTreeMap<String, (bool, Timestamp)>,
}

impl PodState {
    /// The state of a pod that the node has just accepted. Containers that ran before, in an
    /// earlier life of the mesh, count as restarted.
    pub(crate) fn new(pod: &Pod, node: Ipv4Addr) -> Self {
        let mut records = Vec::new();
        let spec = pod.spec.as_ref();
        let inits = spec
            .and_then(|spec| spec.init_containers.as_deref())
            .unwrap_or_default();
        let mains = spec
            .map(|spec| spec.containers.as_slice())
            .unwrap_or_default();
        let waiting = if inits.is_empty() {
            CREATING
        } else {
            INITIALIZING
        };
        for container in inits {
            let sidecar = container.restart_policy.as_deref() == Some("Always");
            let role = if sidecar { Role::Sidecar } else { Role::Init };
            records.push(Record::new(pod, container, role, INITIALIZING));
        }
        for container in mains {
            records.push(Record::new(pod, container, Role::Main, waiting));
        }
        let before = pod
            .status
            .as_ref()
            .and_then(|status| status.start_time.as_ref());
        let accepted = before.map_or_else(Timestamp::now, |time| time.0);
        let conditions = BTreeMap::new();
        Self {
            records,
            address: None,
            node,
            accepted,
            ending: false,
            conditions,
        }
    }

    /// The record of a container.
    pub(crate) fn record(&mut self, name: &str) -> Option<&mut Record> {
        self.records.iter_mut().find(|record| record.name == name)
    }

    /// The pod's phase, by Kubernetes' rules.
    pub(crate) fn phase(&self) -> &'static str {
        let mains: Vec<_> = self
            .records
            .iter()
            .filter(|r| r.role == Role::Main)
            .collect();
        let inits = || self.records.iter().filter(|r| r.role == Role::Init);
        let failed_init = inits().any(|r| r.finished && !succeeded(r));
        let over =
            |r: &&Record| (r.finished || self.ending) && matches!(r.phase, Phase::Terminated(_));
        if failed_init {
            "Failed"
        } else if mains.iter().all(over) {
            if mains.iter().all(|r| succeeded(r)) {
                "Succeeded"
            } else {
                "Failed"
            }
        } else if !self.initialized() || mains.iter().any(|r| never_ran(r)) {
            "Pending"
        } else {
            "Running"
        }
    }

    fn initialized(&self) -> bool {
        self.records.iter().all(|record| match record.role {
            Role::Init => succeeded(record),
            Role::Sidecar => record.started,
            Role::Main => true,
        })
    }

    /// The status to store; `pod` is the object as last seen.
    pub(crate) fn status(&mut self, pod: &Pod) -> Value {
        let phase = self.phase();
        let over = matches!(phase, "Succeeded" | "Failed");
        let gates_open = gates_open(pod);
        let active = |r: &&Record| r.role != Role::Init;
        let unready: Vec<_> = self
            .records
            .iter()
            .filter(active)
            .filter(|r| !r.ready)
            .map(|r| r.name.clone())
            .collect();
        let containers_ready = unready.is_empty() && !over;
        let why = match (phase, unready.as_slice()) {
            ("Succeeded", _) => Some(("PodCompleted", None)),
            ("Failed", _) => Some(("PodFailed", None)),
            (_, []) => None,
            (_, names) => {
                let names = names.join(" ");
                let text = format!("containers with unready status: [{names}]");
                Some(("ContainersNotReady", Some(text)))
            }
        };
        let pending_init: Vec<_> = self
            .records
            .iter()
            .filter(|r| match r.role {
                Role::Init => !succeeded(r),
                Role::Sidecar => !r.started,
                Role::Main => false,
            })
            .map(|r| r.name.clone())
            .collect();
        let initialized = pending_init.is_empty();
        let why_init = (!initialized).then(|| {
            let names = pending_init.join(" ");
            let text = format!("containers with incomplete status: [{names}]");
            ("ContainersNotInitialized", Some(text))
        });
        let network = self.address.is_some();
        let why_gates = (containers_ready && !gates_open).then(|| {
            (
                "ReadinessGatesNotReady",
                Some("a readiness gate is not true".to_owned()),
            )
        });
        let mut conditions = vec![
            self.condition("PodReadyToStartContainers", network && !over, None),
            self.condition("Initialized", initialized, why_init),
            self.condition(
                "Ready",
                containers_ready && gates_open,
                why.clone().or(why_gates),
            ),
            self.condition("ContainersReady", containers_ready, why),
            self.condition("PodScheduled", true, None),
        ];
        conditions.extend(foreign_conditions(pod));
        let mut status = json!({
            "phase": phase,
            "conditions": conditions,
            "hostIP": self.node,
            "hostIPs": [{"ip": self.node}],
            "startTime": Time(self.accepted),
            "qosClass": resources::class(pod),
            "observedGeneration": pod.metadata.generation,
            "containerStatuses": self.statuses(|role| role == Role::Main),
        });
        if let Some(address) = self.address {
            status["podIP"] = json!(address);
            status["podIPs"] = json!([{"ip": address}]);
        }
        let inits = self.statuses(|role| role != Role::Main);
        if !inits.is_empty() {
            status["initContainerStatuses"] = json!(inits);
        }
        status
    }

    fn condition(&mut self, kind: &str, holds: bool, why: Option<(&str, Option<String>)>) -> Value {
        let now = Timestamp::now();
        let entry = self
            .conditions
            .entry(kind.to_owned())
            .or_insert((holds, now));
        if entry.0 != holds {
            *entry = (holds, now);
        }
        let mut condition = json!({
            "type": kind,
            "status": if holds { "True" } else { "False" },
            "lastProbeTime": null,
            "lastTransitionTime": Time(truncated(entry.1)),
        });
        if let Some((reason, message)) = why {
            condition["reason"] = json!(reason);
            if let Some(message) = message {
                condition["message"] = json!(message);
            }
        }
        condition
    }

    fn statuses(&self, wanted: impl Fn(Role) -> bool) -> Vec<Value> {
        self.records
            .iter()
            .filter(|record| wanted(record.role))
            .map(Record::status)
            .collect()
    }
}

impl Record {
    fn new(
        pod: &Pod,
        container: &k8s_openapi::api::core::v1::Container,
        role: Role,
        waiting: &'static str,
    ) -> Self {
        let before = earlier(pod, &container.name);
        let last = before
            .and_then(|status| status.state.as_ref())
            .and_then(ended_before);
        let ran = last.is_some();
        Self {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            image_id: String::new(),
            role,
            phase: Phase::Waiting {
                reason: waiting,
                message: None,
            },
            restarts: before.map_or(0, |status| status.restart_count) + i32::from(ran),
            last,
            ready: false,
            started: false,
            id: String::new(),
            finished: false,
        }
    }

    /// As the status shows it: an init container is ready once it has done its work.
    fn is_ready(&self) -> bool {
        let done = matches!(&self.phase, Phase::Terminated(end) if end.code == 0);
        self.ready || (matches!(self.role, Role::Init) && done)
    }

    fn status(&self) -> Value {
        let state = match &self.phase {
            Phase::Waiting { reason, message } => {
                json!({"waiting": {"reason": reason, "message": message}})
            }
            Phase::Running { since } => json!({"running": {"startedAt": Time(truncated(*since))}}),
            Phase::Terminated(end) => json!({"terminated": terminated(end)}),
        };
        let last = match &self.last {
            Some(end) => json!({"terminated": terminated(end)}),
            None => json!({}),
        };
        let ran = !self.id.is_empty();
        let image_id = match self.image_id.as_str() {
            "" => &self.image,
            known => known,
        };
        json!({
            "name": self.name,
            "image": self.image,
            "imageID": if ran { image_id } else { "" },
            "containerID": ran.then_some(self.id.as_str()),
            "state": state,
            "lastState": last,
            "ready": self.is_ready(),
            "started": self.started,
            "restartCount": self.restarts,
        })
    }
}

fn terminated(end: &Terminated) -> Value {
    json!({
        "exitCode": end.code,
        "reason": end.reason,
        "message": end.message,
        "startedAt": end.started.map(|time| Time(truncated(time))),
        "finishedAt": Time(truncated(end.finished)),
        "containerID": end.id,
    })
}

/// Times in objects have whole seconds.
fn truncated(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn succeeded(record: &Record) -> bool {
    matches!(&record.phase, Phase::Terminated(end) if end.code == 0)
}

fn never_ran(record: &Record) -> bool {
    matches!(record.phase, Phase::Waiting { .. }) && record.last.is_none()
}

/// The stored status of a container.
fn earlier<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = [&status.init_container_statuses, &status.container_statuses];
    all.into_iter()
        .flatten()
        .flatten()
        .find(|status| status.name == name)
}

/// How a container's stored run ended: as stored, or unknown when it was running as the mesh
/// went down.
fn ended_before(state: &ContainerState) -> Option<Terminated> {
    if let Some(end) = &state.terminated {
        return Some(Terminated {
            code: end.exit_code,
            reason: end.reason.clone().unwrap_or_default(),
            message: end.message.clone(),
            started: end.started_at.as_ref().map(|time| time.0),
            finished: end
                .finished_at
                .as_ref()
                .map_or_else(Timestamp::now, |time| time.0),
            id: end.container_id.clone().unwrap_or_default(),
        });
    }
    let running = state.running.as_ref()?;
    Some(Terminated {
        code: 255,
        reason: "Unknown".into(),
        message: Some("the mesh was stopped while the container ran".into()),
        started: running.started_at.as_ref().map(|time| time.0),
        finished: Timestamp::now(),
        id: String::new(),
    })
}

/// Are all readiness gates of the pod true?
fn gates_open(pod: &Pod) -> bool {
    let gates = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.readiness_gates.as_deref());
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref());
    gates.unwrap_or_default().iter().all(|gate| {
        let mut all = conditions.unwrap_or_default().iter();
        all.any(|condition| condition.type_ == gate.condition_type && condition.status == "True")
    })
}

/// Conditions that others set; they stay.
fn foreign_conditions(pod: &Pod) -> Vec<Value> {
    const OWN: [&str; 5] = [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
    ];
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref());
    let foreign = conditions.unwrap_or_default().iter();
    foreign
        .filter(|condition| !OWN.contains(&condition.type_.as_str()))
        .map(|condition| json!(condition))
        .collect()
}

#[cfg(test)]
mod tests;
