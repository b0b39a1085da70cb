//! A mesh for tests: API server and control plane in this process, and a proxy's side of discovery.

use std::net::TcpListener;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use lateen_cluster::{Cluster, Config};
use lateen_control::inject::InjectConfig;
use lateen_control::{Control, ControlConfig, manifests};
use lateen_xds::ResourceType;
use lateen_xds::pb::envoy::config::core::v3::Node;
use lateen_xds::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use lateen_xds::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// Longest wait for anything that takes milliseconds when it works.
const DEADLINE: Duration = Duration::from_secs(15);

pub(crate) const SIDECAR: &str = "sidecar~10.0.0.9~web.default~default.svc.cluster.local";
pub(crate) const WEB: &str = "outbound|80||web.default.svc.cluster.local";

pub(crate) struct Mesh {
    pub(crate) client: Client,
    pub(crate) control: Control,
    cluster: Cluster,
    _state: TempDir,
}

impl Mesh {
    pub(crate) async fn start() -> Self {
        let state = tempfile::tempdir().unwrap();
        let cluster = Cluster::start(Config {
            state_dir: state.path().join("state"),
            listeners: vec![TcpListener::bind("127.0.0.1:0").unwrap()],
            certificate_names: Vec::new(),
            service_range: "10.96.0.0/16".to_owned(),
            node_ports: 30000..=32767,
            autoscaler: Default::default(),
            kubelet_socket: state.path().join("kubelet"),
        })
        .await
        .unwrap();
        let client = cluster.client();
        for object in manifests::render(&manifests::Options::default()) {
            create(&client, object).await;
        }
        let any_port = ([127, 0, 0, 1], 0).into();
        let control = Control::start(ControlConfig {
            client: client.clone(),
            namespace: "istio-system".to_owned(),
            xds_address: any_port,
            secure_address: any_port,
            xds_socket: None,
            webhook_address: any_port,
            monitoring_addresses: vec![any_port],
            check_peers: true,
            trusted_addresses: Vec::new(),
            inject: InjectConfig::default(),
        })
        .await
        .unwrap();
        timeout(DEADLINE, control.ready()).await.unwrap();
        Self {
            client,
            control,
            cluster,
            _state: state,
        }
    }

    pub(crate) async fn stop(self) {
        self.control.stop().await;
        self.cluster.shutdown().await;
    }

    /// Status and body of a page of the monitoring port.
    pub(crate) async fn monitoring(&self, path: &str) -> (u16, String) {
        let address = self.control.addresses().monitoring[0];
        let http: HttpClient<_, Empty<bytes::Bytes>> =
            HttpClient::builder(TokioExecutor::new()).build_http();
        let url = format!("http://{address}{path}").parse().unwrap();
        let response = http.get(url).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
}

/// The API of an object's kind, in its namespace if it has one.
pub(crate) fn api_of(client: &Client, object: &Value) -> Api<DynamicObject> {
    let api_version = object["apiVersion"].as_str().unwrap();
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let kind = object["kind"].as_str().unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

pub(crate) fn typed(object: &Value) -> DynamicObject {
    serde_json::from_value(object.clone()).unwrap()
}

pub(crate) async fn create(client: &Client, object: Value) -> Value {
    let made = api_of(client, &object)
        .create(&PostParams::default(), &typed(&object))
        .await;
    match made {
        Ok(made) => serde_json::to_value(made).unwrap(),
        Err(error) => panic!("{}: {error}", object["kind"]),
    }
}

pub(crate) fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    })
}

pub(crate) fn endpoints(name: &str, addresses: &[&str]) -> Value {
    let endpoint = |address: &&str| json!({"addresses": [address], "conditions": {"ready": true}});
    let labels = json!({"kubernetes.io/service-name": name});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

/// A proxy that asks for clusters, and for more when told.
pub(crate) struct Proxy {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Proxy {
    pub(crate) async fn connect(mesh: &Mesh, node: &str) -> Result<Self, Status> {
        let address = format!("http://{}", mesh.control.addresses().xds);
        let channel = Endpoint::from_shared(address)
            .unwrap()
            .connect()
            .await
            .unwrap();
        Self::over(channel, None, node).await
    }

    /// Over a channel, with a bearer token.
    pub(crate) async fn over(
        channel: Channel,
        token: Option<&str>,
        node: &str,
    ) -> Result<Self, Status> {
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let (requests, sent) = mpsc::channel(16);
        let request = DeltaDiscoveryRequest {
            node: Some(Node {
                id: node.to_owned(),
                ..Node::default()
            }),
            type_url: ResourceType::Cluster.type_url().to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        requests.send(request).await.unwrap();
        let mut request = tonic::Request::new(ReceiverStream::new(sent));
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        let opened = client.delta_aggregated_resources(request).await?;
        Ok(Self {
            requests,
            responses: opened.into_inner(),
        })
    }

    pub(crate) async fn subscribe(&self, kind: ResourceType, names: &[&str]) {
        let request = DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(request).await.unwrap();
    }

    /// The next response, acknowledged: its type and the names in it.
    pub(crate) async fn next(&mut self) -> Result<(ResourceType, Vec<String>), Status> {
        let message = timeout(DEADLINE, self.responses.message()).await;
        let response = message
            .expect("a response in time")?
            .expect("an open stream");
        let kind = ResourceType::from_type_url(&response.type_url).unwrap();
        let ack = DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(ack).await.unwrap();
        Ok((
            kind,
            response
                .resources
                .into_iter()
                .map(|resource| resource.name)
                .collect(),
        ))
    }

    /// Reads until a resource of this type and name arrives.
    pub(crate) async fn until(&mut self, kind: ResourceType, name: &str) {
        loop {
            let (found, names) = self.next().await.unwrap();
            if found == kind && names.iter().any(|found| found == name) {
                return;
            }
        }
    }
}

/// Waits until `check` holds.
pub(crate) async fn eventually(what: &str, check: impl AsyncFn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !check().await {
        assert!(Instant::now() < end, "not in time: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
