//! `Gateway`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Kind,
    common::{Port, ServerTlsSettings},
};

/// Ports and hosts that a gateway workload serves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewaySpec {
    /// What the gateway listens for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<Server>,
    /// Labels of the gateway's pods, in any namespace.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub selector: BTreeMap<String, String>,
}

/// One port of a gateway.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["port", "hosts"]))]
pub struct Server {
    /// Port of the gateway's Service, and its protocol.
    pub port: Port,
    /// Address to listen on; all when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub bind: String,
    /// Hosts that are served: `host`, `*.domain`, `*`, each optionally as `namespace/host` (`.` is the own namespace).
    pub hosts: Vec<String>,
    /// TLS settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTlsSettings>,
    /// Not used by Istio.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub default_endpoint: String,
    /// Name of the server, unique within the gateway.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
}

impl Kind for GatewaySpec {
    const GROUP: &'static str = super::GROUP;
    const KIND: &'static str = "Gateway";
    const PLURAL: &'static str = "gateways";
    const VERSIONS: &'static [&'static str] = super::VERSIONS;
}
