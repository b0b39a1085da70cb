//! TLS of listeners: modes of mutual TLS, names, protocols, secrets that come late, change and go.

mod choice;
mod contexts;
mod mutual;
mod secrets;

use std::net::SocketAddr;

use lateen_xds::ResourceType;
use serde_json::{Value, json};

use crate::support::{
    Proxy, Upstream, free_address, http_filter, merge, socket_address, to, wait_for_listener,
};
use crate::tls_support::{Authority, ClientOptions, Identity, TlsClient, secret, transport};

const WORKLOAD: &str = "spiffe://cluster.local/ns/shop/sa/web";
const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/cart";
/// What a proxy of the mesh offers.
const MESH: &[&str] = &["istio-http/1.1", "istio"];

/// The mesh's context of a server, as the control plane sends it.
fn mesh_server() -> Value {
    transport(
        "Downstream",
        json!({
            "requireClientCertificate": true,
            "commonTlsContext": {
                "alpnProtocols": ["h2", "http/1.1"],
                "tlsCertificateSdsSecretConfigs": [secret("default", false)],
                "combinedValidationContext": {
                    "defaultValidationContext": { "matchTypedSubjectAltNames": [
                        { "sanType": "URI", "matcher": { "prefix": "spiffe://cluster.local/" } },
                    ]},
                    "validationContextSdsSecretConfig": secret("ROOTCA", false),
                },
            },
        }),
    )
}

/// A connection manager with one route to a cluster.
fn manager(cluster: &str, more: Value) -> Value {
    let mut fields = json!({
        "routeConfig": { "name": "r", "virtualHosts": [
            { "name": "all", "domains": ["*"], "routes": [to(cluster, json!({}))] },
        ]},
    });
    merge(&mut fields, more);
    let mut filter = http_filter(fields);
    filter["typedConfig"].as_object_mut().unwrap().remove("rds");
    filter
}

/// A filter chain for connections that match, with a transport and a route to a cluster.
fn chain(matching: Value, transport: Option<Value>, cluster: &str, more: Value) -> Value {
    let mut chain = json!({
        "name": cluster,
        "filterChainMatch": matching,
        "filters": [manager(cluster, more)],
    });
    if let Some(transport) = transport {
        chain["transportSocket"] = transport;
    }
    chain
}

/// A listener that looks at the client hello.
fn listener(name: &str, address: SocketAddr, chains: Vec<Value>) -> Value {
    json!({
        "name": name,
        "address": socket_address(address),
        "listenerFilters": [{
            "name": "tls",
            "typedConfig": { "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector" },
        }],
        "filterChains": chains,
    })
}

/// A proxy with an upstream behind the cluster `c`.
fn proxy(upstream: &Upstream) -> Proxy {
    let mut proxy = Proxy::start(1);
    proxy.cluster("c", &[upstream.address], json!({}));
    proxy
}

/// Puts what the agent of a workload puts.
fn join_mesh(proxy: &Proxy, authority: &Authority, identity: &Identity) {
    let secrets = proxy.engine.secrets();
    secrets
        .put_certificate("default", &identity.chain, &identity.key)
        .unwrap();
    secrets.put_trust("ROOTCA", &authority.pem).unwrap();
}

/// The body of a 200 answer; nothing when the connection was refused.
fn outcome(address: SocketAddr, options: &ClientOptions<'_>) -> Option<String> {
    let mut client = TlsClient::connect(address, options).ok()?;
    let answer = client.get("/", &[]).ok()?;
    answer.starts_with("HTTP/1.1 200").then_some(answer)
}

/// Sends a listener with these chains; its address.
fn accept(proxy: &mut Proxy, name: &str, chains: Vec<Value>) -> SocketAddr {
    let address = free_address();
    proxy.accept(ResourceType::Listener, &[listener(name, address, chains)]);
    address
}

/// The same when it takes connections.
fn open(proxy: &mut Proxy, name: &str, chains: Vec<Value>) -> SocketAddr {
    let address = accept(proxy, name, chains);
    wait_for_listener(address);
    address
}

/// A proxy of the mesh whose listener takes all connections with the mesh's context.
struct MeshListener {
    _upstream: Upstream,
    proxy: Proxy,
    authority: Authority,
    address: SocketAddr,
}

impl MeshListener {
    fn start() -> Self {
        let upstream = Upstream::start("c");
        let mut proxy = proxy(&upstream);
        let authority = Authority::new("ours");
        join_mesh(&proxy, &authority, &authority.issue(&[SERVER]));
        let chains = vec![chain(json!({}), Some(mesh_server()), "c", json!({}))];
        let address = open(&mut proxy, "l", chains);
        Self {
            _upstream: upstream,
            proxy,
            authority,
            address,
        }
    }
}
