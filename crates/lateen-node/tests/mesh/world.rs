//! A mesh inside its namespaces, and what checks do with it.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use kube::Api;
use kube::api::{DeleteParams, LogParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use lateen_cluster::Cluster;
use lateen_node::enter::Inner;
use lateen_node::network::Range;
use lateen_node::{HostAddresses, Network, Node, NodeConfig, Outside};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// How long anything may take that a check waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The namespace of all checks.
const NAMESPACE: &str = "lab";

pub(crate) struct Mesh {
    pub(crate) client: kube::Client,
    pub(crate) outside: Outside,
    node: Node,
    cluster: Cluster,
}

impl Mesh {
    pub(crate) async fn start(inner: Inner) -> Self {
        let state: PathBuf = inner.config["state"].as_str().unwrap().into();
        let executable: PathBuf = inner.config["executable"].as_str().unwrap().into();
        let outside = Outside::start(inner.channel).unwrap();
        let pods = Range {
            address: [10, 244, 0, 0].into(),
            prefix: 16,
        };
        let services = Range {
            address: [10, 96, 0, 0].into(),
            prefix: 16,
        };
        let network = Network::start(pods, services).await.unwrap();
        let api = TcpListener::bind((network.node_address(), 6443)).unwrap();
        let kubelet_socket = state.join("kubelet.sock");
        let cluster = Cluster::start(lateen_cluster::Config {
            state_dir: state.join("cluster"),
            listeners: vec![api],
            certificate_names: vec![network.node_address().to_string()],
            service_range: services.to_string(),
            node_ports: 30000..=32767,
            autoscaler: Default::default(),
            kubelet_socket: kubelet_socket.clone(),
        })
        .await
        .unwrap();
        let node = Node::start(NodeConfig {
            name: "lateen".into(),
            state_dir: state.join("node"),
            images: state.join("images"),
            client: cluster.client(),
            kubelet_socket,
            outside: outside.clone(),
            network,
            hosts: HostAddresses::of(&state),
            executable,
            ca: cluster.ca_pem().to_owned(),
            cluster_domain: "cluster.local".into(),
            dns_address: [10, 96, 0, 10].into(),
            user_range: inner.users > 1,
        })
        .await
        .unwrap();
        let mesh = Self {
            client: cluster.client(),
            outside,
            node,
            cluster,
        };
        let namespaces: Api<Namespace> = Api::all(mesh.client.clone());
        let lab = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}})).unwrap();
        namespaces
            .create(&PostParams::default(), &lab)
            .await
            .unwrap();
        mesh
    }

    /// A client over TLS, as `kubectl` is one: only such connections can be upgraded.
    pub(crate) async fn remote_client(&self) -> Result<kube::Client, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let kubeconfig = self.cluster.kubeconfig("https://10.244.0.1:6443");
        let kubeconfig = Kubeconfig::from_yaml(&kubeconfig).map_err(|error| text(&error))?;
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
        kube::Client::try_from(config.map_err(|error| text(&error))?).map_err(|error| text(&error))
    }

    pub(crate) async fn stop(self) {
        self.node.shutdown().await;
        self.cluster.shutdown().await;
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    pub(crate) async fn create<K>(&self, object: Value) -> Result<K, String>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + serde::Serialize
            + std::fmt::Debug,
        K::DynamicType: Default,
    {
        let object: K = serde_json::from_value(object).map_err(|error| error.to_string())?;
        self.api::<K>()
            .create(&PostParams::default(), &object)
            .await
            .map_err(|error| error.to_string())
    }

    /// Makes a pod that runs a shell script once, and returns what it printed.
    pub(crate) async fn script(&self, name: &str, script: &str) -> Result<String, String> {
        let container = json!({"name": "main", "image": "host", "command": ["sh", "-c", script]});
        self.create::<Pod>(pod(
            name,
            json!({"containers": [container], "restartPolicy": "Never"}),
        ))
        .await?;
        let ended = self
            .wait_pod(name, |pod| matches!(phase(pod), "Succeeded" | "Failed"))
            .await;
        let text = self.logs(name, LogParams::default()).await;
        ended?;
        text
    }

    pub(crate) async fn logs(&self, name: &str, params: LogParams) -> Result<String, String> {
        self.api::<Pod>()
            .logs(name, &params)
            .await
            .map_err(|error| error.to_string())
    }

    /// Waits until the pod is as wanted.
    pub(crate) async fn wait_pod(
        &self,
        name: &str,
        wanted: impl Fn(&Pod) -> bool,
    ) -> Result<Pod, String> {
        let api = self.api::<Pod>();
        wait(&format!("pod {name}"), async || {
            let pod = api.get(name).await.map_err(|error| error.to_string())?;
            if wanted(&pod) {
                Ok(pod)
            } else {
                Err(serde_json::to_string(&pod.status).unwrap())
            }
        })
        .await
    }

    pub(crate) async fn service(&self, name: &str) -> Result<Service, String> {
        self.api::<Service>()
            .get(name)
            .await
            .map_err(|error| error.to_string())
    }

    pub(crate) async fn delete_pod(&self, name: &str) -> Result<(), String> {
        let deleted = self
            .api::<Pod>()
            .delete(name, &DeleteParams::default())
            .await;
        deleted.map(drop).map_err(|error| error.to_string())
    }
}

/// Tries until it succeeds; the last failure when it does not in time.
pub(crate) async fn wait<T>(
    what: &str,
    mut attempt: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, String> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if tokio::time::Instant::now() > deadline => {
                return Err(format!("{what}: waited in vain: {error}"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

pub(crate) fn pod(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
           "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": name}},
           "spec": spec})
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref());
    conditions
        .unwrap_or_default()
        .iter()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}
