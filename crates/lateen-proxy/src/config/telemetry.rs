//! Istio's own filters: `istio.stats`, the exchange of peer metadata in headers, and the one on TCP connections.

use std::sync::Arc;
use std::time::Duration;

use lateen_route::format::Template;
use lateen_route::hash::xx64;
use lateen_route::{Invalid, Within};
use lateen_xds::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use lateen_xds::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;
use lateen_xds::pb::google::protobuf::{self, Any, Struct, value::Kind};
use lateen_xds::{TYPED_STRUCT, TYPED_STRUCT_V3, TypedStruct};
use prost::Message;

use super::context::Context;
use super::{decode, duration};
use crate::telemetry::exchange::PROTOCOL;
use crate::telemetry::http::PeerHeaders;
use crate::telemetry::series::Metric;
use crate::telemetry::{Override, Reporter, StatsFilter};

/// `istio.stats`.
pub(crate) const STATS: &str = "type.googleapis.com/stats.PluginConfig";
const PEER_METADATA: &str = "type.googleapis.com/io.istio.http.peer_metadata.Config";
const METADATA_EXCHANGE: &str =
    "type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange";

/// Time between reports of an open TCP connection.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Clone, PartialEq, Message)]
struct PluginConfig {
    #[prost(bool, tag = "6")]
    disable_host_header_fallback: bool,
    #[prost(message, optional, tag = "7")]
    tcp_reporting_duration: Option<protobuf::Duration>,
    #[prost(message, repeated, tag = "8")]
    metrics: Vec<MetricConfig>,
    #[prost(message, repeated, tag = "9")]
    definitions: Vec<MetricDefinition>,
    #[prost(int32, tag = "10")]
    reporter: i32,
    #[prost(message, optional, tag = "11")]
    rotation_interval: Option<protobuf::Duration>,
    #[prost(message, optional, tag = "12")]
    graceful_deletion_interval: Option<protobuf::Duration>,
}

#[derive(Clone, PartialEq, Message)]
struct MetricConfig {
    #[prost(btree_map = "string, string", tag = "1")]
    dimensions: std::collections::BTreeMap<String, String>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, repeated, tag = "3")]
    tags_to_remove: Vec<String>,
    #[prost(string, tag = "4")]
    match_: String,
    #[prost(bool, tag = "5")]
    drop: bool,
}

#[derive(Clone, PartialEq, Message)]
struct MetricDefinition {
    #[prost(string, tag = "1")]
    name: String,
}

/// Istio's filters among the HTTP filters.
#[derive(Default)]
pub(crate) struct Telemetry {
    pub(crate) peer_headers: PeerHeaders,
    pub(crate) stats: Vec<Arc<StatsFilter>>,
}

impl Telemetry {
    /// Takes Istio's filters out of the list; gives back the others with their positions.
    pub(crate) fn take(
        &mut self,
        filters: Vec<HttpFilter>,
        context: &Context<'_>,
    ) -> Result<Vec<(usize, HttpFilter)>, Invalid> {
        let mut others = Vec::new();
        for (index, filter) in filters.into_iter().enumerate() {
            match &filter.config_type {
                Some(ConfigType::TypedConfig(any)) if !filter.disabled => {
                    if any.type_url == STATS {
                        let stats = stats(any, context).within("typed_config");
                        self.stats.push(stats.within_item("http_filters", index)?);
                        continue;
                    }
                    let headers = peer_headers(any).within("typed_config");
                    if let Some(headers) = headers.within_item("http_filters", index)? {
                        self.peer_headers = headers;
                        continue;
                    }
                }
                _ => {}
            }
            others.push((index, filter));
        }
        Ok(others)
    }
}

/// One of Istio's filters, taken out of its struct.
enum Wrapped {
    PeerHeaders(Struct),
    Exchange(Struct),
}

/// The struct in a configuration, if it is one.
fn typed_struct(any: &Any) -> Result<Option<TypedStruct>, Invalid> {
    let is_struct = [TYPED_STRUCT, TYPED_STRUCT_V3].contains(&any.type_url.as_str());
    is_struct.then(|| decode(any)).transpose()
}

