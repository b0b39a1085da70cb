use serde_json::json;

use super::{MAPS, Server, map};

#[tokio::test]
async fn a_plain_object_goes_at_once() {
    let server = Server::start().await;
    let created = server.post(MAPS, &map("one", &json!({}))).await.ok();
    let answer = server.delete(&format!("{MAPS}/one"), &json!({})).await.ok();
    assert_eq!(answer["status"], "Success");
    assert_eq!(answer["details"]["uid"], created["metadata"]["uid"]);
    let again = server.delete(&format!("{MAPS}/one"), &json!({})).await;
    assert_eq!(again.message(), "configmaps \"one\" not found");
}

#[tokio::test]
async fn finalizers_hold_an_object_until_they_are_gone() {
    let server = Server::start().await;
    let path = format!("{MAPS}/one");
    let mut object = map("one", &json!({}));
    object["metadata"]["finalizers"] = json!(["example.org/hold"]);
    server.post(MAPS, &object).await.ok();
    let held = server.delete(&path, &json!({})).await.ok();
    assert_eq!(held["metadata"]["deletionGracePeriodSeconds"], 0);
    let more = json!({"metadata": {"finalizers": ["example.org/hold", "example.org/more"]}});
    let refused = server.merge(&path, &more).await;
    assert_eq!(refused.code, 422);
    server
        .merge(&path, &json!({"metadata": {"finalizers": null}}))
        .await
        .ok();
    assert_eq!(server.get(&path).await.code, 404);
}

#[tokio::test]
async fn propagation_is_left_to_the_garbage_collector_as_a_finalizer() {
    let server = Server::start().await;
    let check = async |policy: &str, finalizer: &str| {
        server
            .post(MAPS, &map(finalizer_name(policy), &json!({})))
            .await
            .ok();
        let path = format!("{MAPS}/{}", finalizer_name(policy));
        let options = json!({"propagationPolicy": policy});
        let held = server.delete(&path, &options).await.ok();
        assert_eq!(held["metadata"]["finalizers"], json!([finalizer]));
    };
    check("Foreground", "foregroundDeletion").await;
    check("Orphan", "orphan").await;
    let unknown = json!({"propagationPolicy": "Sideways"});
    let refused = server.delete(&format!("{MAPS}/orphan"), &unknown).await;
    assert_eq!(refused.code, 400);
}

fn finalizer_name(policy: &str) -> &'static str {
    if policy == "Orphan" {
        "orphan"
    } else {
        "foreground"
    }
}

#[tokio::test]
async fn a_running_pod_is_given_its_grace_period() {
    let server = Server::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({
        "metadata": {"name": "web"},
        "spec": {
            "terminationGracePeriodSeconds": 7,
            "containers": [{"name": "web", "image": "web"}],
        },
    });
    // Without a node there is nothing to wait for.
    server.post(pods, &pod).await.ok();
    server.delete(&format!("{pods}/web"), &json!({})).await.ok();
    assert_eq!(server.get(&format!("{pods}/web")).await.code, 404);

    server.post(pods, &pod).await.ok();
    let binding = json!({"target": {"kind": "Node", "name": "n"}});
    let path = format!("{pods}/web/binding");
    assert_eq!(server.post(&path, &binding).await.code, 201);
    let twice = server.post(&path, &binding).await;
    assert_eq!(
        twice.message(),
        "Operation cannot be fulfilled on pods/binding \"web\": pod web is already assigned to node \"n\""
    );
    let marked = server.delete(&format!("{pods}/web"), &json!({})).await.ok();
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 7);
    assert_eq!(marked["spec"]["nodeName"], "n");
    let shorter = json!({"gracePeriodSeconds": 2});
    let marked = server.delete(&format!("{pods}/web"), &shorter).await.ok();
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 2);
    let longer = json!({"gracePeriodSeconds": 20});
    let marked = server.delete(&format!("{pods}/web"), &longer).await.ok();
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 2);
    let now = json!({"gracePeriodSeconds": 0});
    server.delete(&format!("{pods}/web"), &now).await.ok();
    assert_eq!(server.get(&format!("{pods}/web")).await.code, 404);
}

#[tokio::test]
async fn preconditions_guard_a_delete() {
    let server = Server::start().await;
    let created = server.post(MAPS, &map("one", &json!({}))).await.ok();
    let path = format!("{MAPS}/one");
    let other = json!({"preconditions": {"uid": "another"}});
    assert_eq!(server.delete(&path, &other).await.code, 409);
    let revision = json!({"preconditions": {"resourceVersion": "1"}});
    assert_eq!(server.delete(&path, &revision).await.code, 409);
    let right = json!({"preconditions": {"uid": created["metadata"]["uid"]}});
    server.delete(&path, &right).await.ok();
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let server = Server::start().await;
    for (name, team) in [("one", "a"), ("two", "b"), ("three", "a")] {
        let mut object = map(name, &json!({}));
        object["metadata"]["labels"] = json!({"team": team});
        server.post(MAPS, &object).await.ok();
    }
    let path = format!("{MAPS}?labelSelector=team%3Da");
    let deleted = server.delete(&path, &json!({})).await.ok();
    assert_eq!(deleted["items"].as_array().unwrap().len(), 2);
    let left = server.get(MAPS).await.ok();
    assert_eq!(left["items"][0]["metadata"]["name"], "two");
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
}
