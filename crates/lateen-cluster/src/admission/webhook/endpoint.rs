//! Where a webhook is called, and how its server is known.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

use crate::store::{Key, Store};

/// The port of a service that a configuration does not name.
const DEFAULT_PORT: u16 = 443;
/// Addresses that one call tries at most.
const MAX_ADDRESSES: usize = 4;

/// A parsed `clientConfig`.
pub(crate) struct Endpoint {
    target: Target,
    /// Host and port in the request, e.g. `istiod.istio-system.svc:443`.
    pub(crate) authority: String,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) server_name: ServerName<'static>,
    pub(crate) tls: Arc<ClientConfig>,
    /// Tells connections to different servers apart.
    pub(crate) key: String,
}

enum Target {
    Url {
        host: String,
        port: u16,
    },
    Service {
        namespace: String,
        name: String,
        port: u16,
    },
}

impl Endpoint {
    /// Parses `clientConfig`.
    ///
    /// # Errors
    /// Why it names no server.
    pub(crate) fn parse(source: &Value) -> Result<Self, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let service = &source["service"];
        let (target, host, path) = if service.is_object() {
            let (namespace, name) = (text(&service["namespace"]), text(&service["name"]));
            let port = service["port"]
                .as_u64()
                .and_then(|port| u16::try_from(port).ok());
            let host = format!("{name}.{namespace}.svc");
            let port = port.unwrap_or(DEFAULT_PORT);
            (
                Target::Service {
                    namespace,
                    name,
                    port,
                },
                host,
                text(&service["path"]),
            )
        } else {
            let url: Uri = text(&source["url"])
                .parse()
                .map_err(|error| format!("Unparsable URL: {error}"))?;
            let Some(host) = url.host().filter(|_| url.scheme_str() == Some("https")) else {
                return Err(
                    "webhook configuration must have either service or an https URL".to_owned(),
                );
            };
            let host = host.trim_matches(['[', ']']).to_owned();
            let port = url.port_u16().unwrap_or(DEFAULT_PORT);
            let path = url
                .path_and_query()
                .map(ToString::to_string)
                .unwrap_or_default();
            (
                Target::Url {
                    host: host.clone(),
                    port,
                },
                host,
                path,
            )
        };
        let port = match &target {
            Target::Url { port, .. } | Target::Service { port, .. } => *port,
        };
        let bundle = text(&source["caBundle"]);
        let server_name = ServerName::try_from(host.clone())
            .map_err(|error| format!("{host:?} is no name of a server: {error}"))?;
        let shown = if host.contains(':') {
            format!("[{host}]")
        } else {
            host
        };
        let authority = format!("{shown}:{port}");
        Ok(Self {
            tls: Arc::new(trust(&bundle)?),
            key: format!("{authority} {bundle}"),
            target,
            path: if path.starts_with('/') {
                path
            } else {
                format!("/{path}")
            },
            authority,
            server_name,
        })
    }

    /// Addresses to connect to, of which any will do.
    ///
    /// # Errors
    /// The service does not exist or has no address.
    pub(crate) async fn addresses(&self, store: &Store) -> Result<Vec<SocketAddr>, String> {
        match &self.target {
            Target::Url { host, port } => {
                let found = tokio::net::lookup_host((host.as_str(), *port)).await;
                let found = found.map_err(|error| format!("lookup {host}: {error}"))?;
                Ok(found.take(MAX_ADDRESSES).collect())
            }
            Target::Service {
                namespace,
                name,
                port,
            } => service_addresses(store, namespace, name, *port),
        }
    }
}

/// The configuration of TLS that trusts the certificates in `bundle` (base64 of PEM) only.
fn trust(bundle: &str) -> Result<ClientConfig, String> {
    let pem = STANDARD
        .decode(bundle)
        .map_err(|error| format!("caBundle is not base64: {error}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("caBundle is not PEM: {error}"))?;
        roots
            .add(certificate)
            .map_err(|error| format!("caBundle cannot be used: {error}"))?;
    }
    if roots.is_empty() {
        return Err("caBundle has no certificate, and this server trusts no other".to_owned());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Addresses of the pods behind a port of a service, from its EndpointSlices or, without any, its Endpoints.
fn service_addresses(
    store: &Store,
    namespace: &str,
    name: &str,
    port: u16,
) -> Result<Vec<SocketAddr>, String> {
    let key = |resource: &str| Key {
        resource: resource.into(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let service = store
        .get(&key("services"))
        .ok_or_else(|| format!("service {name:?} not found"))?;
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let found = ports.clone().find(|candidate| candidate["port"] == port);
    let Some(service_port) = found else {
        return Err(format!("no service port {port} found for service {name:?}"));
    };
    let port_name = service_port["name"].as_str().unwrap_or_default();
    let mut addresses = Vec::new();
    let (slices, _) = store.list("endpointslices.discovery.k8s.io", Some(namespace), None);
    for slice in slices.iter() {
        if slice["metadata"]["labels"]["kubernetes.io/service-name"] != name {
            continue;
        }
        let Some(number) = port_of(&slice["ports"], port_name) else {
            continue;
        };
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            if endpoint["conditions"]["ready"] != false {
                add(&mut addresses, endpoint["addresses"].as_array(), number);
            }
        }
    }
    if addresses.is_empty()
        && let Some(endpoints) = store.get(&key("endpoints"))
    {
        for subset in endpoints["subsets"].as_array().into_iter().flatten() {
            let Some(number) = port_of(&subset["ports"], port_name) else {
                continue;
            };
            let found = subset["addresses"].as_array().into_iter().flatten();
            addresses.extend(found.filter_map(|address| parse(&address["ip"], number)));
        }
    }
    if addresses.is_empty() {
        return Err(format!("no endpoints available for service {name:?}"));
    }
    // Another one first each time, so that the load is shared.
    let offset = usize::from(uuid::Uuid::new_v4().as_bytes()[0]) % addresses.len();
    addresses.rotate_left(offset);
    addresses.truncate(MAX_ADDRESSES);
    Ok(addresses)
}

/// The number of the port called `name` in a list of endpoint ports.
fn port_of(ports: &Value, name: &str) -> Option<u16> {
    let mut ports = ports.as_array()?.iter();
    let found = ports.find(|port| port["name"].as_str().unwrap_or_default() == name)?;
    u16::try_from(found["port"].as_u64()?).ok()
}

fn add(addresses: &mut Vec<SocketAddr>, found: Option<&Vec<Value>>, port: u16) {
    addresses.extend(
        found
            .into_iter()
            .flatten()
            .filter_map(|address| parse(address, port)),
    );
}

fn parse(address: &Value, port: u16) -> Option<SocketAddr> {
    Some(SocketAddr::new(address.as_str()?.parse().ok()?, port))
}
