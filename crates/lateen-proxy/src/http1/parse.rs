//! Heads of messages (RFC 9112 sections 2 to 5), read from a buffer as soon as they are complete.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use httparse::{Header, Status};

use super::error::Malformed;
use super::names;
use super::target::Target;

/// Fields that need no memory of their own while they are parsed.
const FIELDS_ON_STACK: usize = 100;

/// Fields that are likely to be added to a head on its way.
const ADDED_FIELDS: usize = 8;

/// Fields whose values are still part of the buffer.
type Spans = Vec<(HeaderName, Range<usize>)>;

thread_local! {
    /// Kept from one head to the next.
    static SPANS: RefCell<Spans> = const { RefCell::new(Vec::new()) };
}

/// The head of a request.
#[derive(Debug)]
pub(crate) struct RequestHead {
    pub(crate) method: Method,
    /// That of the target, if it has one.
    pub(crate) authority: Option<String>,
    /// Path with query.
    pub(crate) path: String,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
}

/// The head of a response.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
}

/// Takes the head of a request from the front of `buffer`; nothing while it is not complete. The values of its fields
/// are slices of the buffer.
pub(crate) fn request(
    buffer: &mut BytesMut,
    most_fields: usize,
) -> Result<Option<RequestHead>, Malformed> {
    with_spans(|spans| {
        let Some((length, method, target, version)) = request_line(buffer, most_fields, spans)?
        else {
            return Ok(None);
        };
        Ok(Some(RequestHead {
            method,
            authority: target.authority,
            path: target.path,
            version,
            headers: take(buffer, length, spans)?,
        }))
    })
}

/// Takes the head of a response from the front of `buffer`; nothing while it is not complete.
pub(crate) fn response(
    buffer: &mut BytesMut,
    most_fields: usize,
) -> Result<Option<ResponseHead>, Malformed> {
    with_spans(|spans| {
        let Some((length, status, version)) = status_line(buffer, most_fields, spans)? else {
            return Ok(None);
        };
        Ok(Some(ResponseHead {
            status,
            version,
            headers: take(buffer, length, spans)?,
        }))
    })
}

/// Reads the fields that end a chunked body, which is all that `block` holds.
pub(crate) fn trailers(mut block: BytesMut, most_fields: usize) -> Result<HeaderMap, Malformed> {
    // The parser takes bare newlines, behind which others would not look for a field.
    let bare = |at: usize| block[at] == b'\n' && (at == 0 || block[at - 1] != b'\r');
    if (0..block.len()).any(bare) {
        return Err(Malformed::Chunk);
    }
    with_spans(|spans| {
        let mut fields = vec![httparse::EMPTY_HEADER; most_fields];
        let length = match httparse::parse_headers(&block, &mut fields) {
            Ok(Status::Complete((length, fields))) if length == block.len() => {
                note(&block, fields, spans)?;
                length
            }
            _ => return Err(Malformed::Head),
        };
        take(&mut block, length, spans)
    })
    .map_err(|_| Malformed::Chunk)
}

fn with_spans<T>(parse: impl FnOnce(&mut Spans) -> Result<T, Malformed>) -> Result<T, Malformed> {
    SPANS.with_borrow_mut(|spans| {
        spans.clear();
        parse(spans)
    })
}

