use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::super::full;
use super::{MAPS, Server, map};
use crate::user::User;

async fn accepting(server: &Server, path: &str, accept: &str) -> Value {
    let request = Request::get(path)
        .header("accept", accept)
        .body(full(""))
        .unwrap();
    let response = server
        .api
        .clone()
        .handle(request, Some(User::admin()))
        .await;
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&bytes)
        .unwrap_or_else(|_error| Value::String(String::from_utf8_lossy(&bytes).into_owned()))
}

#[tokio::test]
async fn pages_together_are_the_list() {
    let server = Server::start().await;
    for number in 0..7 {
        server
            .post(MAPS, &map(&format!("map-{number}"), &json!({})))
            .await
            .ok();
    }
    let (mut names, mut next, mut revisions) = (Vec::new(), String::new(), Vec::new());
    loop {
        let path = format!("{MAPS}?limit=3&continue={next}");
        let page = server.get(&path).await.ok();
        for item in page["items"].as_array().unwrap() {
            names.push(item["metadata"]["name"].as_str().unwrap().to_owned());
        }
        revisions.push(page["metadata"]["resourceVersion"].clone());
        // What changes meanwhile does not move the list's revision.
        server
            .merge(
                &format!("{MAPS}/map-0"),
                &json!({"data": {"n": names.len().to_string()}}),
            )
            .await
            .ok();
        match page["metadata"]["continue"].as_str() {
            Some(token) => next = token.to_owned(),
            None => break,
        }
    }
    let expected: Vec<String> = (0..7).map(|number| format!("map-{number}")).collect();
    assert_eq!(names, expected);
    assert_eq!(revisions, vec![revisions[0].clone(); 3]);
    assert_eq!(server.get(&format!("{MAPS}?continue=x")).await.code, 400);
}

#[tokio::test]
async fn selectors_choose_by_labels_and_fields() {
    let server = Server::start().await;
    let mut one = map("one", &json!({}));
    one["metadata"]["labels"] = json!({"team": "a"});
    server.post(MAPS, &one).await.ok();
    server.post(MAPS, &map("two", &json!({}))).await.ok();
    let check = async |query: &str, expected: &[&str]| {
        let list = server.get(&format!("{MAPS}?{query}")).await.ok();
        let names: Vec<&str> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["metadata"]["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, expected, "{query}");
    };
    check("labelSelector=team%3Da", &["one"]).await;
    check("labelSelector=%21team", &["two"]).await;
    check("fieldSelector=metadata.name%3Dtwo", &["two"]).await;
    check(
        "fieldSelector=metadata.name%21%3Dtwo,metadata.namespace%3Ddefault",
        &["one"],
    )
    .await;
    let unknown = server
        .get(&format!("{MAPS}?fieldSelector=data.a%3Db"))
        .await;
    assert_eq!(
        unknown.message(),
        "\"data.a\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
    );
}

#[tokio::test]
async fn lists_come_in_the_form_that_is_asked_for() {
    let server = Server::start().await;
    server
        .post(MAPS, &map("one", &json!({"a": "1"})))
        .await
        .ok();
    let table = accepting(
        &server,
        MAPS,
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    )
    .await;
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["rows"][0]["cells"][0], "one");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let partial = accepting(
        &server,
        MAPS,
        "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
    )
    .await;
    assert_eq!(partial["kind"], "PartialObjectMetadataList");
    assert!(partial["items"][0].get("data").is_none());
    // Protobuf answers are not given; clients name JSON as their second choice.
    let plain = accepting(
        &server,
        MAPS,
        "application/vnd.kubernetes.protobuf,application/json",
    )
    .await;
    assert_eq!(plain["kind"], "ConfigMapList");
    let refused = accepting(&server, MAPS, "application/vnd.kubernetes.protobuf").await;
    assert_eq!(refused["code"], 406);
    let yaml = accepting(&server, &format!("{MAPS}/one"), "application/yaml").await;
    assert!(
        yaml.as_str().unwrap().contains("kind: ConfigMap\n"),
        "{yaml}"
    );
}

#[tokio::test]
async fn both_forms_of_discovery_name_the_same_resources() {
    let server = Server::start().await;
    let accept =
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let aggregated = accepting(&server, "/apis", accept).await;
    let mut compared = 0;
    for group in aggregated["items"].as_array().unwrap() {
        let name = group["metadata"]["name"].as_str().unwrap();
        for version in group["versions"].as_array().unwrap() {
            let path = format!("/apis/{name}/{}", version["version"].as_str().unwrap());
            let legacy = server.get(&path).await.ok();
            let plural = |resource: &Value| resource["resource"].clone();
            let one: Vec<Value> = version["resources"]
                .as_array()
                .unwrap()
                .iter()
                .map(plural)
                .collect();
            let two: Vec<Value> = legacy["resources"]
                .as_array()
                .unwrap()
                .iter()
                .map(|resource| resource["name"].clone())
                .filter(|name| !name.as_str().unwrap().contains('/'))
                .collect();
            assert_eq!(one, two, "{path}");
            compared += one.len();
            let document = server.get(&format!("/openapi/v3{path}")).await.ok();
            assert!(
                document["paths"]
                    .as_object()
                    .is_some_and(|paths| !paths.is_empty())
            );
        }
    }
    assert!(compared > 10, "{compared}");
    let core = server.get("/api/v1").await.ok();
    let log = core["resources"]
        .as_array()
        .unwrap()
        .iter()
        .any(|entry| entry["name"] == "pods/log");
    assert!(log);
}

#[tokio::test]
async fn paths_that_nothing_serves_are_not_found() {
    let server = Server::start().await;
    for path in [
        "/apis/none.example/v1/things",
        "/api/v1/things",
        "/api/v1/namespaces/default/configmaps/a/b/c",
        "/nothing",
        "/api/v1/namespaces/default/nodes",
    ] {
        assert_eq!(server.get(path).await.code, 404, "{path}");
    }
    let refused = server
        .send(
            "POST",
            &format!("{MAPS}/one"),
            "application/json",
            &json!({}),
        )
        .await;
    assert_eq!(refused.code, 405);
}
