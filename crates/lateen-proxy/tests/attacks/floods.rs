//! Floods of HTTP/2 frames: the connection ends within so many of them, and others are served meanwhile.

use serde_json::json;

use crate::endpoint::Endpoint;
use crate::frames::{
    self, CONTINUATION, Connection, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS,
    NO_ERROR, PING, PRIORITY, RST_STREAM, SETTINGS, Seen, frame,
};
use crate::stage::{Stage, serves_others};

/// What the proxy may have read beyond the frame that was too much: its buffer, and frames before the flood.
const BUFFERS: u64 = 64 << 10;

/// Sends up to a million times what `make` gives for a number, behind `first`. The proxy reads at most as much as `most` of them
/// have, and ends the connection; its memory stays where it was. The reason comes back.
#[track_caller]
fn flood(
    what: &str,
    first: &[u8],
    make: impl Fn(u32) -> Vec<u8> + Send + Sync,
    most: u64,
) -> Option<u32> {
    let endpoint = Endpoint::start();
    let stage = Stage::alone(endpoint.address, json!({}), json!({}));
    let (length, address) = (make(1).len() as u64, stage.address);
    let run = || {
        let mut client = Connection::open(stage.address, &[]);
        // Settings are agreed on: their acknowledgement may not come inside a head.
        assert!(client.goes_on());
        client.send(first);
        std::thread::scope(|scope| {
            scope.spawn(|| serves_others(address));
            // Some hundred frames in one write.
            let parts = (0..10_000).map(|part| {
                let numbers = part * 100..(part + 1) * 100;
                numbers.flat_map(&make).collect::<Vec<u8>>()
            });
            client.flood(parts, |seen| seen.is_closed)
        })
    };
    let (seen, peak) = stage.peak_of(run);
    assert!(seen.is_closed, "{what}: the connection goes on");
    let read = stage.counted("downstream_cx_rx_bytes_total");
    assert!(
        read <= most * length + BUFFERS,
        "{what}: {} were read",
        read / length
    );
    // With what both clients hold.
    assert!(peak < 8 << 20, "{what}: {peak} bytes");
    serves_others(stage.address);
    seen.goaway
}

/// The same where it is the flood that is told to be the reason.
#[track_caller]
fn check(what: &str, first: &[u8], make: impl Fn(u32) -> Vec<u8> + Send + Sync, most: u64) {
    assert_eq!(
        flood(what, first, make, most),
        Some(ENHANCE_YOUR_CALM),
        "{what}"
    );
}

/// The number of a stream.
fn stream(number: u32) -> u32 {
    2 * number + 1
}

/// R1: streams that are opened and reset in one breath.
#[test]
fn rapid_resets() {
    let pair = |number| {
        let stream = stream(number);
        [frames::get(stream, "/"), frames::reset(stream)].concat()
    };
    check("resets", b"", pair, 200);
}

/// R1: streams that are reset only when their requests are on their way.
#[test]
fn resets_of_requests_that_were_begun() {
    // It answers nobody.
    let endpoint = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let stage = Stage::new(endpoint.local_addr().unwrap(), json!({}));
    let mut client = Connection::open(stage.address, &[]);
    let mut opened = 0;
    while opened < 2000 && client.goes_on() {
        client.send(&frames::get(stream(opened), "/"));
        // It is on its way when this comes back.
        client.goes_on();
        client.send(&frames::reset(stream(opened)));
        opened += 1;
    }
    assert!(client.is_ended());
    // Half of the five hundred that are looked at together.
    assert!((250..260).contains(&opened), "{opened} requests");
    assert_eq!(client.seen.goaway, Some(ENHANCE_YOUR_CALM));
    assert_eq!(stage.counted("downstream_rq_too_many_premature_resets"), 1);
    serves_others(stage.address);
}

/// R1: a client that changes its mind now and then is served on.
#[test]
fn some_resets_are_nobodys_fault() {
    let endpoint = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let stage = Stage::new(endpoint.local_addr().unwrap(), json!({}));
    let mut client = Connection::open(stage.address, &[]);
    for round in 0..400 {
        let number = stream(3 * round);
        client.send(&frames::get(number, "/direct"));
        client.send(&frames::get(number + 2, "/direct"));
        assert!(
            client.until(|seen| seen.stream(number + 2).is_complete),
            "{round}"
        );
        client.send(&frames::get(number + 4, "/"));
        assert!(client.goes_on(), "{round}");
        client.send(&frames::reset(number + 4));
    }
    assert!(client.goes_on());
}

