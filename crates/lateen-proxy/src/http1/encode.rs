//! Writing messages. Framing is always made here, of what the head announces and of what the body says of itself.

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};

use super::body_encoder::BodyEncoder;
use super::error::Error;
use super::framing::{content_length, has_no_body, keeps_alive};
use super::{date, number};

/// Room for most heads. Longer ones make more.
const LIKELY_LENGTH: usize = 1 << 10;

/// What a body says of itself before it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Announced {
    Empty,
    Length(u64),
    Unknown,
}

impl Announced {
    pub(super) fn of(body: &impl http_body::Body) -> Self {
        match body.size_hint().exact() {
            _ if body.is_end_stream() => Self::Empty,
            Some(length) => Self::Length(length),
            None => Self::Unknown,
        }
    }
}

/// The head of a request that is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutgoingHead<'h> {
    pub(crate) method: &'h Method,
    pub(crate) path: &'h str,
    pub(crate) authority: &'h str,
    pub(crate) headers: &'h HeaderMap,
    pub(crate) opens: Opens,
}

/// What a request asks its connection to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opens {
    Nothing,
    /// Another protocol, with a response of `101`.
    Protocol,
    /// A tunnel, with any response of success.
    Tunnel,
}

/// What a response depends on besides itself.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) version: Version,
    /// The client understands fields behind the body.
    pub(super) takes_trailers: bool,
}

impl Asked {
    /// Whether a response with this status is the last thing that is HTTP on its connection.
    pub(super) fn switches(&self, status: StatusCode) -> bool {
        let opens = self.method == Method::CONNECT && status.is_success();
        opens || status == StatusCode::SWITCHING_PROTOCOLS
    }
}

/// Writes the head of a response. `keep_alive` becomes false when the connection has to end with it.
///
/// # Errors
/// When the length that the head announces is not that of the body.
pub(super) fn response(
    out: &mut BytesMut,
    asked: &Asked,
    status: StatusCode,
    headers: &HeaderMap,
    body: Announced,
    keep_alive: &mut bool,
) -> Result<BodyEncoder, Error> {
    out.reserve(LIKELY_LENGTH);
    out.put_slice(if asked.version == Version::HTTP_10 {
        b"HTTP/1.0 "
    } else {
        b"HTTP/1.1 "
    });
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    // As in Envoy, codes without a phrase have one, too.
    out.put_slice(status.canonical_reason().unwrap_or("Unknown").as_bytes());
    out.put_slice(b"\r\n");
    let is_head = asked.method == Method::HEAD;
    let bodiless = is_head || has_no_body(status) || asked.switches(status);
    let announces_length =
        !bodiless || (is_head && !has_no_body(status)) || status == StatusCode::NOT_MODIFIED;
    let present = fields(out, headers, false);
    let given = present
        .content_length(headers)?
        .filter(|_| announces_length);
    let encoder = if bodiless {
        if let Some(length) = given {
            length_field(out, length);
        }
        BodyEncoder::Length(0)
    } else {
        framing(out, headers, given, body, asked, keep_alive)?
    };
    if !present.date {
        date::write(out);
    }
    if present.connection {
        *keep_alive &= keeps_alive(Version::HTTP_11, headers);
    } else if !*keep_alive {
        out.put_slice(b"connection: close\r\n");
    } else if asked.version == Version::HTTP_10 {
        out.put_slice(b"connection: keep-alive\r\n");
    }
    out.put_slice(b"\r\n");
    Ok(encoder)
}

/// Writes the fields that frame a body.
fn framing(
    out: &mut BytesMut,
    headers: &HeaderMap,
    given: Option<u64>,
    body: Announced,
    asked: &Asked,
    keep_alive: &mut bool,
) -> Result<BodyEncoder, Error> {
    if let Some(length) = known_length(given, body)? {
        length_field(out, length);
        return Ok(BodyEncoder::Length(length));
    }
    if asked.version == Version::HTTP_10 {
        // Such a client knows no chunks, and takes all until the end.
        *keep_alive = false;
        return Ok(BodyEncoder::UntilClose);
    }
    out.put_slice(b"transfer-encoding: chunked\r\n");
    Ok(BodyEncoder::chunked(headers, asked.takes_trailers))
}

