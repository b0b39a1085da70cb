//! What one metric of an autoscaler asks for, with the words of its failures.

use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, HorizontalPodAutoscaler, MetricSpec, MetricStatus, MetricTarget,
    MetricValueStatus, ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as QuantityText;
use k8s_openapi::jiff::Timestamp;

use super::Controller;
use super::calculate::{Answer, Question, Target, Tolerances, calculate};
use super::metrics;
use crate::controllers::meta::ObjectKey;
use crate::schema::quantity::Quantity;

/// Relative deviation from a target that is left alone when nothing else is configured, as in Kubernetes.
const TOLERANCE: f64 = 0.1;

/// A metric that says nothing.
#[derive(Debug, Clone)]
pub(super) struct Invalid {
    /// Reason of the event and the condition.
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// A metric's proposal.
pub(super) struct Proposal {
    pub(super) answer: Answer,
    /// What is shown as the reason of a change.
    pub(super) name: String,
    pub(super) status: MetricStatus,
}

/// What one metric asks for. An error comes with its text in the summary of all metrics.
pub(super) async fn ask(
    controller: &Controller,
    key: &ObjectKey,
    autoscaler: &HorizontalPodAutoscaler,
    spec: &MetricSpec,
    current: i32,
    selector: &str,
    pods: &[&Pod],
) -> Result<Proposal, (String, Invalid)> {
    let (resource, container, wished) = match (&spec.resource, &spec.container_resource) {
        (Some(source), _) => (&source.name, None, &source.target),
        (None, Some(source)) => (
            &source.name,
            Some(source.container.as_str()),
            &source.target,
        ),
        (None, None) => return Err(unserved(spec, &key.namespace)),
    };
    let (reason, label) = match container {
        None => (
            "FailedGetResourceMetric",
            format!("{resource} resource metric"),
        ),
        Some(container) => (
            "FailedGetContainerResourceMetric",
            format!("{container} container metric"),
        ),
    };
    let fail = |message: String| {
        let summary = format!("failed to get {label} value: {message}");
        (summary, Invalid { reason, message })
    };
    let target = target_of(wished).ok_or_else(|| {
        fail("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set".to_owned())
    })?;
    let (what, name) = match (target, container) {
        (Target::Utilization(_), None) => (
            format!("failed to get {resource} utilization"),
            format!("{resource} resource utilization (percentage of request)"),
        ),
        (Target::Utilization(_), Some(_)) => (
            format!("failed to get {resource} utilization"),
            format!("{resource} container resource utilization (percentage of request)"),
        ),
        (Target::AverageValue(_), _) => (
            format!("failed to get {resource} usage"),
            format!("{resource} resource"),
        ),
    };
    let client = &controller.shared.client;
    let usage = metrics::usage(client, &key.namespace, selector, resource, container)
        .await
        .map_err(|error| {
            fail(format!(
                "{what}: unable to get metrics for resource {resource}: {error}"
            ))
        })?;
    let config = &controller.shared.config.autoscaler;
    let question = Question {
        resource,
        container,
        target,
        current,
        tolerances: tolerances(autoscaler),
        config,
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

/// Metrics that nothing in this cluster serves, in the words of a controller that finds nobody to ask.
fn unserved(spec: &MetricSpec, namespace: &str) -> (String, Invalid) {
    const NOBODY: &str = "unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered";
    if let Some(source) = &spec.pods {
        let message = format!("unable to get metric {}: {NOBODY}", source.metric.name);
        let summary = format!("failed to get pods metric value: {message}");
        let reason = "FailedGetPodsMetric";
        (summary, Invalid { reason, message })
    } else if let Some(source) = &spec.object {
        let (metric, object) = (&source.metric.name, &source.described_object);
        let reason = "FailedGetObjectMetric";
        // The words stand where Kubernetes puts them.
        let message = format!(
            "unable to get metric {metric}: {} on {namespace} {}/{NOBODY}",
            object.kind, object.name
        );
        let detail = match source.target.type_.as_str() {
            "AverageValue" => format!("failed to get {metric} object metric: {message}"),
            _ => message.clone(),
        };
        let summary = format!("failed to get object metric value: {detail}");
        (summary, Invalid { reason, message })
    } else if let Some(source) = &spec.external {
        let metric = &source.metric.name;
        let selector = if source.metric.selector.is_some() {
            "selector"
        } else {
            "nil"
        };
        let message = format!(
            "unable to get external metric {namespace}/{metric}/{selector}: unable to fetch metrics from external metrics API: the server could not find the requested resource (get {metric}.external.metrics.k8s.io)"
        );
        let detail = match source.target.average_value {
            Some(_) => format!("failed to get {metric} external metric: {message}"),
            None => format!("failed to get external metric {metric}: {message}"),
        };
        let summary = format!("failed to get {metric} external metric value: {detail}");
        let reason = "FailedGetExternalMetric";
        (summary, Invalid { reason, message })
    } else {
        let message = format!("unknown metric source type {:?}", spec.type_);
        let reason = "InvalidMetricSourceType";
        (message.clone(), Invalid { reason, message })
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
    let average = match resource {
        "memory" => Quantity::binary_thousandths(answer.average),
        _ => Quantity::thousandths(answer.average),
    };
    let current = MetricValueStatus {
        average_utilization: answer.utilization,
        average_value: Some(QuantityText(average.canonical())),
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
