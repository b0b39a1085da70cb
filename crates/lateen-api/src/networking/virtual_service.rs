//! `VirtualService`: hosts, gateways, TCP and TLS rules. HTTP rules are in [`super::http_route`].

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::http_route::*;
use crate::{
    Kind,
    common::{PortSelector, is_zero},
};

/// How requests to hosts are routed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualServiceSpec {
    /// Hosts that the rules are for: names, `*.domain` or `*`; short names are of the own namespace.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "crate::common::without_nulls"
    )]
    pub hosts: Vec<String>,
    /// Gateways (`name` or `namespace/name`) that apply the rules; `mesh` stands for all sidecars and is the default.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<String>,
    /// Rules for HTTP, tried in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<HttpRoute>,
    /// Rules for TLS that is not decrypted, tried in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tls: Vec<TlsRoute>,
    /// Rules for other connections, tried in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tcp: Vec<TcpRoute>,
    /// Namespaces that see the rules: `*`, `.`, `~` or names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub export_to: Vec<String>,
}

/// A service, or a subset of its endpoints, that traffic goes to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["host"]))]
pub struct Destination {
    /// Host of the service; short names are of the rule's namespace.
    pub host: String,
    /// Subset that a DestinationRule defines.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subset: String,
    /// Port; may be left out when the service has only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<PortSelector>,
}

/// A destination and its share of connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["destination"]))]
pub struct RouteDestination {
    /// Where connections go.
    pub destination: Destination,
    /// Share relative to the sum of all weights.
    pub weight: i32,
}

/// A rule for TLS connections that are not decrypted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["match"]))]
pub struct TlsRoute {
    /// Conditions, of which one must hold.
    pub r#match: Vec<TlsMatch>,
    /// Where connections go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub route: Vec<RouteDestination>,
}

/// Conditions for a TLS connection; all that are set must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["sniHosts"]))]
pub struct TlsMatch {
    /// Server names, each within the hosts of the rules.
    pub sni_hosts: Vec<String>,
    /// Networks of the destination address.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination_subnets: Vec<String>,
    /// Port of the service; any when 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub port: u32,
    /// Labels of the client's workload.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub source_labels: BTreeMap<String, String>,
    /// Gateways that apply the rule, instead of those of the whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<String>,
    /// Namespace of the client's workload.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source_namespace: String,
}

/// A rule for connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpRoute {
    /// Conditions, of which one must hold; none at all always hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub r#match: Vec<L4Match>,
    /// Where connections go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub route: Vec<RouteDestination>,
}

/// Conditions for a connection; all that are set must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct L4Match {
    /// Networks of the destination address.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination_subnets: Vec<String>,
    /// Port of the service; any when 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub port: u32,
    /// Network of the client's address; not used by Istio.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source_subnet: String,
    /// Labels of the client's workload.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub source_labels: BTreeMap<String, String>,
    /// Gateways that apply the rule, instead of those of the whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<String>,
    /// Namespace of the client's workload.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source_namespace: String,
}

impl Kind for VirtualServiceSpec {
    const GROUP: &'static str = super::GROUP;
    const KIND: &'static str = "VirtualService";
    const PLURAL: &'static str = "virtualservices";
    const VERSIONS: &'static [&'static str] = super::VERSIONS;
}
