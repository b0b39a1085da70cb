//! One look at one autoscaler: read the target's scale, ask the metrics, change the scale, tell in the status.

use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus,
    MetricSpec, MetricStatus, MetricTarget, MetricValueStatus, ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as QuantityText;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::json;

use super::Controller;
use super::calculate::{Answer, Question, Target, Tolerances, calculate};
use super::metrics;
use super::recommend::Limits;
use super::status::set_condition;
use crate::controllers::error::Error;
use crate::controllers::events::Severity;
use crate::controllers::meta::{ObjectKey, now};
use crate::schema::quantity::Quantity;
use crate::selector::LabelSelector;

/// Relative deviation from a target that is left alone when nothing else is configured, as in Kubernetes.
const TOLERANCE: f64 = 0.1;

/// A metric that says nothing.
struct Invalid {
    /// Reason of the event and the condition.
    reason: &'static str,
    message: String,
}

/// A metric's proposal.
struct Proposal {
    answer: Answer,
    /// What is shown as the reason of a change.
    name: String,
    status: MetricStatus,
}

/// Looks at the autoscaler once. What is wrong with its target or its metrics is told in its status.
pub(super) async fn run(
    controller: &Controller,
    key: &ObjectKey,
    autoscaler: &HorizontalPodAutoscaler,
) -> Result<(), Error> {
    let mut status = autoscaler.status.clone().unwrap_or_default();
    let outcome = look(controller, key, autoscaler, &mut status).await;
    status.observed_generation = autoscaler.metadata.generation;
    if autoscaler.status.as_ref() != Some(&status) {
        let patch = json!({"status": status});
        let cache = &controller.shared.autoscalers;
        cache.merge_status(key, &patch).await?;
    }
    outcome
}

async fn look(
    controller: &Controller,
    key: &ObjectKey,
    autoscaler: &HorizontalPodAutoscaler,
    status: &mut HorizontalPodAutoscalerStatus,
) -> Result<(), Error> {
    let target = &autoscaler.spec.scale_target_ref;
    let recorder = &controller.recorder;
    let found = scale_of(controller, key, autoscaler).await;
    let (api, scale) = match found {
        Ok(found) => found,
        Err(message) => {
            recorder.record(
                autoscaler,
                Severity::Warning,
                "FailedGetScale",
                message.clone(),
            );
            let text = format!(
                "the HPA controller was unable to get the target's current scale: {message}"
            );
            set_condition(status, "AbleToScale", false, "FailedGetScale", text);
            return Ok(());
        }
    };
    set_condition(
        status,
        "AbleToScale",
        true,
        "SucceededGetScale",
        "the HPA controller was able to get the target's current scale",
    );
    let current = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
    let shown = scale.status.as_ref().map_or(0, |status| status.replicas);
    status.current_replicas = Some(shown);
    let selector = scale
        .status
        .and_then(|status| status.selector)
        .unwrap_or_default();
    let Some((wanted, reason)) =
        wanted(controller, key, autoscaler, status, current, &selector).await
    else {
        status.desired_replicas = current;
        return Ok(());
    };
    status.desired_replicas = wanted;
    if wanted == current {
        return Ok(());
    }
    let patch = Patch::Merge(json!({"spec": {"replicas": wanted}}));
    let changed = api
        .patch_scale(&target.name, &PatchParams::default(), &patch)
        .await;
    if let Err(source) = changed {
        let message = format!("New size: {wanted}; reason: {reason}; error: {source}");
        recorder.record(autoscaler, Severity::Warning, "FailedRescale", message);
        let text = format!("the HPA controller was unable to update the target scale: {source}");
        set_condition(status, "AbleToScale", false, "FailedUpdateScale", text);
        status.desired_replicas = current;
        return Err(Error::Change {
            kind: target.kind.clone(),
            key: ObjectKey::new(key.namespace.clone(), target.name.clone()),
            source: Box::new(source),
        });
    }
    let text = format!("the HPA controller was able to update the target scale to {wanted}");
    set_condition(status, "AbleToScale", true, "SucceededRescale", text);
    let message = format!("New size: {wanted}; reason: {reason}");
    recorder.record(autoscaler, Severity::Normal, "SuccessfulRescale", message);
    status.last_scale_time = Some(now());
    let mut histories = controller.histories.lock();
    let history = histories.entry(key.clone()).or_default();
    history.scaled(current, wanted, Timestamp::now());
    Ok(())
}

