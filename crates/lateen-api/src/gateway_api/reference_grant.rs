//! `ReferenceGrant`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Kind;

/// Permission to refer to objects of the own namespace from others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["from", "to"]))]
pub struct ReferenceGrantSpec {
    /// Who may refer.
    #[schemars(length(min = 1, max = 16))]
    pub from: Vec<GrantedFrom>,
    /// What may be referred to.
    #[schemars(length(min = 1, max = 16))]
    pub to: Vec<GrantedTo>,
}

/// Objects of a kind and a namespace that may refer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["group", "kind", "namespace"]))]
pub struct GrantedFrom {
    /// API group; empty for the core group.
    #[schemars(length(max = 253))]
    pub group: String,
    /// Kind, for example `HTTPRoute`.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Namespace of the objects.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
}

/// Objects of a kind that may be referred to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["group", "kind"]))]
pub struct GrantedTo {
    /// API group; empty for the core group.
    #[schemars(length(max = 253))]
    pub group: String,
    /// Kind, for example `Service`.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Name of the object; all when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
}

impl Kind for ReferenceGrantSpec {
    const GROUP: &'static str = super::GROUP;
    const KIND: &'static str = "ReferenceGrant";
    const PLURAL: &'static str = "referencegrants";
    // Upstream stores `v1beta1`; both have one schema.
    const VERSIONS: &'static [&'static str] = &["v1beta1", "v1"];
}
