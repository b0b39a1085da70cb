//! The HTTP filters of a connection manager.

use std::sync::Arc;

use lateen_route::body_fields::BodyFields;
use lateen_route::fault::Fault;
use lateen_route::header_mutation::HeaderMutation;
use lateen_route::stateful_session::Session;
use lateen_route::{Invalid, Within, refuse_rest};
use lateen_xds::pb::envoy::extensions::filters::http::router::v3::Router;
use lateen_xds::pb::envoy::extensions::filters::network::http_connection_manager::v3 as pb;
use lateen_xds::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;
use lateen_xds::pb::google::protobuf::Any;

use super::{body_fields, decode};
use crate::http::filter::alpn::UpstreamProtocols;
use crate::http::filter::{HttpFilter, HttpFilters, Kind};

const PREFIX: &str = "type.googleapis.com/envoy.extensions.filters.http.";

const ALPN: &str = "type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig";

/// The filters before the router, and what the router is told.
pub(crate) struct Filters {
    /// What runs before the route is chosen.
    pub(crate) body_fields: Vec<BodyFields>,
    pub(crate) filters: HttpFilters,
    /// The router leaves out the `x-envoy-` headers.
    pub(crate) suppress_envoy_headers: bool,
}

/// Compiles the filters, given with their positions in the configuration. The router must be the last one.
pub(crate) fn compile(filters: Vec<(usize, pb::HttpFilter)>) -> Result<Filters, Invalid> {
    let last = filters.last().map(|(index, _)| *index);
    let (mut compiled, mut policies) = (HttpFilters::default(), Vec::new());
    for (index, filter) in filters {
        let Some(ConfigType::TypedConfig(any)) = filter.config_type else {
            return Err(Invalid::unsupported("config_discovery"))
                .within_item("http_filters", index);
        };
        if any.type_url.strip_prefix(PREFIX) == Some("router.v3.Router") {
            if Some(index) != last || filter.disabled {
                return Err(Invalid::new(
                    "",
                    "the router must be the last filter, and enabled",
                ))
                .within_item("http_filters", index);
            }
            let suppress_envoy_headers = router(&any)
                .within("typed_config")
                .within_item("http_filters", index)?;
            return Ok(Filters {
                body_fields: policies,
                filters: compiled,
                suppress_envoy_headers,
            });
        }
        if filter.name == body_fields::NAME {
            // Routes cannot configure what runs before them.
            if filter.disabled {
                return Err(Invalid::unsupported("disabled")).within_item("http_filters", index);
            }
            let policy = body_fields::compile(&any).within("typed_config");
            policies.push(policy.within_item("http_filters", index)?);
            continue;
        }
        let kind = kind(&any)
            .within("typed_config")
            .within_item("http_filters", index)?;
        match kind {
            Some(kind) => compiled.0.push(HttpFilter {
                name: filter.name,
                disabled: filter.disabled,
                kind,
            }),
            None if filter.is_optional || known_without_effect(&any) => {}
            None => {
                let reason = format!("filter `{}` is not supported by this proxy", any.type_url);
                return Err(Invalid::new("typed_config", reason))
                    .within_item("http_filters", index);
            }
        }
    }
    Err(Invalid::new("http_filters", "must end with the router"))
}

fn router(any: &Any) -> Result<bool, Invalid> {
    let mut message = decode::<Router>(any)?;
    // Child spans are made for every hop, see `http::forwarded`.
    message.start_child_span = false;
    message.dynamic_stats = None;
    let suppress = std::mem::take(&mut message.suppress_envoy_headers);
    refuse_rest(&message)?;
    Ok(suppress)
}

/// `istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig`
#[derive(Clone, PartialEq, prost::Message)]
struct AlpnConfig {
    #[prost(message, repeated, tag = "1")]
    alpn_override: Vec<AlpnOverride>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AlpnOverride {
    #[prost(int32, tag = "1")]
    upstream_protocol: i32,
    #[prost(string, repeated, tag = "2")]
    alpn_override: Vec<String>,
}

/// The protocols by HTTP version. Upstreams are never spoken to in HTTP/1.0, whose list is passed over.
fn alpn(config: AlpnConfig) -> Result<UpstreamProtocols, Invalid> {
    let mut protocols = UpstreamProtocols::default();
    for (index, entry) in config.alpn_override.into_iter().enumerate() {
        let list = entry.alpn_override.into_iter().map(String::into_bytes);
        match entry.upstream_protocol {
            0 => {}
            1 => protocols.http1 = list.collect(),
            2 => protocols.http2 = list.collect(),
            _ => {
                return Err(Invalid::new("upstream_protocol", "is not a known protocol"))
                    .within_item("alpn_override", index);
            }
        }
    }
    Ok(protocols)
}

/// Nothing for a filter that does not exist here.
fn kind(any: &Any) -> Result<Option<Kind>, Invalid> {
    if any.type_url == ALPN {
        return Ok(Some(Kind::Alpn(Arc::new(alpn(decode(any)?)?))));
    }
    let kind = any.type_url.strip_prefix(PREFIX).unwrap_or_default();
    Ok(Some(match kind {
        // Routes configure it.
        "cors.v3.Cors" => Kind::Cors,
        "fault.v3.HTTPFault" => Kind::Fault(Box::new(Fault::compile(decode(any)?)?)),
        "stateful_session.v3.StatefulSession" => {
            Kind::StatefulSession(Session::compile(decode(any)?)?.map(Box::new))
        }
        "header_mutation.v3.HeaderMutation" => {
            Kind::HeaderMutation(Box::new(HeaderMutation::compile(decode(any)?)?))
        }
        _ => return Ok(None),
    }))
}

/// Statistics only.
fn known_without_effect(any: &Any) -> bool {
    any.type_url.strip_prefix(PREFIX) == Some("grpc_stats.v3.FilterConfig")
}
