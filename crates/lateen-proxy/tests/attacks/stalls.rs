//! Clients that ask for much and take nothing: what they hold is bounded, and taken away.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use serde_json::{Value, json};

use crate::MEMORY;
use crate::endpoint::Endpoint;
use crate::frames::{self, Connection, END_HEADERS, END_STREAM, HEADERS, frame};
use crate::script::{Script, read_head};
use crate::stage::{Stage, serves_others};
use crate::support::{Client, Upstream, eventually};

/// `SETTINGS_INITIAL_WINDOW_SIZE`.
const WINDOW: u16 = 4;

const STREAMS: u32 = 100;

fn idle(time: &str) -> Value {
    json!({ "streamIdleTimeout": time })
}

/// Length of a long answer.
const LONG: usize = 200 << 10;

/// An endpoint that answers every request at length, as far as it is taken.
fn generous() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LONG}\r\n\r\n");
        let answer: &[u8] = [head.into_bytes(), vec![b'x'; LONG]].concat().leak();
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut request = [0; 4096];
                while stream.read(&mut request).is_ok_and(|read| read > 0) {
                    if stream.write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// What a hundred heads may take while they are read: lists of 60 KiB, in which a field of a byte takes that of a hundred.
const READ: usize = 24 << 20;

/// What they may hold while their answers wait.
const HELD: usize = 4 << 20;

/// A hundred streams with this block on a connection whose client takes nothing of the answers. The streams end with the
/// time for progress, or the connection does at once.
#[track_caller]
fn check(what: &str, block: &[u8]) {
    let endpoint = Endpoint::start();
    let stage = Stage::alone(endpoint.address, json!({}), idle("0.5s"));
    let before = MEMORY.used();
    let (seen, peak) = stage.peak_of(|| {
        let mut client = Connection::open(stage.address, &[(WINDOW, 0)]);
        for number in 0..STREAMS {
            let head = frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, block);
            client.send(&head);
        }
        let is_answered = |seen: &frames::Seen| {
            let answered = seen.streams.values().filter(|it| it.status.is_some());
            answered.count() as u32 == STREAMS || seen.goaway.is_some()
        };
        assert!(client.until(is_answered), "{what}: {:?}", client.seen);
        let held = MEMORY.used().saturating_sub(before);
        assert!(held < HELD, "{what}: {held} bytes are held");
        serves_others(stage.address);
        let is_over = |seen: &frames::Seen| {
            let over = seen.streams.values().filter(|it| it.is_over()).count();
            over as u32 == STREAMS || seen.goaway.is_some()
        };
        assert!(client.until(is_over), "{what}: {:?}", client.seen);
        client.seen
    });
    let data: usize = seen.streams.values().map(|stream| stream.data).sum();
    assert_eq!(data, 0, "{what}: {seen:?}");
    assert!(peak < READ, "{what}: {peak} bytes");
    let active = || stage.counted("downstream_rq_active");
    eventually(|| active() == 0);
    assert_eq!(endpoint.rest(), [], "{what}");
    serves_others(stage.address);
}

/// A request whose last field is put into the table and named so many times by a single byte.
fn bomb(name: &str, value: &str, times: usize) -> Vec<u8> {
    let mut block = frames::request("GET", "/direct", &[]);
    // With incremental indexing (RFC 7541 section 6.2.1).
    block.push(0x40);
    for text in [name, value] {
        frames::number(&mut block, 0, 7, text.len());
        block.extend(text.bytes());
    }
    // It is the first entry behind the static table.
    block.resize(block.len() + times, 0x80 | 62);
    block
}

/// R4: small blocks that become large lists, held by windows that stay closed.
#[test]
fn references_that_become_fields() {
    // Within the limit of the list, above the one of fields.
    check("short fields", &bomb("x", "", 1700));
    check("crumbs of cookies", &bomb("cookie", "", 1400));
    check("crumbs of a byte", &bomb("cookie", "a", 1400));
    check("fields above the limit", &bomb("x", "", 4096));
    check("long fields", &bomb("x", &"y".repeat(4000), 4096));
    // An answer that everybody gets, and nobody takes.
    check("none", &frames::request("GET", "/direct", &[]));
}

/// R7: streams that are answered at length, and windows that are closed, nearly closed, or opened a byte at a time.
#[test]
fn windows_that_open_slowly_or_never() {
    for (window, opens) in [(0, false), (1, true), (65_535, false)] {
        let stage = Stage::alone(generous(), json!({ "timeout": "0s" }), idle("2s"));
        let (clients, streams) = (3, 3 * STREAMS);
        let ((), peak) = stage.peak_of(|| {
            let begun = |seen: &frames::Seen| {
                let begun = seen.streams.values().filter(|it| it.status == Some(200));
                begun.count() as u32 == STREAMS
            };
            // One after the other, as the endpoint's queue of connections is short.
            let open = |_| {
                let mut client = Connection::open(stage.address, &[(WINDOW, window)]);
                for number in 0..STREAMS {
                    client.send(&frames::get(2 * number + 1, "/"));
                }
                assert!(client.until(begun), "{window}: {:?}", client.seen);
                client
            };
            let mut all: Vec<Connection> = (0..clients).map(open).collect();
            if opens {
                for client in &mut all {
                    for number in 0..STREAMS {
                        client.send(&frames::window(2 * number + 1, 1));
                    }
                }
            }
            serves_others(stage.address);
            // That of the whole connection is what the last ones wait for.
            let reset = |seen: &frames::Seen| {
                let reset = seen.streams.values().filter(|it| it.reset.is_some());
                reset.count() as u32 == STREAMS
            };
            for client in &mut all {
                assert!(client.until(reset), "{window}");
                let data: usize = client.seen.streams.values().map(|it| it.data).sum();
                assert!(data <= 65_535, "{window}: {data}");
            }
        });
        // A buffer of the largest size for each, and this test's own.
        let most = streams as usize * (64 << 10) + (4 << 20);
        assert!(peak < most, "{window}: {peak} bytes for {streams} streams");
        eventually(|| stage.counted("downstream_rq_active") == 0);
        let gauge = "envoy_cluster_upstream_cx_active{cluster_name=\"one\"} 0";
        eventually(|| stage.proxy.engine.metrics().contains(gauge));
    }
}

