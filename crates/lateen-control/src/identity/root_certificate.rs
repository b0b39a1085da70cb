//! The ConfigMap `istio-ca-root-cert` of every namespace: by it proxies know the control plane before they have an
//! identity.

use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, watcher};
use kube::{Client, ResourceExt as _};
use serde_json::json;

const NAME: &str = "istio-ca-root-cert";
const KEY: &str = "root-cert.pem";
const LABEL: (&str, &str) = ("istio.io/config", "true");
/// Namespaces of the system, which get none.
const SYSTEM: [&str; 4] = [
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "local-path-storage",
];
/// How long to wait after a failure.
const RETRY: Duration = Duration::from_millis(500);

/// Keeps the ConfigMaps as they should be, for ever.
pub(crate) async fn keep(client: Client, roots: String) {
    tokio::join!(
        follow_namespaces(&client, &roots),
        follow_maps(&client, &roots)
    );
}

/// Every namespace that appears gets one.
async fn follow_namespaces(client: &Client, roots: &str) {
    let all: Api<Namespace> = Api::all(client.clone());
    let mut events = std::pin::pin!(watcher(all, watcher::Config::default()));
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(namespace) | watcher::Event::InitApply(namespace)) => {
                put(client, &namespace, roots).await;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot watch namespaces for {NAME}");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// One that is changed or deleted comes back.
async fn follow_maps(client: &Client, roots: &str) {
    let all: Api<ConfigMap> = Api::all(client.clone());
    let only = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
    let mut events = std::pin::pin!(watcher(all, only));
    while let Some(event) = events.next().await {
        let map = match event {
            Ok(watcher::Event::Apply(map) | watcher::Event::InitApply(map))
                if holds(&map, roots) =>
            {
                continue;
            }
            Ok(
                watcher::Event::Apply(map)
                | watcher::Event::InitApply(map)
                | watcher::Event::Delete(map),
            ) => map,
            Ok(_) => continue,
            Err(error) => {
                tracing::warn!(%error, "cannot watch {NAME}");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let name = map.namespace().unwrap_or_default();
        if let Ok(Some(namespace)) = namespaces.get_opt(&name).await {
            put(client, &namespace, roots).await;
        }
    }
}

fn holds(map: &ConfigMap, roots: &str) -> bool {
    let data = map.data.as_ref();
    data.and_then(|data| data.get(KEY)).map(String::as_str) == Some(roots)
}

/// Puts the ConfigMap into a namespace, unless it is one of the system or ends.
async fn put(client: &Client, namespace: &Namespace, roots: &str) {
    let name = namespace.name_any();
    if SYSTEM.contains(&name.as_str()) || namespace.metadata.deletion_timestamp.is_some() {
        return;
    }
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &name);
    while let Err(error) = write(&api, roots).await {
        match error {
            // The namespace has gone or ends, or somebody else wrote: the watches tell.
            kube::Error::Api(status)
                if matches!(status.code, 404 | 409) || status.message.contains("terminated") =>
            {
                tracing::debug!(namespace = name, %status, "{NAME} not written");
                return;
            }
            error => {
                tracing::warn!(namespace = name, %error, "cannot write {NAME}");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn write(api: &Api<ConfigMap>, roots: &str) -> Result<(), kube::Error> {
    match api.get_opt(NAME).await? {
        Some(map) if holds(&map, roots) => Ok(()),
        Some(_) => {
            let patch = Patch::Merge(json!({"data": {KEY: roots}}));
            api.patch(NAME, &PatchParams::default(), &patch)
                .await
                .map(drop)
        }
        None => {
            let map = ConfigMap {
                metadata: ObjectMeta {
                    name: Some(NAME.to_owned()),
                    labels: Some([(LABEL.0.to_owned(), LABEL.1.to_owned())].into()),
                    ..ObjectMeta::default()
                },
                data: Some([(KEY.to_owned(), roots.to_owned())].into()),
                ..ConfigMap::default()
            };
            api.create(&PostParams::default(), &map).await.map(drop)
        }
    }
}