/// The target's scale and where it is changed. The error is a text for people.
async fn scale_of(
    controller: &Controller,
    key: &ObjectKey,
    autoscaler: &HorizontalPodAutoscaler,
) -> Result<(Api<DynamicObject>, Scale), String> {
    let target = &autoscaler.spec.scale_target_ref;
    let version = target.api_version.as_deref().unwrap_or("v1");
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let resources = &controller.shared.resources;
    let served = resources.find(group, &target.kind).ok_or_else(|| {
        format!(
            "no matches for kind {:?} in group {group:?}: is scaleTargetRef right?",
            target.kind
        )
    })?;
    let api = served.objects(&controller.shared.client, &key.namespace);
    let scale = api
        .get_scale(&target.name)
        .await
        .map_err(|error| match error {
            kube::Error::Api(status) => status.message,
            other => other.to_string(),
        })?;
    Ok((api, scale))
}

/// How many replicas there should be, and why; nothing when it cannot be said.
async fn wanted(
    controller: &Controller,
    key: &ObjectKey,
    autoscaler: &HorizontalPodAutoscaler,
    status: &mut HorizontalPodAutoscalerStatus,
    current: i32,
    selector: &str,
) -> Option<(i32, String)> {
    let spec = &autoscaler.spec;
    let least = spec.min_replicas.unwrap_or(1);
    if current == 0 && least != 0 {
        set_condition(
            status,
            "ScalingActive",
            false,
            "ScalingDisabled",
            "scaling is disabled since the replica count of the target is zero",
        );
        return Some((0, String::new()));
    }
    if current > spec.max_replicas {
        let reason = "Current number of replicas above Spec.MaxReplicas";
        return Some((spec.max_replicas, reason.to_owned()));
    }
    if current < least {
        let reason = "Current number of replicas below Spec.MinReplicas";
        return Some((least, reason.to_owned()));
    }
    let asked = ask_metrics(controller, key, autoscaler, status, current, selector).await;
    let (asked, metric) = match asked {
        Ok(asked) => asked,
        Err(invalid) => {
            let recorder = &controller.recorder;
            let message = invalid.message.clone();
            recorder.record(autoscaler, Severity::Warning, invalid.reason, message);
            let text = format!(
                "the HPA was unable to compute the replica count: {}",
                invalid.message
            );
            set_condition(status, "ScalingActive", false, invalid.reason, text);
            return None;
        }
    };
    let text = format!("the HPA was able to successfully calculate a replica count from {metric}");
    set_condition(status, "ScalingActive", true, "ValidMetricFound", text);
    let limits = Limits {
        current,
        least,
        most: spec.max_replicas,
        behavior: spec.behavior.as_ref(),
        now: Timestamp::now(),
    };
    let advice = {
        let mut histories = controller.histories.lock();
        let history = histories.entry(key.clone()).or_default();
        history.recommend(asked, &limits)
    };
    let (able, limit) = (advice.able, advice.limit);
    set_condition(status, "AbleToScale", true, able.0, able.1);
    set_condition(status, "ScalingLimited", advice.limited, limit.0, limit.1);
    let reason = if advice.replicas > current {
        format!("{metric} above target")
    } else {
        "All metrics below target".to_owned()
    };
    Some((advice.replicas, reason))
}

/// The most that any metric asks for, and the metric's name.
async fn ask_metrics(
    controller: &Controller,
    key: &ObjectKey,
    autoscaler: &HorizontalPodAutoscaler,
    status: &mut HorizontalPodAutoscalerStatus,
    current: i32,
    selector: &str,
) -> Result<(i32, String), Invalid> {
    let parsed = LabelSelector::parse(selector).ok();
    let Some(parsed) = parsed.filter(|selector| !selector.is_empty()) else {
        return Err(Invalid {
            reason: "InvalidSelector",
            message: "the HPA target's scale is missing a selector".to_owned(),
        });
    };
    let all = controller.shared.pods.in_namespace(&key.namespace);
    let matches = |pod: &Pod| {
        let labels = json!({"metadata": {"labels": pod.metadata.labels}});
        parsed.matches(&labels)
    };
    let pods: Vec<&Pod> = all
        .iter()
        .map(AsRef::as_ref)
        .filter(|pod| matches(pod))
        .collect();
    let specs = autoscaler.spec.metrics.as_deref().unwrap_or_default();
    let (mut best, mut statuses, mut invalid) = (None::<(i32, String)>, Vec::new(), Vec::new());
    for spec in specs {
        match ask(controller, key, autoscaler, spec, current, selector, &pods).await {
            Ok(proposal) => {
                statuses.push(proposal.status);
                let replicas = proposal.answer.replicas;
                if best.as_ref().is_none_or(|(most, _)| replicas > *most) {
                    best = Some((replicas, proposal.name));
                }
            }
            Err(error) => invalid.push(error),
        }
    }
    status.current_metrics = (!statuses.is_empty()).then_some(statuses);
    let count = invalid.len();
    let first = invalid.into_iter().next();
    match (best, first) {
        (Some(best), None) => Ok(best),
        // Some metric is unknown, and might be the one that needs what is there.
        (Some(best), Some(_)) if best.0 >= current => Ok(best),
        (_, Some(first)) => Err(Invalid {
            reason: first.reason,
            message: format!(
                "invalid metrics ({count} invalid out of {}), first error is: {}",
                specs.len(),
                first.message
            ),
        }),
        (None, None) => Ok((current, String::new())),
    }
}

