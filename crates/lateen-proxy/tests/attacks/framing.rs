//! Requests whose bodies end at different places for different readers: each is refused, or reaches the endpoint as one
//! request with the proxy's own framing.

use std::io::Write;

use serde_json::{Value, json};

use crate::endpoint::Endpoint;
use crate::stage::Stage;
use crate::support::Client;

/// What a line says of the body, for who reads it by the letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// It comes in chunks.
    Chunked,
    /// It is as long as the number that stands for `{}`.
    Length,
    /// Nothing: the field is another one.
    Nothing,
    /// That cannot be told.
    Unclear,
}

use Says::{Chunked, Length, Nothing, Unclear};

/// Lines about the coding.
const CODINGS: &[(&[u8], Says)] = &[
    (b"Transfer-Encoding: chunked", Chunked),
    (b"transfer-encoding:chunked", Chunked),
    (b"TRANSFER-ENCODING:  Chunked", Chunked),
    (b"Transfer-Encoding:\tCHUNKED", Chunked),
    (b"Transfer-Encoding: chunked ", Chunked),
    (b"Transfer-Encoding: chunked\t", Chunked),
    (b"Transfer_Encoding: chunked", Nothing),
    (b"TransferEncoding: chunked", Nothing),
    (b"X-Transfer-Encoding: chunked", Nothing),
    (b"Transfer-Encodings: chunked", Nothing),
    (b"TE: chunked", Nothing),
    (b"Content-Encoding: chunked", Nothing),
    (b"Transfer-Encoding: xchunked", Unclear),
    (b"Transfer-Encoding: chunkedx", Unclear),
    (b"Transfer-Encoding: chunk", Unclear),
    (b"Transfer-Encoding: identity", Unclear),
    (b"Transfer-Encoding: gzip", Unclear),
    (b"Transfer-Encoding:", Unclear),
    (b"Transfer-Encoding: ,", Unclear),
    (b"Transfer-Encoding: chunked,", Unclear),
    (b"Transfer-Encoding: ,chunked", Unclear),
    (b"Transfer-Encoding: chunked, chunked", Unclear),
    (b"Transfer-Encoding: chunked, identity", Unclear),
    (b"Transfer-Encoding: identity, chunked", Unclear),
    (b"Transfer-Encoding: gzip, chunked", Unclear),
    (b"Transfer-Encoding: chunked, gzip", Unclear),
    (b"Transfer-Encoding: chunked;q=1", Unclear),
    (b"Transfer-Encoding: chunked chunked", Unclear),
    (b"Transfer-Encoding: \"chunked\"", Unclear),
    (b"Transfer-Encoding: 'chunked'", Unclear),
    (b"Transfer-Encoding: \x0bchunked", Unclear),
    (b"Transfer-Encoding: chunked\x0c", Unclear),
    (b"Transfer-Encoding: chunked\0", Unclear),
    (b"Transfer-Encoding: chun\0ked", Unclear),
    (b"Transfer-Encoding: chunked\xa0", Unclear),
    (b"Transfer-Encoding: chunke\xc4\x91", Unclear),
    (b"Transfer-Encoding: chunked\x7f", Unclear),
    (b"Transfer-Encoding: \rchunked", Unclear),
    (b"Transfer-Encoding: chunked\rX: y", Unclear),
    (b"Transfer-Encoding:\r\n chunked", Unclear),
    (b"Transfer-Encoding: chunked\r\n , identity", Unclear),
    (
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        Unclear,
    ),
    (
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        Unclear,
    ),
    (
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        Unclear,
    ),
    (b"Transfer-Encoding:\r\nTransfer-Encoding: chunked", Unclear),
    (b"Transfer-Encoding : chunked", Unclear),
    (b"Transfer-Encoding\t: chunked", Unclear),
    (b" Transfer-Encoding: chunked", Unclear),
    (b"\x0bTransfer-Encoding: chunked", Unclear),
    (b"Transfer-Encoding", Unclear),
    (b"Transfer-Encoding\0: chunked", Unclear),
    (b"Transfer Encoding: chunked", Unclear),
    (b"Transfer-\xc9ncoding: chunked", Unclear),
    (b"Transfer-Encoding\rchunked: chunked", Unclear),
];