/// Gives a parser room for so many fields.
macro_rules! room {
    ($room:ident, $most:expr) => {
        let mut stack = [const { MaybeUninit::<Header<'_>>::uninit() }; FIELDS_ON_STACK];
        let mut heap = Vec::new();
        let $room = match stack.get_mut(..$most) {
            Some(enough) => enough,
            None => {
                heap.resize_with($most, MaybeUninit::uninit);
                &mut heap[..]
            }
        };
    };
}

/// What a head says before its fields, and its length. The fields go to `spans`.
type RequestLine = (usize, Method, Target, Version);

fn request_line(
    buffer: &[u8],
    most_fields: usize,
    spans: &mut Spans,
) -> Result<Option<RequestLine>, Malformed> {
    room!(fields, most_fields);
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(buffer, fields) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(error) => return Err(refusal(error, buffer)),
    };
    let method = method(request.method.unwrap_or_default())?;
    let target = Target::parse(&method, request.path.unwrap_or_default())?;
    note(buffer, request.headers, spans)?;
    Ok(Some((length, method, target, version(request.version))))
}

fn status_line(
    buffer: &[u8],
    most_fields: usize,
    spans: &mut Spans,
) -> Result<Option<(usize, StatusCode, Version)>, Malformed> {
    room!(fields, most_fields);
    let mut response = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let length = match parser.parse_response_with_uninit_headers(&mut response, buffer, fields) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Malformed::TooLarge),
        Err(_) => return Err(Malformed::Head),
    };
    let status = response
        .code
        .and_then(|code| StatusCode::from_u16(code).ok());
    note(buffer, response.headers, spans)?;
    let status = status.ok_or(Malformed::Head)?;
    Ok(Some((length, status, version(response.version))))
}

