//! What makes a pod of a StatefulSet the one of its number: name, labels and host name.

use std::ops::Range;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};

use crate::controllers::meta::{Labels, pod_of_template};

/// The label with the pod's name, so that a Service can select a single pod.
const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
/// The label with the pod's number.
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";
/// The label with the name of the pod's revision.
pub(super) const REVISION_LABEL: &str = "controller-revision-hash";

/// The number in a pod's name, if it is the name of one of the set's pods.
pub(super) fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i64> {
    let set = set.metadata.name.as_deref()?;
    let digits = pod
        .metadata
        .name
        .as_deref()?
        .strip_prefix(set)?
        .strip_prefix('-')?;
    let number: i32 = digits.parse().ok()?;
    // `web-01` and `web-+1` are not the pod `web-1`.
    (number >= 0 && number.to_string() == digits).then_some(i64::from(number))
}

/// The numbers that the set's pods are to have.
pub(super) fn ordinals(set: &StatefulSet) -> Range<i64> {
    let spec = set.spec.as_ref();
    let start = spec.and_then(|spec| spec.ordinals.as_ref()?.start);
    let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1);
    let start = i64::from(start.unwrap_or(0));
    start..start + i64::from(replicas)
}

/// The labels that tell which of the set's pods a pod is.
fn labels(name: &str, ordinal: i64) -> [(String, String); 2] {
    [
        (NAME_LABEL.to_owned(), name.to_owned()),
        (INDEX_LABEL.to_owned(), ordinal.to_string()),
    ]
}

/// The labels to be set on a pod that lost the one with its name.
pub(super) fn lost_labels(pod: &Pod, ordinal: i64) -> Option<Labels> {
    let name = pod.metadata.name.as_deref()?;
    let present = pod.metadata.labels.as_ref();
    let told = present.and_then(|labels| labels.get(NAME_LABEL));
    (told.map(String::as_str) != Some(name)).then(|| labels(name, ordinal).into())
}

/// The name of the revision that a pod was made from; empty when it doesn't say.
pub(super) fn revision_of(pod: &Pod) -> &str {
    let labels = pod.metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(REVISION_LABEL))
        .map_or("", String::as_str)
}

/// The set's pod of that number, from the template of the revision of that name.
pub(super) fn new_pod(
    set: &StatefulSet,
    ordinal: i64,
    revision: &str,
    template: &PodTemplateSpec,
) -> Pod {
    let mut pod = pod_of_template(template.clone(), set);
    let base = set.metadata.name.as_deref().unwrap_or_default();
    let name = format!("{base}-{ordinal}");
    let own = pod.metadata.labels.get_or_insert_default();
    own.extend(labels(&name, ordinal));
    own.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    if let Some(spec) = &mut pod.spec {
        spec.hostname = Some(name.clone());
        // The headless Service below which the pod has its DNS name.
        let service = set.spec.as_ref().and_then(|spec| spec.service_name.clone());
        spec.subdomain = service.filter(|service| !service.is_empty());
    }
    pod.metadata.name = Some(name);
    pod
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn set(spec: Value) -> StatefulSet {
        let mut object = json!({
            "metadata": {"name": "web", "namespace": "n", "uid": "u"},
            "spec": {"selector": {}, "template": {}},
        });
        json_patch::merge(&mut object["spec"], &spec);
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_pod_is_known_by_its_name() {
        for (name, expected) in [
            ("web-0", Some(0)),
            ("web-17", Some(17)),
            ("web-01", None),
            ("web-+1", None),
            ("web--1", None),
            ("web-", None),
            ("web", None),
            ("web-a-1", None),
            ("webs-1", None),
            ("web-99999999999", None),
        ] {
            let pod: Pod = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
            assert_eq!(ordinal(&set(json!({})), &pod), expected, "{name}");
        }
    }

    #[test]
    fn numbers_begin_where_the_set_says() {
        assert_eq!(ordinals(&set(json!({}))), 0..1);
        assert_eq!(ordinals(&set(json!({"replicas": 0}))), 0..0);
        let spec = json!({"replicas": 3, "ordinals": {"start": 5}});
        assert_eq!(ordinals(&set(spec)), 5..8);
    }

    #[test]
    fn a_new_pod_has_its_own_name_and_that_of_its_service() {
        let template: PodTemplateSpec = serde_json::from_value(json!({
            "metadata": {"labels": {"app": "web"}, "annotations": {"a": "b"}},
            "spec": {"hostname": "other", "subdomain": "other", "containers": []},
        }))
        .unwrap();
        let set = set(json!({"serviceName": "headless"}));
        let pod = new_pod(&set, 2, "web-5f", &template);
        assert_eq!(
            serde_json::to_value(&pod).unwrap(),
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "name": "web-2", "namespace": "n", "annotations": {"a": "b"},
                    "labels": {
                        "app": "web",
                        "apps.kubernetes.io/pod-index": "2",
                        "controller-revision-hash": "web-5f",
                        "statefulset.kubernetes.io/pod-name": "web-2",
                    },
                    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web",
                        "uid": "u", "controller": true, "blockOwnerDeletion": true}],
                },
                "spec": {"hostname": "web-2", "subdomain": "headless", "containers": []},
            })
        );
        assert_eq!(revision_of(&pod), "web-5f");
        assert_eq!(lost_labels(&pod, 2), None);
        let mut bare = pod;
        bare.metadata.labels = None;
        assert_eq!(lost_labels(&bare, 2).unwrap().len(), 2);
    }
}
