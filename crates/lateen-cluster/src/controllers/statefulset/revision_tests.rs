use super::*;

fn set(image: &str) -> StatefulSet {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "n", "uid": "u",
            "annotations": {"kubernetes.io/change-cause": "because"}},
        "spec": {
            "serviceName": "web", "revisionHistoryLimit": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": image}]}},
        },
    }))
    .unwrap()
}

fn numbered(image: &str, number: i64) -> ControllerRevision {
    new_revision(&set(image), number, 0)
}

#[test]
fn a_revision_is_a_patch_that_restores_the_template() {
    let revision = new_revision(&set("a"), 3, 0);
    assert_eq!(revision.revision, 3);
    let RawExtension(data) = revision.data.clone().unwrap();
    assert_eq!(
        data.to_string(),
        r#"{"spec":{"template":{"$patch":"replace","metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"image":"a","name":"web"}]}}}}"#
    );
    let labels = revision.metadata.labels.as_ref().unwrap();
    assert_eq!(labels["app"], "web");
    let name = format!("web-{}", labels[HASH_LABEL]);
    assert_eq!(revision.metadata.name, Some(name));
    let annotations = revision.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["kubernetes.io/change-cause"], "because");
    assert_eq!(template_in(&revision), Some(template_of(&set("a"))));
}

#[test]
fn names_differ_by_template_and_by_collisions() {
    let names = [("a", 0), ("b", 0), ("a", 1)]
        .map(|(image, collisions)| new_revision(&set(image), 1, collisions).metadata.name);
    let different: BTreeSet<_> = names.iter().collect();
    assert_eq!(different.len(), 3, "{names:?}");
    assert!(is_equal(&numbered("a", 1), &numbered("a", 2)));
    assert!(!is_equal(&numbered("a", 1), &numbered("b", 1)));
}

#[test]
fn foreign_data_restores_nothing() {
    for data in [json!({}), json!({"spec": {"template": 1}}), json!(null)] {
        let mut revision = numbered("a", 1);
        revision.data = Some(RawExtension(data.clone()));
        assert_eq!(template_in(&revision), None, "{data}");
    }
}

#[test]
fn old_revisions_go_beyond_the_limit_unless_they_are_used() {
    let images = ["a", "b", "c", "d"];
    let mut all: Vec<_> = (1..)
        .zip(images)
        .map(|(n, image)| numbered(image, n))
        .collect();
    all.reverse();
    sort(&mut all);
    let names: Vec<String> = all
        .iter()
        .filter_map(|revision| revision.metadata.name.clone())
        .collect();
    let check = |limit: i32, used: &[usize], expected: &[i64]| {
        let mut set = set("d");
        set.spec.as_mut().unwrap().revision_history_limit = Some(limit);
        let used = used
            .iter()
            .map(|position| names[*position].as_str())
            .collect();
        let gone = superfluous(&set, &all, &used);
        let numbers: Vec<i64> = gone.iter().map(|revision| revision.revision).collect();
        assert_eq!(numbers, expected, "limit {limit}");
    };
    check(1, &[3], &[1, 2]);
    check(1, &[0, 3], &[2]);
    check(0, &[3], &[1, 2, 3]);
    check(3, &[3], &[]);
    check(-1, &[3], &[]);
}
