//! Istio's standard metrics, and the exchange of workload metadata that their labels are made of. Only proxies that say
//! that they have these filters get them: stock Envoys have none of them, and would refuse everything that uses them.

use lateen_xds::pb::{
    envoy::{
        config::{
            cluster::v3::{Cluster, Filter as ClusterFilter},
            listener::v3::{Filter, FilterChain, Listener, filter},
        },
        extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter},
    },
    google::protobuf::{Any, ListValue, Struct, Value, value::Kind},
};
use lateen_xds::{TYPED_STRUCT, TypedStruct};
use prost::Message;

use super::{
    build::{boolean, fields, metadata, text},
    cluster::{BLACK_HOLE, INBOUND_PASSTHROUGH, PASSTHROUGH},
    http_manager::Side,
    workload::InboundPort,
};
use crate::{
    Index, Proxy,
    names::{ClusterName, Direction},
};

const STATS: &str = "type.googleapis.com/stats.PluginConfig";
const EXCHANGE: &str = "istio.metadata_exchange";

/// The part of `stats.PluginConfig` that is used.
#[derive(Clone, PartialEq, Message)]
struct PluginConfig {
    #[prost(bool, tag = "6")]
    disable_host_header_fallback: bool,
}

/// Adds the filters of HTTP connections to those that the proxy has already, before the router is added.
pub(super) fn http_filters(proxy: &Proxy, side: Side, filters: &mut Vec<HttpFilter>) {
    let filter = |name: &str, config| HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..HttpFilter::default()
    };
    if proxy.has("envoy.filters.http.peer_metadata") {
        filters.insert(0, filter(EXCHANGE, peer_metadata(side)));
    }
    if proxy.has("envoy.filters.http.istio_stats") {
        filters.push(filter("istio.stats", stats(side != Side::Outbound)));
    }
}

/// Who is asked and told in headers: clients by inbound listeners, upstreams by all others.
fn peer_metadata(side: Side) -> Any {
    let method = |name: &str| structure(fields([(name, structure(Struct::default()))]));
    let list = |values| Value {
        kind: Some(Kind::ListValue(ListValue { values })),
    };
    let discovery = list(vec![method("istio_headers"), method("workload_discovery")]);
    let propagation = list(vec![method("istio_headers")]);
    let place = if side == Side::Inbound {
        "downstream"
    } else {
        "upstream"
    };
    typed_struct(
        "type.googleapis.com/io.istio.http.peer_metadata.Config",
        fields([
            (format!("{place}_discovery"), discovery),
            (format!("{place}_propagation"), propagation),
        ]),
    )
}

/// Adds the filters of connections to the chains of a listener that forward bytes, and the exchange to all inbound ones.
pub(super) fn listener(proxy: &Proxy, inbound: bool, listener: &mut Listener) {
    let chains = listener.filter_chains.iter_mut();
    for chain in chains.chain(&mut listener.default_filter_chain) {
        filter_chain(proxy, inbound, chain);
    }
}

fn filter_chain(proxy: &Proxy, inbound: bool, chain: &mut FilterChain) {
    let filter = |name: &str, config| Filter {
        name: name.to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(config)),
    };
    let last = chain.filters.len().saturating_sub(1);
    let forwards_bytes = chain
        .filters
        .last()
        .is_some_and(|filter| filter.name == "envoy.filters.network.tcp_proxy");
    if forwards_bytes && proxy.has("envoy.filters.network.istio_stats") {
        chain
            .filters
            .insert(last, filter("istio.stats", stats(inbound)));
    }
    // What loops back to the listener itself has no peer.
    let loops = chain.name.ends_with("-blackhole");
    if inbound && !loops && proxy.has("envoy.filters.network.metadata_exchange") {
        chain.filters.insert(0, filter(EXCHANGE, tcp_exchange()));
    }
}

