//! Virtual services that refer to others.

use lateen_api::{VirtualService, decode};
use lateen_mesh::{Change, Index, resources};
use lateen_xds::ResourceType;
use serde_json::{Value, json};

use crate::{istio, mesh, names, sidecar};

#[test]
fn delegates_continue_the_rules_that_refer_to_them() {
    let mut index = mesh();
    let named = |name: &str, namespace: &str, spec: Value| {
        let mut object = istio("VirtualService", name, spec);
        object["metadata"]["namespace"] = json!(namespace);
        let object: VirtualService = decode(&object).expect("a valid virtual service");
        Change::VirtualService(object)
    };
    let clusters = |index: &Index| {
        let found = resources(index, &sidecar(), ResourceType::Route, &names(&["8080"]));
        String::from_utf8_lossy(&found[0].body.value).into_owned()
    };
    index.apply(named(
        "root",
        "shop",
        json!({"hosts": ["a"], "http": [
            {"match": [{"uri": {"prefix": "/x"}}], "delegate": {"name": "part", "namespace": "other"}},
            {"route": [{"destination": {"host": "a"}}]},
        ]}),
    ));
    assert!(!clusters(&index).contains("b.other.svc"));
    let part = |prefix: &str| {
        let rule = json!({
            "match": [{"uri": {"prefix": prefix}}], "route": [{"destination": {"host": "b"}}],
        });
        named("part", "other", json!({"http": [rule]}))
    };
    assert!(!index.apply(part("/x/y")).is_empty());
    assert!(clusters(&index).contains("b.other.svc"));
    index.apply(part("/z"));
    assert!(!clusters(&index).contains("b.other.svc"));
}
