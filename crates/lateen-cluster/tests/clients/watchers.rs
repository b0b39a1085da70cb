use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, reflector, watcher as watch};
use kube::{Api, Client};
use serde_json::json;

use super::Running;

const DEADLINE: Duration = Duration::from_secs(20);

fn map(name: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map
}

/// Follows ConfigMaps through a first list, a change and a removal.
async fn follow(client: Client, config: watcher::Config) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    maps.create(&PostParams::default(), &map("one"))
        .await
        .unwrap();
    let config = config
        .labels("!managed")
        .fields("metadata.name!=kube-root-ca.crt");
    let mut events = watch(maps.clone(), config).boxed();
    let mut seen = Vec::new();
    let told = |event: Event<ConfigMap>| match event {
        // A streamed list does not announce itself.
        Event::Init => "init".to_owned(),
        Event::InitApply(map) => format!("initial {}", map.metadata.name.unwrap()),
        Event::InitDone => "done".to_owned(),
        Event::Apply(map) => format!("applied {}", map.metadata.name.unwrap()),
        Event::Delete(map) => format!("deleted {}", map.metadata.name.unwrap()),
    };
    let following = async {
        while let Some(event) = events.try_next().await.unwrap() {
            let text = told(event);
            seen.push(text.clone());
            match text.as_str() {
                "done" => {
                    maps.create(&PostParams::default(), &map("two"))
                        .await
                        .unwrap();
                }
                "applied two" => {
                    maps.delete("two", &DeleteParams::default()).await.unwrap();
                }
                "deleted two" => return,
                _ => {}
            }
        }
    };
    tokio::time::timeout(DEADLINE, following).await.unwrap();
    seen.retain(|text| text != "init");
    assert_eq!(seen, ["initial one", "done", "applied two", "deleted two"]);
}

#[tokio::test]
async fn watchers_follow_by_list_and_watch() {
    let running = Running::start().await;
    follow(running.remote().await, watcher::Config::default()).await;
    running.stop().await;
}

#[tokio::test]
async fn watchers_follow_by_a_streamed_list() {
    let running = Running::start().await;
    follow(
        running.cluster.client(),
        watcher::Config::default().streaming_lists(),
    )
    .await;
    running.stop().await;
}

#[tokio::test]
async fn a_reflector_holds_what_is_stored() {
    let running = Running::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(running.remote().await, "kube-public");
    let (store, writer) = reflector::store();
    let stream = watch(maps.clone(), watcher::Config::default().page_size(2))
        .reflect(writer)
        .applied_objects();
    let following = tokio::spawn(stream.for_each(|_| std::future::ready(())));
    for number in 0..5 {
        let name = format!("map-{number}");
        maps.create(&PostParams::default(), &map(&name))
            .await
            .unwrap();
    }
    let patch = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1"}});
    maps.patch("map-4", &PatchParams::apply("test"), &Patch::Apply(&patch))
        .await
        .unwrap();
    let complete = async {
        loop {
            let all = store.state();
            let named =
                |map: &&std::sync::Arc<ConfigMap>| map.metadata.name.as_deref() == Some("map-4");
            let patched = all.iter().find(named).is_some_and(|map| map.data.is_some());
            let maps = all.iter().filter(|map| {
                map.metadata
                    .name
                    .as_deref()
                    .is_some_and(|name| name.starts_with("map-"))
            });
            if maps.count() == 5 && patched {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, complete).await.unwrap();
    following.abort();
    running.stop().await;
}
