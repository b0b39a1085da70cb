//! Istio's filter that tells the TLS of upstream connections which version of HTTP is spoken. By that a sidecar at the
//! other end knows HTTP from other protocols on ports that do not say. A stock Envoy does not have the filter.

use lateen_xds::pb::{
    envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter},
    google::protobuf::Any,
};
use prost::Message;

/// Its name, in nodes that list it and in configurations.
pub(super) const NAME: &str = "istio.alpn";
const TYPE: &str = "type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig";
/// By the number of the upstream protocol (HTTP/1.0, HTTP/1.1, HTTP/2) what is offered, best first.
const OFFERED: [(i32, [&str; 3]); 3] = [
    (0, ["istio-http/1.0", "istio", "http/1.0"]),
    (1, ["istio-http/1.1", "istio", "http/1.1"]),
    (2, ["istio-h2", "istio", "h2"]),
];

/// `istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig`
#[derive(Clone, PartialEq, Message)]
struct FilterConfig {
    #[prost(message, repeated, tag = "1")]
    alpn_override: Vec<AlpnOverride>,
}

#[derive(Clone, PartialEq, Message)]
struct AlpnOverride {
    #[prost(int32, tag = "1")]
    upstream_protocol: i32,
    #[prost(string, repeated, tag = "2")]
    alpn_override: Vec<String>,
}

/// The filter as Istio configures it.
pub(super) fn filter() -> HttpFilter {
    let overrides = OFFERED
        .into_iter()
        .map(|(upstream_protocol, offered)| AlpnOverride {
            upstream_protocol,
            alpn_override: offered.map(str::to_owned).into(),
        });
    let config = FilterConfig {
        alpn_override: overrides.collect(),
    };
    HttpFilter {
        name: NAME.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(Any {
            type_url: TYPE.to_owned(),
            value: config.encode_to_vec(),
        })),
        ..HttpFilter::default()
    }
}
