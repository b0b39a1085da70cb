//! Heads that are large by what nobody keeps.

use std::io::Write;

use serde_json::{Value, json};

use crate::endpoint::Endpoint;
use crate::frames::{self, CONTINUATION, Connection, END_HEADERS, END_STREAM, HEADERS, frame};
use crate::stage::{Stage, serves_others};
use crate::support::Client;

/// The proxy's buffer for a head, twice.
const MOST_READ: u64 = 128 << 10;

/// What may be read and thrown away after the answer, so that it is not lost.
const THROWN_AWAY: u64 = (1 << 20) + (64 << 10);

/// Three megabytes of this line in HTTP/1.1. It is refused when it is too much, and no more is read.
#[track_caller]
fn check(line: &str, status: u16) {
    let endpoint = Endpoint::start();
    let stage = Stage::new(endpoint.address, json!({}));
    let mut client = Client::connect(stage.address);
    client.0.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let lines = line.repeat((3 << 20) / line.len());
    // The proxy may be gone before it is sent.
    let _ = client.0.write_all(lines.as_bytes());
    let _ = client.0.write_all(b"\r\n");
    let answer = client.read(false).unwrap();
    assert_eq!(answer.status, status, "{line:?}");
    let read = stage.counted("downstream_cx_rx_bytes_total");
    assert!(read <= MOST_READ + THROWN_AWAY, "{line:?}: {read} bytes");
    assert_eq!(endpoint.rest(), []);
    serves_others(stage.address);
}

/// R8: fields that are dropped, joined or refused on their way count before they are.
#[test]
fn megabytes_of_fields_that_would_be_dropped() {
    check("host: a\r\n", 431);
    check("Connection: keep-alive\r\n", 431);
    check("keep-alive: timeout=5\r\n", 431);
    check("cookie: a=1\r\n", 431);
    check("x_a: 1\r\n", 431);
    let long = format!("host: {}\r\n", "a".repeat(60 << 10));
    check(&long, 431);
}

/// As many of a field as are `count`ed, in HTTP/2: served, or refused.
#[track_caller]
fn check_http2(name: &str, value: &str, count: usize, options: &Value, is_served: bool) {
    let endpoint = Endpoint::start();
    let stage = Stage::new(endpoint.address, options.clone());
    let mut client = Connection::open(stage.address, &[]);
    assert!(client.goes_on());
    let mut block = frames::request("GET", "/", &[]);
    let field = frames::block(&[(name.as_bytes(), value.as_bytes())]);
    block.extend(field.repeat(count));
    let mut parts = block.chunks(16_000);
    let last = parts.len() - 1;
    let mut all = frame(HEADERS, END_STREAM, 1, parts.next().unwrap());
    for part in parts {
        all.extend(frame(CONTINUATION, 0, 1, part));
    }
    // The end of the head is a flag of its last frame.
    if last == 0 {
        all[4] |= END_HEADERS;
    } else {
        all.extend(frame(CONTINUATION, END_HEADERS, 1, b""));
    }
    client.send(&all);
    client.until(|seen| seen.stream(1).is_over() || seen.goaway.is_some());
    let shown = format!("{name}: {value} {count} times: {:?}", client.seen);
    if is_served {
        assert_eq!(client.seen.stream(1).status, Some(200), "{shown}");
        endpoint.request();
    } else {
        let gone = client.seen.goaway.is_some() || client.seen.is_closed;
        assert!(gone || client.seen.stream(1).is_refused(), "{shown}");
    }
    assert_eq!(endpoint.rest(), [], "{shown}");
    serves_others(stage.address);
}

/// R4, R8: crumbs of cookies are fields until they are joined, and names with underscores until they are dropped.
#[test]
fn fields_count_before_they_are_joined_or_dropped() {
    let none = json!({});
    check_http2("cookie", "a=1", 99, &none, true);
    check_http2("cookie", "a=1", 101, &none, false);
    check_http2("cookie", "", 1000, &none, false);
    check_http2("cookie", "a=1", 30_000, &none, false);
    check_http2("cookie", &"a".repeat(1000), 59, &none, true);
    check_http2("cookie", &"a".repeat(1000), 62, &none, false);
    check_http2("host", "a.test", 50, &none, false);
    check_http2("te", "trailers", 101, &none, false);
    let drops =
        json!({ "commonHttpProtocolOptions": { "headersWithUnderscoresAction": "DROP_HEADER" } });
    check_http2("x_a", "1", 99, &drops, true);
    check_http2("x_a", "1", 101, &drops, false);
}
