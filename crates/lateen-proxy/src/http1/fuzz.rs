//! Any bytes, as clients and endpoints may send them.

use bytes::BytesMut;
use http::Method;

use super::chunked::Decoded;
use super::framing::Decoder;
use super::{parse, tests};

/// Fields that a head may have.
const MOST_FIELDS: usize = 10;

/// Requests with their bodies, one after the other, are the same however the bytes arrive.
#[test]
fn requests() {
    bolero::check!(name = "http1-requests")
        .with_iterations(0)
        .for_each(|bytes: &[u8]| {
            let whole = tests::read(bytes, || usize::MAX);
            for size in [1, 7] {
                assert_eq!(whole, tests::read(bytes, || size), "in parts of {size}");
            }
        });
}

/// A response is the same however its bytes arrive. The first byte chooses the method of its request.
#[test]
fn responses() {
    bolero::check!(name = "http1-responses")
        .with_iterations(0)
        .for_each(|bytes: &[u8]| {
            let Some((method, bytes)) = bytes.split_first() else {
                return;
            };
            let method = match method {
                b'H' => Method::HEAD,
                b'C' => Method::CONNECT,
                _ => Method::GET,
            };
            let whole = response(&method, bytes, usize::MAX);
            for size in [1, 7] {
                assert_eq!(whole, response(&method, bytes, size), "in parts of {size}");
            }
        });
}

/// What an endpoint's bytes say when they come in parts of this size: status, fields, body, and what is left behind it;
/// nothing when they are refused.
fn response(method: &Method, bytes: &[u8], size: usize) -> Option<String> {
    let mut buffer = BytesMut::new();
    let mut parts = bytes.chunks(size.min(bytes.len()).max(1));
    let mut fill = |buffer: &mut BytesMut| {
        let part = parts.next();
        buffer.extend_from_slice(part.unwrap_or_default());
        part.is_some()
    };
    let head = loop {
        match parse::response(&mut buffer, MOST_FIELDS).ok()? {
            Some(head) => break head,
            None if fill(&mut buffer) => {}
            None => return Some("incomplete".to_owned()),
        }
    };
    let mut said = format!("{} {:?} ", head.status, head.headers);
    let mut decoder =
        Decoder::of_response(method, head.status, head.version, &head.headers).ok()?;
    loop {
        match decoder.decode(&mut buffer).ok()? {
            Decoded::Data(data) => said.push_str(&data.escape_ascii().to_string()),
            Decoded::Trailers(fields) => said.push_str(&format!(" {fields:?}")),
            Decoded::End => {
                while fill(&mut buffer) {}
                return Some(format!("{said} before {}", buffer.escape_ascii()));
            }
            Decoded::Incomplete if fill(&mut buffer) => {}
            Decoded::Incomplete => {
                return Some(format!("{said}, complete: {}", decoder.end_of_input()));
            }
        }
    }
}