/// The value of a struct that says to be of a type.
pub(crate) fn struct_of(any: &Any, wanted: &str) -> Result<Struct, Invalid> {
    match typed_struct(any)? {
        Some(wrapped) if wrapped.type_url == wanted => Ok(wrapped.value.unwrap_or_default()),
        _ => Err(Invalid::new(
            "",
            format!("must be a TypedStruct of `{wanted}`"),
        )),
    }
}

fn unwrap(any: &Any) -> Result<Option<Wrapped>, Invalid> {
    let Some(wrapped) = typed_struct(any)? else {
        return Ok(None);
    };
    let value = wrapped.value.unwrap_or_default();
    Ok(match wrapped.type_url.as_str() {
        PEER_METADATA => Some(Wrapped::PeerHeaders(value)),
        METADATA_EXCHANGE => Some(Wrapped::Exchange(value)),
        _ => None,
    })
}

/// The exchange of metadata in headers, if the filter is one.
pub(crate) fn peer_headers(any: &Any) -> Result<Option<PeerHeaders>, Invalid> {
    let Some(Wrapped::PeerHeaders(value)) = unwrap(any)? else {
        return Ok(None);
    };
    let mut headers = PeerHeaders::default();
    for (key, methods) in &value.fields {
        let Some(Kind::ListValue(methods)) = &methods.kind else {
            return Err(Invalid::unsupported(key));
        };
        for (index, method) in methods.values.iter().enumerate() {
            let Some(Kind::StructValue(method)) = &method.kind else {
                return Err(Invalid::unsupported("")).within_item(key, index);
            };
            for (method, options) in &method.fields {
                peer_method(key, method, options, &mut headers).within_item(key, index)?;
            }
        }
    }
    Ok(Some(headers))
}

fn peer_method(
    place: &str,
    method: &str,
    options: &protobuf::Value,
    headers: &mut PeerHeaders,
) -> Result<(), Invalid> {
    let mut skip_external = false;
    if let Some(Kind::StructValue(options)) = &options.kind {
        for (name, value) in &options.fields {
            match (name.as_str(), &value.kind) {
                ("skip_external_clusters", Some(Kind::BoolValue(skip))) => skip_external = *skip,
                _ => return Err(Invalid::unsupported(name)),
            }
        }
    }
    match (place, method) {
        ("downstream_discovery", "istio_headers") => headers.learn_from_requests = true,
        ("upstream_discovery", "istio_headers") => headers.learn_from_responses = true,
        ("downstream_propagation", "istio_headers") => headers.tell_clients = true,
        ("upstream_propagation", "istio_headers") => {
            headers.tell_upstreams = true;
            headers.skip_external = skip_external;
        }
        // Looks addresses up in workload discovery, which a proxy that is not asked to subscribe to it does not have.
        ("downstream_discovery" | "upstream_discovery", "workload_discovery") => {}
        _ => return Err(Invalid::unsupported(method)),
    }
    Ok(())
}

/// Whether the filter is the exchange of metadata on TCP connections.
pub(crate) fn is_exchange(any: &Any) -> Result<bool, Invalid> {
    let Some(Wrapped::Exchange(value)) = unwrap(any)? else {
        return Ok(false);
    };
    for (name, value) in &value.fields {
        match (name.as_str(), &value.kind) {
            ("protocol", Some(Kind::StringValue(protocol))) if protocol == PROTOCOL => {}
            // By workload discovery, see above.
            ("enable_discovery", Some(Kind::BoolValue(_))) => {}
            _ => return Err(Invalid::unsupported(name)),
        }
    }
    Ok(true)
}

/// The filter that counts.
pub(crate) fn stats(any: &Any, context: &Context<'_>) -> Result<Arc<StatsFilter>, Invalid> {
    let message: PluginConfig = decode(any)?;
    for (name, is_set) in [
        ("definitions", !message.definitions.is_empty()),
        ("reporter", message.reporter != 0),
        ("rotation_interval", message.rotation_interval.is_some()),
        (
            "graceful_deletion_interval",
            message.graceful_deletion_interval.is_some(),
        ),
    ] {
        if is_set {
            return Err(Invalid::unsupported(name));
        }
    }
    let mut expressions = Vec::new();
    let mut overrides = Vec::new();
    for (index, metric) in message.metrics.into_iter().enumerate() {
        overrides.extend(change(metric, &mut expressions).within_item("metrics", index)?);
    }
    let report_interval = message.tcp_reporting_duration.map(duration).transpose();
    let filter = StatsFilter {
        id: xx64(&any.value, u64::from(context.inbound)),
        reporter: if context.inbound {
            Reporter::Destination
        } else {
            Reporter::Source
        },
        no_host_fallback: message.disable_host_header_fallback,
        report_interval: report_interval
            .within("tcp_reporting_duration")?
            .unwrap_or(REPORT_INTERVAL),
        expressions,
        overrides,
    };
    Ok(context.telemetry().filter(filter))
}

