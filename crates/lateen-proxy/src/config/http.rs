//! The HTTP connection manager.

use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderValue;
use lateen_route::constraint::not_empty;
use lateen_route::{Invalid, RouteTable, Within, refuse_rest};
use lateen_xds::pb::envoy::config::core::v3::HttpProtocolOptions;
use lateen_xds::pb::envoy::config::core::v3::http_protocol_options::HeadersWithUnderscoresAction;
use lateen_xds::pb::envoy::extensions::filters::network::http_connection_manager::v3 as pb;
use lateen_xds::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier,
    ServerHeaderTransformation, StripPortMode, UpgradeConfig,
};
use lateen_xds::pb::google::protobuf;

use super::context::Context;
use super::filters::{self, Filters};
use super::telemetry::Telemetry;
use super::{access_log, aggregated, flag, limit, local_reply};
use crate::http::client_certificate::{Details, ForwardMode};
use crate::http::codec;
use crate::http::decorator::Side;
use crate::http::manager::{
    ClientLimits, Codec, EscapedSlashes, HttpManager, RouteSource, ServerHeader, StripPort,
    Underscores,
};

const UUID_REQUEST_ID: &str =
    "type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig";

/// Idle downstream connections are closed after this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Connections that came of age may be used for so long until they are closed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Streams without progress are ended after this time.
const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Bytes of the shortest field, `a:` with the end of its line.
const SHORTEST_FIELD: usize = 4;
/// Header limit in KiB.
const HEADERS_KB: u32 = 60;
/// The largest header limit in KiB.
const MOST_HEADERS_KB: u32 = 8192;

