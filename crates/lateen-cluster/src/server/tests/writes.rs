use serde_json::json;

use super::{MAPS, Server, map};

#[tokio::test]
async fn a_new_object_gets_what_the_server_decides() {
    let server = Server::start().await;
    let created = server.post(MAPS, &map("one", &json!({"a": "1"}))).await;
    assert_eq!(created.code, 201);
    let metadata = &created.body["metadata"];
    assert_eq!(metadata["namespace"], "default");
    assert_eq!(metadata["uid"].as_str().unwrap().len(), 36);
    assert!(metadata["resourceVersion"].is_string() && metadata["creationTimestamp"].is_string());
    assert_eq!(metadata["managedFields"][0]["manager"], "test");
    assert_eq!(created.body["kind"], "ConfigMap");
    let read = server.get(&format!("{MAPS}/one")).await.ok();
    assert_eq!(read, created.body);
}

#[tokio::test]
async fn refusals_are_worded_as_kubernetes_words_them() {
    let server = Server::start().await;
    server.post(MAPS, &map("one", &json!({}))).await.ok();
    let elsewhere = json!({"metadata": {"name": "one", "namespace": "other"}});
    let old = json!({"metadata": {"name": "two", "resourceVersion": "1"}});
    let cases = [
        (
            MAPS,
            map("one", &json!({})),
            409,
            "configmaps \"one\" already exists",
        ),
        (
            "/api/v1/namespaces/none/configmaps",
            map("one", &json!({})),
            404,
            "namespaces \"none\" not found",
        ),
        (
            MAPS,
            elsewhere,
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            MAPS,
            old,
            400,
            "resourceVersion should not be set on objects to be created",
        ),
        (
            MAPS,
            json!({"metadata": {}}),
            422,
            "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required",
        ),
    ];
    for (path, object, code, message) in cases {
        let answer = server.post(path, &object).await;
        assert_eq!((answer.code, answer.message()), (code, message));
        assert_eq!(answer.body["kind"], "Status");
    }
}

#[tokio::test]
async fn generated_names_differ() {
    let server = Server::start().await;
    let object = json!({"metadata": {"generateName": "one-"}});
    let one = server.post(MAPS, &object).await.ok();
    let two = server.post(MAPS, &object).await.ok();
    let name = one["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("one-") && name.len() == 9, "{name}");
    assert_ne!(one["metadata"]["name"], two["metadata"]["name"]);
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let server = Server::start().await;
    let path = format!("{MAPS}?dryRun=All");
    server.post(&path, &map("one", &json!({}))).await.ok();
    assert_eq!(server.get(&format!("{MAPS}/one")).await.code, 404);
    server.post(MAPS, &map("one", &json!({}))).await.ok();
    let dry = format!("{MAPS}/one?dryRun=All");
    let changed = server.merge(&dry, &json!({"data": {"a": "1"}})).await.ok();
    assert_eq!(changed["data"]["a"], "1");
    server.delete(&dry, &json!({})).await.ok();
    let read = server.get(&format!("{MAPS}/one")).await.ok();
    assert!(read.get("data").is_none(), "{read}");
}

#[tokio::test]
async fn an_update_needs_the_revision_that_it_names() {
    let server = Server::start().await;
    let path = format!("{MAPS}/one");
    let first = server
        .post(MAPS, &map("one", &json!({"a": "1"})))
        .await
        .ok();
    let mut second = first.clone();
    second["data"]["a"] = json!("2");
    let second = server.put(&path, &second).await.ok();
    let late = server.put(&path, &first).await;
    assert_eq!(late.code, 409);
    assert_eq!(
        late.message(),
        "Operation cannot be fulfilled on configmaps \"one\": the object has been modified; please apply your changes to the latest version and try again"
    );
    // Without a revision the last writer wins, and what the server decides stays.
    let third = server
        .put(&path, &map("one", &json!({"a": "3"})))
        .await
        .ok();
    assert_eq!(third["metadata"]["uid"], second["metadata"]["uid"]);
    assert_eq!(
        third["metadata"]["creationTimestamp"],
        second["metadata"]["creationTimestamp"]
    );
}

#[tokio::test]
async fn a_write_that_changes_nothing_is_no_event() {
    let server = Server::start().await;
    let first = server
        .post(MAPS, &map("one", &json!({"a": "1"})))
        .await
        .ok();
    let again = server.put(&format!("{MAPS}/one"), &first).await.ok();
    assert_eq!(again, first);
    let patched = server
        .merge(&format!("{MAPS}/one"), &json!({"data": {"a": "1"}}))
        .await
        .ok();
    assert_eq!(
        patched["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
}

#[tokio::test]
async fn status_and_the_rest_are_written_apart() {
    let server = Server::start().await;
    let path = "/api/v1/nodes";
    let node = json!({"metadata": {"name": "n"}, "status": {"phase": "Running"}});
    server.post(path, &node).await.ok();
    let status = json!({"status": {"phase": "Running"}, "spec": {"unschedulable": true}});
    let changed = server.merge("/api/v1/nodes/n/status", &status).await.ok();
    assert_eq!(changed["status"]["phase"], "Running");
    assert!(changed["spec"]["unschedulable"].is_null(), "{changed}");
    let changed = server
        .merge(
            "/api/v1/nodes/n",
            &json!({"status": {"phase": "Pending"}, "spec": {"unschedulable": true}}),
        )
        .await
        .ok();
    assert_eq!(changed["status"]["phase"], "Running");
    assert_eq!(changed["spec"]["unschedulable"], true);
}

#[tokio::test]
async fn repeated_fields_are_told() {
    let server = Server::start().await;
    let text = r#"{"metadata":{"name":"one"},"data":{"a":"1","a":"2"}}"#;
    let strict = format!("{MAPS}?fieldValidation=Strict");
    let response = server
        .raw("POST", &strict, "application/json", text.to_owned())
        .await;
    assert_eq!(response.status(), 400);
    let response = server
        .raw("POST", MAPS, "application/json", text.to_owned())
        .await;
    assert_eq!(response.status(), 201);
    let warning = response.headers()["warning"].to_str().unwrap();
    assert_eq!(warning, "299 - \"duplicate field \\\"data.a\\\"\"");
}

#[tokio::test]
async fn a_namespace_that_goes_takes_nothing_new() {
    let server = Server::start().await;
    let lab = json!({"metadata": {"name": "lab"}});
    let created = server.post("/api/v1/namespaces", &lab).await.ok();
    assert_eq!(
        created["metadata"]["labels"]["kubernetes.io/metadata.name"],
        "lab"
    );
    let deleted = server
        .delete("/api/v1/namespaces/lab", &json!({}))
        .await
        .ok();
    assert_eq!(deleted["status"]["phase"], "Terminating");
    let path = "/api/v1/namespaces/lab/configmaps";
    let refused = server.post(path, &map("one", &json!({}))).await;
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.message(),
        "configmaps \"one\" is forbidden: unable to create new content in namespace lab because it is being terminated"
    );
    let again = server.delete("/api/v1/namespaces/lab", &json!({})).await;
    assert_eq!(again.code, 409);
    let empty = json!({"metadata": {"name": "lab"}, "spec": {"finalizers": []}});
    server
        .put("/api/v1/namespaces/lab/finalize", &empty)
        .await
        .ok();
    assert_eq!(server.get("/api/v1/namespaces/lab").await.code, 404);
    let kept = server
        .delete("/api/v1/namespaces/default", &json!({}))
        .await;
    assert_eq!(
        kept.message(),
        "namespaces \"default\" is forbidden: this namespace may not be deleted"
    );
}
