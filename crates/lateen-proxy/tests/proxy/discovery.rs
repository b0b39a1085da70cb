//! A discovery server whose resources a test sets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use lateen_xds::pb::envoy::config::core::v3::Node;
use lateen_xds::server::{Caller, Changes, Limits, Progress, Server, Session, Source, Variant};
use lateen_xds::{Names, Resource, ResourceType, json};
use serde_json::{Value, json as object};

/// A control plane with fixed resources for everyone.
#[derive(Clone, Default)]
pub struct Fixed(Arc<State>);

#[derive(Default)]
struct State {
    resources: Mutex<BTreeMap<(ResourceType, String), Resource>>,
    sessions: Mutex<Vec<Arc<Changes>>>,
    rejected: Mutex<Vec<String>>,
}

pub struct FixedSession {
    state: Arc<State>,
    changes: Arc<Changes>,
}

impl Fixed {
    /// Sets a resource, given as JSON without its `@type`.
    pub fn set(&self, kind: ResourceType, name: &str, mut value: Value) {
        value["@type"] = object!(kind.type_url());
        let body = json::to_any(&value).unwrap();
        let version = format!(
            "{:x}",
            body.value
                .iter()
                .fold(0u64, |sum, b| sum * 31 % 0xffff_fffb + u64::from(*b))
        );
        let resource = Resource {
            name: name.to_owned(),
            version,
            body,
        };
        self.0
            .resources
            .lock()
            .unwrap()
            .insert((kind, name.to_owned()), resource);
        for changes in self.0.sessions.lock().unwrap().iter() {
            changes.mark(kind, Names::Only(BTreeSet::from([name.to_owned()])));
        }
    }

    /// Why resources were rejected.
    pub fn rejected(&self) -> Vec<String> {
        self.0.rejected.lock().unwrap().clone()
    }
}

impl Source for Fixed {
    type Session = FixedSession;

    async fn open(&self, _: Caller, node: Node, _: Variant) -> Result<FixedSession, tonic::Status> {
        assert_eq!(node.id, "test-node");
        let changes = Arc::new(Changes::default());
        self.0.sessions.lock().unwrap().push(changes.clone());
        Ok(FixedSession {
            state: self.0.clone(),
            changes,
        })
    }
}

impl Session for FixedSession {
    fn resources(&self, kind: ResourceType, names: &Names) -> Vec<Resource> {
        let resources = self.state.resources.lock().unwrap();
        let of_kind = resources
            .iter()
            .filter(|((k, name), _)| *k == kind && names.contains(name));
        of_kind.map(|(_, resource)| resource.clone()).collect()
    }

    fn changes(&self) -> &Changes {
        &self.changes
    }

    fn version(&self) -> String {
        "test".to_owned()
    }

    fn progress(&self, _: ResourceType, progress: Progress<'_>) {
        if let Progress::Nacked { message, .. } = progress {
            self.state.rejected.lock().unwrap().push(message.to_owned());
        }
    }
}

/// Serves discovery on a Unix socket until the runtime is dropped.
pub fn serve(source: Fixed, path: &Path) -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let _ = std::fs::remove_file(path);
    let listener = runtime.block_on(async { tokio::net::UnixListener::bind(path).unwrap() });
    runtime.spawn(async move {
        Server::new(source, Limits::default())
            .serve_unix(listener)
            .await
    });
    runtime
}