fn change(
    message: MetricConfig,
    expressions: &mut Vec<Template>,
) -> Result<Option<Override>, Invalid> {
    if !message.match_.is_empty() {
        return Err(Invalid::unsupported("match"));
    }
    let metric = match message.name.as_str() {
        "" => None,
        name => match Metric::parse(name) {
            Some(metric) => Some(metric),
            None => {
                return Err(Invalid::new(
                    "name",
                    format!("`{name}` is not a standard metric"),
                ));
            }
        },
    };
    let mut set = Vec::new();
    for (tag, expression) in message.dimensions {
        let template = expression_template(&expression).ok_or_else(|| {
            Invalid::new(
                "dimensions",
                format!("expression `{expression}` of `{tag}` is not supported by this proxy"),
            )
        })?;
        set.push((tag, expressions.len()));
        expressions.push(template);
    }
    Ok(Some(Override {
        metric,
        // A drop without a name drops nothing, as in Istio.
        dropped: message.drop && metric.is_some(),
        removed: message.tags_to_remove,
        set,
    }))
}

/// The expressions that stand for one attribute or one text.
fn expression_template(expression: &str) -> Option<Template> {
    let expression = expression.trim();
    let quoted = |text: &str| {
        let quote = text
            .chars()
            .next()
            .filter(|quote| matches!(quote, '"' | '\''))?;
        let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
        (!inner.contains([quote, '\\'])).then(|| inner.to_owned())
    };
    if let Some(text) = quoted(expression) {
        return Template::parse(&text.replace('%', "%%")).ok();
    }
    let indexed = |prefix: &str| {
        let rest = expression.strip_prefix(prefix)?;
        quoted(rest.strip_prefix('[')?.strip_suffix(']')?)
    };
    let format = if let Some(name) = indexed("request.headers") {
        format!("%REQ({name})%")
    } else if let Some(name) = indexed("response.headers") {
        format!("%RESP({name})%")
    } else {
        let operator = match expression {
            "request.host" => "REQ(:AUTHORITY)",
            "request.path" => "REQ(:PATH)",
            "request.url_path" => "PATH",
            "request.query" => "QUERY",
            "request.method" => "REQ(:METHOD)",
            "request.scheme" => "REQ(:SCHEME)",
            "request.useragent" => "REQ(USER-AGENT)",
            "request.referer" => "REQ(REFERER)",
            "request.id" => "REQ(X-REQUEST-ID)",
            "request.protocol" => "PROTOCOL",
            "response.code" => "RESPONSE_CODE",
            "response.code_details" => "RESPONSE_CODE_DETAILS",
            "response.grpc_status" => "GRPC_STATUS_NUMBER",
            "source.address" => "DOWNSTREAM_REMOTE_ADDRESS",
            "destination.address" => "DOWNSTREAM_LOCAL_ADDRESS",
            "destination.port" => "DOWNSTREAM_LOCAL_PORT",
            "connection.requested_server_name" => "REQUESTED_SERVER_NAME",
            "upstream.address" => "UPSTREAM_HOST",
            "upstream.local_address" => "UPSTREAM_LOCAL_ADDRESS",
            "xds.cluster_name" => "UPSTREAM_CLUSTER",
            "xds.route_name" => "ROUTE_NAME",
            "xds.virtual_host_name" => "VIRTUAL_HOST_NAME",
            "xds.filter_chain_name" => "FILTER_CHAIN_NAME",
            _ => return None,
        };
        format!("%{operator}%")
    };
    Template::parse(&format).ok()
}
