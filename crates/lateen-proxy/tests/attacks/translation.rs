//! Requests of HTTP/2 that would be others in HTTP/1.1: what is accepted is one request there, byte for byte.

use std::net::SocketAddr;

use serde_json::json;

use crate::endpoint::{Endpoint, Seen};
use crate::frames::{
    self, CONTINUATION, Connection, DATA, END_HEADERS, END_STREAM, HEADERS, PRIORITY, frame,
};
use crate::stage::{Stage, serves_others};

/// A connection that is opened anew when a request cost the one before.
struct Client {
    address: SocketAddr,
    connection: Connection,
    next: u32,
}

impl Client {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            connection: Connection::open(address, &[]),
            next: 1,
        }
    }

    /// Sends frames that are made for a new stream, and says what became of it, when it is over or the connection is.
    fn play(&mut self, make: impl Fn(u32) -> Vec<u8>) -> frames::Stream {
        if self.connection.seen.is_closed || self.connection.seen.goaway.is_some() {
            *self = Self::new(self.address);
        }
        let stream = self.next;
        self.next += 2;
        self.connection.send(&make(stream));
        let is_over = |seen: &frames::Seen| seen.stream(stream).is_over() || seen.goaway.is_some();
        let over = self.connection.until(is_over);
        assert!(over || self.connection.seen.is_closed, "no end in sight");
        self.connection.seen.stream(stream)
    }
}

