//! The PROXY protocol, towards endpoints and from clients.

use lateen_route::{Invalid, Within, refuse_rest};
use lateen_xds::pb::envoy::config::core::v3::proxy_protocol_config::Version as WireVersion;
use lateen_xds::pb::envoy::config::core::v3::{TransportSocket, transport_socket};
use lateen_xds::pb::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
use lateen_xds::pb::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use lateen_xds::pb::google::protobuf::Any;

use super::context::Context;
use super::decode;
use crate::listener::PortPredicate;
use crate::proxy_protocol::{Acceptor, Version};

const UPSTREAM: &str = "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport";

/// A transport socket of clusters, unwrapped: the version of the header, and the transport behind it.
pub(super) fn upstream(
    socket: Option<TransportSocket>,
) -> Result<(Option<Version>, Option<TransportSocket>), Invalid> {
    let typed = socket
        .as_ref()
        .and_then(|socket| match &socket.config_type {
            Some(transport_socket::ConfigType::TypedConfig(any)) if any.type_url == UPSTREAM => {
                Some(any)
            }
            _ => None,
        });
    let Some(any) = typed else {
        return Ok((None, socket));
    };
    let (version, inner) = unwrap(any).within("typed_config")?;
    Ok((Some(version), Some(inner)))
}

fn unwrap(any: &Any) -> Result<(Version, TransportSocket), Invalid> {
    let mut message: ProxyProtocolUpstreamTransport = decode(any)?;
    let mut config = message.config.take().unwrap_or_default();
    let version = version(std::mem::take(&mut config.version)).within("config.version")?;
    // Without types none is passed on.
    if let Some(pass) = &config.pass_through_tlvs
        && pass.match_type == 1
        && pass.tlv_type.is_empty()
    {
        config.pass_through_tlvs = None;
    }
    refuse_rest(&config).within("config")?;
    let inner = message
        .transport_socket
        .take()
        .ok_or_else(|| Invalid::new("transport_socket", "is required"))?;
    refuse_rest(&message)?;
    Ok((version, inner))
}

/// The filter of listeners.
pub(super) fn acceptor(
    any: &Any,
    disabled: Option<PortPredicate>,
    context: &Context<'_>,
) -> Result<Acceptor, Invalid> {
    let mut message: ProxyProtocol = decode(any)?;
    let (mut v1, mut v2) = (true, true);
    let disallowed = std::mem::take(&mut message.disallowed_versions);
    for (index, number) in disallowed.into_iter().enumerate() {
        match version(number).within_item("disallowed_versions", index)? {
            Version::V1 => v1 = false,
            Version::V2 => v2 = false,
        }
    }
    let prefix = std::mem::take(&mut message.stat_prefix);
    let optional = std::mem::take(&mut message.allow_requests_without_proxy_protocol);
    refuse_rest(&message)?;
    Ok(Acceptor {
        optional,
        v1,
        v2,
        disabled,
        stats: context.proxy_protocol_stats(&prefix),
    })
}

fn version(number: i32) -> Result<Version, Invalid> {
    match WireVersion::try_from(number) {
        Ok(WireVersion::V1) => Ok(Version::V1),
        Ok(WireVersion::V2) => Ok(Version::V2),
        Err(_) => Err(Invalid::unsupported("")),
    }
}
