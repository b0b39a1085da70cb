//! The commands of Envoy's format.

use http::HeaderName;

/// A header reference: the first name, or the second when the first is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderRef {
    /// Looked up first; a pseudo header or a field name in lower case.
    pub name: String,
    /// Looked up when the first is missing.
    pub fallback: Option<String>,
}

/// What a command stands for. Names follow Envoy's operators.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the Envoy operator of that name")]
pub enum Operator {
    StartTime(TimeFormat),
    EmitTime(TimeFormat),
    Request(HeaderRef),
    RequestWithoutQuery(HeaderRef),
    Response(HeaderRef),
    Trailer(HeaderRef),
    Protocol,
    UpstreamProtocol,
    ResponseCode,
    /// With its white space replaced, unless that is allowed.
    ResponseCodeDetails {
        white_space: bool,
    },
    ResponseFlags,
    ResponseFlagsLong,
    ConnectionTerminationDetails,
    UpstreamTransportFailureReason,
    BytesReceived,
    BytesSent,
    RequestHeadersBytes,
    ResponseHeadersBytes,
    ResponseTrailersBytes,
    Duration,
    RequestDuration,
    RequestTxDuration,
    ResponseDuration,
    ResponseTxDuration,
    UpstreamHost,
    UpstreamHostWithoutPort,
    UpstreamRemotePort,
    UpstreamHostName,
    UpstreamHostNameWithoutPort,
    UpstreamCluster,
    UpstreamLocalAddress,
    UpstreamLocalAddressWithoutPort,
    UpstreamLocalPort,
    UpstreamRequestAttemptCount,
    DownstreamLocalAddress,
    DownstreamLocalAddressWithoutPort,
    DownstreamLocalPort,
    DownstreamDirectLocalAddress,
    DownstreamDirectLocalAddressWithoutPort,
    DownstreamDirectLocalPort,
    DownstreamRemoteAddress,
    DownstreamRemoteAddressWithoutPort,
    DownstreamRemotePort,
    DownstreamDirectRemoteAddress,
    DownstreamDirectRemoteAddressWithoutPort,
    DownstreamDirectRemotePort,
    DownstreamTls(Tls),
    DownstreamTransportFailure,
    UpstreamTls(Tls),
    RequestedServerName,
    RouteName,
    VirtualHostName,
    /// No route has virtual clusters, so this is never there.
    VirtualClusterName,
    Hostname,
    ConnectionId,
    StreamId,
    UniqueId,
    FilterChainName,
    GrpcStatus(GrpcForm),
    Path {
        source: PathSource,
        query: bool,
    },
    QueryParameters,
    QueryParameter(String),
    LocalReplyBody,
    AccessLogType,
    /// A text that is known when the format is read.
    Constant(String),
}

/// A property of a TLS connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "each is the part of Envoy's operators of that name"
)]
pub enum Tls {
    PeerUriSan,
    LocalUriSan,
    PeerSubject,
    LocalSubject,
    PeerIssuer,
    PeerDnsSan,
    LocalDnsSan,
    PeerSerial,
    PeerFingerprint256,
    PeerCert,
    PeerCertStart,
    PeerCertEnd,
    Version,
    Cipher,
}

/// How a gRPC status is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrpcForm {
    /// `PermissionDenied`
    Camel,
    /// `PERMISSION_DENIED`
    Snake,
    /// `7`
    Number,
}

/// Which path is meant when the proxy has rewritten it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathSource {
    /// What was sent on.
    Current,
    /// What the client sent; nothing when it was not rewritten.
    Original,
    /// What the client sent.
    OriginalOrCurrent,
}

/// How a time is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimeFormat {
    /// `2026-01-02T03:04:05.678Z`
    Default,
    /// A `strftime` pattern with Envoy's `%3f`-style fractions.
    Pattern(String),
}

/// The operator of a command; nothing when there is none, or the argument is not one of it.
pub(super) fn operator(name: &str, argument: Option<&str>) -> Option<Operator> {
    match argument.filter(|argument| !argument.is_empty()) {
        Some(argument) => with_argument(name, argument),
        None => plain(name).or_else(|| tls(name)),
    }
}

