//! Listeners and their filter chains.

use std::sync::Arc;
use std::time::Duration;

use lateen_route::{Invalid, Within, refuse_rest};
use lateen_xds::pb::envoy::config::listener::v3 as pb;
use lateen_xds::pb::envoy::config::listener::v3::listener_filter_chain_match_predicate::Rule;
use lateen_xds::pb::envoy::config::listener::v3::{filter, listener_filter};
use prost::Message;

use super::chain_match::ChainMatcher;
use super::context::Context;
use super::{
    access_log, decode, flag, http, limit, proxy_protocol, socket_address, tcp, telemetry, tls,
};
use crate::listener::{
    FilterChain, Inspector, InspectorKind, Listener, NetworkFilter, PortPredicate,
};
use crate::stats::{PerWorker, SslStats};
use crate::telemetry::StatsFilter;

const NETWORK: &str = "type.googleapis.com/envoy.extensions.filters.network.";
const LISTENER: &str = "type.googleapis.com/envoy.extensions.filters.listener.";

/// Time for a TLS handshake when none is configured. Envoy would wait for ever.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// Time for listener filters when none is configured.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Compiles the resource.
pub(crate) fn compile(
    mut message: pb::Listener,
    context: &Context<'_>,
) -> Result<Listener, Invalid> {
    let context = &context.of_direction(message.traffic_direction);
    accept_without_effect(&mut message);
    let name = std::mem::take(&mut message.name);
    if name.is_empty() {
        return Err(Invalid::new("name", "is required"));
    }
    let address = socket_address(message.address.take()).within("address")?;
    let ssl = context.ssl_stats(&address.to_string());
    let mut listener = Listener {
        stats: context.listener_stats(&address.to_string()),
        name,
        address,
        bind: flag(message.bind_to_port.take(), true),
        inbound: context.inbound,
        use_original_dst: flag(message.use_original_dst.take(), false),
        original_dst: false,
        proxy_protocol: None,
        inspectors: Vec::new(),
        inspect_timeout: limit(
            message.listener_filters_timeout.take(),
            Some(INSPECT_TIMEOUT),
        )
        .within("listener_filters_timeout")?,
        continue_on_timeout: std::mem::take(&mut message.continue_on_listener_filters_timeout),
        matcher: ChainMatcher::default(),
        chains: Vec::new(),
        default_chain: None,
        access_log: access_log::compile(std::mem::take(&mut message.access_log), context)?,
    };
    for (index, filter) in std::mem::take(&mut message.listener_filters)
        .into_iter()
        .enumerate()
    {
        listener_filter(filter, context, &mut listener).within_item("listener_filters", index)?;
    }
    for (index, mut chain) in std::mem::take(&mut message.filter_chains)
        .into_iter()
        .enumerate()
    {
        let condition = chain.filter_chain_match.take();
        let pushed = listener
            .matcher
            .push(condition)
            .within("filter_chain_match");
        pushed.within_item("filter_chains", index)?;
        let chain = filter_chain(chain, context, &ssl).within_item("filter_chains", index)?;
        listener.chains.push(Arc::new(chain));
    }
    if let Some(mut chain) = message.default_filter_chain.take() {
        // An empty condition is allowed there.
        chain.filter_chain_match = None;
        listener.default_chain = Some(Arc::new(
            filter_chain(chain, context, &ssl).within("default_filter_chain")?,
        ));
    }
    refuse_rest(&message)?;
    if listener.chains.is_empty() && listener.default_chain.is_none() {
        return Err(Invalid::new("filter_chains", "must not be empty"));
    }
    Ok(listener)
}

/// Fields whose effect does not exist here, or is always on.
fn accept_without_effect(message: &mut pb::Listener) {
    // For other tools and statistics.
    message.metadata = None;
    message.stat_prefix.clear();
    message.traffic_direction = 0;
    // Sockets are always opened per worker, and each worker accepts until there is nothing to accept.
    message.enable_reuse_port = None;
    message.max_connections_to_accept_per_socket_event = None;
    // Memory per connection is bounded by the codecs' own limits.
    message.per_connection_buffer_limit_bytes = None;
    message.ignore_global_conn_limit = false;
}

fn listener_filter(
    mut filter: pb::ListenerFilter,
    context: &Context<'_>,
    listener: &mut Listener,
) -> Result<(), Invalid> {
    filter.name.clear();
    let disabled = filter
        .filter_disabled
        .take()
        .map(predicate)
        .transpose()
        .within("filter_disabled")?;
    let Some(listener_filter::ConfigType::TypedConfig(any)) = filter.config_type.take() else {
        return Err(Invalid::new("typed_config", "is required"));
    };
    let kind = match any.type_url.strip_prefix(LISTENER) {
        Some("proxy_protocol.v3.ProxyProtocol") => {
            let misplaced = if listener.proxy_protocol.is_some() {
                Some("may be there once")
            } else if !listener.inspectors.is_empty() {
                Some("must come before the filters that look at what follows its header")
            } else if listener.use_original_dst {
                Some("cannot be used beside `use_original_dst`")
            } else {
                None
            };
            if let Some(reason) = misplaced {
                return Err(Invalid::new("typed_config", reason));
            }
            let acceptor = proxy_protocol::acceptor(&any, disabled, context);
            listener.proxy_protocol = Some(acceptor.within("typed_config")?);
            return refuse_rest(&filter);
        }
        Some("original_dst.v3.OriginalDst") => {
            listener.original_dst = true;
            return refuse_rest(&filter);
        }
        // Their options size the first read, which has no effect on the outcome.
        Some("tls_inspector.v3.TlsInspector") => InspectorKind::Tls,
        Some("http_inspector.v3.HttpInspector") => InspectorKind::Http,
        _ => {
            return Err(Invalid::new(
                "typed_config",
                format!(
                    "listener filter `{}` is not supported by this proxy",
                    any.type_url
                ),
            ));
        }
    };
    listener.inspectors.push(Inspector { kind, disabled });
    refuse_rest(&filter)
}

