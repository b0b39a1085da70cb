//! Configuration of a type that has no protobuf definition here: a struct, with its type beside it.

use envoy_types::pb::google::protobuf::Struct;
use prost::Message;

/// Type of the message in its older package, which is the one that is sent.
pub const TYPED_STRUCT: &str = "type.googleapis.com/udpa.type.v1.TypedStruct";

/// Type of the same message in its newer package.
pub const TYPED_STRUCT_V3: &str = "type.googleapis.com/xds.type.v3.TypedStruct";

/// `udpa.type.v1.TypedStruct` and `xds.type.v3.TypedStruct`, which are the same on the wire.
#[derive(Clone, PartialEq, Message)]
pub struct TypedStruct {
    /// What the struct is a configuration of.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The configuration.
    #[prost(message, optional, tag = "2")]
    pub value: Option<Struct>,
}
