//! `TCPRoute` and `TLSRoute`: routes for connections.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BackendReference, ParentReference};
use crate::Kind;

/// Where connections of a port go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["rules"]))]
pub struct TcpRouteSpec {
    /// What the route is attached to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub parent_refs: Vec<ParentReference>,
    /// The only rule.
    #[schemars(length(min = 1, max = 1))]
    pub rules: Vec<ConnectionRule>,
}

/// Where connections with a server name of TLS go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["rules"]))]
pub struct TlsRouteSpec {
    /// What the route is attached to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub parent_refs: Vec<ParentReference>,
    /// Server names: names or `*.domain`; those of the parent when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub hostnames: Vec<String>,
    /// The only rule.
    #[schemars(length(min = 1, max = 1))]
    pub rules: Vec<ConnectionRule>,
}

/// Where connections go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["backendRefs"]))]
pub struct ConnectionRule {
    /// Name of the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// Where connections go; without any they are closed.
    #[schemars(length(min = 1, max = 16))]
    pub backend_refs: Vec<ConnectionBackend>,
}

/// A backend and its share of connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct ConnectionBackend {
    /// The backend.
    #[serde(flatten)]
    pub reference: BackendReference,
    /// Share relative to the sum of all weights; 1 when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub weight: Option<i32>,
}

impl ConnectionBackend {
    /// Share relative to the sum of all weights; never negative.
    pub fn share(&self) -> i32 {
        self.weight.unwrap_or(1).max(0)
    }
}

impl Kind for TcpRouteSpec {
    const GROUP: &'static str = super::GROUP;
    const KIND: &'static str = "TCPRoute";
    const PLURAL: &'static str = "tcproutes";
    const VERSIONS: &'static [&'static str] = &["v1", "v1alpha2"];
}

impl Kind for TlsRouteSpec {
    const GROUP: &'static str = super::GROUP;
    const KIND: &'static str = "TLSRoute";
    const PLURAL: &'static str = "tlsroutes";
    const VERSIONS: &'static [&'static str] = &["v1", "v1alpha3", "v1alpha2"];
}