/// Writes the head of a request.
///
/// # Errors
/// When it would be read as another request, or the length that it announces is not that of the body.
pub(super) fn request(
    out: &mut BytesMut,
    head: &OutgoingHead<'_>,
    body: Announced,
) -> Result<BodyEncoder, Error> {
    let OutgoingHead {
        method,
        path,
        authority,
        headers,
        opens,
    } = *head;
    // A tunnel leads to a host, and has no path.
    let target = if *method == Method::CONNECT {
        authority
    } else {
        path
    };
    // Rewrites are free to make what no client may send.
    let ends_word = |byte: u8| byte <= b' ' || byte == 0x7f;
    if target.is_empty() || path.bytes().chain(authority.bytes()).any(ends_word) {
        return Err(Error::Head);
    }
    out.reserve(LIKELY_LENGTH);
    out.put_slice(method.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(target.as_bytes());
    out.put_slice(b" HTTP/1.1\r\nhost: ");
    out.put_slice(authority.as_bytes());
    out.put_slice(b"\r\n");
    let given = fields(out, headers, true).content_length(headers)?;
    let encoder = match known_length(given, body)? {
        // All that follows the head is in the tunnel.
        _ if opens == Opens::Tunnel => BodyEncoder::Length(0),
        // Methods that usually have no body need not say that there is none (RFC 9110 section 8.6).
        Some(0) if given.is_none() && !expects_body(method) => BodyEncoder::Length(0),
        Some(length) => {
            length_field(out, length);
            BodyEncoder::Length(length)
        }
        None => {
            out.put_slice(b"transfer-encoding: chunked\r\n");
            BodyEncoder::chunked(headers, true)
        }
    };
    out.put_slice(b"\r\n");
    Ok(encoder)
}

/// The length to announce, if there is one.
fn known_length(given: Option<u64>, body: Announced) -> Result<Option<u64>, Error> {
    let own = match body {
        Announced::Empty => Some(0),
        Announced::Length(length) => Some(length),
        Announced::Unknown => None,
    };
    match (given, own) {
        (Some(given), Some(own)) if given != own => Err(Error::BodyLength),
        _ => Ok(given.or(own)),
    }
}

fn expects_body(method: &Method) -> bool {
    !matches!(
        *method,
        Method::GET | Method::HEAD | Method::DELETE | Method::CONNECT | Method::TRACE
    )
}

/// Which fields a head has, so that those it does not have are not searched for.
#[derive(Debug, Default)]
struct Present {
    length: bool,
    date: bool,
    connection: bool,
}

impl Present {
    /// The length that the head announces.
    fn content_length(&self, headers: &HeaderMap) -> Result<Option<u64>, Error> {
        if self.length {
            Ok(content_length(headers)?)
        } else {
            Ok(None)
        }
    }
}

/// Writes all fields but those of the framing. Of a request, the host was written, and may not stand there twice.
fn fields(out: &mut BytesMut, headers: &HeaderMap, is_request: bool) -> Present {
    let mut present = Present::default();
    for (name, value) in headers {
        if *name == header::CONTENT_LENGTH {
            present.length = true;
        } else if *name != header::TRANSFER_ENCODING && !(is_request && *name == header::HOST) {
            present.date |= *name == header::DATE;
            present.connection |= *name == header::CONNECTION;
            field(out, name, value);
        }
    }
    present
}

pub(super) fn field(out: &mut BytesMut, name: &HeaderName, value: &HeaderValue) {
    out.put_slice(name.as_str().as_bytes());
    out.put_slice(b": ");
    out.put_slice(value.as_bytes());
    out.put_slice(b"\r\n");
}

fn length_field(out: &mut BytesMut, length: u64) {
    out.put_slice(b"content-length: ");
    number::decimal(out, length);
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::super::testing::headers;
    use super::*;

    #[test]
    fn requests_have_one_framing() {
        const CL: (&str, &str) = ("content-length", "3");
        for (method, fields, body, expected) in [
            (Method::GET, &[][..], Announced::Empty, Some("")),
            (
                Method::POST,
                &[],
                Announced::Empty,
                Some("content-length: 0\r\n"),
            ),
            (
                Method::POST,
                &[],
                Announced::Length(3),
                Some("content-length: 3\r\n"),
            ),
            (
                Method::POST,
                &[],
                Announced::Unknown,
                Some("transfer-encoding: chunked\r\n"),
            ),
            (
                Method::GET,
                &[CL],
                Announced::Length(3),
                Some("content-length: 3\r\n"),
            ),
            (
                Method::GET,
                &[CL],
                Announced::Unknown,
                Some("content-length: 3\r\n"),
            ),
            (
                Method::GET,
                &[("host", "b"), ("transfer-encoding", "gzip")],
                Announced::Empty,
                Some(""),
            ),
            (Method::GET, &[CL], Announced::Empty, None),
            (Method::GET, &[CL], Announced::Length(4), None),
        ] {
            let mut out = BytesMut::new();
            let head = OutgoingHead {
                method: &method,
                path: "/x",
                authority: "a:1",
                headers: &headers(fields),
                opens: Opens::Nothing,
            };
            let encoder = request(&mut out, &head, body);
            let Some(expected) = expected else {
                assert!(encoder.is_err(), "{method} {fields:?} {body:?}");
                continue;
            };
            encoder.unwrap();
            let expected = format!("{method} /x HTTP/1.1\r\nhost: a:1\r\n{expected}\r\n");
            assert_eq!(str::from_utf8(&out).unwrap(), expected);
        }
    }

    #[test]
    fn responses_are_framed_for_their_clients() {
        let (new, old) = (Version::HTTP_11, Version::HTTP_10);
        let length = ("content-length", "3");
        for (version, is_head, status, fields, body, expected, keeps) in [
            (
                new,
                false,
                200,
                &[][..],
                Announced::Empty,
                "content-length: 0\r\n",
                true,
            ),
            (
                new,
                false,
                200,
                &[length],
                Announced::Length(3),
                "content-length: 3\r\n",
                true,
            ),
            (
                new,
                false,
                200,
                &[],
                Announced::Unknown,
                "transfer-encoding: chunked\r\n",
                true,
            ),
            (
                new,
                true,
                200,
                &[length],
                Announced::Empty,
                "content-length: 3\r\n",
                true,
            ),
            (new, true, 200, &[], Announced::Empty, "", true),
            (new, false, 204, &[length], Announced::Empty, "", true),
            (
                new,
                false,
                304,
                &[length],
                Announced::Empty,
                "content-length: 3\r\n",
                true,
            ),
            (
                old,
                false,
                200,
                &[],
                Announced::Unknown,
                "connection: close\r\n",
                false,
            ),
            (
                old,
                false,
                200,
                &[],
                Announced::Length(3),
                "content-length: 3\r\nconnection: keep-alive\r\n",
                true,
            ),
        ] {
            let asked = Asked {
                method: if is_head { Method::HEAD } else { Method::GET },
                version,
                takes_trailers: false,
            };
            let mut fields = headers(fields);
            fields.insert("date", HeaderValue::from_static("d"));
            let (mut out, mut keep_alive) = (BytesMut::new(), true);
            let status = StatusCode::from_u16(status).unwrap();
            response(&mut out, &asked, status, &fields, body, &mut keep_alive).unwrap();
            let text = str::from_utf8(&out).unwrap();
            let (_, rest) = text.split_once("date: d\r\n").unwrap();
            assert_eq!(
                (rest, keep_alive),
                (format!("{expected}\r\n").as_str(), keeps),
                "{text}"
            );
        }
    }
}
