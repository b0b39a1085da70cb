//! One look at one autoscaler: read the target's scale, ask the metrics, change the scale, tell in the status.

use std::sync::Arc;

use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus, MetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::json;

use super::Controller;
use super::metric::{Invalid, ask};
use super::recommend::Limits;
use super::status::set_condition;
use crate::controllers::error::Error;
use crate::controllers::events::Severity;
use crate::controllers::meta::{ObjectKey, now};
use crate::selector::LabelSelector;

/// Looks at the autoscaler once. What is wrong with its target or its metrics is told in its status.
pub(super) async fn run(
    controller: &Controller,
    key: &ObjectKey,
    autoscaler: &HorizontalPodAutoscaler,
) -> Result<(), Error> {
    let mut status = autoscaler.status.clone().unwrap_or_default();
    let outcome = look(controller, key, autoscaler, &mut status).await;
    if autoscaler.status.as_ref() != Some(&status) {
        // Everything is named, as what is not there any more has to go.
        let patch = json!({"status": {
            "conditions": status.conditions,
            "currentMetrics": status.current_metrics,
            "currentReplicas": status.current_replicas,
            "desiredReplicas": status.desired_replicas,
            "lastScaleTime": status.last_scale_time,
        }});
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
    let warn = |reason, message: String| {
        let recorder = &controller.recorder;
        recorder.record(autoscaler, Severity::Warning, reason, message);
    };
    let (api, scale) = match scale_of(controller, key, autoscaler).await {
        Ok(found) => found,
        Err(message) => {
            let text = format!(
                "the HPA controller was unable to get the target's current scale: {message}"
            );
            warn("FailedGetScale", message);
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
    {
        let mut histories = controller.histories.lock();
        let history = histories.entry(key.clone()).or_default();
        history.begin(current, Timestamp::now());
    }
    // Kubernetes leaves a zero out.
    status.current_replicas = Some(current).filter(|current| *current != 0);
    // What metrics said before counts no more, whatever comes of this look.
    status.current_metrics = None;
    let selector = scale
        .status
        .and_then(|status| status.selector)
        .unwrap_or_default();
    let wanted = match wanted(controller, key, autoscaler, status, current, &selector).await {
        Ok(wanted) => wanted,
        Err(message) => {
            warn("FailedComputeMetricsReplicas", message);
            return Ok(());
        }
    };
    let Some((wanted, reason)) = wanted.filter(|(wanted, _)| *wanted != current) else {
        status.desired_replicas = current;
        return Ok(());
    };
    let patch = Patch::Merge(json!({"spec": {"replicas": wanted}}));
    let changed = api
        .patch_scale(&target.name, &PatchParams::default(), &patch)
        .await;
    if let Err(source) = changed {
        let told = said(&source);
        warn(
            "FailedRescale",
            format!("New size: {wanted}; reason: {reason}; error: {told}"),
        );
        let text = format!("the HPA controller was unable to update the target scale: {told}");
        set_condition(status, "AbleToScale", false, "FailedUpdateScale", text);
        return Err(Error::Change {
            kind: target.kind.clone(),
            key: ObjectKey::new(key.namespace.clone(), target.name.clone()),
            source: Box::new(source),
        });
    }
    let text = format!("the HPA controller was able to update the target scale to {wanted}");
    set_condition(status, "AbleToScale", true, "SucceededRescale", text);
    let message = format!("New size: {wanted}; reason: {reason}");
    let recorder = &controller.recorder;
    recorder.record(autoscaler, Severity::Normal, "SuccessfulRescale", message);
    status.desired_replicas = wanted;
    status.last_scale_time = Some(now());
    if autoscaler.spec.behavior.is_some() {
        let mut histories = controller.histories.lock();
        let history = histories.entry(key.clone()).or_default();
        history.scaled(current, wanted, Timestamp::now());
    }
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
    let served = resources
        .find(group, &target.kind)
        .ok_or_else(|| format!("no matches for kind {:?} in group {group:?}", target.kind))?;
    let api = served.objects(&controller.shared.client, &key.namespace);
    let scale = api.get_scale(&target.name).await;
    let scale = scale.map_err(|error| said(&error))?;
    Ok((api, scale))
}

/// What the API server said.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// How many replicas there should be, and why; nothing when the target is switched off. The error is a text for an
/// event: it cannot be said.
async fn wanted(
    controller: &Controller,
    key: &ObjectKey,
    autoscaler: &HorizontalPodAutoscaler,
    status: &mut HorizontalPodAutoscalerStatus,
    current: i32,
    selector: &str,
) -> Result<Option<(i32, String)>, String> {
    let spec = &autoscaler.spec;
    let least = spec.min_replicas.unwrap_or(1);
    if current == 0 {
        set_condition(
            status,
            "ScalingActive",
            false,
            "ScalingDisabled",
            "scaling is disabled since the replica count of the target is zero",
        );
        return Ok(None);
    }
    if current > spec.max_replicas {
        let reason = "Current number of replicas above Spec.MaxReplicas";
        return Ok(Some((spec.max_replicas, reason.to_owned())));
    }
    if current < least {
        let reason = "Current number of replicas below Spec.MinReplicas";
        return Ok(Some((least, reason.to_owned())));
    }
    let (asked, metric) =
        ask_metrics(controller, key, autoscaler, status, current, selector).await?;
    let limits = Limits {
        current,
        least,
        most: spec.max_replicas,
        behavior: spec.behavior.as_ref(),
        downscale_stabilization: controller.shared.config.autoscaler.downscale_stabilization,
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
    // The reason is the metrics', whatever the windows and rates made of it.
    let reason = if asked > current {
        format!("{metric} above target")
    } else if asked < current {
        "All metrics below target".to_owned()
    } else {
        String::new()
    };
    Ok(Some((advice.replicas, reason)))
}

/// The most that any metric asks for, and the metric's name. The error is a text for an event.
async fn ask_metrics(
    controller: &Controller,
    key: &ObjectKey,
    autoscaler: &HorizontalPodAutoscaler,
    status: &mut HorizontalPodAutoscalerStatus,
    current: i32,
    selector: &str,
) -> Result<(i32, String), String> {
    let warn = |invalid: &Invalid| {
        let recorder = &controller.recorder;
        let message = invalid.message.clone();
        recorder.record(autoscaler, Severity::Warning, invalid.reason, message);
    };
    let pods = match select(controller, key, selector) {
        Ok(pods) => pods,
        Err((reason, invalid)) => {
            let shown = match reason {
                "SelectorRequired" => "the HPA target's scale is missing a selector".to_owned(),
                _ => invalid.message.clone(),
            };
            warn(&Invalid {
                reason,
                ..invalid.clone()
            });
            set_condition(status, "ScalingActive", false, invalid.reason, shown);
            return Err(invalid.message);
        }
    };
    let pods: Vec<&Pod> = pods.iter().map(AsRef::as_ref).collect();
    let specs = autoscaler.spec.metrics.as_deref().unwrap_or_default();
    let (mut best, mut statuses, mut invalid) = (None::<(i32, String)>, Vec::new(), Vec::new());
    for spec in specs {
        match ask(controller, key, autoscaler, spec, current, selector, &pods).await {
            Ok(proposal) => {
                statuses.push(proposal.status);
                let replicas = proposal.answer.replicas;
                if best
                    .as_ref()
                    .is_none_or(|(most, _)| *most == 0 || replicas > *most)
                {
                    best = Some((replicas, proposal.name));
                }
            }
            Err((summary, error)) => {
                warn(&error);
                // Metrics keep their places.
                statuses.push(MetricStatus::default());
                invalid.push((summary, error));
            }
        }
    }
    status.current_metrics = (!statuses.is_empty()).then_some(statuses);
    let count = invalid.len();
    match (best, invalid.into_iter().next()) {
        // While some metric is unknown, which might be the one that needs what is there, nothing is taken away.
        (best, Some((summary, first))) if best.as_ref().is_none_or(|best| best.0 < current) => {
            let text = format!(
                "the HPA was unable to compute the replica count: {}",
                first.message
            );
            set_condition(status, "ScalingActive", false, first.reason, text);
            Err(format!(
                "invalid metrics ({count} invalid out of {}), first error is: {summary}",
                specs.len()
            ))
        }
        (best, _) => {
            let (replicas, metric) = best.unwrap_or((current, String::new()));
            let text =
                format!("the HPA was able to successfully calculate a replica count from {metric}");
            set_condition(status, "ScalingActive", true, "ValidMetricFound", text);
            Ok((replicas, metric))
        }
    }
}

/// The pods of a target, which no other autoscaler may scale. The error comes with the reason of its event; its own is
/// that of the condition.
fn select(
    controller: &Controller,
    key: &ObjectKey,
    selector: &str,
) -> Result<Vec<Arc<Pod>>, (&'static str, Invalid)> {
    if selector.is_empty() {
        let message = "selector is required".to_owned();
        let reason = "InvalidSelector";
        return Err(("SelectorRequired", Invalid { reason, message }));
    }
    let parsed = LabelSelector::parse(selector).map_err(|error| {
        let message = format!(
            "couldn't convert selector into a corresponding internal selector object: {}",
            error.message
        );
        let reason = "InvalidSelector";
        (reason, Invalid { reason, message })
    })?;
    let labels = |pod: &Pod| json!({"metadata": {"labels": pod.metadata.labels}});
    let mut selectors = controller.selectors.lock();
    selectors.insert(key.clone(), parsed.clone());
    let all = controller.shared.pods.in_namespace(&key.namespace);
    let pods: Vec<Arc<Pod>> = all
        .into_iter()
        .filter(|pod| parsed.matches(&labels(pod)))
        .collect();
    let others = selectors.iter().filter(|(other, selector)| {
        other.namespace == key.namespace && pods.iter().any(|pod| selector.matches(&labels(pod)))
    });
    let scaled_by: Vec<String> = others
        .map(|(other, _)| format!("{}/{}", other.namespace, other.name))
        .collect();
    if scaled_by.len() > 1 {
        let reason = "AmbiguousSelector";
        let message = format!(
            "pods by selector {selector} are controlled by multiple HPAs: [{}]",
            scaled_by.join(" ")
        );
        return Err((reason, Invalid { reason, message }));
    }
    Ok(pods)
}
