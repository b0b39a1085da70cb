//! ControllerRevisions of a StatefulSet: a pod template as a patch that restores it, as `kubectl rollout` reads it.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::core::ObjectMeta;
use serde_json::{Map, Value, json};

use crate::controllers::hash::{fnv1, safe_text};
use crate::controllers::meta::{controller_reference, shortened};

/// The label with the hash of a revision.
const HASH_LABEL: &str = "controller.kubernetes.io/hash";
/// Longest base of a revision's name.
const NAME_BASE_LIMIT: usize = 223;

/// The revision of the set's present template, with that number.
pub(super) fn new_revision(set: &StatefulSet, number: i64, collisions: i32) -> ControllerRevision {
    let template = template_of(set);
    let data = patch(&template);
    let hash = hash(&data, collisions);
    let mut labels = template
        .metadata
        .and_then(|meta| meta.labels)
        .unwrap_or_default();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    let base = set.metadata.name.as_deref().unwrap_or_default();
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", shortened(base, NAME_BASE_LIMIT))),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels),
            // The cause of the change is among them.
            annotations: set.metadata.annotations.clone(),
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision: number,
    }
}

fn template_of(set: &StatefulSet) -> PodTemplateSpec {
    let spec = set.spec.as_ref();
    spec.map(|spec| spec.template.clone()).unwrap_or_default()
}

/// The strategic merge patch that gives a StatefulSet this template, with all names sorted.
fn patch(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = json!("replace");
    sorted(json!({"spec": {"template": template}}))
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<(String, Value)> = members
                .into_iter()
                .map(|(name, member)| (name, sorted(member)))
                .collect();
            members.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(Map::from_iter(members))
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

/// The hash that Kubernetes gives a patch. It writes `<`, `>` and `&` as escapes, so texts with them hash differently there.
fn hash(data: &Value, collisions: i32) -> String {
    let text = format!("{data}{collisions}");
    safe_text(fnv1(text.bytes()))
}

/// Whether two revisions restore the same.
pub(super) fn is_equal(a: &ControllerRevision, b: &ControllerRevision) -> bool {
    a.data == b.data
}

/// The pod template that a revision restores; `None` when someone wrote something else into it.
pub(super) fn template_in(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let RawExtension(data) = revision.data.as_ref()?;
    let mut template = data.pointer("/spec/template")?.clone();
    template.as_object_mut()?.shift_remove("$patch");
    serde_json::from_value(template).ok()
}

/// Sorts revisions by number; the older of two with the same is first.
pub(super) fn sort(revisions: &mut [ControllerRevision]) {
    revisions.sort_by(|a, b| {
        let key = |revision: &ControllerRevision| {
            let meta = &revision.metadata;
            (
                revision.revision,
                meta.creation_timestamp.clone(),
                meta.name.clone(),
            )
        };
        key(a).cmp(&key(b))
    });
}

/// Those of the sorted `revisions` that go: beyond the history that the set keeps, and in no use. `used` are the names of
/// the current and the next revision and of those that pods have.
pub(super) fn superfluous<'a>(
    set: &StatefulSet,
    revisions: &'a [ControllerRevision],
    used: &BTreeSet<&str>,
) -> Vec<&'a ControllerRevision> {
    let limit = set
        .spec
        .as_ref()
        .and_then(|spec| spec.revision_history_limit)
        .unwrap_or(10);
    // A negative limit keeps all.
    let Ok(limit) = usize::try_from(limit) else {
        return Vec::new();
    };
    let is_used = |revision: &&ControllerRevision| {
        let name = revision.metadata.name.as_deref().unwrap_or_default();
        used.contains(name)
    };
    let mut old: Vec<_> = revisions
        .iter()
        .filter(|revision| !is_used(revision))
        .collect();
    old.truncate(old.len().saturating_sub(limit));
    old
}

#[cfg(test)]
#[path = "revision_tests.rs"]
mod tests;
