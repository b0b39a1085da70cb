//! The proxy under load: listeners for HTTP, TCP and mutual TLS, and what they need.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::RwLock;

use lateen_xds::ResourceType;
use serde_json::{Value, json};

use crate::support::{
    Proxy, Upstream, assignment, cluster, free_address, http_filter, http_listener, socket_address,
    to, wait_for_listener,
};
use crate::tls_support::{Authority, Identity, TlsUpstream, secret, transport};

const WORKLOAD: &str = "spiffe://cluster.local/ns/shop/sa/web";
const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";

/// Where clients go.
#[derive(Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) http: SocketAddr,
    pub(crate) tcp: SocketAddr,
    pub(crate) mutual_tls: SocketAddr,
}

pub(crate) struct Mesh {
    pub(crate) proxy: Proxy,
    pub(crate) addresses: Addresses,
    pub(crate) endpoints: Vec<Upstream>,
    pub(crate) echoes: Vec<SocketAddr>,
    pub(crate) authorities: [Authority; 2],
    /// Who clients are. They hold it while they use it.
    pub(crate) client: std::sync::Arc<RwLock<Identity>>,
    secure: TlsUpstream,
}

impl Mesh {
    pub(crate) fn start() -> Self {
        let authorities = [Authority::new("one"), Authority::new("two")];
        let addresses = Addresses {
            http: free_address(),
            tcp: free_address(),
            mutual_tls: free_address(),
        };
        let server = authorities[0].issue(&[WORKLOAD]);
        let client = RwLock::new(authorities[0].issue(&[CLIENT]));
        let mut mesh = Self {
            proxy: Proxy::start(2),
            addresses,
            endpoints: ["a", "b", "c"].map(Upstream::start).into(),
            echoes: vec![echo_server(), echo_server()],
            secure: TlsUpstream::start(&server, Some(&authorities[0]), &["istio"]),
            authorities,
            client: client.into(),
        };
        mesh.endpoints(7);
        mesh.web(0);
        mesh.tcp(0);
        mesh.workload();
        let secure = mesh.secure_cluster();
        mesh.proxy.accept(ResourceType::Cluster, &[secure]);
        mesh.listeners(0);
        mesh.routes(0);
        mesh.trust(&[0]);
        mesh.server(0);
        let Addresses {
            http,
            tcp,
            mutual_tls,
        } = addresses;
        [http, tcp, mutual_tls]
            .into_iter()
            .for_each(wait_for_listener);
        mesh
    }

    pub(crate) fn endpoints_all_used(&self) -> bool {
        self.endpoints.iter().all(|endpoint| endpoint.count() > 0)
    }

    /// The endpoints of `web`, as bits.
    pub(crate) fn endpoints(&mut self, which: usize) {
        let numbered = self.endpoints.iter().enumerate();
        let chosen: Vec<_> = numbered
            .filter(|(index, _)| which >> index & 1 == 1)
            .map(|(_, endpoint)| endpoint.address)
            .collect();
        self.proxy
            .accept(ResourceType::Endpoint, &[assignment("web", &chosen)]);
    }

    /// The cluster of HTTP, in another variety each time. Its endpoints come apart from it.
    pub(crate) fn web(&mut self, variety: usize) {
        let policy = ["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM"][variety % 3];
        self.proxy.accept(
            ResourceType::Cluster,
            &[json!({
                "name": "web", "type": "EDS", "connectTimeout": "5s", "lbPolicy": policy,
                "edsClusterConfig": { "edsConfig": { "ads": {} } },
                "circuitBreakers": { "thresholds": [{ "maxConnections": 1024 + variety }] },
            })],
        );
    }

    /// The cluster of TCP.
    pub(crate) fn tcp(&mut self, variety: usize) {
        let echo = self.echoes[variety % self.echoes.len()];
        self.proxy.cluster("tcp", &[echo], json!({}));
    }

    /// The routes of HTTP.
    pub(crate) fn routes(&mut self, variety: usize) {
        let name = format!("variety-{variety}");
        let mut all = to(
            "web",
            json!({ "timeout": format!("{}s", 20 + variety % 9) }),
        );
        all["responseHeadersToAdd"] = json!([{ "header": { "key": "x-variety", "value": name } }]);
        let mut hosts = vec![
            json!({ "name": "all", "domains": ["*"], "routes": [to("none", json!({})), all] }),
        ];
        // Requests never match the first.
        hosts[0]["routes"][0]["match"] = json!({ "path": format!("/{name}") });
        for number in 0..variety % 5 {
            let domain = format!("host-{number}.test");
            hosts.push(
                json!({ "name": domain, "domains": [domain], "routes": [to("web", json!({}))] }),
            );
        }
        self.proxy.accept(
            ResourceType::Route,
            &[json!({ "name": "r", "virtualHosts": hosts })],
        );
    }

