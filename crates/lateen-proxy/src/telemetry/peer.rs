//! Workloads, and the headers by which Istio's proxies tell each other about them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use lateen_route::hash::xx64;
use lateen_xds::pb::envoy::config::core::v3::{Metadata, Node};
use lateen_xds::pb::google::protobuf::{Struct, Value, value::Kind};
use prost::Message;

/// Node id of the peer.
pub(crate) const PEER_ID: &str = "x-envoy-peer-metadata-id";
/// Metadata of the peer: base64 of a protobuf struct.
pub(crate) const PEER_METADATA: &str = "x-envoy-peer-metadata";

/// A peer's metadata beyond this size is not looked at.
const MOST_METADATA: usize = 16 << 10;

/// Peers that a worker remembers.
const MOST_PEERS: usize = 1024;

const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";

/// What metrics say about a workload. What is not known is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Workload {
    /// Hash of the rest.
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) service: String,
    pub(crate) revision: String,
    pub(crate) app: String,
    pub(crate) version: String,
    pub(crate) cluster: String,
}

impl Workload {
    /// Reads a node's metadata.
    pub(crate) fn from_struct(metadata: &Struct) -> Self {
        let empty = Struct::default();
        let labels = match metadata.fields.get("LABELS").map(|value| &value.kind) {
            Some(Some(Kind::StructValue(labels))) => labels,
            _ => &empty,
        };
        Self {
            name: text(metadata, "WORKLOAD_NAME"),
            namespace: text(metadata, "NAMESPACE"),
            service: text(labels, CANONICAL_NAME),
            revision: text(labels, CANONICAL_REVISION),
            app: text(labels, "app"),
            version: text(labels, "version"),
            cluster: text(metadata, "CLUSTER_ID"),
            id: 0,
        }
        .identified()
    }

    /// Reads what discovery says about an endpoint: `workload;namespace;service;revision;cluster` under
    /// `istio` / `workload`.
    pub(crate) fn from_endpoint(metadata: &Metadata) -> Option<Self> {
        let given = text(metadata.filter_metadata.get("istio")?, "workload");
        let mut parts = given.split(';').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        let workload = Self {
            name: next(),
            namespace: next(),
            service: next(),
            revision: next(),
            cluster: next(),
            ..Self::default()
        };
        (workload != Self::default()).then(|| workload.identified())
    }

    /// Reads the header of a peer; nothing when it is malformed.
    pub(crate) fn from_header(value: &[u8]) -> Option<Self> {
        if value.len() > MOST_METADATA {
            return None;
        }
        let bytes = STANDARD.decode(value).ok()?;
        Some(Self::from_struct(&Struct::decode(bytes.as_slice()).ok()?))
    }

    fn identified(mut self) -> Self {
        let parts = [
            &self.name,
            &self.namespace,
            &self.service,
            &self.revision,
            &self.app,
            &self.version,
            &self.cluster,
        ];
        self.id = parts.iter().fold(1, |seed, part| {
            xx64(part.as_bytes(), seed).wrapping_add(part.len() as u64)
        });
        self
    }
}

fn text(fields: &Struct, key: &str) -> String {
    match fields.fields.get(key).map(|value| &value.kind) {
        Some(Some(Kind::StringValue(text))) => text.clone(),
        _ => String::new(),
    }
}

/// This proxy, as it presents itself to peers and in metrics.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    pub(crate) workload: Workload,
    pub(crate) id: String,
    /// Version of Istio that the proxy claims, for `istio_build`.
    pub(crate) version: String,
    /// The struct that peers get.
    pub(crate) metadata: Struct,
    /// Values of the headers, if they can be written.
    pub(crate) headers: Option<(HeaderValue, HeaderValue)>,
}

impl Identity {
    /// Reads the node that the proxy presents to the control plane.
    pub(crate) fn from_node(node: &Node) -> Self {
        let empty = Struct::default();
        let all = node.metadata.as_ref().unwrap_or(&empty);
        let mut metadata = Struct::default();
        for key in ["NAME", "NAMESPACE", "WORKLOAD_NAME", "CLUSTER_ID", "OWNER"] {
            if let Some(value) = all.fields.get(key) {
                metadata.fields.insert(key.to_owned(), value.clone());
            }
        }
        if let Some(Some(Kind::StructValue(labels))) =
            all.fields.get("LABELS").map(|value| &value.kind)
        {
            let mut told = Struct::default();
            for key in [CANONICAL_NAME, CANONICAL_REVISION, "app", "version"] {
                if let Some(value) = labels.fields.get(key) {
                    told.fields.insert(key.to_owned(), value.clone());
                }
            }
            let kind = Some(Kind::StructValue(told));
            metadata.fields.insert("LABELS".to_owned(), Value { kind });
        }
        let encoded = STANDARD.encode(metadata.encode_to_vec());
        let headers = HeaderValue::from_str(&node.id)
            .ok()
            .zip(HeaderValue::from_str(&encoded).ok())
            .filter(|(id, _)| !id.is_empty());
        Self {
            workload: Workload::from_struct(all),
            id: node.id.clone(),
            version: text(all, "ISTIO_VERSION"),
            metadata,
            headers,
        }
    }
}

