//! Revisions of a Deployment: which ReplicaSet belongs to which pod template, how it is called, and which old ones go.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::core::ObjectMeta;

use super::strategy::{Bounds, wanted};
use crate::controllers::hash::{fnv1a, safe_text};
use crate::controllers::meta::{Labels, controller_reference, shortened};

/// The label that keeps the pods of one template apart from those of another.
pub(super) const HASH_LABEL: &str = "pod-template-hash";
/// Number of the template in the order of rollouts, on Deployment and ReplicaSet.
pub(super) const REVISION_ANNOTATION: &str = "deployment.kubernetes.io/revision";
/// Earlier numbers of a ReplicaSet that became current again.
const HISTORY_ANNOTATION: &str = "deployment.kubernetes.io/revision-history";
/// The Deployment's replicas when the ReplicaSet was last scaled.
pub(super) const DESIRED_ANNOTATION: &str = "deployment.kubernetes.io/desired-replicas";
/// Most pods that the Deployment allowed when the ReplicaSet was last scaled.
pub(super) const MAX_ANNOTATION: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a Deployment that its ReplicaSets don't take over.
const OWN_ANNOTATIONS: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION_ANNOTATION,
    HISTORY_ANNOTATION,
    DESIRED_ANNOTATION,
    MAX_ANNOTATION,
    "deprecated.deployment.rollback.to",
];
/// Characters that the history annotation may have.
const HISTORY_LIMIT: usize = 2000;
/// Longest name of a ReplicaSet.
const NAME_LIMIT: usize = 253;

/// The number in an annotation of a ReplicaSet.
pub(super) fn annotated_number(set: &ReplicaSet, annotation: &str) -> Option<i32> {
    let annotations = set.metadata.annotations.as_ref()?;
    annotations.get(annotation)?.parse().ok()
}

/// The revision of a ReplicaSet, 0 when it has none.
pub(super) fn revision(set: &ReplicaSet) -> i64 {
    set.metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(REVISION_ANNOTATION)?.parse().ok())
        .unwrap_or(0)
}

/// The hash of a pod template. Kubernetes hashes a dump of its own types, so the same template has another hash there.
pub(super) fn template_hash(template: &PodTemplateSpec, collisions: i32) -> String {
    let text = serde_json::to_vec(template).unwrap_or_default();
    let mut bytes = text;
    if collisions > 0 {
        bytes.extend_from_slice(&collisions.to_le_bytes());
    }
    safe_text(fnv1a(bytes))
}

/// Whether two templates are the same but for the hash label.
pub(super) fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    plain(a) == plain(b)
}

fn plain(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut plain = template.clone();
    if let Some(meta) = &mut plain.metadata {
        if let Some(labels) = &mut meta.labels {
            labels.remove(HASH_LABEL);
        }
        meta.labels.take_if(|labels| labels.is_empty());
        meta.annotations
            .take_if(|annotations| annotations.is_empty());
        meta.creation_timestamp = None;
    }
    plain
}

/// The Deployment's pod template.
pub(super) fn template_of(deployment: &Deployment) -> PodTemplateSpec {
    deployment
        .spec
        .as_ref()
        .map(|spec| spec.template.clone())
        .unwrap_or_default()
}

/// Splits the ReplicaSets into the one of the present template (the oldest, if there are several) and the others, both
/// from the oldest to the youngest.
pub(super) fn split(
    deployment: &Deployment,
    mut sets: Vec<ReplicaSet>,
) -> (Option<ReplicaSet>, Vec<ReplicaSet>) {
    sets.sort_by(|a, b| {
        let key = |set: &ReplicaSet| {
            let meta = &set.metadata;
            (meta.creation_timestamp.clone(), meta.name.clone())
        };
        key(a).cmp(&key(b))
    });
    let template = template_of(deployment);
    let new = sets.iter().position(|set| {
        set.spec
            .as_ref()
            .and_then(|spec| spec.template.as_ref())
            .is_some_and(|present| same_template(present, &template))
    });
    let new = new.map(|position| sets.remove(position));
    (new, sets)
}

