//! `BodyToHeaders`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ByteSize, TargetReference};
use crate::{Kind, common::LabelSelector};

/// Copies fields of JSON or form bodies into request headers, before the route is chosen. The body reaches the
/// backend byte for byte.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["fields"]))]
pub struct BodyToHeadersSpec {
    /// Istio Gateways of the own namespace whose requests are looked at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub target_refs: Vec<TargetReference>,
    /// Workloads of the own namespace whose incoming requests are looked at. Exactly one of this and `targetRefs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// What is copied where: 1 to 32.
    pub fields: Vec<BodyField>,
    /// Media types that are looked at: `application/json`, types ending in `+json`, or
    /// `application/x-www-form-urlencoded`. `application/json` when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub content_types: Vec<String>,
    /// Longest body that is looked at, 1 to 16Mi; 64Ki when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<ByteSize>,
    /// Whether a field of the body replaces a header that the client sent; true when unset. With false the client's
    /// header stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overwrite: Option<bool>,
    /// What happens to a request whose body is too long, malformed or of another type.
    pub on_unreadable: OnUnreadable,
}

/// One copied field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["pointer", "header"]))]
pub struct BodyField {
    /// JSON pointer (RFC 6901) to a text, number or boolean, for example `/user/name`, at most 32 names long. For a
    /// form: `/` and the name.
    pub pointer: String,
    /// Header that takes the value; none that frames messages, describes the body or is trusted by proxies.
    pub header: String,
}

/// What happens to a request whose body cannot be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnUnreadable {
    /// It goes on as it came, routed by what its headers say. With `overwrite`, headers of the fields' names that
    /// the client sent are kept, as nothing in the body speaks against them.
    #[default]
    Pass,
    /// It is answered with 413, 400 or 415.
    Reject,
}

impl BodyToHeadersSpec {
    /// Whether a value of the body replaces a header of the client.
    pub fn overwrites(&self) -> bool {
        self.overwrite.unwrap_or(true)
    }
}

impl Kind for BodyToHeadersSpec {
    const GROUP: &'static str = super::GROUP;
    const KIND: &'static str = "BodyToHeaders";
    const PLURAL: &'static str = "bodytoheaders";
    const VERSIONS: &'static [&'static str] = super::VERSIONS;
}
