//! What is known of one request or TCP connection when it ends, for the access log.

use std::borrow::Cow;
use std::fmt::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, Version};
use lateen_route::format::{HeaderRef, Operator, TimeFormat, Values};
use time::OffsetDateTime;

use crate::cluster::{Cluster, Host};
use crate::connection::ConnectionInfo;
use crate::flags::Flags;
use crate::http::head::Head;
use crate::telemetry::peer::Workload;
use crate::tls::info::TlsInfo;

/// The collected facts.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) connection: Rc<ConnectionInfo>,
    pub(crate) started_at: SystemTime,
    pub(crate) started: Instant,
    /// Nothing for TCP connections.
    pub(crate) head: Option<Head>,
    pub(crate) status: u16,
    pub(crate) response_headers: HeaderMap,
    pub(crate) trailers: HeaderMap,
    pub(crate) flags: Flags,
    pub(crate) details: Cow<'static, str>,
    pub(crate) upstream_failure: String,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) upstream: Option<Arc<Host>>,
    pub(crate) cluster: Option<Arc<Cluster>>,
    /// The workload at the other end, when it told.
    pub(crate) peer: Option<Arc<Workload>>,
    /// The client told, or tried to tell, who it is.
    pub(crate) peer_asked: bool,
    /// Messages of a gRPC call.
    pub(crate) request_messages: u64,
    pub(crate) response_messages: u64,
    pub(crate) upstream_local: Option<SocketAddr>,
    pub(crate) upstream_http2: Option<bool>,
    /// Nothing for plaintext.
    pub(crate) upstream_tls: Option<Rc<TlsInfo>>,
    pub(crate) attempts: u32,
    pub(crate) route: String,
    pub(crate) virtual_host: String,
    /// When the last byte of the request and the first byte of the response were seen.
    pub(crate) request_end: Option<Duration>,
    pub(crate) response_start: Option<Duration>,
    /// Set when the request ended; until then durations grow.
    pub(crate) duration: Option<Duration>,
}

impl Record {
    pub(crate) fn new(connection: Rc<ConnectionInfo>) -> Self {
        Self {
            connection,
            started_at: SystemTime::now(),
            started: Instant::now(),
            head: None,
            status: 0,
            response_headers: HeaderMap::new(),
            trailers: HeaderMap::new(),
            flags: Flags::default(),
            details: Cow::Borrowed(""),
            upstream_failure: String::new(),
            bytes_received: 0,
            bytes_sent: 0,
            upstream: None,
            cluster: None,
            peer: None,
            peer_asked: false,
            request_messages: 0,
            response_messages: 0,
            upstream_local: None,
            upstream_http2: None,
            upstream_tls: None,
            attempts: 0,
            route: String::new(),
            virtual_host: String::new(),
            request_end: None,
            response_start: None,
            duration: None,
        }
    }

    /// The status of a gRPC call, if one was seen.
    pub(crate) fn grpc_status(&self) -> Option<u16> {
        let status = self.trailers.get("grpc-status");
        let status = status.or_else(|| self.response_headers.get("grpc-status"));
        status?.to_str().ok()?.parse().ok()
    }

    /// The names in the certificates of this proxy and of the endpoint. Empty without mutual TLS.
    pub(crate) fn upstream_principals(&self) -> (&str, &str) {
        ("", "")
    }

    fn header(&self, wanted: &HeaderRef, out: &mut String) -> bool {
        let Some(head) = &self.head else { return false };
        let get = |name: &str| match name {
            ":method" => Some(head.method.as_str().as_bytes()),
            ":path" => Some(head.path.as_bytes()),
            ":authority" | "host" => Some(head.authority.as_bytes()),
            ":scheme" => Some(head.scheme.as_bytes()),
            _ => head.headers.get(name).map(|value| value.as_bytes()),
        };
        push(
            get(&wanted.name).or_else(|| wanted.fallback.as_deref().and_then(get)),
            out,
        )
    }
}

/// Appends a value; control characters are replaced so that a value cannot forge lines.
fn push(value: Option<&[u8]>, out: &mut String) -> bool {
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return false;
    };
    let text = String::from_utf8_lossy(value);
    out.extend(text.chars().map(|c| if c.is_control() { '_' } else { c }));
    true
}

fn lookup(headers: &HeaderMap, wanted: &HeaderRef, out: &mut String) -> bool {
    let get = |name: &str| headers.get(name).map(|value| value.as_bytes());
    push(
        get(&wanted.name).or_else(|| wanted.fallback.as_deref().and_then(get)),
        out,
    )
}

