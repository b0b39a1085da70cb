use serde_json::json;

use super::*;

/// Patches the pod template's spec of a Deployment.
fn patched(spec: &Value, patch: &Value) -> Result<Value> {
    let rows = crate::builtin::rows();
    let row = rows.iter().find(|row| row.kind == "Deployment").unwrap();
    let within = |spec: &Value| json!({"spec": {"template": {"spec": spec}}});
    let mut object = within(spec);
    strategic_merge(&mut object, &within(patch), row.strategy.as_ref())?;
    Ok(object["spec"]["template"]["spec"].clone())
}

#[track_caller]
fn check(spec: Value, patch: Value, expected: Value) {
    let actual = patched(&spec, &patch).unwrap();
    // As text, because the order of fields and items counts for lists.
    assert_eq!(actual["containers"], expected["containers"], "{patch}");
    assert_eq!(actual, expected, "{patch}");
}

#[test]
fn lists_merge_by_key() {
    let web = json!({"name": "web", "image": "web:1", "env": [{"name": "A", "value": "1"}]});
    let side = json!({"name": "side", "image": "side:1"});
    check(
        json!({"containers": [web, side]}),
        json!({"containers": [{"name": "web", "image": "web:2"}, {"name": "new", "image": "new"}]}),
        json!({"containers": [
            {"name": "web", "image": "web:2", "env": [{"name": "A", "value": "1"}]},
            side,
            {"name": "new", "image": "new"},
        ]}),
    );
    check(
        json!({"containers": [web]}),
        json!({"containers": [{"name": "web", "env": [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]}]}),
        json!({"containers": [{"name": "web", "image": "web:1", "env": [
            {"name": "A", "value": "2"},
            {"name": "B", "value": "3"},
        ]}]}),
    );
}

#[test]
fn items_and_lists_can_be_removed_and_replaced() {
    let two = json!({"containers": [{"name": "a", "image": "a"}, {"name": "b", "image": "b"}]});
    check(
        two.clone(),
        json!({"containers": [{"$patch": "delete", "name": "a"}]}),
        json!({"containers": [{"name": "b", "image": "b"}]}),
    );
    check(
        two,
        json!({"containers": [{"$patch": "replace"}, {"name": "c", "image": "c"}]}),
        json!({"containers": [{"name": "c", "image": "c"}]}),
    );
    check(
        json!({"containers": [], "securityContext": {"runAsUser": 1}, "hostNetwork": true}),
        json!({"securityContext": {"$patch": "replace", "runAsGroup": 2}, "hostNetwork": null}),
        json!({"containers": [], "securityContext": {"runAsGroup": 2}}),
    );
}

#[test]
fn lists_without_a_key_are_replaced() {
    check(
        json!({"containers": [{"name": "a", "args": ["x", "y"]}]}),
        json!({"containers": [{"name": "a", "args": ["z"]}]}),
        json!({"containers": [{"name": "a", "args": ["z"]}]}),
    );
    check(
        json!({"tolerations": [{"key": "a"}]}),
        json!({"tolerations": [{"key": "b"}]}),
        json!({"tolerations": [{"key": "b"}]}),
    );
}

#[test]
fn the_order_is_what_the_patch_says() {
    let of = |names: &[&str]| -> Value {
        let items: Value = names.iter().map(|name| json!({"name": name})).collect();
        json!({"containers": items})
    };
    let ordered = |names: &[&str], patched: &[&str]| {
        let mut patch = of(patched);
        patch["$setElementOrder/containers"] = of(names)["containers"].clone();
        patch
    };
    check(
        of(&["a", "b", "c"]),
        ordered(&["c", "a", "b"], &["a"]),
        of(&["c", "a", "b"]),
    );
    // What only the server has keeps its place.
    check(
        of(&["a", "server", "b"]),
        ordered(&["a", "b", "new"], &["new"]),
        of(&["a", "server", "b", "new"]),
    );
}

#[test]
fn only_retained_keys_stay() {
    check(
        json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
        json!({"volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}]}),
        json!({"volumes": [{"name": "v", "configMap": {"name": "c"}}]}),
    );
}

#[test]
fn directives_are_not_stored() {
    check(
        json!({}),
        json!({"containers": [{
            "name": "a",
            "$setElementOrder/env": [{"name": "A"}],
            "env": [{"name": "A", "value": null}],
        }]}),
        json!({"containers": [{"name": "a", "env": [{"name": "A"}]}]}),
    );
}

#[test]
fn scalars_are_removed_from_sets() {
    let rows = crate::builtin::rows();
    let row = rows.iter().find(|row| row.kind == "ConfigMap").unwrap();
    let mut object = json!({"metadata": {"finalizers": ["a/x", "b/x"]}});
    let patch = json!({"metadata": {
        "$deleteFromPrimitiveList/finalizers": ["a/x"],
        "finalizers": ["c/x"],
        "$setElementOrder/finalizers": ["c/x", "b/x"],
    }});
    strategic_merge(&mut object, &patch, row.strategy.as_ref()).unwrap();
    assert_eq!(object["metadata"]["finalizers"], json!(["c/x", "b/x"]));
}

#[test]
fn malformed_patches_are_refused() {
    for patch in [
        json!({"containers": [{"image": "nameless"}]}),
        json!({"containers": ["text"]}),
        json!({"$patch": "sideways"}),
        json!({"$retainKeys": "text"}),
    ] {
        assert!(
            patched(&json!({"containers": []}), &patch).is_err(),
            "{patch}"
        );
    }
}
