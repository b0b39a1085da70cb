//! How many replicas one metric asks for: the algorithm of the documentation of the HorizontalPodAutoscaler
//! ("Algorithm details"), with its treatment of pods that are missing or not ready. Pure; amounts are thousandths.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as QuantityText;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::AutoscalerConfig;
use crate::controllers::meta::{phase, ready_condition};
use crate::schema::quantity::Quantity;

/// What one pod uses of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Usage {
    /// Thousandths of the resource's unit.
    pub(super) amount: i64,
    /// End of the time over which it was measured.
    pub(super) at: Timestamp,
    /// That time.
    pub(super) window: Duration,
}

/// What a metric is to be brought to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Percent of what the pods request.
    Utilization(i32),
    /// Thousandths of the resource's unit per pod.
    AverageValue(i64),
}

/// Relative deviations from the target that are left alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tolerances {
    pub(super) up: f64,
    pub(super) down: f64,
}

/// What is asked about the pods of a target.
pub(super) struct Question<'q> {
    pub(super) resource: &'q str,
    /// One container of each pod; nothing: all of them.
    pub(super) container: Option<&'q str>,
    pub(super) target: Target,
    /// Replicas now: what a metric within its tolerance leaves.
    pub(super) current: i32,
    pub(super) tolerances: Tolerances,
    pub(super) config: &'q AutoscalerConfig,
    pub(super) now: Timestamp,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) replicas: i32,
    /// Percent of the requests that are used, where the target is a utilization.
    pub(super) utilization: Option<i32>,
    /// What a pod uses on average.
    pub(super) average: i64,
}

/// Why a metric says nothing. The words are those of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CalculateError {
    #[error("no pods returned by selector while calculating replica count")]
    Selection,
    #[error("did not receive metrics for targeted pods (pods might be unready)")]
    Metrics,
    #[error("missing request for {resource} in container {container} of Pod {pod}")]
    Request {
        resource: String,
        container: String,
        pod: String,
    },
    #[error("missing pod-level request for {resource} in Pod {pod}")]
    PodRequest { resource: String, pod: String },
    #[error("container {container} not found in Pod {pod}")]
    Container { container: String, pod: String },
    #[error("no metrics returned matched known pods")]
    Requests,
}

/// Decides how many replicas the pods' usage asks for.
pub(super) fn calculate(
    question: &Question<'_>,
    pods: &[&Pod],
    usage: &BTreeMap<String, Usage>,
) -> Result<Answer, CalculateError> {
    if pods.is_empty() {
        return Err(CalculateError::Selection);
    }
    let groups = group(question, pods, usage);
    let mut amounts: BTreeMap<&str, i64> = usage
        .iter()
        .map(|(pod, usage)| (pod.as_str(), usage.amount))
        .collect();
    for pod in groups.ignored.iter().chain(&groups.unready) {
        amounts.remove(pod);
    }
    if amounts.is_empty() {
        return Err(CalculateError::Metrics);
    }
    let requests = match question.target {
        Target::Utilization(_) => requests(question, pods)?,
        Target::AverageValue(_) => BTreeMap::new(),
    };
    let measured = measure(question.target, &amounts, &requests)?;
    let answer = |replicas| Answer {
        replicas,
        utilization: measured.utilization,
        average: measured.average,
    };
    let scales_up_beside_unready = !groups.unready.is_empty() && measured.ratio > 1.0;
    if !scales_up_beside_unready && groups.missing.is_empty() {
        let replicas = match question.tolerances.hold(measured.ratio) {
            true => question.current,
            false => ceil(measured.ratio * groups.ready as f64),
        };
        return Ok(answer(replicas));
    }
    // Who says nothing must not be the reason for a change: counted as fully used when scaling down, and as not used
    // at all when scaling up.
    for pod in &groups.missing {
        if measured.ratio < 1.0 {
            let assumed = match question.target {
                Target::Utilization(percent) => {
                    let request = requests.get(pod).copied().unwrap_or(0);
                    request.saturating_mul(i64::from(percent.max(100))) / 100
                }
                Target::AverageValue(value) => value,
            };
            amounts.insert(pod, assumed);
        } else if measured.ratio > 1.0 {
            amounts.insert(pod, 0);
        }
    }
    if scales_up_beside_unready {
        amounts.extend(groups.unready.iter().map(|pod| (*pod, 0)));
    }
    let again = measure(question.target, &amounts, &requests)?.ratio;
    let turned = (measured.ratio < 1.0 && again > 1.0) || (measured.ratio > 1.0 && again < 1.0);
    if question.tolerances.hold(again) || turned {
        return Ok(answer(question.current));
    }
    let replicas = ceil(again * amounts.len() as f64);
    let contradicts = (again < 1.0 && replicas > question.current)
        || (again > 1.0 && replicas < question.current);
    Ok(answer(if contradicts {
        question.current
    } else {
        replicas
    }))
}

impl Tolerances {
    fn hold(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// The pods by what their usage says.
#[derive(Default)]
struct Groups<'p> {
    ready: usize,
    /// They start: what they use says nothing of the load.
    unready: Vec<&'p str>,
    /// They have no metrics.
    missing: Vec<&'p str>,
    /// They end or have failed.
    ignored: Vec<&'p str>,
}

fn group<'p>(
    question: &Question<'_>,
    pods: &[&'p Pod],
    usage: &BTreeMap<String, Usage>,
) -> Groups<'p> {
    let mut groups = Groups::default();
    for pod in pods {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        if pod.metadata.deletion_timestamp.is_some() || phase(pod) == "Failed" {
            groups.ignored.push(name);
        } else if phase(pod) == "Pending" {
            groups.unready.push(name);
        } else if let Some(usage) = usage.get(name) {
            match question.resource == "cpu" && is_starting(pod, usage, question) {
                true => groups.unready.push(name),
                false => groups.ready += 1,
            }
        } else {
            groups.missing.push(name);
        }
    }
    groups
}

