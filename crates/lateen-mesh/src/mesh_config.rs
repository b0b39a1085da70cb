//! Settings of the whole mesh, a subset of Istio's `MeshConfig`.

use serde::{Deserialize, Serialize};

/// Settings of the whole mesh. Defaults are Istio's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshConfig {
    /// First part of every identity in the mesh, `spiffe://<trust domain>/...`.
    pub trust_domain: String,
    /// DNS suffix of the cluster.
    pub domain: String,
    /// Namespace whose configuration applies to all.
    pub root_namespace: String,
    /// Name of the cluster in telemetry.
    pub cluster_id: String,
    /// File that access logs go to; empty switches them off.
    pub access_log_file: String,
    /// Format of the access log; Istio's own text format when empty.
    pub access_log_format: String,
    /// Whether mutual TLS is used between workloads that have a sidecar, without any DestinationRule.
    pub enable_auto_mtls: bool,
    /// What happens to connections to unknown destinations.
    pub outbound_traffic_policy: OutboundTrafficPolicy,
}

/// What happens to connections to unknown destinations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutboundTrafficPolicy {
    /// The rule.
    pub mode: OutboundMode,
}

/// What happens to connections to unknown destinations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundMode {
    /// They pass.
    #[default]
    AllowAny,
    /// They are refused.
    RegistryOnly,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            trust_domain: "cluster.local".to_owned(),
            domain: "cluster.local".to_owned(),
            root_namespace: "istio-system".to_owned(),
            cluster_id: "Kubernetes".to_owned(),
            access_log_file: String::new(),
            access_log_format: String::new(),
            enable_auto_mtls: true,
            outbound_traffic_policy: OutboundTrafficPolicy::default(),
        }
    }
}
