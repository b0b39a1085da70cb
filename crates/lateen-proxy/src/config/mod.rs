//! xDS resources into the run-time form, and the store that keeps them consistent.
//!
//! Each converter takes the fields it understands out of the message and refuses the rest, so that nothing is accepted
//! and then ignored. Fields that are accepted without effect are taken out by name, with the reason beside them.

pub(crate) mod access_log;
pub(crate) mod body_fields;
pub(crate) mod chain_match;
pub(crate) mod cluster;
pub(crate) mod context;
pub(crate) mod endpoint;
pub(crate) mod filters;
#[cfg(test)]
mod fuzz;
pub(crate) mod http;
pub(crate) mod listener;
mod local_reply;
pub(crate) mod outlier;
mod proxy_protocol;
pub(crate) mod store;
pub(crate) mod tcp;
pub(crate) mod telemetry;
pub(crate) mod tls;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lateen_route::{Invalid, Within};
use lateen_xds::pb::envoy::config::core::v3::address::Address as AddressKind;
use lateen_xds::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use lateen_xds::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use lateen_xds::pb::envoy::config::core::v3::{
    Address, ConfigSource, SocketAddress, socket_address,
};
use lateen_xds::pb::google::protobuf;
use prost::Message;

pub(crate) const RAW_BUFFER: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";

/// Decodes the content of an `Any`.
pub(crate) fn decode<M: Message + Default>(any: &protobuf::Any) -> Result<M, Invalid> {
    M::decode(any.value.as_slice())
        .map_err(|error| Invalid::new("", format!("`{}` cannot be decoded: {error}", any.type_url)))
}

/// A TCP address given as text and number.
pub(crate) fn socket_address(address: Option<Address>) -> Result<SocketAddr, Invalid> {
    match address.and_then(|address| address.address) {
        Some(AddressKind::SocketAddress(address)) => ip_and_port(address).within("socket_address"),
        Some(_) => Err(Invalid::new("", "only socket addresses are supported")),
        None => Err(Invalid::new("", "is required")),
    }
}

/// The parts of a socket address.
pub(crate) fn ip_and_port(address: SocketAddress) -> Result<SocketAddr, Invalid> {
    if address.protocol != i32::from(socket_address::Protocol::Tcp) {
        return Err(Invalid::unsupported("protocol"));
    }
    let ip: IpAddr = address.address.parse().map_err(|_| {
        Invalid::new(
            "address",
            format!("`{}` is not an IP address", address.address),
        )
    })?;
    let port = match address.port_specifier {
        Some(PortSpecifier::PortValue(port)) => {
            u16::try_from(port).map_err(|_| Invalid::new("port_value", "must be at most 65535"))?
        }
        Some(PortSpecifier::NamedPort(_)) => return Err(Invalid::unsupported("named_port")),
        None => 0,
    };
    Ok(SocketAddr::new(ip, port))
}

/// Discovery must use the same aggregated stream. The fetch timeout has no effect: nothing blocks while waiting.
pub(crate) fn aggregated(source: Option<ConfigSource>) -> Result<(), Invalid> {
    match source.and_then(|source| source.config_source_specifier) {
        Some(ConfigSourceSpecifier::Ads(_)) => Ok(()),
        _ => Err(Invalid::new(
            "",
            "only the aggregated stream (`ads`) is supported",
        )),
    }
}

/// A duration of zero or more.
pub(crate) fn duration(value: protobuf::Duration) -> Result<Duration, Invalid> {
    match (u64::try_from(value.seconds), u32::try_from(value.nanos)) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Ok(Duration::new(seconds, nanos)),
        _ => Err(Invalid::new("", "must be a duration of zero or more")),
    }
}

/// A duration of more than zero.
pub(crate) fn positive(value: protobuf::Duration) -> Result<Duration, Invalid> {
    let time = duration(value)?;
    if time.is_zero() {
        return Err(Invalid::new("", "must be more than zero"));
    }
    Ok(time)
}

/// A duration where zero means "no limit" and absence a default.
pub(crate) fn limit(
    value: Option<protobuf::Duration>,
    default: Option<Duration>,
) -> Result<Option<Duration>, Invalid> {
    match value {
        None => Ok(default),
        Some(value) => Ok(Some(duration(value)?).filter(|time| !time.is_zero())),
    }
}

/// The value of an optional boolean.
pub(crate) fn flag(value: Option<protobuf::BoolValue>, default: bool) -> bool {
    value.map_or(default, |value| value.value)
}