fn with_argument(name: &str, argument: &str) -> Option<Operator> {
    use Operator as O;
    Some(match name {
        "START_TIME" => O::StartTime(TimeFormat::Pattern(argument.to_owned())),
        "EMIT_TIME" => O::EmitTime(TimeFormat::Pattern(argument.to_owned())),
        "REQ" | "REQUEST_HEADER" => O::Request(header_ref(argument)?),
        "REQ_WITHOUT_QUERY" => O::RequestWithoutQuery(header_ref(argument)?),
        "RESP" | "RESPONSE_HEADER" => O::Response(header_ref(argument)?),
        "TRAILER" | "RESPONSE_TRAILER" => O::Trailer(header_ref(argument)?),
        "GRPC_STATUS" => O::GrpcStatus(match argument {
            "CAMEL_STRING" => GrpcForm::Camel,
            "SNAKE_STRING" => GrpcForm::Snake,
            "NUMBER" => GrpcForm::Number,
            _ => return None,
        }),
        "RESPONSE_CODE_DETAILS" => O::ResponseCodeDetails {
            white_space: (argument == "ALLOW_WHITESPACES").then_some(true)?,
        },
        "QUERY_PARAM" => O::QueryParameter(argument.to_owned()),
        "ENVIRONMENT" => O::Constant(std::env::var(argument).unwrap_or_default()),
        "PATH" => {
            let (query, source) = argument.split_once(':').unwrap_or((argument, ""));
            O::Path {
                query: match query {
                    "" | "WQ" => true,
                    "NQ" => false,
                    _ => return None,
                },
                source: match source {
                    "" | "ORIG_OR_PATH" => PathSource::OriginalOrCurrent,
                    "ORIG" => PathSource::Original,
                    "PATH" => PathSource::Current,
                    _ => return None,
                },
            }
        }
        _ => return None,
    })
}

fn plain(name: &str) -> Option<Operator> {
    use Operator as O;
    Some(match name {
        "START_TIME" => O::StartTime(TimeFormat::Default),
        "EMIT_TIME" => O::EmitTime(TimeFormat::Default),
        "PROTOCOL" => O::Protocol,
        "UPSTREAM_PROTOCOL" => O::UpstreamProtocol,
        "RESPONSE_CODE" => O::ResponseCode,
        "RESPONSE_CODE_DETAILS" => O::ResponseCodeDetails { white_space: false },
        "RESPONSE_FLAGS" => O::ResponseFlags,
        "RESPONSE_FLAGS_LONG" => O::ResponseFlagsLong,
        "CONNECTION_TERMINATION_DETAILS" => O::ConnectionTerminationDetails,
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => O::UpstreamTransportFailureReason,
        "BYTES_RECEIVED" => O::BytesReceived,
        "BYTES_SENT" => O::BytesSent,
        "REQUEST_HEADERS_BYTES" => O::RequestHeadersBytes,
        "RESPONSE_HEADERS_BYTES" => O::ResponseHeadersBytes,
        "RESPONSE_TRAILERS_BYTES" => O::ResponseTrailersBytes,
        "DURATION" => O::Duration,
        "REQUEST_DURATION" => O::RequestDuration,
        "REQUEST_TX_DURATION" => O::RequestTxDuration,
        "RESPONSE_DURATION" => O::ResponseDuration,
        "RESPONSE_TX_DURATION" => O::ResponseTxDuration,
        "UPSTREAM_HOST" | "UPSTREAM_REMOTE_ADDRESS" => O::UpstreamHost,
        "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => O::UpstreamHostWithoutPort,
        "UPSTREAM_REMOTE_PORT" => O::UpstreamRemotePort,
        "UPSTREAM_HOST_NAME" => O::UpstreamHostName,
        "UPSTREAM_HOST_NAME_WITHOUT_PORT" => O::UpstreamHostNameWithoutPort,
        "UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW" => O::UpstreamCluster,
        "UPSTREAM_LOCAL_ADDRESS" => O::UpstreamLocalAddress,
        "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => O::UpstreamLocalAddressWithoutPort,
        "UPSTREAM_LOCAL_PORT" => O::UpstreamLocalPort,
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => O::UpstreamRequestAttemptCount,
        "DOWNSTREAM_LOCAL_ADDRESS" => O::DownstreamLocalAddress,
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => O::DownstreamLocalAddressWithoutPort,
        "DOWNSTREAM_LOCAL_PORT" => O::DownstreamLocalPort,
        "DOWNSTREAM_DIRECT_LOCAL_ADDRESS" => O::DownstreamDirectLocalAddress,
        "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT" => {
            O::DownstreamDirectLocalAddressWithoutPort
        }
        "DOWNSTREAM_DIRECT_LOCAL_PORT" => O::DownstreamDirectLocalPort,
        "DOWNSTREAM_REMOTE_ADDRESS" => O::DownstreamRemoteAddress,
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => O::DownstreamRemoteAddressWithoutPort,
        "DOWNSTREAM_REMOTE_PORT" => O::DownstreamRemotePort,
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => O::DownstreamDirectRemoteAddress,
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => {
            O::DownstreamDirectRemoteAddressWithoutPort
        }
        "DOWNSTREAM_DIRECT_REMOTE_PORT" => O::DownstreamDirectRemotePort,
        "REQUESTED_SERVER_NAME" => O::RequestedServerName,
        "ROUTE_NAME" => O::RouteName,
        "VIRTUAL_CLUSTER_NAME" => O::VirtualClusterName,
        "VIRTUAL_HOST_NAME" => O::VirtualHostName,
        "HOSTNAME" => O::Hostname,
        "CONNECTION_ID" => O::ConnectionId,
        "STREAM_ID" => O::StreamId,
        "UNIQUE_ID" => O::UniqueId,
        "FILTER_CHAIN_NAME" => O::FilterChainName,
        "GRPC_STATUS" => O::GrpcStatus(GrpcForm::Camel),
        "GRPC_STATUS_NUMBER" => O::GrpcStatus(GrpcForm::Number),
        "PATH" => O::Path {
            source: PathSource::OriginalOrCurrent,
            query: true,
        },
        "QUERY_PARAMS" => O::QueryParameters,
        "LOCAL_REPLY_BODY" => O::LocalReplyBody,
        "ACCESS_LOG_TYPE" => O::AccessLogType,
        _ => return None,
    })
}