/// Whether a pod's CPU is that of its start.
fn is_starting(pod: &Pod, usage: &Usage, question: &Question<'_>) -> bool {
    let started = pod
        .status
        .as_ref()
        .and_then(|status| status.start_time.as_ref());
    let (Some(ready), Some(started)) = (ready_condition(pod), started) else {
        return true;
    };
    let is_unready = ready.status == "False";
    let changed = ready
        .last_transition_time
        .as_ref()
        .map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let after = |time: Timestamp, span: Duration| {
        let span = SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
        time.checked_add(span).unwrap_or(Timestamp::MAX)
    };
    let config = question.config;
    if after(started.0, config.cpu_initialization) > question.now {
        // A ready pod's usage counts once a whole window lies after it became ready.
        is_unready || usage.at < after(changed, usage.window)
    } else {
        is_unready && after(started.0, config.initial_readiness_delay) > changed
    }
}

/// What each pod requests.
fn requests<'p>(
    question: &Question<'_>,
    pods: &[&'p Pod],
) -> Result<BTreeMap<&'p str, i64>, CalculateError> {
    let mut requests = BTreeMap::new();
    for pod in pods {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        requests.insert(name, request(question, pod)?);
    }
    Ok(requests)
}

/// What a pod requests: by itself, or all of its containers that run beside each other.
fn request(question: &Question<'_>, pod: &Pod) -> Result<i64, CalculateError> {
    let Some(spec) = &pod.spec else { return Ok(0) };
    let pod_name = || pod.metadata.name.clone().unwrap_or_default();
    let amount_of = |requests: Option<&BTreeMap<String, QuantityText>>| {
        let text = requests?.get(question.resource)?;
        Quantity::parse(&text.0).ok().map(Quantity::milli)
    };
    let of_container = |container: &Container| {
        let resources = container.resources.as_ref();
        amount_of(resources.and_then(|resources| resources.requests.as_ref()))
    };
    let assumed = question.config.default_cpu_request;
    let assumed = assumed.filter(|_| question.resource == "cpu");
    let stays = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let side = spec.init_containers.iter().flatten().filter(stays);
    let containers = spec.containers.iter().chain(side);
    let missing = |container: &Container| CalculateError::Request {
        resource: question.resource.to_owned(),
        container: container.name.clone(),
        pod: pod_name(),
    };
    if let Some(name) = question.container {
        let mut containers = containers;
        let container = containers
            .find(|container| container.name == name)
            .ok_or_else(|| CalculateError::Container {
                container: name.to_owned(),
                pod: pod_name(),
            })?;
        let amount = of_container(container).or(assumed);
        return amount.ok_or_else(|| missing(container));
    }
    let own = spec.resources.as_ref();
    let own = own.and_then(|resources| resources.requests.as_ref());
    if own.is_some_and(|requests| !requests.is_empty()) {
        // What the pod does not say for itself its containers add up to, those that say something.
        let sum = containers
            .filter_map(of_container)
            .reduce(i64::saturating_add);
        let amount = amount_of(own).or(sum).or(assumed);
        return amount.ok_or_else(|| CalculateError::PodRequest {
            resource: question.resource.to_owned(),
            pod: pod_name(),
        });
    }
    containers.into_iter().try_fold(0_i64, |sum, container| {
        let amount = of_container(container).or(assumed);
        Ok(sum.saturating_add(amount.ok_or_else(|| missing(container))?))
    })
}

/// How pods stand to their target.
struct Measured {
    /// Present value by wished value.
    ratio: f64,
    utilization: Option<i32>,
    average: i64,
}

fn measure(
    target: Target,
    amounts: &BTreeMap<&str, i64>,
    requests: &BTreeMap<&str, i64>,
) -> Result<Measured, CalculateError> {
    match target {
        Target::AverageValue(wished) => {
            let average = amounts.values().sum::<i64>() / amounts.len().max(1) as i64;
            Ok(Measured {
                ratio: average as f64 / wished as f64,
                utilization: None,
                average,
            })
        }
        Target::Utilization(percent) => {
            // Metrics of pods that are not the target's say nothing.
            let known: Vec<(i64, i64)> = amounts
                .iter()
                .filter_map(|(pod, amount)| Some((*amount, *requests.get(pod)?)))
                .collect();
            let used: i64 = known.iter().map(|(amount, _)| amount).sum();
            let requested: i64 = known.iter().map(|(_, request)| request).sum();
            if requested == 0 {
                return Err(CalculateError::Requests);
            }
            let utilization = i32::try_from(used.saturating_mul(100) / requested);
            let utilization = utilization.unwrap_or(i32::MAX);
            Ok(Measured {
                ratio: f64::from(utilization) / f64::from(percent),
                utilization: Some(utilization),
                average: used / known.len().max(1) as i64,
            })
        }
    }
}

fn ceil(replicas: f64) -> i32 {
    replicas.ceil() as i32
}

#[cfg(test)]
#[path = "calculate_tests.rs"]
mod tests;
