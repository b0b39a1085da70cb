//! Envoy's substitution format: text with `%OPERATOR(argument):length%` commands, used by access logs and header
//! values. This module parses; whoever knows the request supplies the values through [`Values`].

use http::HeaderName;

use crate::Invalid;

/// A parsed format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Command {
        operator: Operator,
        limit: Option<usize>,
    },
}

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
    Request(HeaderRef),
    Response(HeaderRef),
    Trailer(HeaderRef),
    Protocol,
    UpstreamProtocol,
    ResponseCode,
    ResponseCodeDetails,
    ResponseFlags,
    ConnectionTerminationDetails,
    UpstreamTransportFailureReason,
    BytesReceived,
    BytesSent,
    Duration,
    RequestDuration,
    ResponseDuration,
    UpstreamHost,
    UpstreamCluster,
    UpstreamLocalAddress,
    UpstreamRequestAttemptCount,
    DownstreamLocalAddress,
    DownstreamLocalAddressWithoutPort,
    DownstreamLocalPort,
    DownstreamRemoteAddress,
    DownstreamRemoteAddressWithoutPort,
    DownstreamDirectRemoteAddress,
    DownstreamDirectRemoteAddressWithoutPort,
    RequestedServerName,
    RouteName,
    VirtualHostName,
    Hostname,
    ConnectionId,
    FilterChainName,
    GrpcStatus,
    GrpcStatusNumber,
    Path,
    Query,
}

/// How a time is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimeFormat {
    /// `2026-01-02T03:04:05.678Z`
    Default,
    /// A `strftime` pattern with Envoy's `%3f`-style fractions.
    Pattern(String),
}

/// Supplies the values of one request.
pub trait Values {
    /// Appends the operator's value to `out`; false when there is none.
    fn write(&self, operator: &Operator, out: &mut String) -> bool;
}

impl Template {
    /// Parses a format.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(start) = rest.find('%') {
            literal.push_str(&rest[..start]);
            let after = &rest[start + 1..];
            if let Some(tail) = after.strip_prefix('%') {
                literal.push('%');
                rest = tail;
                continue;
            }
            let (piece, tail) = parse_command(after)?;
            if !literal.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut literal)));
            }
            pieces.push(piece);
            rest = tail;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Ok(Self { pieces })
    }

    /// The text, when the format has no commands.
    pub fn literal(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Writes the format with `values`; a missing value is written as `missing`.
    pub fn write(&self, values: &dyn Values, missing: &str, out: &mut String) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Command { operator, limit } => {
                    let start = out.len();
                    if !values.write(operator, out) {
                        out.truncate(start);
                        out.push_str(missing);
                    } else if let Some(limit) = limit
                        && let Some((cut, _)) = out[start..].char_indices().nth(*limit)
                    {
                        out.truncate(start + cut);
                    }
                }
            }
        }
    }
}

/// Parses what follows a `%` up to and including the closing one.
fn parse_command(text: &str) -> Result<(Piece, &str), Invalid> {
    let refused =
        |what: &str| Invalid::new("", format!("format command `%{what}%` is not supported"));
    let name_end = text
        .find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
        .ok_or_else(|| Invalid::new("", "format has a `%` without its closing one"))?;
    let (name, mut rest) = text.split_at(name_end);
    let mut argument = None;
    if let Some(inner) = rest.strip_prefix('(') {
        let end = inner
            .find(')')
            .ok_or_else(|| Invalid::new("", "format command has no closing parenthesis"))?;
        argument = Some(&inner[..end]);
        rest = &inner[end + 1..];
    }
    let mut limit = None;
    if let Some(inner) = rest.strip_prefix(':') {
        let end = inner.find('%').unwrap_or(inner.len());
        limit = Some(inner[..end].parse().map_err(|_| refused(name))?);
        rest = &inner[end..];
    }
    let tail = rest
        .strip_prefix('%')
        .ok_or_else(|| Invalid::new("", "format has a `%` without its closing one"))?;
    let operator = operator(name, argument).ok_or_else(|| refused(name))?;
    Ok((Piece::Command { operator, limit }, tail))
}