fn predicate(message: pb::ListenerFilterChainMatchPredicate) -> Result<PortPredicate, Invalid> {
    let all = |rules: Vec<pb::ListenerFilterChainMatchPredicate>| {
        rules
            .into_iter()
            .map(predicate)
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(match message.rule {
        Some(Rule::AnyMatch(value)) => PortPredicate::Any(value),
        Some(Rule::DestinationPortRange(range)) => {
            let bound = |port: i32| u32::try_from(port).unwrap_or(0);
            PortPredicate::Range(bound(range.start)..bound(range.end))
        }
        Some(Rule::OrMatch(set)) => PortPredicate::Or(all(set.rules)?),
        Some(Rule::AndMatch(set)) => PortPredicate::And(all(set.rules)?),
        Some(Rule::NotMatch(inner)) => PortPredicate::Not(Box::new(predicate(*inner)?)),
        None => return Err(Invalid::new("rule", "is required")),
    })
}

fn filter_chain(
    mut message: pb::FilterChain,
    context: &Context<'_>,
    ssl: &Arc<PerWorker<SslStats>>,
) -> Result<FilterChain, Invalid> {
    let fingerprint = lateen_route::hash::xx64(&message.encode_to_vec(), 0);
    message.metadata = None;
    let handshake_timeout = limit(
        message.transport_socket_connect_timeout.take(),
        Some(HANDSHAKE_TIMEOUT),
    )
    .within("transport_socket_connect_timeout")?
    .unwrap_or(HANDSHAKE_TIMEOUT);
    let name = std::mem::take(&mut message.name);
    let tls = tls::downstream(message.transport_socket.take(), context, ssl.clone())
        .within("transport_socket")?;
    let mut filters = std::mem::take(&mut message.filters);
    refuse_rest(&message)?;
    let last = filters
        .pop()
        .ok_or_else(|| Invalid::new("filters", "must not be empty"))?;
    let position = filters.len();
    let (mut tells_peers, mut stats) = (false, Vec::new());
    for (index, filter) in filters.into_iter().enumerate() {
        network_filter(filter, context, &mut tells_peers, &mut stats)
            .within_item("filters", index)?;
    }
    let Some(filter::ConfigType::TypedConfig(any)) = last.config_type else {
        return Err(Invalid::new("typed_config", "is required")).within_item("filters", position);
    };
    let kind = any.type_url.strip_prefix(NETWORK).unwrap_or(&any.type_url);
    let filter = match kind {
        "http_connection_manager.v3.HttpConnectionManager" => decode(&any)
            .and_then(|message| http::compile(message, context))
            .map(|manager| NetworkFilter::Http(Arc::new(manager))),
        "tcp_proxy.v3.TcpProxy" => decode(&any)
            .and_then(|message| tcp::compile(message, context))
            .map(|proxy| NetworkFilter::Tcp(Arc::new(proxy))),
        _ => Err(Invalid::new(
            "",
            format!("filter `{}` is not supported by this proxy", any.type_url),
        )),
    }
    .within("typed_config")
    .within_item("filters", position)?;
    if !stats.is_empty() && matches!(filter, NetworkFilter::Http(_)) {
        return Err(Invalid::new(
            "filters",
            "connections of an HTTP connection manager are counted by its own filter",
        ));
    }
    Ok(FilterChain {
        name,
        fingerprint,
        tells_peers,
        stats,
        tls,
        handshake_timeout,
        filter,
    })
}

/// A filter before the last one.
fn network_filter(
    filter: pb::Filter,
    context: &Context<'_>,
    tells_peers: &mut bool,
    stats: &mut Vec<Arc<StatsFilter>>,
) -> Result<(), Invalid> {
    let Some(filter::ConfigType::TypedConfig(any)) = filter.config_type else {
        return Err(Invalid::new("typed_config", "is required"));
    };
    if any.type_url == telemetry::STATS {
        stats.push(telemetry::stats(&any, context).within("typed_config")?);
    } else if telemetry::is_exchange(&any).within("typed_config")? {
        *tells_peers = true;
    } else {
        return Err(Invalid::new(
            "typed_config",
            format!("filter `{}` is not supported by this proxy", any.type_url),
        ));
    }
    Ok(())
}