/// Remembers where the values of fields are in `buffer`, of which they are parts.
fn note(buffer: &[u8], fields: &[Header<'_>], spans: &mut Spans) -> Result<(), Malformed> {
    for field in fields {
        let name = names::of(field.name.as_bytes()).ok_or(Malformed::Head)?;
        let start = (field.value.as_ptr() as usize).saturating_sub(buffer.as_ptr() as usize);
        // An empty value may be anywhere.
        let span = match field.value.len() {
            0 => 0..0,
            length => start..start + length,
        };
        spans.push((name, span));
    }
    Ok(())
}

/// Takes a head of this length from the buffer, and makes slices of it.
fn take(buffer: &mut BytesMut, length: usize, spans: &mut Spans) -> Result<HeaderMap, Malformed> {
    let head: Bytes = buffer.split_to(length).freeze();
    let mut headers = HeaderMap::with_capacity(spans.len() + ADDED_FIELDS);
    for (name, span) in spans.drain(..) {
        let value = HeaderValue::from_maybe_shared(head.slice(span));
        headers.append(name, value.map_err(|_| Malformed::Head)?);
    }
    Ok(headers)
}

fn version(minor: Option<u8>) -> Version {
    match minor {
        Some(0) => Version::HTTP_10,
        _ => Version::HTTP_11,
    }
}

/// The method, if it is one that Envoy takes: those that are registered and in use. Case matters (RFC 9110 section 9.1).
fn method(name: &str) -> Result<Method, Malformed> {
    const OTHERS: [&str; 25] = [
        "ACL",
        "BIND",
        "CHECKOUT",
        "COPY",
        "LINK",
        "LOCK",
        "M-SEARCH",
        "MERGE",
        "MKACTIVITY",
        "MKCALENDAR",
        "MKCOL",
        "MOVE",
        "NOTIFY",
        "PROPFIND",
        "PROPPATCH",
        "PURGE",
        "REBIND",
        "REPORT",
        "SEARCH",
        "SOURCE",
        "SUBSCRIBE",
        "UNBIND",
        "UNLINK",
        "UNLOCK",
        "UNSUBSCRIBE",
    ];
    Ok(match name {
        "GET" => Method::GET,
        "POST" => Method::POST,
        "PUT" => Method::PUT,
        "HEAD" => Method::HEAD,
        "DELETE" => Method::DELETE,
        "OPTIONS" => Method::OPTIONS,
        "PATCH" => Method::PATCH,
        "CONNECT" => Method::CONNECT,
        "TRACE" => Method::TRACE,
        other if OTHERS.contains(&other) => {
            Method::from_bytes(other.as_bytes()).map_err(|_| Malformed::Head)?
        }
        _ => return Err(Malformed::Head),
    })
}

/// Why the parser does not take a request.
fn refusal(error: httparse::Error, buffer: &[u8]) -> Malformed {
    match error {
        httparse::Error::TooManyHeaders => Malformed::TooLarge,
        _ if has_other_version(buffer) => Malformed::Version,
        _ => Malformed::Head,
    }
}

/// Whether the first line is that of a request in another version, or in none, as before there were versions.
fn has_other_version(buffer: &[u8]) -> bool {
    let line = buffer
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(_), version, None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let is_method = !method.is_empty() && method.iter().all(u8::is_ascii_uppercase);
    let other = match version.map(|version| version.strip_prefix(b"HTTP/")) {
        None => true,
        Some(Some([major, b'.', minor])) => {
            let digits = major.is_ascii_digit() && minor.is_ascii_digit();
            digits && (*major, *minor) != (b'1', b'1') && (*major, *minor) != (b'1', b'0')
        }
        Some(_) => false,
    };
    is_method && other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<Option<(&str, usize)>, Malformed>) {
        let mut buffer = BytesMut::from(text);
        let found = request(&mut buffer, 3);
        let found = found.map(|head| head.map(|head| (head.path, head.headers.len())));
        let expected = expected.map(|it| it.map(|(path, fields)| (path.to_owned(), fields)));
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn heads_are_complete_partial_or_refused() {
        check("GET / HTTP/1.1\r\n\r\n", Ok(Some(("/", 0))));
        check(
            "GET /a HTTP/1.0\r\nhost: a\r\nx:\r\n\r\nrest",
            Ok(Some(("/a", 2))),
        );
        check("GET /a HTTP/1.1\nhost: a\n\n", Ok(Some(("/a", 1))));
        for partial in [
            "",
            "G",
            "GET / HTTP/1.1\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\n\r",
        ] {
            check(partial, Ok(None));
        }
        for (malformed, texts) in [
            (
                Malformed::Version,
                &[
                    "GET /\r\n\r\n",
                    "GET / HTTP/2.0\r\n\r\n",
                    "GET / HTTP/1.2\r\n\r\n",
                    "GET / HTTP/0.9\r\n",
                ][..],
            ),
            (
                Malformed::TooLarge,
                &["GET / HTTP/1.1\r\na: 1\r\nb: 1\r\nc: 1\r\nd: 1\r\n\r\n"],
            ),
            (
                Malformed::Head,
                &[
                    "GET / http/1.1\r\n\r\n",
                    "GET  / HTTP/1.1\r\n\r\n",
                    "GET /a b HTTP/1.1\r\n\r\n",
                    "get / HTTP/1.1\r\n\r\n",
                    "FETCH / HTTP/1.1\r\n\r\n",
                    "G(T / HTTP/1.1\r\n\r\n",
                    "GET / HTTP/1.1\r\nx : 1\r\n\r\n",
                    "GET / HTTP/1.1\r\nx\r\n\r\n",
                    "GET / HTTP/1.1\r\n: 1\r\n\r\n",
                    "GET / HTTP/1.1\r\nx: a\r\n b\r\n\r\n",
                    "GET / HTTP/1.1\r\nx: a\0b\r\n\r\n",
                    "GET / HTTP/1.1\r\nx: a\rb\r\n\r\n",
                    "GET / HTTP/1.1\r\nx: a\x7fb\r\n\r\n",
                ],
            ),
        ] {
            for text in texts {
                check(text, Err(malformed));
            }
        }
    }

    #[test]
    fn values_are_slices_and_the_rest_is_left() {
        let mut buffer = BytesMut::from("GET / HTTP/1.1\r\nA: x \r\na:y\r\nb:\r\n\r\nrest");
        let head = request(&mut buffer, 10).unwrap().unwrap();
        assert_eq!(&buffer[..], b"rest");
        let values: Vec<_> = head.headers.get_all("a").iter().collect();
        assert_eq!(values, ["x", "y"]);
        assert!(head.headers["b"].is_empty());
        let mut buffer = BytesMut::from("HTTP/1.1 299 Odd\r\nx: y\r\n\r\n");
        let head = response(&mut buffer, 10).unwrap().unwrap();
        assert_eq!(
            (head.status.as_u16(), head.version),
            (299, Version::HTTP_11)
        );
    }
}
