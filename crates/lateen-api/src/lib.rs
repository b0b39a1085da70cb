//! Kinds of Istio, the Gateway API and Lateen as Rust types: decoding of every served version, validation and CRD
//! generation.
//!
//! Istio serves one schema under several versions (`v1`, `v1beta1`, `v1alpha3`), so one Rust type per kind is enough:
//! [`decode`](object::decode) takes any of them. The types are the single source of the schema too: [`crd::all`] derives
//! the CustomResourceDefinitions from them. Checks that a schema cannot express are in [`validation`].
//!
//! No input or output, no clock, no async.

pub mod common;
pub mod crd;
pub mod duration;
pub mod gateway_api;
pub mod lateen;
pub mod networking;
pub mod object;
pub mod security;
pub mod validation;

pub use duration::Duration;
pub use lateen::{BodyToHeaders, StickySession};
pub use networking::{
    DestinationRule, Gateway, ServiceEntry, Sidecar, VirtualService, WorkloadEntry,
};
pub use object::{DecodeError, Kind, Object, decode};
pub use security::PeerAuthentication;