/// The operators about TLS are the same for both sides.
fn tls(name: &str) -> Option<Operator> {
    let property = |name: &str| {
        Some(match name {
            "PEER_URI_SAN" => Tls::PeerUriSan,
            "LOCAL_URI_SAN" => Tls::LocalUriSan,
            "PEER_SUBJECT" => Tls::PeerSubject,
            "LOCAL_SUBJECT" => Tls::LocalSubject,
            "PEER_ISSUER" => Tls::PeerIssuer,
            "PEER_DNS_SAN" => Tls::PeerDnsSan,
            "LOCAL_DNS_SAN" => Tls::LocalDnsSan,
            "PEER_SERIAL" => Tls::PeerSerial,
            "PEER_FINGERPRINT_256" => Tls::PeerFingerprint256,
            "PEER_CERT" => Tls::PeerCert,
            "PEER_CERT_V_START" => Tls::PeerCertStart,
            "PEER_CERT_V_END" => Tls::PeerCertEnd,
            "TLS_VERSION" => Tls::Version,
            "TLS_CIPHER" => Tls::Cipher,
            _ => return None,
        })
    };
    match name.split_once('_')? {
        ("DOWNSTREAM", "TRANSPORT_FAILURE_REASON") => Some(Operator::DownstreamTransportFailure),
        ("DOWNSTREAM", rest) => Some(Operator::DownstreamTls(property(rest)?)),
        ("UPSTREAM", rest) => Some(Operator::UpstreamTls(property(rest)?)),
        _ => None,
    }
}

fn header_ref(argument: &str) -> Option<HeaderRef> {
    let valid = |name: &str| {
        let lower = name.to_ascii_lowercase();
        let field = lower.strip_prefix(':').unwrap_or(&lower);
        HeaderName::from_bytes(field.as_bytes())
            .is_ok()
            .then_some(lower)
    };
    Some(match argument.split_once('?') {
        Some((name, fallback)) => HeaderRef {
            name: valid(name)?,
            fallback: Some(valid(fallback)?),
        },
        None => HeaderRef {
            name: valid(argument)?,
            fallback: None,
        },
    })
}

/// Names of the gRPC status codes, by number.
const GRPC_STATUS_NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

impl GrpcForm {
    /// The status in this form. Numbers without a name are written as numbers in every form.
    pub fn of(self, status: u16) -> String {
        let name = GRPC_STATUS_NAMES.get(usize::from(status));
        match (self, name) {
            (Self::Snake, Some(name)) => (*name).to_owned(),
            // Envoy and gRPC differ in one: it has one L in camel case, and OK stays as it is.
            (Self::Camel, Some(&"CANCELLED")) => "Canceled".to_owned(),
            (Self::Camel, Some(&"OK")) => "OK".to_owned(),
            (Self::Camel, Some(name)) => name
                .split('_')
                .map(|word| word[..1].to_owned() + &word[1..].to_ascii_lowercase())
                .collect(),
            _ => status.to_string(),
        }
    }
}