async fn ask(
    controller: &Controller,
    key: &ObjectKey,
    autoscaler: &HorizontalPodAutoscaler,
    spec: &MetricSpec,
    current: i32,
    selector: &str,
    pods: &[&Pod],
) -> Result<Proposal, Invalid> {
    let (resource, container, wished) = match (&spec.resource, &spec.container_resource) {
        (Some(source), _) => (&source.name, None, &source.target),
        (None, Some(source)) => (
            &source.name,
            Some(source.container.as_str()),
            &source.target,
        ),
        (None, None) => return Err(unserved(&spec.type_)),
    };
    let kind = match container {
        None => format!("{resource} resource"),
        Some(_) => format!("{resource} container resource"),
    };
    let (reason, label) = match container {
        None => (
            "FailedGetResourceMetric",
            format!("{resource} resource metric"),
        ),
        Some(_) => (
            "FailedGetContainerResourceMetric",
            format!("{resource} container metric"),
        ),
    };
    let fail = |message: String| Invalid {
        reason,
        message: format!("failed to get {label} value: {message}"),
    };
    let target = target_of(wished).ok_or_else(|| {
        fail("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set".to_owned())
    })?;
    let (what, name) = match target {
        Target::Utilization(_) => (
            format!("failed to get {resource} utilization"),
            format!("{kind} utilization (percentage of request)"),
        ),
        Target::AverageValue(_) => (format!("failed to get {resource} usage"), kind),
    };
    let client = &controller.shared.client;
    let usage = metrics::usage(client, &key.namespace, selector, resource, container)
        .await
        .map_err(|error| {
            fail(format!(
                "{what}: unable to get metrics for resource {resource}: {error}"
            ))
        })?;
    let question = Question {
        resource,
        container,
        target,
        current,
        tolerances: tolerances(autoscaler),
        default_cpu_request: controller.shared.config.default_cpu_request,
        now: Timestamp::now(),
    };
    let answer =
        calculate(&question, pods, &usage).map_err(|error| fail(format!("{what}: {error}")))?;
    Ok(Proposal {
        answer,
        name,
        status: status_of(resource, container, &answer),
    })
}

/// Metrics that nothing in this cluster serves.
fn unserved(type_: &str) -> Invalid {
    let (reason, api) = match type_ {
        "Pods" => ("FailedGetPodsMetric", "custom"),
        "Object" => ("FailedGetObjectMetric", "custom"),
        _ => ("FailedGetExternalMetric", "external"),
    };
    Invalid {
        reason,
        message: format!(
            "unable to fetch metrics from {api} metrics API: no server for {api}.metrics.k8s.io"
        ),
    }
}

fn target_of(target: &MetricTarget) -> Option<Target> {
    if let Some(value) = &target.average_value {
        let value = Quantity::parse(&value.0).ok()?;
        return Some(Target::AverageValue(value.milli()));
    }
    target.average_utilization.map(Target::Utilization)
}

fn tolerances(autoscaler: &HorizontalPodAutoscaler) -> Tolerances {
    let behavior = autoscaler.spec.behavior.as_ref();
    let read = |text: Option<&QuantityText>| {
        let quantity = text.and_then(|text| Quantity::parse(&text.0).ok());
        quantity.map_or(TOLERANCE, |quantity| quantity.milli() as f64 / 1000.0)
    };
    let up = behavior.and_then(|behavior| behavior.scale_up.as_ref());
    let down = behavior.and_then(|behavior| behavior.scale_down.as_ref());
    Tolerances {
        up: read(up.and_then(|rules| rules.tolerance.as_ref())),
        down: read(down.and_then(|rules| rules.tolerance.as_ref())),
    }
}

fn status_of(resource: &str, container: Option<&str>, answer: &Answer) -> MetricStatus {
    let current = MetricValueStatus {
        average_utilization: answer.utilization,
        average_value: Some(QuantityText(
            Quantity::thousandths(answer.average).canonical(),
        )),
        value: None,
    };
    let name = resource.to_owned();
    match container {
        None => MetricStatus {
            type_: "Resource".to_owned(),
            resource: Some(ResourceMetricStatus { current, name }),
            ..MetricStatus::default()
        },
        Some(container) => MetricStatus {
            type_: "ContainerResource".to_owned(),
            container_resource: Some(ContainerResourceMetricStatus {
                container: container.to_owned(),
                current,
                name,
            }),
            ..MetricStatus::default()
        },
    }
}
