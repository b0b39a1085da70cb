//! The extensions that a proxy says it understands.

use lateen_xds::pb::envoy::config::core::v3::Extension;

/// What is understood, by category, so that the control plane sends nothing else.
const EXTENSIONS: [(&str, &str, &str); 20] = [
    (
        "envoy.filters.network",
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    ),
    (
        "envoy.filters.network",
        "envoy.filters.network.tcp_proxy",
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
    ),
    (
        "envoy.filters.listener",
        "envoy.filters.listener.original_dst",
        "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
    ),
    (
        "envoy.filters.listener",
        "envoy.filters.listener.tls_inspector",
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    ),
    (
        "envoy.filters.listener",
        "envoy.filters.listener.http_inspector",
        "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
    ),
    (
        "envoy.filters.http",
        "envoy.filters.http.router",
        "envoy.extensions.filters.http.router.v3.Router",
    ),
    (
        "envoy.filters.http",
        "envoy.filters.http.fault",
        "envoy.extensions.filters.http.fault.v3.HTTPFault",
    ),
    (
        "envoy.filters.http",
        "envoy.filters.http.cors",
        "envoy.extensions.filters.http.cors.v3.Cors",
    ),
    (
        "envoy.filters.http",
        "envoy.filters.http.stateful_session",
        "envoy.extensions.filters.http.stateful_session.v3.StatefulSession",
    ),
    // See `config::body_fields`.
    (
        "lateen",
        crate::config::body_fields::NAME,
        "lateen.body_to_headers.v1.BodyToHeaders",
    ),
    // A protocol option of clusters, see `config::cluster::sticky`.
    (
        "lateen",
        crate::config::cluster::sticky::NAME,
        "lateen.sticky_session.v1.StickySession",
    ),
    (
        "envoy.filters.http",
        "istio.alpn",
        "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
    ),
    (
        "envoy.filters.http",
        "envoy.filters.http.grpc_stats",
        "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
    ),
    (
        "envoy.filters.http",
        "envoy.filters.http.istio_stats",
        "stats.PluginConfig",
    ),
    (
        "envoy.filters.http",
        "envoy.filters.http.peer_metadata",
        "io.istio.http.peer_metadata.Config",
    ),
    (
        "envoy.filters.network",
        "envoy.filters.network.istio_stats",
        "stats.PluginConfig",
    ),
    (
        "envoy.filters.network",
        "envoy.filters.network.metadata_exchange",
        "envoy.tcp.metadataexchange.config.MetadataExchange",
    ),
    (
        "envoy.transport_sockets.upstream",
        "envoy.transport_sockets.raw_buffer",
        "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
    ),
    (
        "envoy.transport_sockets.upstream",
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    ),
    (
        "envoy.access_loggers",
        "envoy.access_loggers.file",
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
    ),
];

/// The extensions, as a node names them.
pub(super) fn extensions() -> Vec<Extension> {
    EXTENSIONS
        .iter()
        .map(|(category, name, message)| Extension {
            name: (*name).to_owned(),
            category: (*category).to_owned(),
            type_urls: vec![(*message).to_owned()],
            ..Extension::default()
        })
        .collect()
}
