//! Bodies that would be kept: what is too long for that is passed on once, and not held.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lateen_proxy::EngineConfig;
use serde_json::{Value, json};

use crate::stage::{Stage, serves_others};
use crate::support::Client;

/// The proxy keeps no more of a body, to send it again.
const LIMIT: usize = 1 << 20;

/// For the buffers of connections, and this test's own.
const BUFFERS: usize = 1 << 20;

/// An endpoint that reads whole requests and refuses them all.
struct Unwilling {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl Unwilling {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let count = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let count = count.clone();
                std::thread::spawn(move || {
                    let mut stream = BufReader::new(stream.unwrap());
                    while read_request(&mut stream).is_ok() {
                        count.fetch_add(1, Ordering::SeqCst);
                        let answer = b"HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno";
                        if stream.get_mut().write_all(answer).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, requests }
    }
}

/// Reads a request and throws it away.
fn read_request(stream: &mut impl BufRead) -> std::io::Result<()> {
    let mut length = None;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        match line.split_once(": ") {
            Some(("content-length", value)) => length = value.trim().parse().ok(),
            _ if line == "\r\n" => break,
            _ => {}
        }
    }
    let throw_away = |stream: &mut dyn BufRead, count: u64| {
        std::io::copy(&mut stream.take(count), &mut std::io::sink())
    };
    if let Some(length) = length {
        throw_away(stream, length)?;
        return Ok(());
    }
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
        throw_away(stream, size + 2)?;
        if size == 0 {
            return Ok(());
        }
    }
}

fn retries() -> Value {
    let policy =
        json!({ "retryOn": "5xx", "numRetries": 3, "retryBackOff": { "baseInterval": "0.001s" } });
    json!({ "timeout": "0s", "retryPolicy": policy })
}

/// Sends a body of this length, framed by it or in chunks.
fn send(address: SocketAddr, length: usize, chunked: bool) -> u16 {
    let mut client = Client::connect(address);
    let head = "POST / HTTP/1.1\r\nhost: a\r\n";
    let part = [b'x'; 1 << 14];
    if chunked {
        let framing = "transfer-encoding: chunked\r\n\r\n";
        client
            .0
            .write_all([head, framing].concat().as_bytes())
            .unwrap();
        let mut left = length;
        while left > 0 {
            let size = left.min(part.len());
            let line = format!("{size:x}\r\n");
            let chunk = [line.as_bytes(), &part[..size], b"\r\n"].concat();
            client.0.write_all(&chunk).unwrap();
            left -= size;
        }
        client.0.write_all(b"0\r\n\r\n").unwrap();
    } else {
        let framing = format!("content-length: {length}\r\n\r\n");
        client
            .0
            .write_all([head, &framing].concat().as_bytes())
            .unwrap();
        let mut left = length;
        while left > 0 {
            let size = left.min(part.len());
            client.0.write_all(&part[..size]).unwrap();
            left -= size;
        }
    }
    client.read(false).unwrap().status
}

/// R12: a body is sent again as long as it is kept, and kept as long as it is short.
#[test]
fn long_bodies_are_not_kept_for_another_attempt() {
    for (length, chunked, requests, most) in [
        (LIMIT / 2, false, 4, 2 * LIMIT),
        (LIMIT / 2, true, 4, 2 * LIMIT),
        (LIMIT - 1, true, 4, 3 * LIMIT),
        // By its length it is known from the start.
        (LIMIT + 1, false, 1, 0),
        (32 * LIMIT, false, 1, 0),
        (32 * LIMIT, true, 1, 2 * LIMIT),
    ] {
        let endpoint = Unwilling::start();
        let stage = Stage::alone(endpoint.address, retries(), json!({}));
        let (status, peak) = stage.peak_of(|| send(stage.address, length, chunked));
        assert_eq!(status, 503);
        let shown = format!("{length}, chunked: {chunked}");
        assert_eq!(
            endpoint.requests.load(Ordering::SeqCst),
            requests,
            "{shown}"
        );
        assert!(peak < most + BUFFERS, "{shown}: {peak} bytes");
        serves_others(stage.address);
    }
}

/// R12: all requests together keep so much, and what does not fit is not tried again.
#[test]
fn a_worker_keeps_so_much_for_other_attempts() {
    // Half of it is for other purposes.
    for (most, requests) in [(700_000, 4), (500_000, 1)] {
        let endpoint = Unwilling::start();
        let config = EngineConfig {
            most_held_bytes: most,
            ..EngineConfig::default()
        };
        let stage = Stage::with(config, endpoint.address, retries(), json!({}));
        // What one request held is there for the next.
        for round in 1..=3 {
            assert_eq!(send(stage.address, 300_000, round == 2), 503);
            let all = endpoint.requests.load(Ordering::SeqCst);
            assert_eq!(all, round * requests, "{most}");
        }
    }
}

/// R12: a mirror that takes nothing does not make the proxy keep what it is to get.
#[test]
fn long_bodies_are_not_kept_for_a_mirror() {
    // It takes connections and reads nothing.
    let mirror = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Unwilling::start();
    let action = json!({ "requestMirrorPolicies": [{ "cluster": "mirror" }], "timeout": "0s" });
    let mut stage = Stage::alone(endpoint.address, action, json!({}));
    let mirror_address = mirror.local_addr().unwrap();
    stage.proxy.cluster("mirror", &[mirror_address], json!({}));
    for (length, chunked, most) in [
        (32 * LIMIT, true, 2 * LIMIT),
        (32 * LIMIT, false, 0),
        (LIMIT / 2, true, LIMIT),
    ] {
        let (status, peak) = stage.peak_of(|| send(stage.address, length, chunked));
        assert_eq!(status, 503);
        assert!(
            peak < most + BUFFERS,
            "{length}, chunked: {chunked}: {peak} bytes"
        );
    }
}
