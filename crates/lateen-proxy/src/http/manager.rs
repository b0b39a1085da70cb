//! The compiled HTTP connection manager.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use lateen_route::RouteTable;
use lateen_route::body_fields::BodyFields;

use super::client_certificate::{Details, ForwardMode};
use super::decorator::Side;
use super::filter::HttpFilters;
use super::local_reply::LocalReplies;
use crate::access_log::AccessLog;
use crate::shared::RouteSlot;
use crate::stats::{HttpStats, PerWorker};
use crate::telemetry::StatsFilter;
use crate::telemetry::http::PeerHeaders;

/// Options for the requests of a filter chain.
#[derive(Debug)]
pub(crate) struct HttpManager {
    pub(crate) codec: Codec,
    pub(crate) routes: RouteSource,
    pub(crate) server_name: HeaderValue,
    pub(crate) server_header: ServerHeader,
    /// The peer is the client: its forwarded headers are not trusted.
    pub(crate) use_remote_address: bool,
    pub(crate) skip_xff_append: bool,
    /// Proxies in front whose `x-forwarded-for` entries are trusted.
    pub(crate) trusted_hops: u32,
    pub(crate) normalize_path: bool,
    pub(crate) merge_slashes: bool,
    pub(crate) escaped_slashes: EscapedSlashes,
    pub(crate) strip_trailing_dot: bool,
    pub(crate) strip_port: StripPort,
    /// What this proxy is called in `via`; nothing: it does not say that it is on the way.
    pub(crate) via: Option<HeaderValue>,
    /// Trace context is passed on, and started when there is none.
    pub(crate) tracing: Option<Side>,
    /// What happens to `x-forwarded-client-cert`.
    pub(crate) forward_client_cert: ForwardMode,
    /// What it tells.
    pub(crate) client_cert_details: Details,
    pub(crate) limits: ClientLimits,
    pub(crate) stream_idle_timeout: Option<Duration>,
    pub(crate) generate_request_id: bool,
    pub(crate) preserve_external_request_id: bool,
    /// Endpoints that begin with a PROXY header learn the client's address, rather than that nobody is behind it.
    pub(crate) tells_client: bool,
    pub(crate) request_id_in_response: bool,
    pub(crate) append_forwarded_port: bool,
    pub(crate) headers_kb: u32,
    pub(crate) max_streams: Option<u32>,
    pub(crate) accept_http_10: bool,
    /// The host of requests in HTTP/1.0 that name none.
    pub(crate) default_host: Option<String>,
    /// A length beside chunks is passed over, rather than refused.
    pub(crate) allow_chunked_length: bool,
    /// Clients of HTTP/2 may ask for other protocols (RFC 8441).
    pub(crate) extended_connect: bool,
    /// Protocols that clients may switch to, lower case; `connect` for tunnels.
    pub(crate) upgrades: Vec<String>,
    pub(crate) suppress_envoy_headers: bool,
    /// Fields of bodies that become headers before the route is chosen.
    pub(crate) body_fields: Vec<BodyFields>,
    /// What requests pass before they are forwarded.
    pub(crate) filters: HttpFilters,
    pub(crate) access_log: Vec<AccessLog>,
    /// How the proxy's own answers are worded; nothing: as they are.
    pub(crate) local_replies: Option<LocalReplies>,
    pub(crate) stats: Arc<PerWorker<HttpStats>>,
    /// What peers are told, and learnt from.
    pub(crate) peer_headers: PeerHeaders,
    /// Count requests in Istio's standard metrics.
    pub(crate) telemetry: Vec<Arc<StatsFilter>>,
    pub(crate) node_ip: Option<IpAddr>,
}

/// What clients may take. Nothing: no limit.
#[derive(Debug)]
pub(crate) struct ClientLimits {
    /// Time between two requests.
    pub(crate) idle: Option<Duration>,
    /// Header fields of a request.
    pub(crate) headers: usize,
    pub(crate) underscores: Underscores,
    /// Age of a connection.
    pub(crate) connection: Option<Duration>,
    /// Requests of a connection.
    pub(crate) requests: Option<u32>,
    /// Time for a head that was begun, on HTTP/1.1; nothing: some seconds.
    pub(crate) head: Option<Duration>,
    /// Time for a whole request, unless it is answered before.
    pub(crate) request: Option<Duration>,
    /// How long a connection that reached its age goes on.
    pub(crate) drain: Duration,
}

/// What happens to header fields with `_` in their name, which upstreams may take for `-`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Underscores {
    Allow,
    Reject,
    Drop,
}

/// Which HTTP versions are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    Auto,
    Http1,
    Http2,
}

/// Where the routes come from.
#[derive(Debug)]
pub(crate) enum RouteSource {
    Inline(Arc<RouteTable>),
    Dynamic(Arc<RouteSlot>),
}

impl RouteSource {
    /// The current table. Requests keep the one that they began with.
    pub(crate) fn load(&self) -> Option<Arc<RouteTable>> {
        match self {
            Self::Inline(table) => Some(table.clone()),
            Self::Dynamic(slot) => slot.table.load_full(),
        }
    }
}

/// What happens to the `server` header of responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerHeader {
    Overwrite,
    AppendIfAbsent,
    PassThrough,
}

/// Which ports are taken off hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StripPort {
    None,
    Any,
    /// The one that the client connected to.
    Own,
}

/// What happens to `%2F` and `%5C` in paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EscapedSlashes {
    Keep,
    Reject,
    Unescape,
    /// The client is told to ask for the path without them.
    Redirect,
}
