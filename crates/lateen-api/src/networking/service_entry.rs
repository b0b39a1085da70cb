//! `ServiceEntry`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Kind,
    common::{Port, WorkloadSelector, is_zero},
};

/// A service that the registry does not know of.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["hosts"]))]
pub struct ServiceEntrySpec {
    /// Names of the service.
    pub hosts: Vec<String>,
    /// Virtual addresses or networks of the service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Ports of the service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// Whether the service is part of the mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// How addresses of endpoints are found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolution: Option<Resolution>,
    /// Endpoints.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<WorkloadEntryBody>,
    /// Pods and WorkloadEntries that are the endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_selector: Option<WorkloadSelector>,
    /// Namespaces that see the service: `*`, `.`, `~` or names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub export_to: Vec<String>,
    /// Names of which the endpoints' certificates must have one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subject_alt_names: Vec<String>,
}

/// Whether a service is part of the mesh.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Location {
    /// Outside: reached without mutual TLS of the mesh.
    #[default]
    MeshExternal,
    /// Inside.
    MeshInternal,
}

/// How addresses of endpoints are found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Resolution {
    /// The address that the client connected to.
    #[default]
    None,
    /// The addresses of the endpoints.
    Static,
    /// Each name is looked up; all answers are endpoints.
    Dns,
    /// The name is looked up; the first answer is used for new connections.
    DnsRoundRobin,
    /// The host of the request is looked up.
    DynamicDns,
}

/// An endpoint of a service entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadEntryBody {
    /// IP address, name (DNS resolution) or `unix:` path.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// Port numbers by the name of the service's port.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, u32>,
    /// Labels for subsets and policies.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Network that the address is valid in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// `region/zone/subzone`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub locality: String,
    /// Share of traffic relative to the other endpoints; 1 when unset.
    #[serde(skip_serializing_if = "is_zero")]
    pub weight: u32,
    /// Identity of the workload within the namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_account: String,
}

impl Kind for ServiceEntrySpec {
    const GROUP: &'static str = super::GROUP;
    const KIND: &'static str = "ServiceEntry";
    const PLURAL: &'static str = "serviceentries";
    const VERSIONS: &'static [&'static str] = super::VERSIONS;
}

/// As an object of its own an endpoint is a `WorkloadEntry`: a workload outside of Kubernetes that services select.
impl Kind for WorkloadEntryBody {
    const GROUP: &'static str = super::GROUP;
    const KIND: &'static str = "WorkloadEntry";
    const PLURAL: &'static str = "workloadentries";
    const VERSIONS: &'static [&'static str] = super::VERSIONS;
}