/// Compiles the filter.
pub(crate) fn compile(
    mut message: pb::HttpConnectionManager,
    context: &Context<'_>,
) -> Result<HttpManager, Invalid> {
    accept_without_effect(&mut message);
    let stat_prefix = std::mem::take(&mut message.stat_prefix);
    not_empty("stat_prefix", &stat_prefix)?;
    let codec = match CodecType::try_from(std::mem::take(&mut message.codec_type)) {
        Ok(CodecType::Auto) => Codec::Auto,
        Ok(CodecType::Http1) => Codec::Http1,
        Ok(CodecType::Http2) => Codec::Http2,
        _ => return Err(Invalid::unsupported("codec_type")),
    };
    let routes = match message.route_specifier.take() {
        Some(RouteSpecifier::Rds(rds)) => {
            aggregated(rds.config_source).within("rds.config_source")?;
            RouteSource::Dynamic(context.route_slot(&rds.route_config_name))
        }
        Some(RouteSpecifier::RouteConfig(configuration)) => RouteSource::Inline(Arc::new(
            RouteTable::compile(configuration)
                .and_then(|table| {
                    // Unlike tables of their own, inline ones are checked unless configured otherwise.
                    if table.validate_clusters != Some(false) {
                        context.check_clusters(&table)?;
                    }
                    Ok(table)
                })
                .within("route_config")?,
        )),
        _ => {
            return Err(Invalid::new(
                "route_specifier",
                "only rds and route_config are supported",
            ));
        }
    };
    let server_name = match std::mem::take(&mut message.server_name) {
        name if name.is_empty() => HeaderValue::from_static("envoy"),
        name => HeaderValue::from_str(&name)
            .map_err(|_| Invalid::new("server_name", "is not a valid header value"))?,
    };
    let transformation = std::mem::take(&mut message.server_header_transformation);
    let server_header = match ServerHeaderTransformation::try_from(transformation) {
        Ok(ServerHeaderTransformation::Overwrite) => ServerHeader::Overwrite,
        Ok(ServerHeaderTransformation::AppendIfAbsent) => ServerHeader::AppendIfAbsent,
        Ok(ServerHeaderTransformation::PassThrough) => ServerHeader::PassThrough,
        Err(_) => return Err(Invalid::unsupported("server_header_transformation")),
    };
    let escaped = std::mem::take(&mut message.path_with_escaped_slashes_action);
    let escaped_slashes = match PathWithEscapedSlashesAction::try_from(escaped) {
        Ok(
            PathWithEscapedSlashesAction::ImplementationSpecificDefault
            | PathWithEscapedSlashesAction::KeepUnchanged,
        ) => EscapedSlashes::Keep,
        Ok(PathWithEscapedSlashesAction::RejectRequest) => EscapedSlashes::Reject,
        Ok(PathWithEscapedSlashesAction::UnescapeAndForward) => EscapedSlashes::Unescape,
        Ok(PathWithEscapedSlashesAction::UnescapeAndRedirect) => EscapedSlashes::Redirect,
        Err(_) => return Err(Invalid::unsupported("path_with_escaped_slashes_action")),
    };
    let forward = std::mem::take(&mut message.forward_client_cert_details);
    let forward_client_cert = match ForwardClientCertDetails::try_from(forward) {
        Ok(ForwardClientCertDetails::Sanitize) => ForwardMode::Sanitize,
        Ok(ForwardClientCertDetails::ForwardOnly) => ForwardMode::ForwardOnly,
        Ok(ForwardClientCertDetails::AppendForward) => ForwardMode::AppendForward,
        Ok(ForwardClientCertDetails::SanitizeSet) => ForwardMode::SanitizeSet,
        Ok(ForwardClientCertDetails::AlwaysForwardOnly) => ForwardMode::AlwaysForwardOnly,
        Err(_) => return Err(Invalid::unsupported("forward_client_cert_details")),
    };
    let mut client_cert_details = Details::default();
    if let Some(mut details) = message.set_current_client_cert_details.take() {
        client_cert_details = Details {
            certificate: std::mem::take(&mut details.cert),
            chain: std::mem::take(&mut details.chain),
            subject: flag(details.subject.take(), false),
            uri: std::mem::take(&mut details.uri),
            dns: std::mem::take(&mut details.dns),
        };
        refuse_rest(&details).within("set_current_client_cert_details")?;
    }

    let limits = limits(&mut message)?;
    let (mut accept_http_10, mut allow_chunked_length) = (false, false);
    let mut default_host = None;
    if let Some(mut options) = message.http_protocol_options.take() {
        accept_http_10 = std::mem::take(&mut options.accept_http_10);
        allow_chunked_length = std::mem::take(&mut options.allow_chunked_length);
        let host = std::mem::take(&mut options.default_host_for_http_10);
        default_host = Some(host).filter(|host| !host.is_empty());
        // Absolute request targets are always accepted, as their default is.
        if options.allow_absolute_url.is_some_and(|value| value.value) {
            options.allow_absolute_url = None;
        }
        refuse_rest(&options).within("http_protocol_options")?;
    }
    let mut extended_connect = false;
    let max_streams = match message.http2_protocol_options.take() {
        None => None,
        Some(mut options) => {
            extended_connect = std::mem::take(&mut options.allow_connect);
            let streams = options
                .max_concurrent_streams
                .take()
                .map(|value| value.value);
            // Window sizes only tune throughput; ours are chosen for bounded memory.
            options.initial_stream_window_size = None;
            options.initial_connection_window_size = None;
            refuse_rest(&options).within("http2_protocol_options")?;
            streams
        }
    };
    let upgrades = upgrades(std::mem::take(&mut message.upgrade_configs))?;
    if let Some(any) = message
        .request_id_extension
        .take()
        .and_then(|extension| extension.typed_config)
        && any.type_url != UUID_REQUEST_ID
    {
        return Err(Invalid::unsupported("request_id_extension"));
    }
    let mut telemetry = Telemetry::default();
    let remaining = telemetry.take(std::mem::take(&mut message.http_filters), context)?;
    let Filters {
        body_fields,
        filters,
        suppress_envoy_headers,
    } = filters::compile(remaining)?;
    let tracing = message.tracing.take().map(|_| match context.outbound {
        true => Side::Client,
        false => Side::Server,
    });
    let manager = HttpManager {
        codec,
        routes,
        server_name,
        server_header,
        use_remote_address: flag(message.use_remote_address.take(), false),
        skip_xff_append: std::mem::take(&mut message.skip_xff_append),
        trusted_hops: std::mem::take(&mut message.xff_num_trusted_hops),
        normalize_path: flag(message.normalize_path.take(), false),
        merge_slashes: std::mem::take(&mut message.merge_slashes),
        escaped_slashes,
        strip_port: strip_port(&mut message)?,
        via: match std::mem::take(&mut message.via) {
            name if name.is_empty() => None,
            name => Some(
                HeaderValue::from_str(&name)
                    .map_err(|_| Invalid::new("via", "is not a valid header value"))?,
            ),
        },
        strip_trailing_dot: std::mem::take(&mut message.strip_trailing_host_dot),
        tracing,
        tells_client: flag(message.add_proxy_protocol_connection_state.take(), true),
        forward_client_cert,
        client_cert_details,
        limits,
        stream_idle_timeout: limit(
            message.stream_idle_timeout.take(),
            Some(STREAM_IDLE_TIMEOUT),
        )
        .within("stream_idle_timeout")?,
        generate_request_id: flag(message.generate_request_id.take(), true),
        preserve_external_request_id: std::mem::take(&mut message.preserve_external_request_id),
        request_id_in_response: std::mem::take(&mut message.always_set_request_id_in_response),
        append_forwarded_port: std::mem::take(&mut message.append_x_forwarded_port),
        headers_kb: headers_kb(message.max_request_headers_kb.take())?,
        max_streams,
        accept_http_10,
        default_host,
        allow_chunked_length,
        extended_connect,
        upgrades,
        suppress_envoy_headers,
        body_fields,
        filters,
        local_replies: message
            .local_reply_config
            .take()
            .map(local_reply::compile)
            .transpose()
            .within("local_reply_config")?,
        access_log: access_log::compile(std::mem::take(&mut message.access_log), context)?,
        stats: context.http_stats(&stat_prefix),
        node_ip: context.node_ip,
        peer_headers: telemetry.peer_headers,
        telemetry: telemetry.stats,
    };
    refuse_rest(&message)?;
    Ok(manager)
}