/// R2: streams that the proxy has to reset, one after the other.
#[test]
fn resets_that_the_client_makes_the_proxy_send() {
    let post = |number| frames::post(stream(number), "/", &[]);
    let with = |number, more: Vec<u8>| [post(number), more].concat();
    check(
        "windows that are too large",
        b"",
        |n| with(n, frames::window(stream(n), u32::MAX >> 1)),
        300,
    );
    // Whether the stream is still known decides what is wrong.
    let after = |n| [frames::get(stream(n), "/"), frame(DATA, 0, stream(n), b"a")].concat();
    let reason = flood("data after the end", b"", after, 300);
    assert!(reason.is_some_and(|reason| reason != NO_ERROR));
    check(
        "priorities of themselves",
        b"",
        |n| {
            let itself = [&stream(n).to_be_bytes()[..], &[16]].concat();
            with(n, frame(PRIORITY, 0, stream(n), &itself))
        },
        300,
    );
    check(
        "lengths that are not kept",
        b"",
        |n| {
            let head = frames::post(stream(n), "/", &[("content-length", "1")]);
            [head, frame(DATA, END_STREAM, stream(n), b"ab")].concat()
        },
        300,
    );
    check(
        "heads that are none",
        b"",
        |n| {
            let block = frames::request("GET", "/", &[("connection", "close")]);
            frame(HEADERS, END_HEADERS | END_STREAM, stream(n), &block)
        },
        300,
    );
}

/// R3: a head without an end, with fields and without any.
#[test]
fn continuations() {
    let open = frame(HEADERS, 0, 1, &frames::request("GET", "/", &[]));
    check("nothing", &open, |_| frame(CONTINUATION, 0, 1, b""), 20);
    let field = frames::block(&[(b"x-a", &[b'b'; 200])]);
    check("fields", &open, |_| frame(CONTINUATION, 0, 1, &field), 20);
}

/// R5: frames that ask for nothing, a kind each.
#[test]
fn frames_that_ask_for_nothing() {
    let open = frames::post(1, "/", &[]);
    let ping = |_| frame(PING, 0, 0, b"12345678");
    check("pings", b"", ping, 1100);
    check("settings", b"", |_| frame(SETTINGS, 0, 0, b""), 1100);
    let table = |n: u32| frame(SETTINGS, 0, 0, &[0, 1, 0, 0, (n % 16) as u8, 0]);
    check("sizes of tables", b"", table, 1100);
    check("windows of all", b"", |_| frames::window(0, 1), 1100);
    check("windows of a stream", &open, |_| frames::window(1, 1), 1100);
    let priority = |_| frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 16]);
    check("priorities", b"", priority, 1100);
    check("data", &open, |_| frame(DATA, 0, 1, b""), 200);
    let padding = |_| frame(DATA, 8, 1, b"\x08\0\0\0\0\0\0\0\0");
    check("padding", &open, padding, 200);
    check("unknown frames", b"", |_| frame(42, 0, 0, b"x"), 1100);
    let reset = |_| frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    check("resets of one stream", &open, reset, 1100);
}

/// R5: a client that talks a lot while it is served may do so.
#[test]
fn pings_and_windows_go_with_requests() {
    let endpoint = Endpoint::start();
    let stage = Stage::new(endpoint.address, json!({}));
    let mut client = Connection::open(stage.address, &[]);
    let is_answered = |seen: &Seen, stream| seen.stream(stream).is_complete;
    for number in 0..300 {
        let stream = stream(number);
        client.send(&frames::get(stream, "/direct"));
        assert!(client.until(|seen| is_answered(seen, stream)), "{number}");
        for _ in 0..10 {
            client.send(&frames::window(0, 1));
        }
        assert!(client.goes_on(), "{number}");
    }
}

/// R6: a body of single bytes.
#[test]
fn data_in_single_bytes() {
    let open = frames::post(1, "/", &[]);
    check("bytes", &open, |_| frame(DATA, 0, 1, b"x"), 5000);
    // A last frame may be short, so each stream has one.
    let short = |n| {
        let stream = stream(n);
        let head = frames::post(stream, "/direct", &[]);
        [
            head,
            frame(DATA, 0, stream, b"x"),
            frame(DATA, 0, stream, b"x"),
        ]
        .concat()
    };
    check("two bytes for each of many streams", b"", short, 5000);
}
