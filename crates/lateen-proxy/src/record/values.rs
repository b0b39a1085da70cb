//! The values of the format's commands.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Version};
use lateen_route::format::{HeaderRef, Operator, PathSource, TimeFormat, Tls, Values};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Record;
use crate::http::client_certificate::url_encoded;
use crate::http::head::Head;
use crate::tls::info::{CertificateInfo, TlsInfo};
use crate::tls::names::NameKind;

/// The path before it was rewritten.
const ORIGINAL_PATH: &str = "x-envoy-original-path";

impl Record {
    fn request_header<'r>(&'r self, wanted: &HeaderRef) -> Option<&'r [u8]> {
        let head = self.head.as_ref()?;
        let get = |name: &str| match name {
            ":method" => Some(head.method.as_str().as_bytes()),
            ":path" => Some(head.path.as_bytes()),
            ":authority" | "host" => Some(head.authority.as_bytes()),
            ":scheme" => Some(head.scheme.as_bytes()),
            _ => head.headers.get(name).map(|value| value.as_bytes()),
        };
        get(&wanted.name).or_else(|| wanted.fallback.as_deref().and_then(get))
    }

    fn path(&self, source: PathSource, query: bool) -> Option<&str> {
        let head = self.head.as_ref()?;
        let original = || head.headers.get(ORIGINAL_PATH)?.to_str().ok();
        let path = match source {
            PathSource::Current => Some(head.path.as_str()),
            PathSource::Original => original(),
            PathSource::OriginalOrCurrent => original().or(Some(&head.path)),
        }?;
        if query {
            Some(path)
        } else {
            path.split('?').next()
        }
    }

    /// Values that are texts; nothing when there is none, or the operator is of another kind.
    fn text(&self, operator: &Operator) -> Option<Text<'_>> {
        use Operator as O;
        let head = self.head.as_ref();
        Some(match operator {
            O::ResponseCodeDetails { white_space: false } => self.details.replace(' ', "_").into(),
            O::ResponseCodeDetails { white_space: true } => Text::Borrowed(&self.details),
            O::UpstreamTransportFailureReason => self.upstream_failure.replace(' ', "_").into(),
            O::RequestedServerName => Text::Borrowed(&self.connection.server_name),
            O::RouteName => Text::Borrowed(&self.route),
            O::VirtualHostName => Text::Borrowed(&self.virtual_host),
            O::UpstreamCluster => Text::Borrowed(&self.cluster.as_ref()?.name),
            O::FilterChainName => Text::Borrowed(&self.connection.chain),
            O::UpstreamHost => Text::Borrowed(&self.upstream.as_ref()?.text),
            O::UpstreamHostName => match &self.upstream.as_ref()?.hostname {
                name if name.is_empty() => Text::Borrowed(&self.upstream.as_ref()?.text),
                name => Text::Borrowed(name),
            },
            O::UpstreamHostNameWithoutPort => {
                let host = self.upstream.as_ref()?;
                match host.hostname.as_str() {
                    "" => host.address.ip().to_string().into(),
                    name => Text::Borrowed(name.rsplit_once(':').map_or(name, |(name, _)| name)),
                }
            }
            O::Path { source, query } => Text::Borrowed(self.path(*source, *query)?),
            O::QueryParameters => Text::Borrowed(head?.path.split_once('?')?.1),
            O::QueryParameter(name) => Text::Borrowed(head?.view().query_parameter(name)?),
            O::Hostname => {
                let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
                name.trim_end().to_owned().into()
            }
            O::Protocol => Text::Borrowed(protocol(self.version?)),
            O::UpstreamProtocol if self.upstream_local.is_none() => return None,
            O::UpstreamProtocol if self.upstream_http2? => Text::Borrowed("HTTP/2"),
            O::UpstreamProtocol => Text::Borrowed("HTTP/1.1"),
            O::GrpcStatus(form) => form.of(self.grpc_status()?).into(),
            O::StreamId => Text::Borrowed(head?.headers.get("x-request-id")?.to_str().ok()?),
            O::UniqueId => uuid::Uuid::new_v4().to_string().into(),
            O::DownstreamTransportFailure => {
                let reason = self.connection.transport_failure.as_str();
                Text::Borrowed(Some(reason).filter(|reason| !reason.is_empty())?)
            }
            O::DownstreamTls(property) => tls_value(self.connection.tls.as_ref()?, *property)?,
            O::UpstreamTls(property) => tls_value(self.upstream_tls.as_ref()?, *property)?,
            O::AccessLogType if self.log_type.is_some() => Text::Borrowed(self.log_type?),
            O::AccessLogType if head.is_some() => Text::Borrowed("DownstreamEnd"),
            O::AccessLogType => Text::Borrowed("TcpConnectionEnd"),
            O::Constant(text) => text.clone().into(),
            // No reason for ending a connection is known besides the response details.
            _ => return None,
        })
    }

    /// The endpoint's address, once it is connected to.
    fn connected(&self) -> Option<SocketAddr> {
        self.upstream_local?;
        Some(self.upstream.as_ref()?.address)
    }

    /// Values that are numbers; nothing when there is none, or the operator is of another kind.
    fn number(&self, operator: &Operator) -> Option<u64> {
        use Operator as O;
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let now = || self.duration.unwrap_or_else(|| self.started.elapsed());
        let port = |address: SocketAddr| Some(u64::from(address.port()));
        match operator {
            O::ResponseCode => Some(self.status.into()),
            O::BytesReceived => Some(self.bytes_received),
            O::BytesSent => Some(self.bytes_sent),
            O::RequestHeadersBytes => Some(self.head.as_ref().map_or(0, request_bytes)),
            O::ResponseHeadersBytes => Some(field_bytes(&self.response_headers)),
            O::ResponseTrailersBytes => Some(field_bytes(&self.trailers)),
            O::Duration => Some(millis(now())),
            O::RequestDuration | O::RequestTxDuration => self.request_end.map(millis),
            O::ResponseDuration => self.response_start.map(millis),
            O::ResponseTxDuration => {
                let start = self.response_start?;
                Some(millis(now().saturating_sub(start)))
            }
            O::UpstreamRequestAttemptCount => Some(self.attempts.into()),
            O::UpstreamRemotePort => port(self.connected()?),
            O::UpstreamLocalPort => port(self.upstream_local?),
            O::DownstreamLocalPort => port(self.connection.local),
            O::DownstreamDirectLocalPort => port(self.connection.direct.destination),
            O::DownstreamRemotePort => port(self.connection.remote),
            O::DownstreamDirectRemotePort => port(self.connection.direct.source),
            O::ConnectionId => Some(self.connection.id),
            _ => None,
        }
    }

    /// Values that are addresses, and whether their port is left out.
    fn address(&self, operator: &Operator) -> Option<(SocketAddr, bool)> {
        use Operator as O;
        let connection = &self.connection;
        Some(match operator {
            O::UpstreamHostWithoutPort => (self.connected()?, true),
            O::UpstreamLocalAddress => (self.upstream_local?, false),
            O::UpstreamLocalAddressWithoutPort => (self.upstream_local?, true),
            O::DownstreamLocalAddress => (connection.local, false),
            O::DownstreamLocalAddressWithoutPort => (connection.local, true),
            O::DownstreamDirectLocalAddress => (connection.direct.destination, false),
            O::DownstreamDirectLocalAddressWithoutPort => (connection.direct.destination, true),
            O::DownstreamRemoteAddress => (connection.remote, false),
            O::DownstreamRemoteAddressWithoutPort => (connection.remote, true),
            O::DownstreamDirectRemoteAddress => (connection.direct.source, false),
            O::DownstreamDirectRemoteAddressWithoutPort => (connection.direct.source, true),
            _ => return None,
        })
    }
}

