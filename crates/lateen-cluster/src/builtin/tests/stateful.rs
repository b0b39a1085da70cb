//! StatefulSets and their revisions.

use super::*;

fn stateful_set(version: &str, spec: Value) -> Value {
    let mut object = json!({
        "apiVersion": version, "kind": "StatefulSet", "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "example/web:1"}]},
            },
        },
    });
    json_patch::merge(&mut object["spec"], &spec);
    object
}

#[test]
fn a_stateful_set_gets_its_defaults() {
    let check = |version: &str, spec: Value, expected: Value| {
        let (object, errors) = create("statefulsets", stateful_set(version, spec.clone()));
        assert_eq!(errors, Vec::<String>::new(), "{spec}");
        let mut shown = object["spec"].clone();
        shown.as_object_mut().unwrap().shift_remove("template");
        let mut all = json!({
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
            "podManagementPolicy": "OrderedReady", "replicas": 1, "revisionHistoryLimit": 10,
            "selector": {"matchLabels": {"app": "web"}}, "serviceName": "",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        });
        json_patch::merge(&mut all, &expected);
        assert_eq!(shown, all, "{spec}");
        assert_eq!(
            object["status"],
            json!({"replicas": 0, "availableReplicas": 0})
        );
        assert_eq!(object["metadata"]["generation"], 1);
    };
    let (stable, beta) = ("apps/v1", "apps/v1beta1");
    check(
        stable,
        json!({"serviceName": "headless"}),
        json!({"serviceName": "headless"}),
    );
    check(stable, json!({"replicas": 0}), json!({"replicas": 0}));
    check(
        stable,
        json!({"updateStrategy": {"type": "RollingUpdate"}}),
        json!({"updateStrategy": {"rollingUpdate": null}}),
    );
    let delete = json!({"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"}});
    check(stable, delete.clone(), delete);
    check(
        beta,
        json!({"selector": null}),
        json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}),
    );
}

#[test]
fn an_invalid_stateful_set_is_explained_in_kubernetes_order() {
    let check = |spec: Value, expected: &[&str]| {
        let (_, errors) = create("statefulsets", stateful_set("apps/v1", spec));
        assert_eq!(errors, expected);
    };
    check(
        json!({
            "podManagementPolicy": "Any", "replicas": -1, "minReadySeconds": -1,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": -1, "maxUnavailable": "0%"}},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Burn"},
            "ordinals": {"start": -1}, "serviceName": "a.b",
            "template": {"spec": {"restartPolicy": "Never", "activeDeadlineSeconds": 5}},
        }),
        &[
            "spec.podManagementPolicy: Invalid value: \"Any\": must be 'OrderedReady' or 'Parallel'",
            "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
            "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": cannot be 0",
            "spec.persistentVolumeClaimRetentionPolicy.whenDeleted: Unsupported value: \"Burn\": supported values: \"Retain\", \"Delete\"",
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
            "spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0",
            "spec.serviceName: Invalid value: \"a.b\": must not contain dots",
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in StatefulSet is not Supported",
        ],
    );
    check(
        json!({"selector": {"matchLabels": {"app": null}}}),
        &["spec.selector: Invalid value: {}: empty selector is invalid for statefulset"],
    );
    check(
        json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}}),
        &[
            "spec.updateStrategy.rollingUpdate: Invalid value: {\"Partition\":1,\"MaxUnavailable\":null}: only allowed for updateStrategy 'RollingUpdate'",
        ],
    );
    // The pods' own host names take the place of the template's.
    check(json!({"template": {"spec": {"hostname": "A.B"}}}), &[]);
    check(
        json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]}),
        &[
            "spec.volumeClaimTemplates: Forbidden: this cluster has no persistent volumes: give the template an emptyDir or hostPath volume instead",
        ],
    );
}

#[test]
fn some_fields_of_a_stateful_set_never_change() {
    let (stored, _) = create("statefulsets", stateful_set("apps/v1", json!({})));
    let check = |change: Value, allowed: bool| {
        let mut changed = stored.clone();
        json_patch::merge(&mut changed["spec"], &change);
        let (object, errors) = update("statefulsets", &stored, changed);
        if allowed {
            assert_eq!(errors, Vec::<String>::new(), "{change}");
            assert_eq!(object["metadata"]["generation"], 2, "{change}");
        } else {
            assert_eq!(
                errors,
                [
                    "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
                ],
                "{change}"
            );
        }
    };
    for change in [
        json!({"replicas": 3}),
        json!({"ordinals": {"start": 3}}),
        json!({"template": {"metadata": {"labels": {"v": "2"}}}}),
        json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}),
        json!({"revisionHistoryLimit": 3}),
        json!({"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"}}),
        json!({"minReadySeconds": 3}),
    ] {
        check(change, true);
    }
    for change in [
        json!({"serviceName": "other"}),
        json!({"podManagementPolicy": "Parallel"}),
        json!({"selector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}),
        json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}}]}),
    ] {
        check(change, false);
    }
}

#[test]
fn a_controller_revision_keeps_its_data() {
    let revision = |data: Value, number: i64| {
        json!({"apiVersion": "apps/v1", "kind": "ControllerRevision",
            "metadata": {"name": "web-5f"}, "data": data, "revision": number})
    };
    let check = |data: Value, number: i64, expected: &[&str]| {
        let (_, errors) = create("controllerrevisions", revision(data, number));
        assert_eq!(errors, expected);
    };
    check(json!({"spec": {"a": [null, 0, ""]}}), 0, &[]);
    check(
        json!(null),
        -1,
        &[
            "revision: Invalid value: -1: must be greater than or equal to 0",
            "data: Required value: data is mandatory",
        ],
    );
    check(
        json!([1]),
        1,
        &["data: Required value: data must be a valid JSON object"],
    );

    let data = json!({"spec": {"template": {"$patch": "replace", "zero": 0, "none": null}}});
    let (stored, _) = create("controllerrevisions", revision(data.clone(), 1));
    assert_eq!(stored["data"], data);
    let (again, errors) = update("controllerrevisions", &stored, revision(data, 2));
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(again["revision"], 2);
    let (_, errors) = update("controllerrevisions", &stored, revision(json!({}), 2));
    assert_eq!(errors, ["data: Invalid value: {}: field is immutable"]);
}

#[test]
fn tables_show_sets_and_revisions() {
    let created = json!("2026-01-01T00:00:00Z");
    let mut set = stateful_set("apps/v1", json!({"replicas": 3}));
    set["metadata"]["creationTimestamp"] = created.clone();
    set["status"] = json!({"readyReplicas": 2});
    assert_eq!(
        cells("statefulsets", set),
        ["web", "2/3", "10m", "web", "example/web:1"]
    );
    let revision = |owners: Value| json!({"metadata": {"name": "web-5f", "creationTimestamp": created, "ownerReferences": owners}, "revision": 7});
    let owner = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": true}]);
    assert_eq!(
        cells("controllerrevisions", revision(owner)),
        ["web-5f", "statefulset.apps/web", "7", "10m"]
    );
    assert_eq!(
        cells("controllerrevisions", revision(json!([]))),
        ["web-5f", "<none>", "7", "10m"]
    );
}
