//! What a cache makes of watches and of answers to its own writes.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::Body;

use super::*;

/// No test here reaches a server.
fn cache() -> Arc<Cache<ConfigMap>> {
    let service = tower::service_fn(|_: http::Request<Body>| async {
        Err::<http::Response<Body>, _>(std::io::Error::other("no server"))
    });
    Cache::new(Client::new(service, "default"), |map| {
        map.metadata.labels.as_ref()?.get("group").cloned()
    })
}

fn object(name: &str, uid: &str, version: u64, group: &str) -> ConfigMap {
    serde_json::from_value(serde_json::json!({
        "metadata": {"namespace": "n", "name": name, "uid": uid,
            "resourceVersion": version.to_string(), "labels": {"group": group}},
    }))
    .unwrap()
}

fn versions(cache: &Cache<ConfigMap>) -> Vec<u64> {
    let all = cache.in_namespace("n");
    all.iter().map(|map| version_of(&map.metadata)).collect()
}

#[tokio::test]
async fn an_object_never_goes_back() {
    let cache = cache();
    cache.put(object("a", "1", 5, "x"), false);
    cache.put(object("a", "1", 4, "y"), true);
    assert_eq!(versions(&cache), [5]);
    assert_eq!(cache.indexed("x").len(), 1);
    cache.put(object("a", "1", 6, "y"), true);
    assert!(cache.indexed("x").is_empty());
    assert_eq!(cache.indexed("y").len(), 1);
}

#[tokio::test]
async fn the_answer_to_a_write_does_not_revive_a_deleted_object() {
    let cache = cache();
    cache.put(object("a", "1", 5, "x"), true);
    cache.remove(&object("a", "1", 7, "x"));
    cache.put(object("a", "1", 6, "x"), false);
    assert!(versions(&cache).is_empty());
    cache.put(object("a", "2", 8, "x"), false);
    assert_eq!(versions(&cache), [8]);
    cache.remove(&object("a", "1", 7, "x"));
    assert_eq!(versions(&cache), [8], "another object of that name");
}

#[tokio::test]
async fn a_new_list_drops_what_it_lacks_but_not_later_writes() {
    let cache = cache();
    cache.put(object("a", "1", 5, "x"), true);
    cache.put(object("b", "2", 9, "x"), false);
    cache.replace_all(vec![object("c", "3", 7, "x")]);
    assert_eq!(versions(&cache), [9, 7]);
}