/// Names the services that clusters stand for, and adds the exchange on connections to their endpoints.
pub(super) fn clusters(
    index: &Index,
    proxy: &Proxy,
    inbound: &[InboundPort<'_>],
    clusters: &mut [Cluster],
) {
    if !proxy.has("envoy.filters.http.istio_stats") {
        return;
    }
    for cluster in clusters {
        if [BLACK_HOLE, PASSTHROUGH, INBOUND_PASSTHROUGH].contains(&cluster.name.as_str()) {
            continue;
        }
        let name = cluster.name.clone();
        let Some(parsed) = ClusterName::parse(&name) else {
            continue;
        };
        let service = match parsed.direction {
            Direction::Outbound => index.service_seen_from(parsed.host, &proxy.namespace),
            Direction::Inbound => inbound
                .iter()
                .find(|port| port.target == parsed.port)
                .and_then(|port| port.service),
        };
        if parsed.direction == Direction::Outbound
            && proxy.has("envoy.filters.network.metadata_exchange")
        {
            cluster.filters.push(ClusterFilter {
                name: EXCHANGE.to_owned(),
                typed_config: Some(tcp_exchange()),
                config_discovery: None,
            });
        }
        let Some(service) = service else { continue };
        let service = structure(fields([
            ("host", text(&service.host)),
            ("name", text(&service.name)),
            ("namespace", text(&service.namespace)),
        ]));
        let services = Value {
            kind: Some(Kind::ListValue(ListValue {
                values: vec![service],
            })),
        };
        let known = cluster.metadata.take().unwrap_or_default();
        let notes = known
            .filter_metadata
            .get("istio")
            .cloned()
            .unwrap_or_default();
        let notes = notes
            .fields
            .into_iter()
            .chain([("services".to_owned(), services)]);
        cluster.metadata = metadata("istio", fields(notes));
    }
}

/// The filter that counts. Inbound listeners and gateways take the service from the cluster alone: the host that a
/// client from outside asks for can be anything.
fn stats(disable_host_header_fallback: bool) -> Any {
    let config = PluginConfig {
        disable_host_header_fallback,
    };
    Any {
        type_url: STATS.to_owned(),
        value: config.encode_to_vec(),
    }
}

fn tcp_exchange() -> Any {
    typed_struct(
        "type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange",
        fields([
            ("enable_discovery", boolean(true)),
            ("protocol", text("istio-peer-exchange")),
        ]),
    )
}

pub(super) fn structure(value: Struct) -> Value {
    Value {
        kind: Some(Kind::StructValue(value)),
    }
}

/// A configuration of a type that only some proxies know.
pub(super) fn typed_struct(type_url: &str, value: Struct) -> Any {
    let message = TypedStruct {
        type_url: type_url.to_owned(),
        value: Some(value),
    };
    Any {
        type_url: TYPED_STRUCT.to_owned(),
        value: message.encode_to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use lateen_xds::json::{FieldNames, from_any};
    use lateen_xds::pb::envoy::config::core::v3::{Extension, Node};

    use super::*;

    fn proxy(extensions: &[&str]) -> Proxy {
        let extension = |name: &&str| Extension {
            name: (*name).to_owned(),
            ..Extension::default()
        };
        let id = "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local".to_owned();
        Proxy::from_node(&Node {
            id,
            extensions: extensions.iter().map(extension).collect(),
            ..Node::default()
        })
        .unwrap()
    }

    const ALL: [&str; 4] = [
        "envoy.filters.http.peer_metadata",
        "envoy.filters.http.istio_stats",
        "envoy.filters.network.istio_stats",
        "envoy.filters.network.metadata_exchange",
    ];

    #[test]
    fn only_proxies_that_have_the_filters_get_them() {
        for (extensions, expected) in [
            (
                &ALL[..],
                &[
                    "istio.metadata_exchange",
                    "istio.stats",
                    "envoy.filters.network.tcp_proxy",
                ][..],
            ),
            // A stock Envoy says nothing, or lists what it has.
            (&[], &["envoy.filters.network.tcp_proxy"]),
            (
                &["envoy.filters.http.fault"],
                &["envoy.filters.network.tcp_proxy"],
            ),
        ] {
            let proxy = proxy(extensions);
            let mut inbound = Listener {
                filter_chains: vec![FilterChain {
                    filters: vec![Filter {
                        name: "envoy.filters.network.tcp_proxy".to_owned(),
                        config_type: None,
                    }],
                    ..FilterChain::default()
                }],
                ..Listener::default()
            };
            listener(&proxy, true, &mut inbound);
            let filters = &inbound.filter_chains[0].filters;
            let names: Vec<_> = filters.iter().map(|filter| filter.name.as_str()).collect();
            assert_eq!(names, expected);
            let mut http = Vec::new();
            http_filters(&proxy, Side::Inbound, &mut http);
            assert_eq!(http.len(), expected.len() - 1);
        }
    }

    #[test]
    fn configurations_have_istios_form() {
        let config = from_any(&peer_metadata(Side::Inbound), FieldNames::Proto).unwrap();
        assert_eq!(
            config["type_url"],
            "type.googleapis.com/io.istio.http.peer_metadata.Config"
        );
        assert_eq!(
            config["value"]["downstream_propagation"][0]["istio_headers"],
            serde_json::json!({})
        );
        let config = from_any(&stats(true), FieldNames::Proto).unwrap();
        assert_eq!(config["disable_host_header_fallback"], true);
    }
}
