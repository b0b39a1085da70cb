//! Group `lateen.dev`: what Lateen adds to Istio's API.
//!
//! Both kinds attach to something else by `targetRefs`, as policies of the Gateway API do, so that the manifests of
//! the mesh stay as they are.

mod body_to_headers;
mod byte_size;
mod sticky_session;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use body_to_headers::{BodyField, BodyToHeadersSpec, OnUnreadable};
pub use byte_size::{ByteSize, ParseByteSizeError};
pub use sticky_session::{
    MemoryStore, RedisStore, RedisTls, SecretKeyReference, SessionKey, SessionStore,
    StickySessionSpec,
};

use crate::Object;

/// Keeps a client on its endpoint until it has been idle for a while.
pub type StickySession = Object<StickySessionSpec>;

/// Copies fields of request bodies into request headers, before routing.
pub type BodyToHeaders = Object<BodyToHeadersSpec>;

const GROUP: &str = "lateen.dev";
const VERSIONS: &[&str] = &["v1alpha1"];

/// The object that a policy is for, in the policy's own namespace.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["kind", "name"]))]
pub struct TargetReference {
    /// API group; empty for the core group.
    pub group: String,
    /// Kind, for example `Service` or `Gateway`.
    pub kind: String,
    /// Name of the object.
    pub name: String,
    /// Part of the object, for a Service: the subset of its DestinationRule. Unset: all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

impl TargetReference {
    /// Whether the reference is to a Kubernetes Service.
    pub fn is_service(&self) -> bool {
        self.group.is_empty() && self.kind == "Service"
    }

    /// Whether the reference is to an Istio Gateway.
    pub fn is_gateway(&self) -> bool {
        self.group == "networking.istio.io" && self.kind == "Gateway"
    }
}
