//! `GatewayClass`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Kind;

/// Who takes care of gateways.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["controllerName"]))]
pub struct GatewayClassSpec {
    /// The controller: `istio.io/gateway-controller` for the mesh.
    #[schemars(length(min = 1, max = 253))]
    pub controller_name: String,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub description: Option<String>,
}

impl Kind for GatewayClassSpec {
    const GROUP: &'static str = super::GROUP;
    const KIND: &'static str = "GatewayClass";
    const PLURAL: &'static str = "gatewayclasses";
    const VERSIONS: &'static [&'static str] = &["v1", "v1beta1"];
    const CLUSTER_SCOPED: bool = true;
}