/// A client whose streams are answered here and take a byte there, while one of another kind goes on. The connection ends
/// when nothing is taken for the time of a connection, or of a stream.
#[track_caller]
fn check_flushed(times: (&str, &str), asks: bool) {
    let upstream = Upstream::start("one");
    let (connection, stream) = times;
    let options = json!({
        "streamIdleTimeout": stream,
        "commonHttpProtocolOptions": { "idleTimeout": connection },
        "drainTimeout": "0.3s",
    });
    let stage = Stage::new(upstream.address, options);
    let mut client = Connection::open(stage.address, &[(WINDOW, 1)]);
    client.send(&frames::get(1, "/direct"));
    client.send(&frames::get(3, "/"));
    assert!(client.until(|seen| seen.stream(1).data == 1 && seen.stream(3).data == 1));
    if asks {
        // It says nothing itself, and its time is longer than that of the streams above.
        client.send(&frames::get(5, "/?sleep=900"));
    }
    // No more than a ping may keep it.
    for _ in 0..3 {
        client.goes_on();
    }
    assert!(client.is_ended(), "{times:?}: {:?}", client.seen);
    assert_eq!(client.seen.goaway, Some(frames::NO_ERROR), "{times:?}");
    if asks {
        assert_eq!(
            client.seen.stream(5).status,
            Some(200),
            "it is answered before"
        );
    }
    eventually(|| stage.counted("downstream_cx_active") == 0);
}

/// R7: answers that are complete here and wait for their client there.
#[test]
fn a_connection_ends_though_its_client_never_takes_the_answer() {
    check_flushed(("0.3s", "0.3s"), false);
    check_flushed(("0.3s", "60s"), false);
    check_flushed(("60s", "0.4s"), false);
    check_flushed(("60s", "2s"), true);
}

/// R7: a client of HTTP/1.1 that reads nothing.
#[test]
fn a_socket_that_takes_nothing_is_closed() {
    let stage = Stage::new(generous(), idle("0.3s"));
    let mut client = Client::connect(stage.address);
    let many = "GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(100);
    client.0.write_all(many.as_bytes()).unwrap();
    eventually(|| stage.counted("downstream_cx_total") == 1);
    eventually(|| stage.counted("downstream_cx_active") == 0);
    let mut taken = Vec::new();
    let _ = client.0.read_to_end(&mut taken);
    assert!(taken.len() < 100 * LONG, "{} bytes", taken.len());
    serves_others(stage.address);
}

/// R7: only silence counts, in either direction.
#[test]
fn progress_is_waited_for_however_slow() {
    let upstream = Upstream::start("one");
    let stage = Stage::new(upstream.address, idle("1.5s"));
    let step = Duration::from_millis(250);
    // A body of HTTP/1.1 and one of HTTP/2, a byte at a time.
    let mut old = Client::connect(stage.address);
    let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n";
    old.0.write_all(head).unwrap();
    let mut new = Connection::open(stage.address, &[]);
    new.send(&frames::post(1, "/", &[("content-length", "10")]));
    for number in 1..=10 {
        std::thread::sleep(step);
        old.0.write_all(b"x").unwrap();
        let last = u8::from(number == 10);
        new.send(&frame(frames::DATA, last, 1, b"x"));
    }
    assert_eq!(old.read(false).unwrap().status, 200);
    assert!(new.until(|seen| seen.stream(1).is_over()));
    assert_eq!(new.seen.stream(1).status, Some(200));
}

/// R7: the same when the answer has begun and waits for the rest of the request.
#[test]
fn an_answer_that_has_begun_waits_for_a_slow_request() {
    let endpoint = Script::start(|mut stream, _| {
        read_head(&mut stream)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")?;
        let mut body = [0; 10];
        stream.read_exact(&mut body)?;
        stream.write_all(b"ok")?;
        Ok(body.to_vec())
    });
    let stage = Stage::new(endpoint.address, idle("1.5s"));
    let mut client = Client::connect(stage.address);
    let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n";
    client.0.write_all(head).unwrap();
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(250));
        client.0.write_all(b"x").unwrap();
    }
    assert_eq!(client.read(false).unwrap().body, "ok");
    assert_eq!(endpoint.next(), b"xxxxxxxxxx");
    // Silence on both sides is not waited for.
    let mut client = Client::connect(stage.address);
    client.0.write_all(head).unwrap();
    assert!(client.read(false).is_err());
}