impl Values for Record {
    fn write(&self, operator: &Operator, out: &mut String) -> bool {
        use Operator as O;
        let mut text = |value: &str| push(Some(value.as_bytes()), out);
        match operator {
            O::Request(name) => return self.header(name, out),
            O::Response(name) => return lookup(&self.response_headers, name, out),
            O::Trailer(name) => return lookup(&self.trailers, name, out),
            O::ResponseFlags => return self.flags.write(out),
            O::ResponseCodeDetails => return text(&self.details.replace(' ', "_")),
            O::UpstreamTransportFailureReason => return text(&self.upstream_failure),
            O::RequestedServerName => return text(&self.connection.server_name),
            O::RouteName => return text(&self.route),
            O::VirtualHostName => return text(&self.virtual_host),
            O::UpstreamCluster => {
                return self
                    .cluster
                    .as_ref()
                    .is_some_and(|cluster| text(&cluster.name));
            }
            O::FilterChainName => return text(&self.connection.chain),
            O::UpstreamHost => {
                return self.upstream.as_ref().is_some_and(|host| text(&host.text));
            }
            O::Path => {
                return self
                    .head
                    .as_ref()
                    .is_some_and(|head| text(head.path.split('?').next().unwrap_or_default()));
            }
            O::Query => {
                return self.head.as_ref().is_some_and(|head| {
                    text(head.path.split_once('?').map_or("", |(_, query)| query))
                });
            }
            O::Hostname => {
                let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
                return text(name.trim_end());
            }
            O::Protocol => {
                return self
                    .head
                    .as_ref()
                    .is_some_and(|head| text(protocol(head.version)));
            }
            O::UpstreamProtocol => {
                return self
                    .upstream_http2
                    .is_some_and(|http2| text(if http2 { "HTTP/2" } else { "HTTP/1.1" }));
            }
            O::GrpcStatus | O::GrpcStatusNumber => {
                let status = self.trailers.get("grpc-status");
                let status = status.or_else(|| self.response_headers.get("grpc-status"));
                return push(status.map(|value| value.as_bytes()), out);
            }
            // No reason for ending a connection is known besides the response details.
            O::ConnectionTerminationDetails => return false,
            _ => {}
        }
        let millis = |duration: Duration| duration.as_millis();
        let now = || self.duration.unwrap_or_else(|| self.started.elapsed());
        let written = match operator {
            O::StartTime(format) => return write_time(self.started_at, format, out),
            O::ResponseCode => write!(out, "{}", self.status),
            O::BytesReceived => write!(out, "{}", self.bytes_received),
            O::BytesSent => write!(out, "{}", self.bytes_sent),
            O::Duration => write!(out, "{}", millis(now())),
            O::RequestDuration => match self.request_end {
                Some(duration) => write!(out, "{}", millis(duration)),
                None => return false,
            },
            O::ResponseDuration => match self.response_start {
                Some(duration) => write!(out, "{}", millis(duration)),
                None => return false,
            },
            O::UpstreamRequestAttemptCount => write!(out, "{}", self.attempts),
            O::UpstreamLocalAddress => match self.upstream_local {
                Some(address) => write!(out, "{address}"),
                None => return false,
            },
            O::DownstreamLocalAddress => write!(out, "{}", self.connection.local),
            O::DownstreamLocalAddressWithoutPort => write!(out, "{}", self.connection.local.ip()),
            O::DownstreamLocalPort => write!(out, "{}", self.connection.local.port()),
            O::DownstreamRemoteAddress | O::DownstreamDirectRemoteAddress => {
                write!(out, "{}", self.connection.remote)
            }
            O::DownstreamRemoteAddressWithoutPort | O::DownstreamDirectRemoteAddressWithoutPort => {
                write!(out, "{}", self.connection.remote.ip())
            }
            O::ConnectionId => write!(out, "{}", self.connection.id),
            _ => return false,
        };
        written.is_ok()
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

/// Writes a time; false when the pattern has an unknown specifier.
fn write_time(at: SystemTime, format: &TimeFormat, out: &mut String) -> bool {
    let at = OffsetDateTime::from(at);
    let pattern = match format {
        TimeFormat::Default => "%Y-%m-%dT%H:%M:%E3SZ",
        TimeFormat::Pattern(pattern) => pattern,
    };
    let mut rest = pattern;
    while let Some(start) = rest.find('%') {
        out.push_str(&rest[..start]);
        rest = &rest[start + 1..];
        let (written, used) = match rest.as_bytes() {
            [b'E', digit @ b'1'..=b'9', b'S', ..] => {
                let digits = usize::from(digit - b'0');
                let fraction = format!("{:09}", at.nanosecond());
                (write!(out, "{:02}.{}", at.second(), &fraction[..digits]), 3)
            }
            [digit @ b'1'..=b'9', b'f', ..] => {
                let fraction = format!("{:09}", at.nanosecond());
                (write!(out, "{}", &fraction[..usize::from(digit - b'0')]), 2)
            }
            [b'Y', ..] => (write!(out, "{:04}", at.year()), 1),
            [b'm', ..] => (write!(out, "{:02}", u8::from(at.month())), 1),
            [b'd', ..] => (write!(out, "{:02}", at.day()), 1),
            [b'H', ..] => (write!(out, "{:02}", at.hour()), 1),
            [b'M', ..] => (write!(out, "{:02}", at.minute()), 1),
            [b'S', ..] => (write!(out, "{:02}", at.second()), 1),
            [b'f', ..] => (write!(out, "{:09}", at.nanosecond()), 1),
            [b's', ..] => (write!(out, "{}", at.unix_timestamp()), 1),
            [b'F', ..] => (
                write!(
                    out,
                    "{:04}-{:02}-{:02}",
                    at.year(),
                    u8::from(at.month()),
                    at.day()
                ),
                1,
            ),
            [b'T', ..] => (
                write!(
                    out,
                    "{:02}:{:02}:{:02}",
                    at.hour(),
                    at.minute(),
                    at.second()
                ),
                1,
            ),
            [b'z', ..] => (write!(out, "+0000"), 1),
            [b'Z', ..] => (write!(out, "UTC"), 1),
            [b'%', ..] => (write!(out, "%"), 1),
            _ => return false,
        };
        if written.is_err() {
            return false;
        }
        rest = &rest[used..];
    }
    out.push_str(rest);
    true
}