type Text<'t> = std::borrow::Cow<'t, str>;

impl Values for Record {
    fn write(&self, operator: &Operator, out: &mut String) -> bool {
        match operator {
            Operator::Request(name) => return push(self.request_header(name), out),
            Operator::RequestWithoutQuery(name) => {
                let value = self.request_header(name);
                let end = |value: &[u8]| value.iter().position(|byte| *byte == b'?');
                return push(
                    value.map(|value| &value[..end(value).unwrap_or(value.len())]),
                    out,
                );
            }
            // There is one only while it is worded, and it is no line that could be forged.
            Operator::LocalReplyBody => {
                out.push_str(&self.local_body);
                return true;
            }
            Operator::Response(name) => return lookup(&self.response_headers, name, out),
            Operator::Trailer(name) => return lookup(&self.trailers, name, out),
            // No flags are a dash everywhere: in headers and JSON, too.
            Operator::ResponseFlags | Operator::ResponseFlagsLong => {
                let long = *operator == Operator::ResponseFlagsLong;
                let flags = self.flags;
                if !(if long {
                    flags.write_long(out)
                } else {
                    flags.write(out)
                }) {
                    out.push('-');
                }
                return true;
            }
            Operator::StartTime(format) => return write_time(self.started_at(), format, out),
            Operator::EmitTime(format) => return write_time(SystemTime::now(), format, out),
            _ => {}
        }
        let written = if let Some(number) = self.number(operator) {
            write!(out, "{number}")
        } else if let Some((address, without_port)) = self.address(operator) {
            if without_port {
                write!(out, "{}", address.ip())
            } else {
                write!(out, "{address}")
            }
        } else {
            return self
                .text(operator)
                .is_some_and(|text| push(Some(text.as_bytes()), out));
        };
        written.is_ok()
    }
}