/// Lines about the length.
const LENGTHS: &[(&[u8], Says)] = &[
    (b"Content-Length: {}", Length),
    (b"content-length:{}", Length),
    (b"CONTENT-LENGTH: \t {} ", Length),
    (b"Content-Length: 0{}", Length),
    (b"Content-Length: 00000000000000000000{}", Length),
    (b"Content_Length: {}", Nothing),
    (b"ContentLength: {}", Nothing),
    (b"X-Content-Length: {}", Nothing),
    (b"Content-Length: +{}", Unclear),
    (b"Content-Length: -{}", Unclear),
    (b"Content-Length: -0", Unclear),
    (b"Content-Length: {},{}", Unclear),
    (b"Content-Length: {}, {}", Unclear),
    (b"Content-Length: {}, 9", Unclear),
    (b"Content-Length: {},", Unclear),
    (b"Content-Length: {} {}", Unclear),
    (b"Content-Length: 0x{}", Unclear),
    (b"Content-Length: {}h", Unclear),
    (b"Content-Length: {}.0", Unclear),
    (b"Content-Length: {}e0", Unclear),
    (b"Content-Length: {}_", Unclear),
    (b"Content-Length: 1_{}", Unclear),
    (b"Content-Length: {};", Unclear),
    (b"Content-Length: \"{}\"", Unclear),
    (b"Content-Length: \x0b{}", Unclear),
    (b"Content-Length: {}\x0c", Unclear),
    (b"Content-Length: {}\0", Unclear),
    (b"Content-Length: {}\xa0", Unclear),
    (b"Content-Length: \xd9\xa5", Unclear),
    (b"Content-Length: {}\rX: y", Unclear),
    (b"Content-Length:", Unclear),
    (b"Content-Length: x", Unclear),
    (b"Content-Length: 18446744073709551616", Unclear),
    (b"Content-Length: 99999999999999999999999", Unclear),
    (b"Content-Length:\r\n {}", Unclear),
    (b"Content-Length: {}\r\n 0", Unclear),
    (b"Content-Length: {}\r\nContent-Length: {}", Unclear),
    (b"Content-Length: {}\r\nContent-Length: 0", Unclear),
    (b"Content-Length: 0\r\nContent-Length: {}", Unclear),
    (b"Content-Length: {}\r\nContent-Length: 0{}", Unclear),
    (b"Content-Length: {}\r\nContent-Length:", Unclear),
    (b"Content-Length : {}", Unclear),
    (b"\tContent-Length: {}", Unclear),
    (b"Content-Length\0: {}", Unclear),
    (b"Content-Length", Unclear),
];

/// Ends after its fifth byte for who reads chunks, and is all one body for who reads a length.
const TWO_WAYS: &[u8] = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";

/// One request.
struct Variant {
    bytes: Vec<u8>,
    /// The body at the endpoint; nothing when no request may get there.
    body: Option<Vec<u8>>,
}

/// A request with these lines before and after its host.
fn variant(before: &[(&[u8], Says)], after: &[(&[u8], Says)]) -> Variant {
    let said: Vec<Says> = before.iter().chain(after).map(|(_, says)| *says).collect();
    let said: Vec<Says> = said.into_iter().filter(|says| *says != Nothing).collect();
    let (sent, body): (&[u8], Option<&[u8]>) = match said[..] {
        [] => (b"", Some(b"")),
        [Chunked] => (b"5\r\nhello\r\n0\r\n\r\n", Some(b"hello")),
        [Length] => (TWO_WAYS, Some(TWO_WAYS)),
        _ => (TWO_WAYS, None),
    };
    let mut bytes = b"POST /first HTTP/1.1\r\n".to_vec();
    let host = [(&b"Host: a"[..], Nothing)];
    let lines = before.iter().chain(&host);
    for (line, _) in lines.chain(after) {
        bytes.extend(with_length(line, sent.len()));
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"\r\n");
    bytes.extend(sent);
    let body = body.map(<[u8]>::to_vec);
    Variant { bytes, body }
}

/// The line with the length where it has `{}`.
fn with_length(line: &[u8], length: usize) -> Vec<u8> {
    let mut filled = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.windows(2).position(|it| it == b"{}") {
        filled.extend(&rest[..at]);
        filled.extend(length.to_string().bytes());
        rest = &rest[at + 2..];
    }
    [&filled, rest].concat()
}

