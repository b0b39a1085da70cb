//! Proxies as they present themselves: the Envoy node of a discovery request.

use std::collections::{BTreeMap, BTreeSet};

use lateen_xds::pb::{
    envoy::config::core::v3::Node,
    google::protobuf::{Struct, Value, value::Kind as ValueKind},
};

use crate::index::Locality;

/// Most entries that are taken over from a node's labels and extensions.
const MAX_ENTRIES: usize = 4096;

/// What a proxy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyKind {
    /// Beside an application, in its pod.
    Sidecar,
    /// A gateway.
    Router,
}

/// A proxy that asks for its configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Proxy {
    /// The whole node id, `sidecar~10.244.0.7~web-abc.default~default.svc.cluster.local`.
    pub id: String,
    /// What it is for.
    pub kind: ProxyKind,
    /// Address of its pod.
    pub address: String,
    /// Name of its pod.
    pub name: String,
    /// Namespace of its pod.
    pub namespace: String,
    /// Labels of its pod.
    pub labels: BTreeMap<String, String>,
    /// Service account of its pod.
    pub service_account: String,
    /// Cluster that it runs in.
    pub cluster_id: String,
    /// Mesh that it belongs to; `unknown` when it does not say.
    pub mesh_id: String,
    /// Istio version that it claims.
    pub istio_version: String,
    /// Where it says that it runs.
    pub locality: Locality,
    /// Names of the extensions that it has; empty when it does not say.
    extensions: BTreeSet<String>,
}

/// Why a node cannot be served.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum NodeError {
    /// The id has another form.
    #[error("node id {id:?} is not of the form TYPE~ADDRESS~POD.NAMESPACE~DOMAIN")]
    Id {
        /// The id.
        id: String,
    },
    /// The type is neither sidecar nor router.
    #[error("node id {id:?} has the unknown type {found:?}; sidecar and router are served")]
    Kind {
        /// The id.
        id: String,
        /// Its first part.
        found: String,
    },
}

impl Proxy {
    /// Reads the node of a discovery request.
    ///
    /// # Errors
    /// The node id is not one of Istio's, see [`NodeError`].
    pub fn from_node(node: &Node) -> Result<Self, NodeError> {
        let malformed = || NodeError::Id {
            id: node.id.clone(),
        };
        let parts: Vec<&str> = node.id.split('~').collect();
        let [kind, address, workload, _domain] = parts[..] else {
            return Err(malformed());
        };
        let kind = match kind {
            "sidecar" => ProxyKind::Sidecar,
            "router" => ProxyKind::Router,
            other => {
                return Err(NodeError::Kind {
                    id: node.id.clone(),
                    found: other.to_owned(),
                });
            }
        };
        let (name, namespace) = workload.rsplit_once('.').ok_or_else(malformed)?;
        let empty = Struct::default();
        let metadata = node.metadata.as_ref().unwrap_or(&empty);
        Ok(Self {
            id: node.id.clone(),
            kind,
            address: address.to_owned(),
            name: name.to_owned(),
            namespace: text(metadata, "NAMESPACE").unwrap_or(namespace).to_owned(),
            labels: texts(metadata, "LABELS"),
            service_account: text(metadata, "SERVICE_ACCOUNT")
                .unwrap_or("default")
                .to_owned(),
            cluster_id: text(metadata, "CLUSTER_ID")
                .unwrap_or("Kubernetes")
                .to_owned(),
            mesh_id: text(metadata, "MESH_ID").unwrap_or("unknown").to_owned(),
            istio_version: text(metadata, "ISTIO_VERSION")
                .unwrap_or_default()
                .to_owned(),
            locality: node
                .locality
                .as_ref()
                .map_or_else(Locality::default, |place| Locality {
                    region: place.region.clone(),
                    zone: place.zone.clone(),
                    sub_zone: place.sub_zone.clone(),
                }),
            extensions: node
                .extensions
                .iter()
                .take(MAX_ENTRIES)
                .map(|extension| extension.name.clone())
                .collect(),
        })
    }

    /// Whether the proxy has an extension of upstream Envoy, for example `envoy.transport_sockets.tls` or
    /// `envoy.filters.http.fault`. One that lists no extensions at all is taken for a stock Envoy, which has them all.
    pub fn supports(&self, extension: &str) -> bool {
        self.extensions.is_empty() || self.extensions.contains(extension)
    }

    /// Whether the proxy says that it has an extension of Istio's own, which a stock Envoy does not have.
    pub fn has(&self, extension: &str) -> bool {
        self.extensions.contains(extension)
    }

    pub(crate) fn extensions(&self) -> &BTreeSet<String> {
        &self.extensions
    }

    /// Whether mutual TLS can be asked of it.
    pub fn supports_tls(&self) -> bool {
        self.supports("envoy.transport_sockets.tls")
    }
}

fn text<'a>(metadata: &'a Struct, key: &str) -> Option<&'a str> {
    match metadata.fields.get(key) {
        Some(Value {
            kind: Some(ValueKind::StringValue(text)),
        }) if !text.is_empty() => Some(text),
        _ => None,
    }
}

fn texts(metadata: &Struct, key: &str) -> BTreeMap<String, String> {
    let Some(Value {
        kind: Some(ValueKind::StructValue(values)),
    }) = metadata.fields.get(key)
    else {
        return BTreeMap::new();
    };
    let names = values.fields.keys().take(MAX_ENTRIES);
    names
        .filter_map(|name| Some((name.clone(), text(values, name)?.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_node_ids() {
        let check = |id: &str, expected: Result<(ProxyKind, &str, &str), NodeError>| {
            let node = Node {
                id: id.to_owned(),
                ..Node::default()
            };
            let proxy = Proxy::from_node(&node);
            let found = proxy
                .as_ref()
                .map(|p| (p.kind, p.name.as_str(), p.namespace.as_str()))
                .map_err(Clone::clone);
            assert_eq!(found, expected, "{id}");
        };
        let sidecar = "sidecar~10.244.0.7~web-abc.default~default.svc.cluster.local";
        check(sidecar, Ok((ProxyKind::Sidecar, "web-abc", "default")));
        check(
            "router~10.0.0.1~gw-1.istio-system~x",
            Ok((ProxyKind::Router, "gw-1", "istio-system")),
        );
        check(
            "envoy-1",
            Err(NodeError::Id {
                id: "envoy-1".into(),
            }),
        );
        let ztunnel = "ztunnel~1.2.3.4~a.b~c";
        check(
            ztunnel,
            Err(NodeError::Kind {
                id: ztunnel.into(),
                found: "ztunnel".into(),
            }),
        );
    }
}
