//! Small questions that every controller asks of an object's metadata, and of pods.

use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, ObjectMeta, OwnerReference, Time,
};
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::core::{Selector, SelectorExt};

use super::error::Error;

/// Labels as Kubernetes types hold them.
pub(super) type Labels = std::collections::BTreeMap<String, String>;

/// Namespace and name of an object; the namespace is empty for cluster-scoped kinds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ObjectKey {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl ObjectKey {
    pub(super) fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    pub(super) fn of(meta: &ObjectMeta) -> Self {
        Self::new(
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        )
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            formatter.write_str(&self.name)
        } else {
            write!(formatter, "{}/{}", self.namespace, self.name)
        }
    }
}

/// The time now, in whole seconds: what Kubernetes stores.
pub(super) fn now() -> Time {
    let now = Timestamp::now();
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// Seconds from `then` to now; negative when `then` lies ahead.
pub(super) fn seconds_since(then: &Time) -> f64 {
    Timestamp::now().duration_since(then.0).as_secs_f64()
}

/// The owner that manages the object, if there is one.
pub(super) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true))
}

/// The reference by which `owner` manages an object; deletion of the owner in the foreground waits for it.
pub(super) fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// A pod of the template that `owner` manages, without a name.
pub(super) fn pod_of_template<K: Resource<DynamicType = ()>>(
    template: PodTemplateSpec,
    owner: &K,
) -> Pod {
    let meta = template.metadata.unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            namespace: owner.meta().namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// Reads a label selector of a `kind`.
pub(super) fn parse_selector(
    selector: &LabelSelector,
    kind: &'static str,
    key: &ObjectKey,
) -> Result<Selector, Error> {
    Selector::try_from(selector.clone()).map_err(|error| Error::Selector {
        kind,
        key: key.clone(),
        reason: error.to_string(),
    })
}

/// Whether the object's labels match. Absent labels are an empty set.
pub(super) fn selects(selector: &Selector, meta: &ObjectMeta) -> bool {
    match &meta.labels {
        Some(labels) => selector.matches(labels),
        None => selector.matches(&Labels::new()),
    }
}

/// Whether `labels` hold all pairs of `wanted`: the selector form of Services.
pub(super) fn contains_labels(wanted: &Labels, labels: Option<&Labels>) -> bool {
    wanted
        .iter()
        .all(|(name, value)| labels.and_then(|labels| labels.get(name)) == Some(value))
}

/// The decimal resource version, 0 when the server uses another form.
pub(super) fn version_of(meta: &ObjectMeta) -> u64 {
    meta.resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

/// A generated name: `base` and a hyphen, shortened so that the suffix fits into `limit` characters.
pub(super) fn shortened(base: &str, limit: usize) -> &str {
    match base.char_indices().nth(limit) {
        Some((end, _)) => &base[..end],
        None => base,
    }
}

/// `Pending`, `Running`, ...; empty when nothing reported yet.
pub(super) fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

/// Whether all containers ended for good.
pub(super) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the pod counts towards its controller's replicas.
pub(super) fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// The `Ready` condition.
pub(super) fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    pod.status
        .as_ref()?
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "Ready")
}

/// Whether the node reports the pod ready.
pub(super) fn is_ready(pod: &Pod) -> bool {
    ready_condition(pod).is_some_and(|condition| condition.status == "True")
}

/// How long until a pod has been ready for `min_ready_seconds`: zero when it already has, `None` when it is not ready.
pub(super) fn seconds_to_available(pod: &Pod, min_ready_seconds: i32) -> Option<f64> {
    let condition = ready_condition(pod).filter(|condition| condition.status == "True")?;
    if min_ready_seconds == 0 {
        return Some(0.0);
    }
    let since = condition.last_transition_time.as_ref()?;
    Some((f64::from(min_ready_seconds) - seconds_since(since)).max(0.0))
}

/// Whether the pod has been ready for `min_ready_seconds`.
pub(super) fn is_available(pod: &Pod, min_ready_seconds: i32) -> bool {
    seconds_to_available(pod, min_ready_seconds) == Some(0.0)
}

/// How long until the next of `pods` has been ready for `min_ready_seconds`; `None` when none is on the way.
pub(super) fn until_available<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    min_ready_seconds: i32,
) -> Option<Duration> {
    pods.into_iter()
        .filter_map(|pod| seconds_to_available(pod, min_ready_seconds))
        .filter(|seconds| *seconds > 0.0)
        .min_by(f64::total_cmp)
        .map(Duration::from_secs_f64)
}
