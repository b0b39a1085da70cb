use serde_json::{Value, json};

use super::{MAPS, Server, map};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn deployment(containers: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": containers},
            },
        },
    })
}

#[tokio::test]
async fn patches_of_each_kind_change_the_object() {
    let server = Server::start().await;
    let check = async |media: &str, patch: Value, expected: Value| {
        server
            .post(MAPS, &map("one", &json!({"a": "1", "b": "2"})))
            .await
            .ok();
        let path = format!("{MAPS}/one");
        let media = format!("application/{media}");
        let patched = server.send("PATCH", &path, &media, &patch).await.ok();
        assert_eq!(patched["data"], expected, "{media}");
        server.delete(&path, &json!({})).await.ok();
    };
    check(
        "merge-patch+json",
        json!({"data": {"a": null, "c": "3"}}),
        json!({"b": "2", "c": "3"}),
    )
    .await;
    check(
        "json-patch+json",
        json!([{"op": "replace", "path": "/data/a", "value": "9"}, {"op": "remove", "path": "/data/b"}]),
        json!({"a": "9"}),
    )
    .await;
    check(
        "strategic-merge-patch+json",
        json!({"data": {"$patch": "replace", "z": "1"}}),
        json!({"z": "1"}),
    )
    .await;
    server.post(MAPS, &map("one", &json!({}))).await.ok();
    let path = format!("{MAPS}/one");
    let test = json!([{"op": "test", "path": "/data/a", "value": "red"}]);
    let failed = server
        .send("PATCH", &path, "application/json-patch+json", &test)
        .await;
    assert_eq!(
        (failed.code, failed.message()),
        (
            422,
            "the server rejected our request due to an error in our request"
        )
    );
    let unknown = server.send("PATCH", &path, "text/plain", &json!({})).await;
    assert_eq!(unknown.code, 415);
    let named = json!({"metadata": {"resourceVersion": "1"}, "data": {"a": "1"}});
    assert_eq!(server.merge(&path, &named).await.code, 409);
}

#[tokio::test]
async fn scale_is_a_view_of_the_object() {
    let server = Server::start().await;
    server
        .post(
            DEPLOYMENTS,
            &deployment(&json!([{"name": "web", "image": "web"}])),
        )
        .await
        .ok();
    let path = format!("{DEPLOYMENTS}/web/scale");
    let scale = server.get(&path).await.ok();
    assert_eq!(
        (&scale["kind"], &scale["spec"]["replicas"]),
        (&json!("Scale"), &json!(1))
    );
    assert_eq!(scale["status"]["selector"], "app=web");
    let patched = server
        .merge(&path, &json!({"spec": {"replicas": 3}}))
        .await
        .ok();
    assert_eq!(patched["spec"]["replicas"], 3);
    let object = server.get(&format!("{DEPLOYMENTS}/web")).await.ok();
    assert_eq!(
        (
            &object["spec"]["replicas"],
            &object["metadata"]["generation"]
        ),
        (&json!(3), &json!(2))
    );
    let refused = server
        .merge(&path, &json!({"spec": {"replicas": -1}}))
        .await;
    assert_eq!(refused.code, 422);
    // The first Scale is out of date by now.
    assert_eq!(server.put(&path, &scale).await.code, 409);
}

#[tokio::test]
async fn apply_owns_fields_and_removes_what_is_no_longer_applied() {
    let server = Server::start().await;
    let path = format!("{MAPS}/shared");
    let config = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"}, "data": data});
    let first = server
        .apply(&path, "one", false, &config(json!({"a": "1", "b": "1"})))
        .await;
    assert_eq!(first.code, 201);
    let conflict = server
        .apply(&path, "two", false, &config(json!({"b": "2", "c": "2"})))
        .await;
    assert_eq!(conflict.code, 409);
    assert_eq!(
        conflict.message(),
        "Apply failed with 1 conflict: conflict with \"one\": .data.b"
    );
    assert_eq!(
        conflict.body["details"]["causes"][0]["reason"],
        "FieldManagerConflict"
    );
    server
        .apply(&path, "two", true, &config(json!({"b": "2", "c": "2"})))
        .await
        .ok();
    let less = server
        .apply(&path, "one", false, &config(json!({"a": "1"})))
        .await
        .ok();
    assert_eq!(less["data"], json!({"a": "1", "b": "2", "c": "2"}));
    let none = server
        .apply(&path, "two", false, &config(json!({})))
        .await
        .ok();
    assert_eq!(none["data"], json!({"a": "1"}));
    let again = server
        .apply(&path, "one", false, &config(json!({"a": "1"})))
        .await
        .ok();
    assert_eq!(
        again["metadata"]["resourceVersion"],
        none["metadata"]["resourceVersion"]
    );
}

#[tokio::test]
async fn apply_merges_lists_by_key_and_respects_other_writers() {
    let server = Server::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    let env = |pairs: &[(&str, &str)]| -> Value {
        pairs
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect()
    };
    let config = |pairs: &[(&str, &str)]| {
        deployment(&json!([{"name": "web", "image": "web", "env": env(pairs)}]))
    };
    let container = |object: &Value| object["spec"]["template"]["spec"]["containers"][0].clone();
    server
        .apply(&path, "one", false, &config(&[("A", "1"), ("B", "1")]))
        .await
        .ok();
    // Someone else sets a variable by a plain patch, and the image.
    let patch = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "web", "image": "web:2", "env": [{"name": "C", "value": "3"}]},
    ]}}}});
    let media = "application/strategic-merge-patch+json";
    server.send("PATCH", &path, media, &patch).await.ok();
    let conflict = server
        .apply(&path, "one", false, &config(&[("A", "1")]))
        .await;
    assert_eq!(
        conflict.message(),
        "Apply failed with 1 conflict: conflict with \"test\" using apps/v1: .spec.template.spec.containers[name=\"web\"].image"
    );
    let applied = server
        .apply(&path, "one", true, &config(&[("A", "1")]))
        .await
        .ok();
    let left = container(&applied);
    assert_eq!(left["image"], "web");
    let mut names: Vec<&str> = left["env"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["name"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["A", "C"]);
}

#[tokio::test]
async fn apply_needs_a_manager_and_an_object() {
    let server = Server::start().await;
    let path = format!("{MAPS}/one");
    let media = "application/apply-patch+yaml";
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}});
    let nobody = server.send("PATCH", &path, media, &config).await;
    assert_eq!(nobody.code, 422);
    let other = server
        .apply(
            &path,
            "one",
            false,
            &json!({"apiVersion": "v1", "kind": "Secret"}),
        )
        .await;
    assert_eq!(other.code, 400);
    let forced = server
        .send(
            "PATCH",
            &format!("{path}?force=true"),
            "application/merge-patch+json",
            &json!({}),
        )
        .await;
    assert_eq!(forced.code, 422);
}
