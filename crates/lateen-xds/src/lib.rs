//! Envoy v3 protobuf types and the aggregated discovery protocol, server and client side.
//!
//! Knows neither Istio nor Kubernetes. The server half is given a source of [`Resource`]s per node; the client half
//! hands accepted updates to a handler and answers ACK or NACK.

pub mod client;
pub mod json;
pub mod resource;
pub mod server;
mod typed_struct;

pub use envoy_types::pb;
pub use resource::{Names, Resource, ResourceType};
pub use typed_struct::{TYPED_STRUCT, TYPED_STRUCT_V3, TypedStruct};