/// A property of a TLS connection.
fn tls_value(tls: &TlsInfo, property: Tls) -> Option<Text<'_>> {
    let names = |certificate: &Option<CertificateInfo>, kind| {
        let names: Vec<_> = certificate.as_ref()?.names(kind).collect();
        Some(Text::from(names.join(",")))
    };
    let time = |time: OffsetDateTime| time.format(&Rfc3339).ok().map(Text::from);
    Some(Text::Borrowed(match property {
        Tls::PeerUriSan => return names(&tls.peer, NameKind::Uri),
        Tls::LocalUriSan => return names(&tls.local, NameKind::Uri),
        Tls::PeerDnsSan => return names(&tls.peer, NameKind::Dns),
        Tls::LocalDnsSan => return names(&tls.local, NameKind::Dns),
        Tls::PeerCert => return Some(url_encoded(tls.chain.first()?).into()),
        Tls::PeerCertStart => return time(tls.peer.as_ref()?.not_before),
        Tls::PeerCertEnd => return time(tls.peer.as_ref()?.not_after),
        Tls::PeerSerial => &tls.peer.as_ref()?.serial,
        Tls::PeerFingerprint256 => &tls.peer.as_ref()?.fingerprint,
        Tls::PeerSubject => &tls.peer.as_ref()?.subject,
        Tls::LocalSubject => &tls.local.as_ref()?.subject,
        Tls::PeerIssuer => &tls.peer.as_ref()?.issuer,
        Tls::Version => tls.version,
        Tls::Cipher => tls.cipher,
    }))
}

/// Size of the names and values of a head.
fn field_bytes(headers: &HeaderMap) -> u64 {
    let fields = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    fields.sum::<usize>() as u64
}

fn request_bytes(head: &Head) -> u64 {
    let names = ":method:path:authority:scheme".len();
    let values =
        head.method.as_str().len() + head.path.len() + head.authority.len() + head.scheme.len();
    field_bytes(&head.headers) + (names + values) as u64
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
            [b'y', ..] => (write!(out, "{:02}", at.year() % 100), 1),
            [b'e', ..] => (write!(out, "{:2}", at.day()), 1),
            [b'j', ..] => (write!(out, "{:03}", at.ordinal()), 1),
            [b'b', ..] => (write!(out, "{}", &at.month().to_string()[..3]), 1),
            [b'B', ..] => (write!(out, "{}", at.month()), 1),
            [b'a', ..] => (write!(out, "{}", &at.weekday().to_string()[..3]), 1),
            [b'A', ..] => (write!(out, "{}", at.weekday()), 1),
            [b'p', ..] => (
                write!(out, "{}", if at.hour() < 12 { "AM" } else { "PM" }),
                1,
            ),
            [b'I', ..] => (write!(out, "{:02}", (at.hour() + 11) % 12 + 1), 1),
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
