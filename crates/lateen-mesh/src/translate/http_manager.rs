//! The HTTP connection manager and its filters.

use lateen_api::BodyToHeaders;
use lateen_xds::pb::envoy::{
    config::{core::v3::Http1ProtocolOptions, listener::v3::Filter, route::v3::RouteConfiguration},
    extensions::{
        filters::{
            http::{
                cors::v3::Cors, fault::v3::HttpFault, grpc_stats::v3::FilterConfig as GrpcStats,
                grpc_stats::v3::filter_config::PerMethodStatSpecifier, router::v3::Router,
            },
            network::http_connection_manager::v3::{
                HttpConnectionManager, HttpFilter, Rds, RequestIdExtension,
                http_connection_manager::{
                    ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier,
                    SetCurrentClientCertDetails, Tracing, UpgradeConfig,
                },
                http_filter,
            },
        },
        request_id::uuid::v3::UuidRequestIdConfig,
    },
    r#type::{
        metadata::v3::{
            MetadataKey, MetadataKind,
            metadata_key::{PathSegment, path_segment::Segment},
            metadata_kind,
        },
        tracing::v3::{CustomTag, custom_tag},
        v3::Percent,
    },
};
use prost::{Message, Name};

use super::{
    access_log, alpn, body_to_headers,
    build::{any, flag, from_ads, seconds},
    filter::network,
    telemetry,
};
use crate::{Index, Proxy};

/// Where requests are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// By a sidecar, from its application.
    Outbound,
    /// By a sidecar, for its application.
    Inbound,
    /// By a gateway.
    Gateway,
}

/// Routes of a connection manager.
pub(super) enum Routes {
    /// A route configuration by name.
    Named(String),
    /// A route configuration on the spot.
    Inline(Box<RouteConfiguration>),
}

/// Results of dry-run authorization that are shown in traces.
const DRY_RUN_TAGS: [(&str, &str); 4] = [
    (
        "istio.authorization.dry_run.allow_policy.name",
        "istio_dry_run_allow_shadow_effective_policy_id",
    ),
    (
        "istio.authorization.dry_run.allow_policy.result",
        "istio_dry_run_allow_shadow_engine_result",
    ),
    (
        "istio.authorization.dry_run.deny_policy.name",
        "istio_dry_run_deny_shadow_effective_policy_id",
    ),
    (
        "istio.authorization.dry_run.deny_policy.result",
        "istio_dry_run_deny_shadow_engine_result",
    ),
];
/// Share of requests that are traced without being asked to, in percent.
const TRACE_SAMPLING: f64 = 1.0;

/// A connection manager as a network filter.
pub(super) fn http_manager(
    index: &Index,
    proxy: &Proxy,
    side: Side,
    stat_prefix: &str,
    routes: Routes,
    body_policies: &[&BodyToHeaders],
) -> Filter {
    let mut manager = HttpConnectionManager {
        stat_prefix: stat_prefix.to_owned(),
        http_filters: http_filters(proxy, side, body_policies),
        access_log: access_log::logs(index, proxy),
        normalize_path: flag(true),
        path_with_escaped_slashes_action: PathWithEscapedSlashesAction::KeepUnchanged.into(),
        proxy_100_continue: true,
        stream_idle_timeout: seconds(0),
        use_remote_address: flag(side == Side::Gateway),
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..UpgradeConfig::default()
        }],
        request_id_extension: Some(RequestIdExtension {
            typed_config: Some(any(&UuidRequestIdConfig {
                use_request_id_for_trace_sampling: flag(true),
                ..UuidRequestIdConfig::default()
            })),
        }),
        tracing: Some(tracing(proxy)),
        route_specifier: Some(match routes {
            Routes::Named(name) => RouteSpecifier::Rds(Rds {
                config_source: from_ads(),
                route_config_name: name,
            }),
            Routes::Inline(routes) => RouteSpecifier::RouteConfig(*routes),
        }),
        ..HttpConnectionManager::default()
    };
    if side != Side::Outbound {
        manager.server_name = "istio-envoy".to_owned();
        manager.set_current_client_cert_details = Some(SetCurrentClientCertDetails {
            subject: flag(true),
            dns: true,
            uri: true,
            cert: side == Side::Gateway,
            ..SetCurrentClientCertDetails::default()
        });
        manager.forward_client_cert_details = match side {
            Side::Gateway => ForwardClientCertDetails::SanitizeSet,
            _ => ForwardClientCertDetails::AppendForward,
        }
        .into();
    }
    if side == Side::Gateway {
        manager.http_protocol_options = Some(Http1ProtocolOptions::default());
    }
    network("envoy.filters.network.http_connection_manager", &manager)
}

