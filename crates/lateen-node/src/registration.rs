//! The node's own objects: its Node, its Lease, the cluster DNS service.

use std::net::Ipv4Addr;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::NodeConfig;
use crate::pods::resources;

/// Namespace of node leases.
const LEASES: &str = "kube-node-lease";

/// Namespace of the DNS service.
const SYSTEM: &str = "kube-system";

/// How often the lease is renewed; it lasts four times as long.
const RENEW: Duration = Duration::from_secs(10);

/// Most pods that the node says it takes.
const MOST_PODS: u32 = 250;

/// Registers everything.
///
/// # Errors
/// What the API server said when it refused.
pub(crate) async fn register(config: &NodeConfig) -> kube::Result<()> {
    let address = config.network.node_address();
    let nodes: Api<Node> = Api::all(config.client.clone());
    put(&nodes, &config.name, &node(config)).await?;
    let status = json!({"status": node_status(address, config.hosts.node())});
    nodes
        .patch_status(&config.name, &PatchParams::default(), &Patch::Merge(status))
        .await?;

    let services: Api<Service> = Api::namespaced(config.client.clone(), SYSTEM);
    put(&services, "kube-dns", &dns_service(config.dns_address)).await?;
    let slices: Api<EndpointSlice> = Api::namespaced(config.client.clone(), SYSTEM);
    put(&slices, "kube-dns-lateen", &dns_endpoints(address)).await
}

/// Renews the lease for ever.
pub(crate) async fn renew(config: NodeConfig) {
    let leases: Api<Lease> = Api::namespaced(config.client.clone(), LEASES);
    loop {
        let now = MicroTime(Timestamp::now());
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": config.name, "namespace": LEASES},
            "spec": {
                "holderIdentity": config.name,
                "leaseDurationSeconds": 4 * RENEW.as_secs(),
                "renewTime": now,
            },
        });
        if let Err(error) = put(&leases, &config.name, &lease).await {
            tracing::debug!(%error, "lease not renewed");
        }
        tokio::time::sleep(RENEW).await;
    }
}

/// Creates the object, or merges it into the one that is there.
async fn put<K, P>(api: &Api<K>, name: &str, object: &P) -> kube::Result<()>
where
    K: Clone + DeserializeOwned + Serialize + std::fmt::Debug,
    P: Serialize + std::fmt::Debug,
{
    match api
        .patch(name, &PatchParams::default(), &Patch::Merge(object))
        .await
    {
        Err(kube::Error::Api(answer)) if answer.code == 404 => {
            let value = serde_json::to_value(object).map_err(kube::Error::SerdeError)?;
            let typed: K = serde_json::from_value(value).map_err(kube::Error::SerdeError)?;
            api.create(&PostParams::default(), &typed).await.map(drop)
        }
        other => other.map(drop),
    }
}

fn node(config: &NodeConfig) -> serde_json::Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": config.name,
            "labels": {
                "kubernetes.io/hostname": config.name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": architecture(),
                "node-role.kubernetes.io/control-plane": "",
            },
        },
        "spec": {"podCIDR": config.network.pod_range().to_string(),
                 "podCIDRs": [config.network.pod_range().to_string()],
                 "providerID": format!("lateen://{}", config.name)},
    })
}

fn node_status(address: Ipv4Addr, on_host: Ipv4Addr) -> serde_json::Value {
    let now = Time(Timestamp::now());
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
               "lastHeartbeatTime": now, "lastTransitionTime": now})
    };
    let capacity = json!({
        "cpu": resources::cpus().to_string(),
        "memory": format!("{}Ki", resources::memory() / 1024),
        "pods": MOST_PODS.to_string(),
    });
    let system = nix::sys::utsname::uname();
    let kernel = system
        .as_ref()
        .map(|name| name.release().to_string_lossy().into_owned());
    let version = env!("CARGO_PKG_VERSION");
    json!({
        "addresses": [{"type": "InternalIP", "address": address},
                      {"type": "ExternalIP", "address": on_host},
                      {"type": "Hostname", "address": "lateen"}],
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory",
                      "kubelet has sufficient memory available"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure",
                      "kubelet has no disk pressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID",
                      "kubelet has sufficient PID available"),
            condition("Ready", "True", "KubeletReady", "lateen's node is posting ready status"),
        ],
        "nodeInfo": {
            "architecture": architecture(),
            "operatingSystem": "linux",
            "osImage": os_name(),
            "kernelVersion": kernel.unwrap_or_default(),
            "kubeletVersion": format!("v1.36.0-lateen.{version}"),
            "kubeProxyVersion": "",
            "containerRuntimeVersion": format!("lateen://{version}"),
            "bootID": read("/proc/sys/kernel/random/boot_id"),
            "machineID": "",
            "systemUUID": "",
        },
    })
}

fn dns_service(address: Ipv4Addr) -> serde_json::Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kube-dns",
            "namespace": SYSTEM,
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"},
        },
        "spec": {
            "clusterIP": address,
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            ],
        },
    })
}

/// The service has no selector: the node itself answers.
fn dns_endpoints(address: Ipv4Addr) -> serde_json::Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kube-dns-lateen",
            "namespace": SYSTEM,
            "labels": {"kubernetes.io/service-name": "kube-dns",
                       "endpointslice.kubernetes.io/managed-by": "lateen-node"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        ],
    })
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn os_name() -> String {
    let text = read("/etc/os-release");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.unwrap_or("Linux").trim_matches('"').to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}
