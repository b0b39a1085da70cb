//! `Sidecar`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{traffic_policy::ConnectionPool, virtual_service::Destination};
use crate::{
    Kind,
    common::{Port, ServerTlsSettings, WorkloadSelector},
};

/// What a sidecar sees and accepts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SidecarSpec {
    /// Workloads that this applies to; all of the namespace when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_selector: Option<WorkloadSelector>,
    /// Ports that are accepted; as the services say when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<IngressListener>,
    /// Hosts that are seen; everything exported when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<EgressListener>,
    /// Connection limits for all accepted ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inbound_connection_pool: Option<ConnectionPool>,
    /// What happens to traffic to unknown destinations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
}

/// A port that is accepted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["port"]))]
pub struct IngressListener {
    /// The port.
    pub port: Port,
    /// Address to listen on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub bind: String,
    /// How traffic is captured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capture_mode: Option<CaptureMode>,
    /// Where accepted traffic goes: `127.0.0.1:PORT`, `0.0.0.0:PORT` or `unix:///path`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub default_endpoint: String,
    /// TLS settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTlsSettings>,
    /// Connection limits of this port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_pool: Option<ConnectionPool>,
}

/// Hosts that are seen, on all ports or one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["hosts"]))]
pub struct EgressListener {
    /// The port; all when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
    /// Address to listen on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub bind: String,
    /// How traffic is captured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capture_mode: Option<CaptureMode>,
    /// `namespace/host`, where the namespace may be `*`, `.` or `~` and the host a wildcard.
    pub hosts: Vec<String>,
}

/// How traffic reaches the sidecar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CaptureMode {
    /// As the mesh says.
    #[default]
    Default,
    /// By redirection.
    Iptables,
    /// Not captured: the application connects to the sidecar's address.
    None,
}

/// What happens to traffic to unknown destinations.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OutboundTrafficPolicy {
    /// The rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<OutboundMode>,
    /// Where such traffic is sent instead of its own destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_proxy: Option<Destination>,
}

/// What happens to traffic to unknown destinations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundMode {
    /// It is refused. A policy without a mode means this.
    #[default]
    RegistryOnly,
    /// It passes.
    AllowAny,
}

impl Kind for SidecarSpec {
    const GROUP: &'static str = super::GROUP;
    const KIND: &'static str = "Sidecar";
    const PLURAL: &'static str = "sidecars";
    const VERSIONS: &'static [&'static str] = super::VERSIONS;
}