/// Every line alone, and with one of the other field before and behind it.
fn variants() -> Vec<Variant> {
    let mut all = Vec::new();
    for coding in CODINGS {
        all.push(variant(&[], &[*coding]));
        all.push(variant(&[LENGTHS[0]], &[*coding]));
        all.push(variant(&[*coding], &[LENGTHS[0]]));
    }
    for length in LENGTHS {
        all.push(variant(&[], &[*length]));
        all.push(variant(&[CODINGS[0]], &[*length]));
        all.push(variant(&[*length], &[CODINGS[0]]));
    }
    all
}

/// Sends a request and another one behind it.
#[track_caller]
fn check(stage: &Stage, endpoint: &Endpoint, variant: &Variant) {
    let shown = variant.bytes.escape_ascii();
    let second = b"GET /second HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let mut client = Client::connect(stage.address);
    client
        .0
        .write_all(&[&variant.bytes, &second[..]].concat())
        .unwrap();
    let first = client.read(false).unwrap();
    match &variant.body {
        None => {
            assert!(
                [400, 426, 501].contains(&first.status),
                "{shown}: {first:?}"
            );
            assert_eq!(first.header("connection"), Some("close"), "{shown}");
        }
        Some(body) => {
            assert_eq!(first.status, 200, "{shown}");
            let request = endpoint.request();
            assert_eq!(request.line, "POST /first HTTP/1.1", "{shown}");
            assert_eq!(request.body, *body, "{shown}");
            if let Some(length) = request.field("content-length") {
                assert_eq!(length, body.len().to_string().as_bytes(), "{shown}");
            }
            assert_eq!(client.read(false).unwrap().status, 200, "{shown}");
            let request = endpoint.request();
            assert_eq!(request.line, "GET /second HTTP/1.1", "{shown}");
        }
    }
    assert!(client.is_closed(), "{shown}");
    assert_eq!(endpoint.rest(), [], "{shown}");
}

/// H1, H2: a coding and a length in every spelling, alone and together.
#[test]
fn a_body_ends_at_one_place_or_its_request_is_refused() {
    let endpoint = Endpoint::start();
    let stage = Stage::new(endpoint.address, json!({}));
    let all = variants();
    assert!(all.len() >= 200, "{} variants", all.len());
    let passed = all.iter().filter(|variant| variant.body.is_some()).count();
    assert!((20..100).contains(&passed), "{passed} pass");
    for variant in &all {
        check(&stage, &endpoint, variant);
    }
}

/// H1: line ends without a carriage return, in part of a head or all of it.
#[test]
fn bare_newlines_do_not_hide_a_field() {
    let endpoint = Endpoint::start();
    let stage = Stage::new(endpoint.address, json!({}));
    let all = |from: &[u8], to: &[u8], variant: Variant| -> Variant {
        let end = variant.bytes.windows(4).position(|it| it == b"\r\n\r\n");
        let (head, body) = variant.bytes.split_at(end.unwrap() + 4);
        let head = String::from_utf8(head.to_vec()).unwrap();
        let [from, to] = [from, to].map(|text| str::from_utf8(text).unwrap());
        let bytes = [head.replace(from, to).as_bytes(), body].concat();
        Variant { bytes, ..variant }
    };
    for (before, after) in [
        (&[][..], &[CODINGS[0]][..]),
        (&[], &[LENGTHS[0]]),
        (&[CODINGS[0]], &[LENGTHS[0]]),
        (&[LENGTHS[0]], &[CODINGS[0]]),
    ] {
        check(
            &stage,
            &endpoint,
            &all(b"\r\n", b"\n", variant(before, after)),
        );
        check(
            &stage,
            &endpoint,
            &all(b"\r\nHost", b"\nHost", variant(before, after)),
        );
        let mut split = all(b"\r\nHost", b"\rHost", variant(before, after));
        split.body = None;
        check(&stage, &endpoint, &split);
    }
}

/// H1: version 1.0 knows no codings.
#[test]
fn a_coding_in_version_1_0_is_refused() {
    let endpoint = Endpoint::start();
    for accepted in [false, true] {
        let options: Value = json!({ "httpProtocolOptions": { "acceptHttp10": accepted } });
        let stage = Stage::new(endpoint.address, options);
        for coding in CODINGS.iter().filter(|(_, says)| *says != Nothing) {
            for before in [&[][..], &LENGTHS[..1]] {
                let mut variant = variant(before, &[*coding]);
                let version = variant.bytes.windows(3).position(|it| it == b"1.1");
                variant.bytes[version.unwrap() + 2] = b'0';
                variant.body = None;
                check(&stage, &endpoint, &variant);
            }
        }
    }
}
