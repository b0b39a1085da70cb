//! Definitions and their objects through the API of a running cluster.

use serde_json::{Value, json};

use crate::testing::TestCluster;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const BOATS: &str = "/apis/sail.example/v1/namespaces/test/boats";

fn definition(plural: &str, kind: &str) -> Value {
    let version = |name: &str, field: &str, storage: bool| {
        json!({
            "name": name,
            "served": true,
            "storage": storage,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {
                "type": "object",
                "properties": {
                    "rig": {"type": "string", "default": "lateen"},
                    field: {"type": "string", "default": field},
                },
            }}}},
        })
    };
    let mut old = version("v1beta1", "old", false);
    old["deprecated"] = json!(true);
    json!({
        "metadata": {"name": format!("{plural}.sail.example")},
        "spec": {
            "group": "sail.example",
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind, "shortNames": ["bt"]},
            "versions": [old, version("v1", "new", true)],
        },
    })
}

fn established(definition: &Value) -> bool {
    condition(definition, "Established", "True")
}

fn condition(definition: &Value, type_: &str, status: &str) -> bool {
    let mut conditions = definition["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten();
    conditions.any(|condition| condition["type"] == type_ && condition["status"] == status)
}

async fn start() -> TestCluster {
    let cluster = TestCluster::start(json!({})).await;
    cluster
        .create(DEFINITIONS, &definition("boats", "Boat"))
        .await;
    cluster
        .wait(&format!("{DEFINITIONS}/boats.sail.example"), established)
        .await;
    cluster
}

#[tokio::test]
async fn an_established_definition_serves_its_objects_in_all_versions() {
    let cluster = start().await;
    let boat = cluster
        .create(
            BOATS,
            &json!({"metadata": {"name": "one"}, "spec": {"extra": 1}}),
        )
        .await;
    assert_eq!(
        (&boat["apiVersion"], &boat["kind"]),
        (&json!("sail.example/v1"), &json!("Boat"))
    );
    assert_eq!(boat["spec"], json!({"rig": "lateen", "new": "new"}));

    let old = "/apis/sail.example/v1beta1/namespaces/test/boats/one";
    let (code, boat, warnings) = cluster.send("GET", old, &Value::Null).await;
    assert_eq!(
        (code, &boat["spec"]),
        (200, &json!({"rig": "lateen", "old": "old"}))
    );
    assert_eq!(boat["apiVersion"], "sail.example/v1beta1");
    assert_eq!(
        warnings,
        [r#"299 - "sail.example/v1beta1 Boat is deprecated""#]
    );

    let group = cluster.get("/apis/sail.example").await;
    assert_eq!(group["preferredVersion"]["version"], "v1");
}

#[tokio::test]
async fn a_changed_schema_counts_at_once() {
    let cluster = start().await;
    let path = format!("{DEFINITIONS}/boats.sail.example");
    let mut definition = cluster.get(&path).await;
    definition["spec"]["versions"][1]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        ["rig"]["enum"] = json!(["lateen"]);
    let (code, answer, _) = cluster.send("PUT", &path, &definition).await;
    assert_eq!((code, &answer["metadata"]["generation"]), (200, &json!(2)));
    let square = json!({"metadata": {"name": "two"}, "spec": {"rig": "square"}});
    // The table follows the store within moments.
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while cluster
        .send("POST", &format!("{BOATS}?dryRun=All"), &square)
        .await
        .0
        != 422
    {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the old schema stays"
        );
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_deleted_definition_takes_its_objects_along_and_waits_for_their_finalizers() {
    let cluster = start().await;
    cluster
        .create(BOATS, &json!({"metadata": {"name": "free"}}))
        .await;
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.org/hold"]}});
    cluster.create(BOATS, &held).await;
    let path = format!("{DEFINITIONS}/boats.sail.example");
    assert_eq!(cluster.send("DELETE", &path, &json!({})).await.0, 200);
    let definition = cluster
        .wait(&path, |found| condition(found, "Terminating", "True"))
        .await;
    assert_eq!(
        definition["metadata"]["finalizers"],
        json!([super::FINALIZER])
    );
    cluster.wait(&format!("{BOATS}/free"), Value::is_null).await;

    let release = json!({"metadata": {"finalizers": null}});
    assert_eq!(
        cluster
            .send("PATCH", &format!("{BOATS}/held"), &release)
            .await
            .0,
        200
    );
    cluster.wait(&path, Value::is_null).await;
    assert_eq!(cluster.send("GET", BOATS, &Value::Null).await.0, 404);
}

#[tokio::test]
async fn names_are_given_back() {
    let cluster = start().await;
    cluster
        .create(DEFINITIONS, &definition("barges", "Barge"))
        .await;
    let second = format!("{DEFINITIONS}/barges.sail.example");
    cluster
        .wait(&second, |found| condition(found, "NamesAccepted", "False"))
        .await;
    let first = format!("{DEFINITIONS}/boats.sail.example");
    assert_eq!(cluster.send("DELETE", &first, &json!({})).await.0, 200);
    cluster.wait(&second, established).await;
}