/// The peers that a worker has seen, so that a header is decoded once.
#[derive(Debug, Default)]
pub(crate) struct Peers(RefCell<Known>);

/// Workloads by their encoded metadata; nothing for what could not be read.
type Known = HashMap<Box<[u8]>, Option<Arc<Workload>>>;

impl Peers {
    /// The workload of a header value.
    pub(crate) fn find(&self, value: &[u8]) -> Option<Arc<Workload>> {
        let mut known = self.0.borrow_mut();
        if let Some(found) = known.get(value) {
            return found.clone();
        }
        let found = Workload::from_header(value).map(Arc::new);
        if known.len() >= MOST_PEERS {
            known.clear();
        }
        known.insert(value.into(), found.clone());
        found
    }
}

/// The service that a cluster stands for, as the control plane says in `istio` / `services`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ServiceName {
    /// Hash of the rest.
    pub(crate) id: u64,
    pub(crate) host: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
}

/// What a cluster's metadata says for the exchange and for metrics.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClusterNotes {
    pub(crate) service: Option<ServiceName>,
    /// Its endpoints are outside the mesh.
    pub(crate) external: bool,
    /// Filters do not choose the application protocols of its connections.
    pub(crate) keeps_protocols: bool,
}

impl ClusterNotes {
    /// Reads a cluster's metadata.
    pub(crate) fn read(metadata: Option<&Metadata>) -> Self {
        let Some(notes) = metadata.and_then(|metadata| metadata.filter_metadata.get("istio"))
        else {
            return Self::default();
        };
        let external = notes.fields.get("external").is_some_and(|value| {
            matches!(&value.kind, Some(Kind::BoolValue(true)))
                || matches!(&value.kind, Some(Kind::StringValue(text)) if text == "true")
        });
        let first = match notes.fields.get("services").map(|value| &value.kind) {
            Some(Some(Kind::ListValue(list))) => list.values.first().cloned(),
            _ => None,
        };
        let service = match first.and_then(|value| value.kind) {
            Some(Kind::StructValue(service)) => {
                let host = text(&service, "host");
                let mut name = text(&service, "name");
                if name.is_empty() {
                    name = host.split('.').next().unwrap_or_default().to_owned();
                }
                let namespace = text(&service, "namespace");
                let id = xx64(namespace.as_bytes(), xx64(host.as_bytes(), 0));
                Some(ServiceName {
                    id: xx64(name.as_bytes(), id),
                    host,
                    name,
                    namespace,
                })
            }
            _ => None,
        };
        Self {
            service,
            external,
            keeps_protocols: text(notes, "alpn_override") == "false",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        Value {
            kind: Some(Kind::StringValue(text.to_owned())),
        }
    }

    fn structure(fields: &[(&str, Value)]) -> Struct {
        Struct {
            fields: fields
                .iter()
                .map(|(key, value)| ((*key).to_owned(), value.clone()))
                .collect(),
        }
    }

    #[test]
    fn a_proxy_reads_what_another_tells_about_itself() {
        let labels = structure(&[
            ("app", value("web")),
            ("version", value("v2")),
            (CANONICAL_NAME, value("web")),
            (CANONICAL_REVISION, value("v2")),
            ("secret", value("not told")),
        ]);
        let labels = Value {
            kind: Some(Kind::StructValue(labels)),
        };
        let node = Node {
            id: "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local".to_owned(),
            metadata: Some(structure(&[
                ("NAME", value("web-1")),
                ("NAMESPACE", value("shop")),
                ("WORKLOAD_NAME", value("web")),
                ("CLUSTER_ID", value("Kubernetes")),
                ("LABELS", labels),
                ("PROXY_CONFIG", value("not told")),
            ])),
            ..Node::default()
        };
        let own = Identity::from_node(&node);
        let (_, header) = own.headers.unwrap();
        let read = Workload::from_header(header.as_bytes()).unwrap();
        assert_eq!(read, own.workload);
        assert_eq!(read.version, "v2");
        assert!(!own.metadata.fields.contains_key("PROXY_CONFIG"));
        assert_eq!(Workload::from_header(b"%%%"), None);
    }

    #[test]
    fn endpoint_metadata_names_a_workload() {
        let metadata = |text: &str| Metadata {
            filter_metadata: [("istio".to_owned(), structure(&[("workload", value(text))]))].into(),
            ..Metadata::default()
        };
        let read =
            Workload::from_endpoint(&metadata("web;shop;web-service;v1;Kubernetes")).unwrap();
        let parts = [&read.name, &read.namespace, &read.service, &read.revision];
        assert_eq!(parts, ["web", "shop", "web-service", "v1"]);
        assert_eq!(read.cluster, "Kubernetes");
        assert_eq!(Workload::from_endpoint(&Metadata::default()), None);
        assert_eq!(Workload::from_endpoint(&metadata("")), None);
    }
}