    /// The listeners, in another variety each time, which replaces their filter chains.
    pub(crate) fn listeners(&mut self, variety: usize) {
        let Addresses {
            http,
            tcp,
            mutual_tls,
        } = self.addresses;
        let name = format!("server-{variety}");
        let http = http_listener("http", http, json!({ "serverName": name }));
        let tcp_proxy = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "statPrefix": "tcp", "cluster": "tcp", "idleTimeout": format!("{}s", 3000 + variety % 60),
        });
        let tcp = json!({
            "name": "tcp", "address": socket_address(tcp),
            "filterChains": [{ "filters": [{ "name": "tcp", "typedConfig": tcp_proxy }] }],
        });
        let mut manager = http_filter(json!({
            "serverName": name,
            "routeConfig": { "name": "inline", "virtualHosts": [
                { "name": "all", "domains": ["*"], "routes": [to("secure", json!({}))] },
            ]},
        }));
        manager["typedConfig"]
            .as_object_mut()
            .unwrap()
            .remove("rds");
        let secured = json!({
            "name": "secured", "address": socket_address(mutual_tls),
            "filterChains": [{ "filters": [manager], "transportSocket": downstream() }],
        });
        self.proxy
            .accept(ResourceType::Listener, &[http, tcp, secured]);
    }

    /// The certificate with which the proxy goes to endpoints, renewed.
    pub(crate) fn workload(&self) {
        let identity = self.authorities[0].issue(&[WORKLOAD]);
        let secrets = self.proxy.engine.secrets();
        secrets
            .put_certificate("default", &identity.chain, &identity.key)
            .unwrap();
        secrets
            .put_trust("ROOTCA", &self.authorities[0].pem)
            .unwrap();
    }

    /// Whose clients may come.
    pub(crate) fn trust(&mut self, authorities: &[usize]) {
        let bundle: String = authorities
            .iter()
            .map(|index| self.authorities[*index].pem.as_str())
            .collect();
        let secret = json!({ "name": "clients", "validationContext": { "trustedCa": { "inlineString": bundle } } });
        self.proxy.accept(ResourceType::Secret, &[secret]);
    }

    /// What clients are shown.
    pub(crate) fn server(&mut self, authority: usize) {
        let identity = self.authorities[authority].issue(&[WORKLOAD]);
        let secret = json!({ "name": "server", "tlsCertificate": identity.inline() });
        self.proxy.accept(ResourceType::Secret, &[secret]);
    }

    /// Clients with another certificate, once none uses the old one.
    pub(crate) fn clients(&self, authority: usize) {
        *self.client.write().unwrap() = self.authorities[authority].issue(&[CLIENT]);
    }

    /// A cluster and a listener that come, serve once and go.
    pub(crate) fn passing(&mut self) {
        let endpoint = self.endpoints[0].address;
        let visitor = free_address();
        self.proxy.cluster("passing", &[endpoint], json!({}));
        self.proxy.accept(
            ResourceType::Listener,
            &[http_listener("passing", visitor, json!({}))],
        );
        wait_for_listener(visitor);
        assert_eq!(crate::support::get(visitor, "/", &[]).status, 200);
        self.proxy.remove(ResourceType::Listener, "passing");
        self.proxy.remove(ResourceType::Cluster, "passing");
    }

    pub(crate) fn secure_cluster(&self) -> Value {
        let context = json!({
            "sni": "secure.test",
            "commonTlsContext": {
                "alpnProtocols": ["istio"],
                "tlsCertificateSdsSecretConfigs": [secret("default", false)],
                "validationContextSdsSecretConfig": secret("ROOTCA", false),
            },
        });
        let socket = transport("Upstream", context);
        cluster(
            "secure",
            &[self.secure.address],
            json!({ "transportSocket": socket }),
        )
    }
}

/// Mutual TLS with secrets of the discovery stream.
fn downstream() -> Value {
    transport(
        "Downstream",
        json!({
            "requireClientCertificate": true,
            "commonTlsContext": {
                "alpnProtocols": ["http/1.1"],
                "tlsCertificateSdsSecretConfigs": [secret("server", true)],
                "validationContextSdsSecretConfig": secret("clients", true),
            },
        }),
    )
}

/// An upstream that sends back what comes.
fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}
