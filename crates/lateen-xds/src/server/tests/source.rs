//! A source whose resources the tests change.

use std::collections::BTreeMap;
use std::sync::Weak;

use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::util::pack_any;
use parking_lot::Mutex;

use super::*;

type Content = BTreeMap<ResourceType, BTreeMap<String, Resource>>;

/// What sessions serve, and what they were told.
#[derive(Default)]
pub(super) struct Store {
    content: Mutex<Content>,
    sessions: Mutex<Vec<Weak<Changes>>>,
    pub(super) log: Mutex<Vec<String>>,
}

pub(super) struct StoreSource(pub(super) Arc<Store>);

pub(super) struct StoreSession {
    store: Arc<Store>,
    changes: Arc<Changes>,
}

impl Source for StoreSource {
    type Session = StoreSession;

    async fn open(&self, _: Caller, node: Node, _: Variant) -> Result<StoreSession, Status> {
        if node.id.is_empty() {
            return Err(Status::invalid_argument("the node has no id"));
        }
        let changes = Arc::new(Changes::default());
        self.0.sessions.lock().push(Arc::downgrade(&changes));
        Ok(StoreSession {
            store: Arc::clone(&self.0),
            changes,
        })
    }
}

impl Session for StoreSession {
    fn resources(&self, kind: ResourceType, names: &Names) -> Vec<Resource> {
        let content = self.store.content.lock();
        let all = content.get(&kind).into_iter().flat_map(BTreeMap::values);
        all.filter(|resource| names.contains(&resource.name))
            .cloned()
            .collect()
    }

    fn changes(&self) -> &Changes {
        &self.changes
    }

    fn version(&self) -> String {
        "v".to_owned()
    }

    fn overdue(&self, missing: &[String]) {
        let line = format!("overdue {}", missing.join(" "));
        self.store.log.lock().push(line);
    }

    fn progress(&self, kind: ResourceType, progress: Progress<'_>) {
        let line = match progress {
            Progress::Sent {
                resources, removed, ..
            } => format!("{kind} sent {resources} {removed}"),
            Progress::Acked { .. } => format!("{kind} acked"),
            Progress::Nacked { message, .. } => format!("{kind} nacked {message}"),
        };
        self.store.log.lock().push(line);
    }
}

impl Store {
    /// Puts resources at a version, or removes them with version 0, and marks them.
    pub(super) fn put(&self, changes: &[(ResourceType, &str, u32)]) {
        for (kind, name, version) in changes {
            let mut content = self.content.lock();
            let named = content.entry(*kind).or_default();
            if *version == 0 {
                named.remove(*name);
            } else {
                named.insert((*name).to_owned(), resource(*kind, name, *version));
            }
        }
        for (kind, name, _) in changes {
            self.mark(*kind, name);
        }
    }

    /// Puts a resource as it is, and marks it.
    pub(super) fn put_resource(&self, kind: ResourceType, resource: Resource) {
        let name = resource.name.clone();
        let mut content = self.content.lock();
        let named = content.entry(kind).or_default();
        named.insert(name.clone(), resource);
        drop(content);
        self.mark(kind, &name);
    }

    fn mark(&self, kind: ResourceType, name: &str) {
        for session in self.sessions.lock().iter().filter_map(Weak::upgrade) {
            session.mark(kind, Names::from_iter([name]));
        }
    }
}

/// A resource whose body says what it is.
pub(super) fn resource(kind: ResourceType, name: &str, version: u32) -> Resource {
    let eds = ClusterDiscoveryType::Type(DiscoveryType::Eds.into());
    let cluster = Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(eds),
        ..Cluster::default()
    };
    let mut body = pack_any(cluster);
    body.type_url = kind.type_url().to_owned();
    Resource {
        name: name.to_owned(),
        version: version.to_string(),
        body,
    }
}

/// A server on loopback, and a client of it.
pub(super) async fn start(limits: Limits) -> (Arc<Store>, Client) {
    let store = Arc::new(Store::default());
    let server = Server::new(StoreSource(Arc::clone(&store)), limits);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { server.serve_tcp(listener).await });
    (
        store,
        AggregatedDiscoveryServiceClient::connect(address)
            .await
            .unwrap(),
    )
}

/// What streams under test say of their client.
pub(super) fn node() -> Node {
    Node {
        id: "one".to_owned(),
        ..Node::default()
    }
}
