//! A proxy process beside a real control plane and a real API server, all in this process: it proves who it is, gets
//! its certificate and its configuration, and renews the certificate.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use lateen_cluster::{Cluster, Config};
use lateen_control::inject::InjectConfig;
use lateen_control::{Control, ControlConfig};
use lateen_proxy::agent::{CertificateConfig, SecureDiscovery};
use lateen_proxy::{ProxyConfig, run};
use lateen_xds::client::Target;
use lateen_xds::pb::envoy::config::core::v3::Node;
use serde_json::json;

/// Longest wait for anything that takes milliseconds when it works.
const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_gets_its_identity_and_renews_it() {
    let state = tempfile::tempdir().unwrap();
    let (cluster, control) = start(state.path()).await;
    let client = cluster.client();
    mounts(&client, state.path()).await;

    let secure = control.addresses().secure;
    let target = Target::Tcp {
        host: secure.ip().to_string(),
        port: secure.port(),
    };
    let files = SecureDiscovery {
        roots: state.path().join("root-cert.pem"),
        token: state.path().join("istio-token"),
        server_name: Some("istiod.istio-system.svc".to_owned()),
    };
    let node = Node {
        id: "sidecar~10.0.0.9~web.default~default.svc.cluster.local".to_owned(),
        ..Node::default()
    };
    let (admin, health) = (free_address(), free_address());
    let config = ProxyConfig {
        health: vec![health],
        secure_discovery: Some(files.clone()),
        certificates: Some(CertificateConfig {
            authority: target.clone(),
            security: files,
            id: "spiffe://cluster.local/ns/default/sa/default"
                .parse()
                .unwrap(),
            lifetime: Duration::from_secs(2),
            renewal: Default::default(),
        }),
        ..ProxyConfig::new(node, target, admin)
    };
    let process = std::thread::spawn(move || run(config));

    eventually("the proxy is ready", async || {
        get(health, "/healthz/ready").await.0 == 200
    })
    .await;
    let certificates = async || get(admin, "/certs").await.1;
    let first = certificates().await;
    assert!(
        first.contains("spiffe://cluster.local/ns/default/sa/default"),
        "{first}"
    );
    eventually("the certificate was renewed", async || {
        let now = certificates().await;
        now.contains("spiffe://") && now != first
    })
    .await;

    // Without its control plane the proxy stays as it is.
    control.stop().await;
    assert_eq!(get(health, "/healthz/ready").await.0, 200);
    assert_eq!(request(admin, "POST", "/quitquitquit").await.0, 200);
    process.join().unwrap().unwrap();
    cluster.shutdown().await;
}

async fn start(state: &Path) -> (Cluster, Control) {
    let cluster = Cluster::start(Config {
        state_dir: state.join("state"),
        listeners: vec![TcpListener::bind("127.0.0.1:0").unwrap()],
        certificate_names: Vec::new(),
        service_range: "10.96.0.0/16".to_owned(),
        node_ports: 30000..=32767,
        autoscaler: Default::default(),
        kubelet_socket: state.join("kubelet"),
    })
    .await
    .unwrap();
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system"}});
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(cluster.client());
    let namespace = serde_json::from_value(namespace).unwrap();
    namespaces
        .create(&PostParams::default(), &namespace)
        .await
        .unwrap();
    let any_port: SocketAddr = ([127, 0, 0, 1], 0).into();
    let control = Control::start(ControlConfig {
        client: cluster.client(),
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
    (cluster, control)
}

/// What the kubelet mounts into the pod: the token that is bound to it, and the root certificate.
async fn mounts(client: &Client, folder: &Path) {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    eventually("account and root certificate are there", async || {
        let account = accounts.get_opt("default").await.unwrap();
        account.is_some() && maps.get_opt("istio-ca-root-cert").await.unwrap().is_some()
    })
    .await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let pod = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"containers": [{"name": "app", "image": "web"}]},
    });
    let pod = serde_json::from_value(pod).unwrap();
    let pod = pods.create(&PostParams::default(), &pod).await.unwrap();
    let status =
        Patch::Merge(json!({"status": {"podIP": "10.0.0.9", "podIPs": [{"ip": "10.0.0.9"}]}}));
    pods.patch_status("web", &PatchParams::default(), &status)
        .await
        .unwrap();
    let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": pod.metadata.uid});
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(vec!["istio-ca".to_owned()]),
            expiration_seconds: Some(3600),
            bound_object_ref: serde_json::from_value(bound).unwrap(),
        }),
        ..TokenRequest::default()
    };
    let made = accounts
        .create_token_request("default", &PostParams::default(), &request)
        .await
        .unwrap();
    std::fs::write(
        folder.join("istio-token"),
        made.status.unwrap().token.unwrap(),
    )
    .unwrap();
    let map = maps.get("istio-ca-root-cert").await.unwrap();
    std::fs::write(
        folder.join("root-cert.pem"),
        &map.data.unwrap()["root-cert.pem"],
    )
    .unwrap();
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    request(address, "GET", path).await
}

/// Status and body; status 0 while nobody listens.
async fn request(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else {
        return (0, String::new());
    };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (
        head.split(' ').nth(1).unwrap().parse().unwrap(),
        body.to_owned(),
    )
}

async fn eventually(what: &str, check: impl AsyncFn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !check().await {
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