/// H6: a length that the frames do not keep is no request, and never becomes a whole one elsewhere.
#[test]
fn a_length_is_settled_before_the_message_is_complete() {
    let endpoint = Endpoint::start();
    let stage = Stage::new(endpoint.address, json!({}));
    let mut client = Client::new(stage.address);
    let head = |stream, flags, length: &str| {
        let block = frames::request("POST", "/", &[("content-length", length)]);
        frame(HEADERS, END_HEADERS | flags, stream, &block)
    };
    let data = |stream, flags, text: &str| frame(DATA, flags, stream, text.as_bytes());
    let trailers = |stream| {
        let block = frames::block(&[(b"x-t", b"t")]);
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
    };
    type Make<'m> = &'m dyn Fn(u32) -> Vec<u8>;
    let refused: [(&str, Make<'_>); 9] = [
        ("no data", &|s| head(s, END_STREAM, "10")),
        ("empty data", &|s| {
            [head(s, 0, "10"), data(s, 1, "")].concat()
        }),
        ("less", &|s| [head(s, 0, "10"), data(s, 1, "abc")].concat()),
        ("more", &|s| [head(s, 0, "3"), data(s, 1, "abcd")].concat()),
        ("more at last", &|s| {
            [head(s, 0, "3"), data(s, 0, "abc"), data(s, 1, "d")].concat()
        }),
        ("less before trailers", &|s| {
            [head(s, 0, "10"), data(s, 0, "abc"), trailers(s)].concat()
        }),
        ("trailers alone", &|s| {
            [head(s, 0, "10"), trailers(s)].concat()
        }),
        ("a sign", &|s| {
            [head(s, 0, "+3"), data(s, 1, "abc")].concat()
        }),
        ("a list", &|s| {
            [head(s, 0, "3, 3"), data(s, 1, "abc")].concat()
        }),
    ];
    for (what, make) in refused {
        let found = client.play(make);
        assert!(
            found.is_refused() || client.connection.seen.goaway.is_some(),
            "{what}: {found:?}"
        );
        assert_eq!(endpoint.rest(), [], "{what}");
    }
    let kept = client.play(|s| [head(s, 0, "3"), data(s, 1, "abc")].concat());
    assert_eq!(kept.status, Some(200));
    assert_eq!(endpoint.request().body, b"abc");
    assert_eq!(endpoint.rest(), []);
}

/// A field, and whether a request with it is one.
const FIELDS: &[(&[u8], &[u8], bool)] = &[
    (b"x-a", b"b", true),
    (b"x-a", b"", true),
    (b"x-a", b"b\tc", true),
    (b"x-a", b"\xe9", true),
    (b"x-a", b"b\r\nx-c: d", false),
    (b"x-a", b"b\nx-c: d", false),
    (b"x-a", b"b\rx-c: d", false),
    (b"x-a", b"b\0c", false),
    (
        b"x-a",
        b"\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n",
        false,
    ),
    (b"x a", b"b", false),
    (b"x-a ", b"b", false),
    (b"x-a\r\nx-c", b"b", false),
    (b"x-a\n", b"b", false),
    (b"x-a:", b"b", false),
    (b"x:a", b"b", false),
    (b"x\0a", b"b", false),
    (b"x\"a", b"b", false),
    (b"x!#$%&'*+.^`|~a", b"b", true),
    (b"x\xe9", b"b", false),
    (b"", b"b", false),
    (b"X-A", b"b", false),
    (b"Content-Length", b"0", false),
    (b"transfer-encoding", b"chunked", false),
    (b"connection", b"close", false),
    (b"keep-alive", b"1", false),
    (b"upgrade", b"h2c", false),
    (b"content-length", b"0", true),
    (b"content-length", b"5", false),
    (b":path", b"/smuggled", false),
    (b":other", b"x", false),
    (b":status", b"200", false),
];

/// H8: names and values that would end a line, or mean something else, in HTTP/1.1.
#[test]
fn fields_that_version_1_1_cannot_carry_are_refused() {
    let endpoint = Endpoint::start();
    let stage = Stage::new(endpoint.address, json!({}));
    let mut client = Client::new(stage.address);
    for (name, value, passes) in FIELDS {
        let mut block = frames::request("GET", "/", &[]);
        block.extend(frames::block(&[(name, value)]));
        let found = client.play(|s| frame(HEADERS, END_HEADERS | END_STREAM, s, &block));
        let shown = format!("{}: {}", name.escape_ascii(), value.escape_ascii());
        if *passes {
            assert_eq!(found.status, Some(200), "{shown}");
            let request = endpoint.request();
            let is_framing = *name == b"content-length";
            let name = str::from_utf8(name).unwrap();
            assert!(
                is_framing || request.field(name) == Some(*value),
                "{shown}: {request:?}"
            );
        } else {
            let is_over = found.is_refused() || client.connection.seen.goaway.is_some();
            assert!(is_over, "{shown}: {found:?}");
        }
        assert_eq!(endpoint.rest(), [], "{shown}");
    }
}

/// H8: the same of what makes the first line and the host.
#[test]
fn pseudo_headers_that_would_be_more_than_a_line_are_refused() {
    let endpoint = Endpoint::start();
    let stage = Stage::new(endpoint.address, json!({}));
    let mut client = Client::new(stage.address);
    for (which, value) in [
        (":method", "GET /smuggled HTTP/1.1\r\nx:"),
        (":method", "G T"),
        (":method", ""),
        (":path", "/ HTTP/1.1\r\nhost: b\r\n\r\nGET /smuggled"),
        (":path", "/a b"),
        (":path", "/a\r\nx: y"),
        (":path", "/a\nx"),
        (":path", "/a\0"),
        (":path", ""),
        (":authority", "a\r\nx: y"),
        (":authority", "a b"),
        (":authority", "a/b"),
        (":authority", "u@a"),
        (":authority", ""),
        (":scheme", "http://a/\r\nx"),
    ] {
        let block = frames::request("GET", "/", &[]);
        let whole = frames::block(&[(which.as_bytes(), value.as_bytes())]);
        let old = match which {
            ":method" => ("GET", which),
            ":path" => ("/", which),
            ":authority" => ("a.test", which),
            _ => ("http", which),
        };
        let old = frames::block(&[(old.1.as_bytes(), old.0.as_bytes())]);
        let at = block.windows(old.len()).position(|it| it == old).unwrap();
        let block = [&block[..at], &whole, &block[at + old.len()..]].concat();
        let found = client.play(|s| frame(HEADERS, END_HEADERS | END_STREAM, s, &block));
        let is_over = found.is_refused() || client.connection.seen.goaway.is_some();
        assert!(is_over, "{which} {value:?}: {found:?}");
        assert_eq!(endpoint.rest(), [], "{which} {value:?}");
    }
}

/// H8: any accepted request is exactly one request of HTTP/1.1, whatever its bytes.
#[test]
fn random_requests_are_one_request_or_none() {
    let endpoint = Endpoint::start();
    let stage = Stage::new(endpoint.address, json!({}));
    let mut client = Client::new(stage.address);
    let mut random = fastrand::Rng::with_seed(8);
    let marks = b"\r\n\0\t :/?#%@,;\"\\\x7f\x80\xff\x0bHTTP/1.1aZ09_-";
    let mut accepted = 0;
    for round in 0..1500 {
        let mut parts: [Vec<u8>; 5] = [
            b"GET".to_vec(),
            b"/path".to_vec(),
            b"a.test".to_vec(),
            b"x-name".to_vec(),
            b"value".to_vec(),
        ];
        for _ in 0..random.usize(..3) {
            let part = &mut parts[random.usize(..5)];
            let at = random.usize(..=part.len());
            part.insert(at, marks[random.usize(..marks.len())]);
        }
        let [method, path, authority, name, value] = &parts;
        let block = frames::block(&[
            (b":method", method),
            (b":scheme", b"http"),
            (b":authority", authority),
            (b":path", path),
            (name, value),
        ]);
        let found = client.play(|s| frame(HEADERS, END_HEADERS | END_STREAM, s, &block));
        let shown = parts.clone().map(|part| part.escape_ascii().to_string());
        if found.status != Some(200) {
            assert_eq!(endpoint.rest(), [], "{round}: {shown:?}");
            continue;
        }
        accepted += 1;
        let request = endpoint.request();
        let path = path.split(|it| *it == b'#').next().unwrap();
        let slash: &[u8] = if path.starts_with(b"/") { b"" } else { b"/" };
        let line = [&method[..], b" ", slash, path, b" HTTP/1.1"].concat();
        assert_eq!(request.line.as_bytes(), line, "{shown:?}");
        let host = request.field("host").map(<[u8]>::to_vec);
        assert_eq!(host.as_ref(), Some(authority), "{shown:?}");
        let name = str::from_utf8(name).unwrap();
        let carried = request.field(name).map(<[u8]>::trim_ascii);
        assert_eq!(carried, Some(value.trim_ascii()), "{shown:?}");
        assert_eq!(endpoint.rest(), [] as [Seen; 0], "{shown:?}");
    }
    assert!(accepted > 500, "{accepted} requests");
}

/// R9: frames that may not come there cost a stream or a connection, and nobody else anything.
#[test]
fn frames_out_of_order_end_their_stream_or_connection() {
    let endpoint = Endpoint::start();
    let stage = Stage::new(endpoint.address, json!({}));
    let open = |stream| frames::post(stream, "/", &[]);
    let data = |stream, flags| frame(DATA, flags, stream, b"abc");
    let trailers = |stream, flags| {
        let block = frames::block(&[(b"x-t", b"t")]);
        frame(HEADERS, flags, stream, &block)
    };
    let end = END_HEADERS | END_STREAM;
    for (what, bytes) in [
        (
            "trailers without an end",
            [open(1), data(1, 0), trailers(1, END_HEADERS)].concat(),
        ),
        (
            "data after trailers",
            [open(1), data(1, 0), trailers(1, end), data(1, 0)].concat(),
        ),
        (
            "trailers twice",
            [open(1), data(1, 0), trailers(1, end), trailers(1, end)].concat(),
        ),
        (
            "data after the end",
            [open(1), data(1, 1), data(1, 1)].concat(),
        ),
        (
            "a head after the end",
            [open(1), data(1, 1), open(1)].concat(),
        ),
        (
            "data after a reset",
            [open(1), frames::reset(1), data(1, 0), data(1, 1)].concat(),
        ),
        ("data on an idle stream", data(1, 0)),
        ("a window on an idle stream", frames::window(1, 1)),
        (
            "a window of nothing",
            [open(1), frames::window(1, 0)].concat(),
        ),
        ("a reset of an idle stream", frames::reset(1)),
        (
            "a lower stream",
            [frames::get(5, "/"), frames::get(3, "/")].concat(),
        ),
        ("an even stream", frames::get(2, "/")),
        ("stream zero", frames::get(0, "/")),
        (
            "a continuation of nothing",
            frame(CONTINUATION, END_HEADERS, 1, b""),
        ),
        (
            "a frame inside a block",
            [
                frame(HEADERS, 0, 1, &frames::request("GET", "/", &[])),
                data(1, 0),
            ]
            .concat(),
        ),
        ("a push", frame(5, END_HEADERS, 1, &[0, 0, 0, 2])),
        (
            "half a priority",
            [open(1), frame(PRIORITY, 0, 1, b"abc")].concat(),
        ),
        (
            "padding longer than its frame",
            [open(1), frame(DATA, 8, 1, b"\xffabc")].concat(),
        ),
        ("a frame that is too long", frame(DATA, 0, 1, &[0; 16_385])),
    ] {
        let mut client = Connection::open(stage.address, &[]);
        client.send(&bytes);
        let is_told = |seen: &frames::Seen| {
            let broken = |stream: &frames::Stream| stream.reset.is_some();
            seen.goaway.is_some() || seen.streams.values().any(broken)
        };
        // What comes after its stream was reset may be passed over, and what comes late meets one that is answered.
        let is_ignored = [
            "data after a reset",
            "data after the end",
            "data after trailers",
        ];
        let told =
            client.until(|seen| is_told(seen) || seen.streams.values().any(|it| it.is_over()));
        let ended = client.seen.is_closed;
        assert!(told || ended || is_ignored.contains(&what), "{what}");
        assert!(
            is_told(&client.seen) || ended || is_ignored.contains(&what),
            "{what}: {:?}",
            client.seen
        );
        serves_others(stage.address);
    }
    let wrong = |seen: &Seen| matches!(seen, Seen::Wrong(_));
    assert!(!endpoint.rest().iter().any(wrong));
}
