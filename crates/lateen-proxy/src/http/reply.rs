//! Answers that the proxy makes itself, in Envoy's words.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use crate::flags::Flags;
use crate::http1::{Malformed, Refusal};

/// The gRPC status of calls that took too long.
const DEADLINE_EXCEEDED: u32 = 4;

/// An answer without an upstream.
#[derive(Debug)]
pub(crate) struct LocalReply {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    pub(crate) flags: Flags,
    pub(crate) details: Cow<'static, str>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// The gRPC status, when it does not follow from the other one.
    pub(crate) grpc_status: Option<u32>,
    /// It is no error: gRPC requests get it like all others.
    pub(crate) plain: bool,
    /// The connection is closed after it.
    pub(crate) close: bool,
}

/// Why an attempt failed, for the words of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reset {
    ConnectionFailure,
    ConnectionTimeout,
    ConnectionTermination,
    Remote,
    Refused,
    Overflow,
    Protocol,
}

impl Reset {
    fn text(&self) -> &'static str {
        match self {
            Self::ConnectionFailure => "remote connection failure",
            Self::ConnectionTimeout => "connection timeout",
            Self::ConnectionTermination => "connection termination",
            Self::Remote => "remote reset",
            Self::Refused => "remote refused stream reset",
            Self::Overflow => "overflow",
            Self::Protocol => "protocol error",
        }
    }

    fn flag(&self) -> Flags {
        match self {
            Self::ConnectionFailure | Self::ConnectionTimeout => Flags::UPSTREAM_CONNECTION_FAILURE,
            Self::ConnectionTermination => Flags::UPSTREAM_CONNECTION_TERMINATION,
            Self::Remote | Self::Refused => Flags::UPSTREAM_REMOTE_RESET,
            Self::Overflow => Flags::UPSTREAM_OVERFLOW,
            Self::Protocol => Flags::UPSTREAM_PROTOCOL_ERROR,
        }
    }
}

impl LocalReply {
    pub(crate) fn new(
        status: StatusCode,
        body: impl Into<Bytes>,
        flags: Flags,
        details: impl Into<Cow<'static, str>>,
    ) -> Self {
        let (body, details) = (body.into(), details.into());
        Self {
            status,
            body,
            flags,
            details,
            headers: Vec::new(),
            grpc_status: None,
            plain: false,
            close: false,
        }
    }

    /// Adds where to go instead.
    pub(crate) fn locate(&mut self, location: &str) {
        if let Ok(value) = HeaderValue::from_str(location) {
            self.headers.push((http::header::LOCATION, value));
        }
    }