fn operator(name: &str, argument: Option<&str>) -> Option<Operator> {
    use Operator as O;
    if let Some(argument) = argument.filter(|argument| !argument.is_empty()) {
        return Some(match name {
            "START_TIME" => O::StartTime(TimeFormat::Pattern(argument.to_owned())),
            "REQ" | "REQUEST_HEADER" => O::Request(header_ref(argument)?),
            "RESP" | "RESPONSE_HEADER" => O::Response(header_ref(argument)?),
            "TRAILER" => O::Trailer(header_ref(argument)?),
            "GRPC_STATUS" => O::GrpcStatus,
            _ => return None,
        });
    }
    Some(match name {
        "START_TIME" => O::StartTime(TimeFormat::Default),
        "PROTOCOL" => O::Protocol,
        "UPSTREAM_PROTOCOL" => O::UpstreamProtocol,
        "RESPONSE_CODE" => O::ResponseCode,
        "RESPONSE_CODE_DETAILS" => O::ResponseCodeDetails,
        "RESPONSE_FLAGS" => O::ResponseFlags,
        "CONNECTION_TERMINATION_DETAILS" => O::ConnectionTerminationDetails,
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => O::UpstreamTransportFailureReason,
        "BYTES_RECEIVED" => O::BytesReceived,
        "BYTES_SENT" => O::BytesSent,
        "DURATION" => O::Duration,
        "REQUEST_DURATION" => O::RequestDuration,
        "RESPONSE_DURATION" => O::ResponseDuration,
        "UPSTREAM_HOST" | "UPSTREAM_REMOTE_ADDRESS" => O::UpstreamHost,
        "UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW" => O::UpstreamCluster,
        "UPSTREAM_LOCAL_ADDRESS" => O::UpstreamLocalAddress,
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => O::UpstreamRequestAttemptCount,
        "DOWNSTREAM_LOCAL_ADDRESS" => O::DownstreamLocalAddress,
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => O::DownstreamLocalAddressWithoutPort,
        "DOWNSTREAM_LOCAL_PORT" => O::DownstreamLocalPort,
        "DOWNSTREAM_REMOTE_ADDRESS" => O::DownstreamRemoteAddress,
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => O::DownstreamRemoteAddressWithoutPort,
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => O::DownstreamDirectRemoteAddress,
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => {
            O::DownstreamDirectRemoteAddressWithoutPort
        }
        "REQUESTED_SERVER_NAME" => O::RequestedServerName,
        "ROUTE_NAME" => O::RouteName,
        "VIRTUAL_CLUSTER_NAME" => return None,
        "VIRTUAL_HOST_NAME" => O::VirtualHostName,
        "HOSTNAME" => O::Hostname,
        "CONNECTION_ID" => O::ConnectionId,
        "FILTER_CHAIN_NAME" => O::FilterChainName,
        "GRPC_STATUS" => O::GrpcStatus,
        "GRPC_STATUS_NUMBER" => O::GrpcStatusNumber,
        "PATH" => O::Path,
        "QUERY" => O::Query,
        _ => return None,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;
    impl Values for Fixed {
        fn write(&self, operator: &Operator, out: &mut String) -> bool {
            match operator {
                Operator::Request(header) if header.name == ":path" => out.push_str("/abc"),
                Operator::Request(header) => match &header.fallback {
                    Some(name) => out.push_str(name),
                    None => return false,
                },
                Operator::ResponseCode => out.push_str("200"),
                _ => return false,
            }
            true
        }
    }

    #[test]
    fn commands_are_replaced_shortened_and_defaulted() {
        for (format, written) in [
            ("plain", "plain"),
            ("100%% %RESPONSE_CODE%\n", "100% 200\n"),
            ("%REQ(:PATH):3%|", "/ab|"),
            ("%REQ(X-A?X-B)%", "x-b"),
            ("\"%REQ(USER-AGENT)%\" %UPSTREAM_HOST%", "\"-\" -"),
        ] {
            let mut out = String::new();
            Template::parse(format)
                .unwrap()
                .write(&Fixed, "-", &mut out);
            assert_eq!(out, written, "{format}");
        }
    }

    #[test]
    fn broken_or_unknown_commands_are_refused() {
        for format in [
            "%",
            "%RESPONSE_CODE",
            "%REQ(x%",
            "%NOPE%",
            "%REQ()%",
            "%REQ(a):x%",
        ] {
            assert!(Template::parse(format).is_err(), "{format}");
        }
    }
}