/// Which ports are taken off hosts.
fn strip_port(message: &mut pb::HttpConnectionManager) -> Result<StripPort, Invalid> {
    let own = std::mem::take(&mut message.strip_matching_host_port);
    let any = message
        .strip_port_mode
        .take()
        .is_some_and(|StripPortMode::StripAnyHostPort(any)| any);
    match (own, any) {
        (true, true) => Err(Invalid::new(
            "strip_matching_host_port",
            "excludes strip_any_host_port",
        )),
        (true, false) => Ok(StripPort::Own),
        (false, true) => Ok(StripPort::Any),
        (false, false) => Ok(StripPort::None),
    }
}

/// The protocols that clients may switch to.
fn upgrades(configs: Vec<UpgradeConfig>) -> Result<Vec<String>, Invalid> {
    let mut upgrades: Vec<(String, bool)> = Vec::new();
    for (index, mut config) in configs.into_iter().enumerate() {
        let name = std::mem::take(&mut config.upgrade_type).to_ascii_lowercase();
        if upgrades.iter().any(|(other, _)| *other == name) {
            let reason = format!("`{name}` appears twice");
            return Err(Invalid::new("upgrade_type", reason)).within_item("upgrade_configs", index);
        }
        upgrades.push((name, flag(config.enabled.take(), true)));
        refuse_rest(&config).within_item("upgrade_configs", index)?;
    }
    let enabled = upgrades.into_iter().filter(|(_, enabled)| *enabled);
    Ok(enabled.map(|(name, _)| name).collect())
}

/// What connections and requests may take.
fn limits(message: &mut pb::HttpConnectionManager) -> Result<ClientLimits, Invalid> {
    let mut limits = ClientLimits {
        idle: Some(IDLE_TIMEOUT),
        headers: codec::MOST_HEADERS,
        underscores: Underscores::Allow,
        connection: None,
        requests: None,
        head: limit(message.request_headers_timeout.take(), None)
            .within("request_headers_timeout")?,
        request: limit(message.request_timeout.take(), None).within("request_timeout")?,
        drain: limit(message.drain_timeout.take(), Some(DRAIN_TIMEOUT))
            .within("drain_timeout")?
            .unwrap_or_default(),
    };
    if let Some(common) = message.common_http_protocol_options.take() {
        common_limits(common, &mut limits).within("common_http_protocol_options")?;
    }
    Ok(limits)
}

fn common_limits(
    mut common: HttpProtocolOptions,
    limits: &mut ClientLimits,
) -> Result<(), Invalid> {
    limits.idle = limit(common.idle_timeout.take(), limits.idle).within("idle_timeout")?;
    limits.connection =
        limit(common.max_connection_duration.take(), None).within("max_connection_duration")?;
    if let Some(most) = common.max_headers_count.take() {
        if most.value == 0 {
            return Err(Invalid::new("max_headers_count", "must be 1 or more"));
        }
        // More do not fit into a head, and the codec has room for each.
        limits.headers = (most.value as usize).min(codec::HTTP1_BUFFER / SHORTEST_FIELD);
    }
    // Zero is no limit, as in Envoy.
    let most = common.max_requests_per_connection.take();
    limits.requests = most.map(|most| most.value).filter(|most| *most > 0);
    let action = std::mem::take(&mut common.headers_with_underscores_action);
    limits.underscores = match HeadersWithUnderscoresAction::try_from(action) {
        Ok(HeadersWithUnderscoresAction::Allow) => Underscores::Allow,
        Ok(HeadersWithUnderscoresAction::RejectRequest) => Underscores::Reject,
        Ok(HeadersWithUnderscoresAction::DropHeader) => Underscores::Drop,
        Err(_) => return Err(Invalid::unsupported("headers_with_underscores_action")),
    };
    refuse_rest(&common)
}

/// Fields whose effect does not exist here, or is always on.
fn accept_without_effect(message: &mut pb::HttpConnectionManager) {
    // `expect: 100-continue` is answered by the proxy as soon as the upstream asks for the body.
    message.proxy_100_continue = false;
    message.delayed_close_timeout = None;
    // With no address configured as internal, as sent by default, all are external.
    if let Some(internal) = &message.internal_address_config
        && internal.cidr_ranges.is_empty()
        && !internal.unix_sockets
    {
        message.internal_address_config = None;
    }
}

fn headers_kb(value: Option<protobuf::UInt32Value>) -> Result<u32, Invalid> {
    match value {
        None => Ok(HEADERS_KB),
        Some(value) if (1..=MOST_HEADERS_KB).contains(&value.value) => Ok(value.value),
        Some(_) => {
            let reason = format!("must be 1 to {MOST_HEADERS_KB}");
            Err(Invalid::new("max_request_headers_kb", reason))
        }
    }
}
