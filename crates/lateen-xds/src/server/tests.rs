//! The protocol over real sockets, with a source whose resources the tests change.

use std::collections::BTreeMap;
use std::sync::Weak;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::google::rpc::Status as RpcStatus;
use envoy_types::util::pack_any;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

mod order;

use super::*;
use ResourceType::{Cluster as Cds, Endpoint as Eds, Listener as Lds, Route as Rds};

type Content = BTreeMap<ResourceType, BTreeMap<String, Resource>>;

#[derive(Default)]
struct Store {
    content: Mutex<Content>,
    sessions: Mutex<Vec<Weak<Changes>>>,
    log: Mutex<Vec<String>>,
}

struct StoreSource(Arc<Store>);

struct StoreSession {
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
    fn put(&self, changes: &[(ResourceType, &str, u32)]) {
        for (kind, name, version) in changes {
            let mut content = self.content.lock();
            let named = content.entry(*kind).or_default();
            if *version == 0 {
                named.remove(*name);
            } else {
                named.insert((*name).to_owned(), resource(*kind, name, *version));
            }
        }
        for session in self.sessions.lock().iter().filter_map(Weak::upgrade) {
            for (kind, name, _) in changes {
                session.mark(*kind, Names::from_iter([*name]));
            }
        }
    }
}