    /// The client took too long to send its request.
    pub(crate) fn request_timeout() -> Self {
        let mut reply = Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "request timeout",
            Flags::default(),
            "request_overall_timeout",
        );
        reply.close = true;
        reply
    }

    /// No route matched.
    pub(crate) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "",
            Flags::NO_ROUTE,
            "route_not_found",
        )
    }

    /// The route's cluster does not exist.
    pub(crate) fn no_cluster(status: StatusCode) -> Self {
        Self::new(status, "", Flags::NO_CLUSTER, "cluster_not_found")
    }

    /// The cluster has no endpoint that takes requests.
    pub(crate) fn no_healthy_upstream() -> Self {
        let flags = Flags::NO_HEALTHY_UPSTREAM;
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, "no healthy upstream", flags, "no_healthy_upstream")
    }

    /// The cluster's endpoints are to be relieved of some requests, or of all.
    pub(crate) fn drop_overload(all: bool) -> Self {
        let flags = Flags::DROP_OVERLOAD;
        let (body, details, header) = if all {
            (
                "unconditional drop overload",
                "unconditional_drop_overload",
                "x-envoy-unconditional-drop-overload",
            )
        } else {
            ("drop overload", "drop_overload", "x-envoy-drop-overload")
        };
        let mut reply = Self::new(StatusCode::SERVICE_UNAVAILABLE, body, flags, details);
        let header = HeaderName::from_static(header);
        reply
            .headers
            .push((header, HeaderValue::from_static("true")));
        reply
    }

    /// The last attempt gave no response. `failure` is what the transport said.
    pub(crate) fn reset(reset: &Reset, retried: bool, failure: &str) -> Self {
        let text = reset.text();
        let reason = if retried {
            format!(". retried and the latest reset reason: {text}")
        } else {
            format!(". reset reason: {text}")
        };
        let body = format!("upstream connect error or disconnect/reset before headers{reason}");
        let token = text.replace(' ', "_");
        let details = if failure.is_empty() {
            format!("upstream_reset_before_response_started{{{token}}}")
        } else {
            format!("upstream_reset_before_response_started{{{token}|{failure}}}")
        };
        let status = match reset {
            Reset::Protocol => StatusCode::BAD_GATEWAY,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut reply = Self::new(status, body, reset.flag(), details);
        if *reset == Reset::Overflow {
            let name = HeaderName::from_static("x-envoy-overloaded");
            reply.headers.push((name, HeaderValue::from_static("true")));
        }
        reply
    }

    /// The time for the response was over.
    pub(crate) fn timeout(details: impl Into<Cow<'static, str>>) -> Self {
        let flags = Flags::UPSTREAM_REQUEST_TIMEOUT;
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "upstream request timeout",
            flags,
            details,
        )
    }

    /// The stream made no progress for too long. `received`: the whole request has come, so that the client is not to
    /// blame.
    pub(crate) fn stream_idle(received: bool) -> Self {
        let flags = Flags::STREAM_IDLE_TIMEOUT;
        let status = status_of_timeout(received);
        Self::new(status, "stream timeout", flags, "stream_idle_timeout")
    }

    /// The stream took longer than its route allows, or than its gRPC deadline.
    pub(crate) fn stream_too_long(received: bool) -> Self {
        let flags = Flags::DURATION_TIMEOUT;
        let details = "max_duration_timeout";
        let status = status_of_timeout(received);
        let mut reply = Self::new(status, "downstream duration timeout", flags, details);
        reply.grpc_status = Some(DEADLINE_EXCEEDED);
        reply
    }

    /// The request is malformed. Only what is wrong with the protocol itself has a flag.
    pub(crate) fn bad_request(details: &'static str) -> Self {
        let flags = match details.starts_with("http") {
            true => Flags::DOWNSTREAM_PROTOCOL_ERROR,
            false => Flags::default(),
        };
        let mut reply = Self::new(StatusCode::BAD_REQUEST, "", flags, details);
        reply.close = true;
        reply
    }

    /// The path is to be asked for in its normal form.
    pub(crate) fn to_normal_path(path: &str) -> Self {
        let status = StatusCode::TEMPORARY_REDIRECT;
        let mut reply = Self::new(status, "", Flags::default(), "path_normalization_failed");
        reply.locate(path);
        reply
    }

    /// What a client sent is no request that could be taken.
    pub(crate) fn refusal(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::Late => StatusCode::REQUEST_TIMEOUT,
            Refusal::Malformed(Malformed::Version) => StatusCode::UPGRADE_REQUIRED,
            Refusal::Malformed(Malformed::TooLarge) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Refusal::Malformed(Malformed::Coding) => StatusCode::NOT_IMPLEMENTED,
            Refusal::Malformed(_) => StatusCode::BAD_REQUEST,
        };
        let (body, details) = match refusal {
            Refusal::Late => ("request header timeout", "request_header_timeout"),
            Refusal::Malformed(Malformed::TooLarge) => {
                ("Request Header Fields Too Large", "http1.headers_too_large")
            }
            Refusal::Malformed(Malformed::Version) => ("Upgrade Required", "low_version"),
            Refusal::Malformed(Malformed::Target) => ("Bad Request", "http1.invalid_url"),
            Refusal::Malformed(Malformed::LengthAndChunks) => (
                "Bad Request",
                "http1.content_length_and_chunked_not_allowed",
            ),
            Refusal::Malformed(Malformed::Body) => ("Bad Request", "http1.body_disallowed"),
            Refusal::Malformed(Malformed::Coding) => {
                ("Not Implemented", "http1.invalid_transfer_encoding")
            }
            _ => (status.canonical_reason().unwrap_or(""), "http1.codec_error"),
        };
        let flags = match refusal {
            Refusal::Late | Refusal::Malformed(Malformed::TooLarge) => Flags::default(),
            Refusal::Malformed(_) => Flags::DOWNSTREAM_PROTOCOL_ERROR,
        };
        let mut reply = Self::new(status, body, flags, details);
        reply.close = true;
        reply
    }

    /// The client left in the middle of its request. Only logs see this.
    pub(crate) fn client_left() -> Self {
        let flags = Flags::DOWNSTREAM_TERMINATION;
        let details = "downstream_remote_disconnect";
        let mut reply = Self::new(StatusCode::BAD_REQUEST, "", flags, details);
        reply.close = true;
        reply
    }

    /// The protocol that the client wants to switch to is not allowed here.
    pub(crate) fn upgrade_refused() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "",
            Flags::default(),
            "upgrade_failed",
        )
    }
}

fn status_of_timeout(received: bool) -> StatusCode {
    if received {
        StatusCode::GATEWAY_TIMEOUT
    } else {
        StatusCode::REQUEST_TIMEOUT
    }
}

/// The HTTP status that stands for a gRPC status, as Google's table of canonical codes has it.
pub(super) fn http_status(grpc: u16) -> u16 {
    match grpc {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        // Unknown, internal and data loss.
        _ => 500,
    }
}

/// The gRPC status that stands for an HTTP status.
pub(crate) fn grpc_status(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}
