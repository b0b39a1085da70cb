use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{Body, MAPS, Server, map};

/// A watch as its client reads it.
struct Watch {
    body: Body,
    read: Vec<u8>,
}

impl Watch {
    async fn open(server: &Server, query: &str) -> Self {
        let path = format!("{MAPS}?watch=true&{query}");
        let response = server.raw("GET", &path, "", String::new()).await;
        assert_eq!(response.status(), 200);
        Self {
            body: response.into_body(),
            read: Vec::new(),
        }
    }

    /// The next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Value> {
        let deadline = Duration::from_secs(10);
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(deadline, self.body.frame())
                .await
                .unwrap();
            self.read.extend(frame?.unwrap().into_data().unwrap());
        }
    }

    /// The next event as `TYPE name`.
    async fn short(&mut self) -> String {
        let event = self.next().await.expect("an event");
        format!(
            "{} {}",
            event["type"].as_str().unwrap(),
            event["object"]["metadata"]["name"].as_str().unwrap_or("-")
        )
    }
}

fn labelled(name: &str, team: &str) -> Value {
    let mut object = map(name, &json!({}));
    object["metadata"]["labels"] = json!({"team": team});
    object
}

#[tokio::test]
async fn a_watch_tells_changes_in_order() {
    let server = Server::start().await;
    let listed = server.get(MAPS).await.ok();
    let revision = listed["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    server.post(MAPS, &map("one", &json!({}))).await.ok();
    let mut watch = Watch::open(&server, &format!("resourceVersion={revision}")).await;
    assert_eq!(watch.short().await, "ADDED one");
    server
        .merge(&format!("{MAPS}/one"), &json!({"data": {"a": "1"}}))
        .await
        .ok();
    assert_eq!(watch.short().await, "MODIFIED one");
    // Other resources are not seen.
    server
        .post(
            "/api/v1/namespaces/default/secrets",
            &json!({"metadata": {"name": "s"}}),
        )
        .await
        .ok();
    server.delete(&format!("{MAPS}/one"), &json!({})).await.ok();
    let event = watch.next().await.unwrap();
    assert_eq!(event["type"], "DELETED");
    let gone: u64 = event["object"]["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(gone, server.api.store().revision());
}

#[tokio::test]
async fn a_selector_makes_leaving_a_deletion() {
    let server = Server::start().await;
    server.post(MAPS, &labelled("one", "a")).await.ok();
    let mut watch = Watch::open(&server, "labelSelector=team%3Da").await;
    assert_eq!(watch.short().await, "ADDED one");
    let team = |team: &str| json!({"metadata": {"labels": {"team": team}}});
    server.merge(&format!("{MAPS}/one"), &team("b")).await.ok();
    let event = watch.next().await.unwrap();
    assert_eq!(event["type"], "DELETED");
    assert_eq!(event["object"]["metadata"]["labels"]["team"], "a");
    server.merge(&format!("{MAPS}/one"), &team("a")).await.ok();
    assert_eq!(watch.short().await, "ADDED one");
}

#[tokio::test]
async fn initial_events_end_with_a_marked_bookmark() {
    let server = Server::start().await;
    for name in ["one", "two"] {
        server.post(MAPS, &map(name, &json!({}))).await.ok();
    }
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = Watch::open(&server, query).await;
    assert_eq!(watch.short().await, "ADDED one");
    assert_eq!(watch.short().await, "ADDED two");
    let mark = watch.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(
        mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    server.post(MAPS, &map("three", &json!({}))).await.ok();
    assert_eq!(watch.short().await, "ADDED three");
    let path = format!("{MAPS}?watch=true&sendInitialEvents=true");
    assert_eq!(server.get(&path).await.code, 422);
}

#[tokio::test]
async fn a_watch_ends_in_time_with_a_bookmark() {
    let server = Server::start().await;
    let now = server.api.store().revision();
    let query = format!("resourceVersion={now}&allowWatchBookmarks=true&timeoutSeconds=1");
    let mut watch = Watch::open(&server, &query).await;
    let mark = watch.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(
        mark["object"]["metadata"]["resourceVersion"],
        now.to_string()
    );
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn a_revision_that_is_too_old_is_an_error_in_the_stream() {
    let server = Server::start().await;
    // More changes than the ring holds, past the handler to save time.
    let key = crate::store::Key {
        resource: "configmaps".into(),
        namespace: "default".to_owned(),
        name: String::new(),
    };
    let writes = (0..4200).map(|number| {
        let key = crate::store::Key {
            name: format!("map-{number}"),
            ..key.clone()
        };
        server
            .api
            .store()
            .create(key, map(&format!("map-{number}"), &json!({})))
    });
    for written in futures_util::future::join_all(writes).await {
        written.unwrap();
    }
    let mut watch = Watch::open(&server, "resourceVersion=2").await;
    let event = watch.next().await.unwrap();
    assert_eq!(event["type"], "ERROR");
    assert_eq!(
        (&event["object"]["code"], &event["object"]["reason"]),
        (&json!(410), &json!("Expired"))
    );
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn watches_end_when_the_server_stops() {
    let server = Server::start().await;
    let mut watch = Watch::open(&server, "resourceVersion=1").await;
    server.api.stop();
    assert_eq!(watch.next().await, None);
}