/// The ReplicaSet of the Deployment's present template, with no replicas yet.
pub(super) fn new_replica_set(deployment: &Deployment, collisions: i32) -> ReplicaSet {
    let mut template = template_of(deployment);
    let hash = template_hash(&template, collisions);
    let with_hash = |labels: Option<Labels>| {
        let mut labels = labels.unwrap_or_default();
        labels.insert(HASH_LABEL.to_owned(), hash.clone());
        Some(labels)
    };
    let meta = template.metadata.get_or_insert_default();
    meta.labels = with_hash(meta.labels.take());
    let labels = meta.labels.clone();
    let spec = deployment.spec.as_ref();
    let mut selector = spec.map(|spec| spec.selector.clone()).unwrap_or_default();
    selector.match_labels = with_hash(selector.match_labels.take());
    let base = deployment.metadata.name.as_deref().unwrap_or_default();
    let base = shortened(base, NAME_LIMIT - hash.len() - 1);
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{base}-{hash}")),
            namespace: deployment.metadata.namespace.clone(),
            labels,
            owner_references: Some(vec![controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.and_then(|spec| spec.min_ready_seconds),
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

/// Brings the annotations of the present template's ReplicaSet up to date: those of the Deployment, and `revision` unless
/// it has a higher one. Returns whether anything changed.
pub(super) fn annotate_new(set: &mut ReplicaSet, deployment: &Deployment, revision: i64) -> bool {
    let annotations = set.metadata.annotations.get_or_insert_default();
    let before = annotations.clone();
    for (name, value) in deployment.metadata.annotations.iter().flatten() {
        if !OWN_ANNOTATIONS.contains(&name.as_str()) {
            annotations.insert(name.clone(), value.clone());
        }
    }
    let old = annotations.get(REVISION_ANNOTATION).cloned();
    let old_number: i64 = old
        .as_deref()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    if old_number < revision {
        annotations.insert(REVISION_ANNOTATION.to_owned(), revision.to_string());
        if let Some(old) = old {
            let history = annotations
                .entry(HISTORY_ANNOTATION.to_owned())
                .or_default();
            push_history(history, &old);
        }
    }
    *annotations != before
}

/// Appends to a list separated by commas; the oldest go when it becomes too long.
fn push_history(history: &mut String, revision: &str) {
    if !history.is_empty() {
        history.push(',');
    }
    history.push_str(revision);
    while history.len() > HISTORY_LIMIT {
        match history.find(',') {
            Some(comma) => drop(history.drain(..=comma)),
            None => history.clear(),
        }
    }
}

/// Notes on a ReplicaSet what it was last scaled for. Returns whether anything changed.
pub(super) fn annotate_scale(set: &mut ReplicaSet, bounds: &Bounds) -> bool {
    let annotations = set.metadata.annotations.get_or_insert_default();
    let mut changed = false;
    for (name, number) in [
        (DESIRED_ANNOTATION, bounds.replicas),
        (MAX_ANNOTATION, bounds.most()),
    ] {
        let text = number.to_string();
        if annotations.get(name) != Some(&text) {
            annotations.insert(name.to_owned(), text);
            changed = true;
        }
    }
    changed
}

/// Old ReplicaSets beyond the history that the Deployment keeps, those of the lowest revision first.
pub(super) fn superfluous(deployment: &Deployment, mut old: Vec<ReplicaSet>) -> Vec<ReplicaSet> {
    let limit = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.revision_history_limit);
    let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else {
        return Vec::new();
    };
    old.retain(|set| set.metadata.deletion_timestamp.is_none());
    let excess = old.len().saturating_sub(limit);
    old.sort_by_key(revision);
    old.truncate(excess);
    old.retain(|set| {
        let status = set.status.as_ref();
        let observed = status.and_then(|status| status.observed_generation);
        wanted(set) == 0
            && status.is_none_or(|status| status.replicas == 0)
            && observed >= set.metadata.generation
    });
    old
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(image: &str) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "n", "uid": "u", "annotations": {
                "note": "x", "deployment.kubernetes.io/revision": "7",
                "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "spec": {
                "replicas": 2, "revisionHistoryLimit": 1,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "web", "image": image}]}},
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_hash_has_the_form_that_kubernetes_gives_it() {
        let hash = template_hash(&template_of(&deployment("a")), 0);
        assert!((8..=10).contains(&hash.len()), "{hash}");
        assert!(
            hash.bytes().all(|byte| b"456789bcdf".contains(&byte)),
            "{hash}"
        );
        assert_ne!(hash, template_hash(&template_of(&deployment("b")), 0));
        assert_ne!(hash, template_hash(&template_of(&deployment("a")), 1));
    }

    #[test]
    fn a_new_replica_set_is_found_again_by_its_template() {
        let set = new_replica_set(&deployment("a"), 0);
        let hash = template_hash(&template_of(&deployment("a")), 0);
        assert_eq!(set.metadata.name, Some(format!("web-{hash}")));
        let spec = set.spec.as_ref().unwrap();
        for labels in [&set.metadata.labels, &spec.selector.match_labels] {
            assert_eq!(labels.as_ref().unwrap()[HASH_LABEL], hash);
            assert_eq!(labels.as_ref().unwrap()["app"], "web");
        }
        let other = new_replica_set(&deployment("b"), 0);
        let (new, old) = split(&deployment("a"), vec![other.clone(), set.clone()]);
        assert_eq!(new, Some(set));
        assert_eq!(old, [other]);
    }

    #[test]
    fn a_replica_set_that_becomes_current_again_remembers_its_revisions() {
        let mut set = new_replica_set(&deployment("a"), 0);
        let annotation = |set: &ReplicaSet, name: &str| {
            set.metadata
                .annotations
                .as_ref()
                .unwrap()
                .get(name)
                .cloned()
        };
        assert!(annotate_new(&mut set, &deployment("a"), 1));
        assert_eq!(annotation(&set, "note").as_deref(), Some("x"));
        assert_eq!(annotation(&set, OWN_ANNOTATIONS[0]), None);
        assert_eq!(annotation(&set, HISTORY_ANNOTATION), None);
        assert!(!annotate_new(&mut set, &deployment("a"), 1));
        assert!(annotate_new(&mut set, &deployment("a"), 3));
        assert!(annotate_new(&mut set, &deployment("a"), 5));
        assert_eq!(revision(&set), 5);
        assert_eq!(annotation(&set, HISTORY_ANNOTATION).as_deref(), Some("1,3"));
    }

    #[test]
    fn history_beyond_the_limit_goes_oldest_first_but_not_while_in_use() {
        let set = |number: i64, replicas: i32| {
            let mut set = new_replica_set(&deployment("a"), 0);
            annotate_new(&mut set, &deployment("a"), number);
            set.spec.as_mut().unwrap().replicas = Some(replicas);
            set
        };
        let revisions = |sets: Vec<ReplicaSet>| {
            let gone = superfluous(&deployment("a"), sets);
            gone.iter().map(revision).collect::<Vec<_>>()
        };
        assert_eq!(revisions(vec![set(1, 0)]), [0_i64; 0]);
        assert_eq!(revisions(vec![set(3, 0), set(1, 0), set(2, 0)]), [1, 2]);
        assert_eq!(revisions(vec![set(3, 0), set(1, 4), set(2, 0)]), [2]);
    }
}