fn resource(kind: ResourceType, name: &str, version: u32) -> Resource {
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

async fn start(
    limits: Limits,
) -> (
    Arc<Store>,
    AggregatedDiscoveryServiceClient<tonic::transport::Channel>,
) {
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

/// A delta stream under test.
struct DeltaClient {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl DeltaClient {
    async fn open(
        client: &mut AggregatedDiscoveryServiceClient<tonic::transport::Channel>,
    ) -> Self {
        let (requests, sent) = mpsc::channel(16);
        let responses = client
            .delta_aggregated_resources(ReceiverStream::new(sent))
            .await
            .unwrap();
        Self {
            requests,
            responses: responses.into_inner(),
        }
    }

    async fn ask(
        &self,
        kind: ResourceType,
        subscribe: &[&str],
        unsubscribe: &[&str],
        held: &[(&str, &str)],
    ) {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let request = DeltaDiscoveryRequest {
            node: Some(node()),
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: owned(subscribe),
            resource_names_unsubscribe: owned(unsubscribe),
            initial_resource_versions: held
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect(),
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(request).await.unwrap();
    }

    /// The next response, acknowledged, as `TYPE +name@version -name`.
    async fn next(&mut self) -> String {
        let response = self.next_raw().await;
        let ack = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(ack).await.unwrap();
        let mut line = ResourceType::from_type_url(&response.type_url)
            .unwrap()
            .to_string();
        for resource in &response.resources {
            line.push_str(&format!(" +{}@{}", resource.name, resource.version));
        }
        for name in &response.removed_resources {
            line.push_str(&format!(" -{name}"));
        }
        line
    }

    async fn next_raw(&mut self) -> DeltaDiscoveryResponse {
        let message = tokio::time::timeout(Duration::from_secs(5), self.responses.message());
        message
            .await
            .expect("a response within 5 s")
            .unwrap()
            .expect("an open stream")
    }
}

impl DeltaClient {
    /// Nothing more comes for a while.
    async fn silence(&mut self) {
        let message = tokio::time::timeout(Duration::from_millis(100), self.responses.message());
        let message = message.await;
        assert!(message.is_err(), "unexpected: {message:?}");
    }

    /// Acknowledges a response, or rejects it.
    async fn answer(&self, response: &DeltaDiscoveryResponse, error: Option<&str>) {
        let error_detail = error.map(|message| RpcStatus {
            code: 13,
            message: message.to_owned(),
            ..RpcStatus::default()
        });
        let answer = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail,
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(answer).await.unwrap();
    }
}

fn node() -> Node {
    Node {
        id: "one".to_owned(),
        ..Node::default()
    }
}

#[tokio::test]
async fn delta_serves_wildcards_names_and_changes_in_order() {
    let (store, mut client) = start(Limits::default()).await;
    store.put(&[
        (Cds, "a", 1),
        (Cds, "b", 1),
        (Eds, "a", 1),
        (Lds, "l", 1),
        (Rds, "r", 1),
    ]);
    let mut stream = DeltaClient::open(&mut client).await;
    stream.ask(Cds, &[], &[], &[]).await;
    assert_eq!(stream.next().await, "cluster +a@1 +b@1");
    stream.ask(Eds, &["a", "b"], &[], &[]).await;
    assert_eq!(stream.next().await, "endpoint +a@1 -b");
    stream.ask(Lds, &["*"], &[], &[]).await;
    assert_eq!(stream.next().await, "listener +l@1");
    stream.ask(Rds, &["r"], &[], &[]).await;
    assert_eq!(stream.next().await, "route +r@1");
    // A change of everything: cluster first with its unchanged endpoint, removals last.
    store.put(&[(Rds, "r", 2), (Lds, "l", 2), (Cds, "b", 0), (Cds, "a", 2)]);
    assert_eq!(stream.next().await, "cluster +a@2");
    assert_eq!(stream.next().await, "endpoint +a@1");
    assert_eq!(stream.next().await, "listener +l@2");
    assert_eq!(stream.next().await, "route +r@2");
    assert_eq!(stream.next().await, "cluster -b");
    // What nobody subscribed to, and what did not change in content, is not sent.
    store.put(&[(Rds, "other", 1), (Cds, "a", 2), (Lds, "l", 3)]);
    assert_eq!(stream.next().await, "listener +l@3");
    // A resource that comes into being is sent to who waits for it.
    store.put(&[(Eds, "b", 1)]);
    assert_eq!(stream.next().await, "endpoint +b@1");
}

#[tokio::test]
async fn delta_subscription_rules() {
    let (store, mut client) = start(Limits::default()).await;
    store.put(&[(Cds, "a", 1), (Rds, "r", 1), (Rds, "s", 1)]);
    let mut stream = DeltaClient::open(&mut client).await;
    stream.ask(Rds, &["r"], &[], &[]).await;
    assert_eq!(stream.next().await, "route +r@1");
    // Asked for again: sent again.
    stream.ask(Rds, &["r"], &[], &[]).await;
    assert_eq!(stream.next().await, "route +r@1");
    // Unsubscribed: no longer sent.
    stream.ask(Rds, &["s"], &["r"], &[]).await;
    assert_eq!(stream.next().await, "route +s@1");
    store.put(&[(Rds, "r", 2), (Rds, "s", 2)]);
    assert_eq!(stream.next().await, "route +s@2");
    // Unsubscribed while a wildcard covers it: answered with what it is.
    stream.ask(Cds, &["*"], &[], &[]).await;
    assert_eq!(stream.next().await, "cluster +a@1");
    stream.ask(Cds, &[], &["a", "gone"], &[]).await;
    assert_eq!(stream.next().await, "cluster +a@1 -gone");
    // The wildcard itself given back: nothing more comes.
    stream.ask(Cds, &[], &["*"], &[]).await;
    stream.ask(Rds, &["s"], &[], &[]).await;
    assert_eq!(stream.next().await, "route +s@2");
    store.put(&[(Cds, "a", 2), (Rds, "s", 3)]);
    assert_eq!(stream.next().await, "route +s@3");
}

#[tokio::test]
async fn delta_reconnect_sends_the_difference() {
    let (store, mut client) = start(Limits::default()).await;
    store.put(&[(Cds, "a", 1), (Cds, "b", 2), (Eds, "a", 1), (Eds, "b", 1)]);
    let mut stream = DeltaClient::open(&mut client).await;
    // Envoy asks for endpoints first when it comes back.
    stream
        .ask(
            Eds,
            &["a", "b", "c"],
            &[],
            &[("a", "1"), ("b", "0"), ("c", "1")],
        )
        .await;
    assert_eq!(stream.next().await, "endpoint +b@1 -c");
    stream
        .ask(Cds, &[], &[], &[("a", "1"), ("b", "1"), ("c", "1")])
        .await;
    assert_eq!(stream.next().await, "cluster +b@2");
    assert_eq!(stream.next().await, "endpoint +b@1");
    // A first request is answered even when there is nothing new.
    stream.ask(Lds, &[], &[], &[]).await;
    assert_eq!(stream.next().await, "listener");
    // What is gone follows when no route can name it any more.
    stream.ask(Rds, &["r"], &[], &[("r", "1")]).await;
    assert_eq!(stream.next().await, "route -r");
    assert_eq!(stream.next().await, "cluster -c");
}

#[tokio::test]
async fn nack_is_reported_and_not_answered() {
    let (store, mut client) = start(Limits::default()).await;
    store.put(&[(Cds, "a", 1)]);
    let mut stream = DeltaClient::open(&mut client).await;
    stream.ask(Cds, &[], &[], &[]).await;
    let response = stream.next_raw().await;
    let nack = DeltaDiscoveryRequest {
        type_url: Cds.type_url().to_owned(),
        response_nonce: response.nonce,
        error_detail: Some(RpcStatus {
            code: 13,
            message: "bad ring".to_owned(),
            ..RpcStatus::default()
        }),
        ..DeltaDiscoveryRequest::default()
    };
    stream.requests.send(nack).await.unwrap();
    stream.ask(Lds, &[], &[], &[]).await;
    assert_eq!(stream.next().await, "listener");
    assert_eq!(
        *store.log.lock(),
        [
            "cluster sent 1 0",
            "cluster nacked bad ring",
            "listener sent 0 0"
        ]
    );
}

/// A state-of-the-world stream under test.
struct WorldClient {
    requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
}

impl WorldClient {
    async fn open(
        client: &mut AggregatedDiscoveryServiceClient<tonic::transport::Channel>,
    ) -> Self {
        let (requests, sent) = mpsc::channel(16);
        let responses = client
            .stream_aggregated_resources(ReceiverStream::new(sent))
            .await
            .unwrap();
        Self {
            requests,
            responses: responses.into_inner(),
        }
    }

    async fn ask(&self, kind: ResourceType, names: &[&str], nonce: &str) {
        let request = DiscoveryRequest {
            node: Some(node()),
            type_url: kind.type_url().to_owned(),
            resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
            response_nonce: nonce.to_owned(),
            ..DiscoveryRequest::default()
        };
        self.requests.send(request).await.unwrap();
    }

    /// The next response as `TYPE name name`, and its nonce.
    async fn next(&mut self) -> (String, String) {
        let message = tokio::time::timeout(Duration::from_secs(5), self.responses.message());
        let response = message
            .await
            .expect("a response within 5 s")
            .unwrap()
            .expect("an open stream");
        let mut line = ResourceType::from_type_url(&response.type_url)
            .unwrap()
            .to_string();
        for resource in &response.resources {
            let cluster: Cluster = prost::Message::decode(resource.value.as_slice()).unwrap();
            line.push_str(&format!(" {}", cluster.name));
        }
        (line, response.nonce)
    }
}

#[tokio::test]
async fn world_sends_whole_clusters_and_partial_endpoints() {
    let (store, mut client) = start(Limits::default()).await;
    store.put(&[(Cds, "a", 1), (Cds, "b", 1), (Eds, "a", 1), (Eds, "b", 1)]);
    let mut stream = WorldClient::open(&mut client).await;
    stream.ask(Cds, &[], "").await;
    let (line, cds) = stream.next().await;
    assert_eq!(line, "cluster a b");
    stream.ask(Eds, &["a", "b"], "").await;
    let (line, eds) = stream.next().await;
    assert_eq!(line, "endpoint a b");
    stream.ask(Cds, &[], &cds).await;
    stream.ask(Eds, &["a", "b"], &eds).await;
    // A superset with an empty nonce is answered whole; one that only drops a name is not answered.
    stream.ask(Eds, &["a"], &eds).await;
    stream.ask(Rds, &["r"], "").await;
    assert_eq!(stream.next().await.0, "route");
    store.put(&[(Eds, "b", 2), (Cds, "b", 0)]);
    assert_eq!(stream.next().await.0, "cluster a");
    // A name that is added again is sent although its version was sent before.
    stream.ask(Eds, &["a", "b"], &eds).await;
    let (line, eds) = stream.next().await;
    assert_eq!(line, "endpoint b");
    // A request with an old nonce is ignored; an empty list means nothing from now on.
    stream.ask(Eds, &["a", "b", "c"], "old").await;
    stream.ask(Eds, &[], &eds).await;
    stream.ask(Rds, &["r"], "").await;
    assert_eq!(stream.next().await.0, "route");
    store.put(&[(Eds, "a", 3), (Cds, "a", 2)]);
    assert_eq!(stream.next().await.0, "cluster a");
}

#[tokio::test]
async fn what_a_client_does_wrong_ends_its_stream() {
    let check = async |limits: Limits, request: Option<DeltaDiscoveryRequest>, code: Code| {
        let (_store, mut client) = start(limits).await;
        let (requests, sent) = mpsc::channel(1);
        if let Some(request) = request {
            requests.send(request).await.unwrap();
        }
        let status = match client
            .delta_aggregated_resources(ReceiverStream::new(sent))
            .await
        {
            Err(status) => status,
            Ok(response) => response.into_inner().message().await.unwrap_err(),
        };
        assert_eq!(status.code(), code, "{status}");
    };
    let request = |node: Option<Node>, type_url: &str, names: &[&str]| {
        Some(DeltaDiscoveryRequest {
            node,
            type_url: type_url.to_owned(),
            resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            ..DeltaDiscoveryRequest::default()
        })
    };
    let defaults = Limits::default;
    check(
        defaults(),
        request(None, Cds.type_url(), &[]),
        Code::InvalidArgument,
    )
    .await;
    check(
        defaults(),
        request(Some(Node::default()), Cds.type_url(), &[]),
        Code::InvalidArgument,
    )
    .await;
    check(
        defaults(),
        request(Some(node()), "", &[]),
        Code::InvalidArgument,
    )
    .await;
    check(
        Limits {
            names: 1,
            ..defaults()
        },
        request(Some(node()), Eds.type_url(), &["a", "b"]),
        Code::ResourceExhausted,
    )
    .await;
    check(
        Limits {
            streams: 0,
            ..defaults()
        },
        None,
        Code::ResourceExhausted,
    )
    .await;
    check(
        Limits {
            first_request: Duration::from_millis(10),
            ..defaults()
        },
        None,
        Code::DeadlineExceeded,
    )
    .await;
    check(
        Limits {
            request_bytes: 16,
            ..defaults()
        },
        request(Some(node()), Cds.type_url(), &["a"]),
        Code::OutOfRange,
    )
    .await;
}

#[tokio::test]
async fn stop_ends_streams_and_the_server() {
    let store = Arc::new(Store::default());
    let server = Server::new(StoreSource(store), Limits::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn({
        let server = server.clone();
        async move { server.serve_tcp(listener).await }
    });
    let mut client = AggregatedDiscoveryServiceClient::connect(address)
        .await
        .unwrap();
    let mut stream = DeltaClient::open(&mut client).await;
    stream.ask(Lds, &[], &[], &[]).await;
    assert_eq!(stream.next().await, "listener");
    server.stop();
    let status = stream.responses.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    tokio::time::timeout(Duration::from_secs(5), serving)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn unix_socket_serves_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("xds");
    let store = Arc::new(Store::default());
    store.put(&[(Cds, "a", 1)]);
    let server = Server::new(StoreSource(Arc::clone(&store)), Limits::default());
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move { server.serve_unix(listener).await });
    let address = format!("unix://{}", path.display());
    let mut client = AggregatedDiscoveryServiceClient::connect(address)
        .await
        .unwrap();
    let mut stream = DeltaClient::open(&mut client).await;
    stream.ask(Cds, &[], &[], &[]).await;
    assert_eq!(stream.next().await, "cluster +a@1");
}