/// The filters that requests pass, of those that the proxy has. The router is always there.
fn http_filters(proxy: &Proxy, side: Side, body_policies: &[&BodyToHeaders]) -> Vec<HttpFilter> {
    let grpc_stats = GrpcStats {
        emit_filter_state: true,
        per_method_stat_specifier: Some(PerMethodStatSpecifier::StatsForAllMethods(
            lateen_xds::pb::google::protobuf::BoolValue { value: false },
        )),
        ..GrpcStats::default()
    };
    let mut filters = vec![
        http_filter("envoy.filters.http.grpc_stats", &grpc_stats),
        http_filter("envoy.filters.http.fault", &HttpFault::default()),
        http_filter("envoy.filters.http.cors", &Cors {}),
    ];
    filters.retain(|filter| proxy.supports(&filter.name));
    if side != Side::Inbound && proxy.has(alpn::NAME) {
        let after_grpc_stats = usize::from(proxy.supports("envoy.filters.http.grpc_stats"));
        filters.insert(after_grpc_stats, alpn::filter());
    }
    telemetry::http_filters(proxy, side, &mut filters);
    filters.splice(0..0, body_to_headers::filters(proxy, body_policies));
    filters.push(http_filter("envoy.filters.http.router", &Router::default()));
    filters
}

fn http_filter<M: Message + Name>(name: &str, message: &M) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(message))),
        ..HttpFilter::default()
    }
}

fn tracing(proxy: &Proxy) -> Tracing {
    let percent = |value| Some(Percent { value });
    let label = |key: &str| proxy.labels.get(key).cloned();
    let revision = label("service.istio.io/canonical-revision").or_else(|| label("version"));
    let service = label("service.istio.io/canonical-name").or_else(|| label("app"));
    let literals = [
        (
            "istio.canonical_revision",
            revision.unwrap_or_else(|| "latest".to_owned()),
        ),
        (
            "istio.canonical_service",
            service.unwrap_or_else(|| proxy.name.clone()),
        ),
        ("istio.cluster_id", proxy.cluster_id.clone()),
        ("istio.mesh_id", proxy.mesh_id.clone()),
        ("istio.namespace", proxy.namespace.clone()),
    ];
    let literals = literals.into_iter().map(|(tag, value)| CustomTag {
        tag: tag.to_owned(),
        r#type: Some(custom_tag::Type::Literal(custom_tag::Literal { value })),
    });
    let dry_runs = DRY_RUN_TAGS.iter().map(|(tag, key)| CustomTag {
        tag: tag.to_string(),
        r#type: Some(custom_tag::Type::Metadata(custom_tag::Metadata {
            kind: Some(MetadataKind {
                kind: Some(metadata_kind::Kind::Request(metadata_kind::Request {})),
            }),
            metadata_key: Some(MetadataKey {
                key: "envoy.filters.http.rbac".to_owned(),
                path: vec![PathSegment {
                    segment: Some(Segment::Key(key.to_string())),
                }],
            }),
            ..custom_tag::Metadata::default()
        })),
    });
    Tracing {
        client_sampling: percent(100.0),
        random_sampling: percent(TRACE_SAMPLING),
        overall_sampling: percent(100.0),
        custom_tags: dry_runs.chain(literals).collect(),
        ..Tracing::default()
    }
}

#[cfg(test)]
mod tests {
    use lateen_xds::pb::envoy::config::core::v3::{Extension, Node};

    use super::*;

    #[test]
    fn filters_come_in_istios_order_to_proxies_that_have_them() {
        let check = |extensions: &[&str], side: Side, expected: &[&str]| {
            let extension = |name: &&str| Extension {
                name: (*name).to_owned(),
                ..Extension::default()
            };
            let proxy = Proxy::from_node(&Node {
                id: "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local".to_owned(),
                extensions: extensions.iter().map(extension).collect(),
                ..Node::default()
            });
            let filters = http_filters(&proxy.unwrap(), side, &[]);
            let names: Vec<_> = filters.iter().map(|filter| filter.name.as_str()).collect();
            assert_eq!(names, expected, "{extensions:?} {side:?}");
        };
        let stock = [
            "envoy.filters.http.grpc_stats",
            "envoy.filters.http.fault",
            "envoy.filters.http.cors",
            "envoy.filters.http.router",
        ];
        check(&[], Side::Outbound, &stock);
        let ours = [
            "envoy.filters.http.peer_metadata",
            "envoy.filters.http.grpc_stats",
            "envoy.filters.http.fault",
            "envoy.filters.http.istio_stats",
            "istio.alpn",
        ];
        let outbound = [
            "istio.metadata_exchange",
            "envoy.filters.http.grpc_stats",
            "istio.alpn",
            "envoy.filters.http.fault",
            "istio.stats",
            "envoy.filters.http.router",
        ];
        check(&ours, Side::Outbound, &outbound);
        check(&ours, Side::Gateway, &outbound);
        let inbound: Vec<_> = outbound
            .into_iter()
            .filter(|name| *name != "istio.alpn")
            .collect();
        check(&ours, Side::Inbound, &inbound);
    }
}
