//! Pods.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{AGE, NAME, Table, age, field_column, name, or_none, since, text_column, wide};
use crate::builtin::read::{at, int, list, text};

pub(in crate::builtin) const POD: Table = Table {
    columns: &[
        NAME,
        text_column(
            "Ready",
            "string",
            "The aggregate readiness state of this pod for accepting traffic.",
        ),
        text_column(
            "Status",
            "string",
            "The aggregate status of the containers in this pod.",
        ),
        text_column(
            "Restarts",
            "string",
            "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
        ),
        AGE,
        wide(field_column("IP", "string", &["status", "podIP"])),
        wide(field_column("Node", "string", &["spec", "nodeName"])),
        wide(field_column(
            "Nominated Node",
            "string",
            &["status", "nominatedNodeName"],
        )),
        wide(field_column(
            "Readiness Gates",
            "string",
            &["spec", "readinessGates"],
        )),
    ],
    row,
};

fn row(pod: &Value, now: OffsetDateTime) -> Vec<Value> {
    let summary = summary(pod);
    let restarts = match &summary.last_restart {
        Some(moment) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, since(moment, now))
        }
        _ => summary.restarts.to_string(),
    };
    vec![
        name(pod),
        json!(format!("{}/{}", summary.ready, summary.total)),
        json!(summary.reason),
        json!(restarts),
        age(pod, now),
        json!(or_none(text(pod, "/status/podIPs/0/ip"))),
        json!(or_none(text(pod, "/spec/nodeName"))),
        json!(or_none(text(pod, "/status/nominatedNodeName"))),
        json!(readiness_gates(pod)),
    ]
}

/// What the containers of a pod amount to.
struct Summary {
    ready: usize,
    total: usize,
    restarts: i64,
    /// When a container last ended, RFC 3339.
    last_restart: Option<String>,
    reason: String,
}

impl Summary {
    fn count(&mut self, status: &Value) {
        self.restarts += int(status, "/restartCount");
        let ended = text(status, "/lastState/terminated/finishedAt");
        // Times of one form compare as texts.
        if !ended.is_empty() && self.last_restart.as_deref().is_none_or(|last| last < ended) {
            self.last_restart = Some(ended.to_owned());
        }
    }
}

fn summary(pod: &Value) -> Summary {
    let phase = text(pod, "/status/phase");
    let mut reason = match text(pod, "/status/reason") {
        "" => phase.to_owned(),
        reason => reason.to_owned(),
    };
    let gated = list(pod, "/status/conditions").iter().any(|condition| {
        condition["type"] == "PodScheduled" && condition["reason"] == "SchedulingGated"
    });
    if gated {
        reason = "SchedulingGated".to_owned();
    }
    let sidecar = |name: &Value| {
        list(pod, "/spec/initContainers")
            .iter()
            .any(|container| container["name"] == *name && container["restartPolicy"] == "Always")
    };
    let sidecars = list(pod, "/spec/initContainers")
        .iter()
        .filter(|container| container["restartPolicy"] == "Always")
        .count();
    let mut summary = Summary {
        ready: 0,
        total: list(pod, "/spec/containers").len() + sidecars,
        restarts: 0,
        last_restart: None,
        reason: String::new(),
    };
    let mut of_sidecars = Summary {
        ready: 0,
        total: 0,
        restarts: 0,
        last_restart: None,
        reason: String::new(),
    };
    let mut initializing = false;
    for (index, status) in list(pod, "/status/initContainerStatuses")
        .iter()
        .enumerate()
    {
        summary.count(status);
        let is_sidecar = sidecar(&status["name"]);
        if is_sidecar {
            of_sidecars.count(status);
        }
        let terminated = at(status, "/state/terminated");
        if terminated.is_object() && int(terminated, "/exitCode") == 0 {
            continue;
        }
        if is_sidecar && status["started"] == true {
            summary.ready += usize::from(status["ready"] == true);
            continue;
        }
        let waiting = text(status, "/state/waiting/reason");
        reason = if terminated.is_object() {
            format!("Init:{}", ended(terminated))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{index}/{}", list(pod, "/spec/initContainers").len())
        };
        initializing = true;
        break;
    }
    if !initializing || has_condition(pod, "Initialized") {
        summary.restarts = of_sidecars.restarts;
        summary.last_restart = of_sidecars.last_restart;
        running(pod, &mut summary, &mut reason);
    }
    if !text(pod, "/metadata/deletionTimestamp").is_empty() {
        if text(pod, "/status/reason") == "NodeLost" {
            reason = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            reason = "Terminating".to_owned();
        }
    }
    summary.reason = reason;
    summary
}

/// The containers proper, the last one first: its reason stands unless an earlier one has another.
fn running(pod: &Value, summary: &mut Summary, reason: &mut String) {
    let mut has_running = false;
    let mut error = String::new();
    for status in list(pod, "/status/containerStatuses").iter().rev() {
        summary.count(status);
        let waiting = text(status, "/state/waiting/reason");
        let terminated = at(status, "/state/terminated");
        if !waiting.is_empty() {
            *reason = waiting.to_owned();
        } else if terminated.is_object() {
            *reason = ended(terminated);
            if int(terminated, "/exitCode") != 0 {
                error.clone_from(reason);
            }
        } else if status["ready"] == true && at(status, "/state/running").is_object() {
            has_running = true;
            summary.ready += 1;
        }
    }
    if reason == "Completed" {
        if has_running && has_condition(pod, "Ready") {
            *reason = "Running".to_owned();
        } else if !error.is_empty() {
            *reason = error;
        } else if has_running {
            *reason = "NotReady".to_owned();
        }
    }
}

/// Why a container ended.
fn ended(terminated: &Value) -> String {
    match (text(terminated, "/reason"), int(terminated, "/signal")) {
        ("", 0) => format!("ExitCode:{}", int(terminated, "/exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn has_condition(pod: &Value, type_: &str) -> bool {
    list(pod, "/status/conditions")
        .iter()
        .any(|condition| condition["type"] == type_ && condition["status"] == "True")
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates
        .iter()
        .filter(|gate| has_condition(pod, text(gate, "/conditionType")))
        .count();
    format!("{open}/{}", gates.len())
}
