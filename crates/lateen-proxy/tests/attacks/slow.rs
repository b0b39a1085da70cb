//! Clients that say what they want a byte at a time: there is one time for all of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::endpoint::Endpoint;
use crate::frames;
use crate::stage::{Stage, serves_others};
use crate::support::{Client, merge};
use crate::tls_support::{Authority, transport};

/// Clients that do the same at the same time.
const MANY: usize = 100;

/// Time between two bytes, of which none is late by itself.
const STEP: Duration = Duration::from_millis(25);

/// The time that is configured.
const TIME: &str = "0.3s";

/// Sends `at_once`, then `slowly` a byte at a time, from many clients. All are cut off long before they are done, and
/// another client is served meanwhile.
#[track_caller]
fn check(what: &str, address: SocketAddr, others: SocketAddr, at_once: &[u8], slowly: &[u8]) {
    assert!(slowly.len() > 200, "five seconds are too few");
    let mut clients: Vec<TcpStream> = (0..MANY)
        .map(|_| {
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(at_once).unwrap();
            client.set_nonblocking(true).unwrap();
            client
        })
        .collect();
    for (number, byte) in slowly.iter().enumerate() {
        if clients.is_empty() {
            return;
        }
        std::thread::sleep(STEP);
        clients.retain_mut(|client| is_served(client) && client.write(&[*byte]).is_ok());
        if number == 5 {
            serves_others(others);
        }
    }
    panic!("{what}: {} of {MANY} are still listened to", clients.len());
}

/// Whether the other side has not closed. What it says is passed over.
fn is_served(client: &mut TcpStream) -> bool {
    let mut answer = [0; 4096];
    loop {
        match client.read(&mut answer) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
}

/// Bytes for which nobody would wait.
fn long(start: &str) -> Vec<u8> {
    [start.as_bytes(), &[b'x'; 400]].concat()
}

/// R10: heads and bodies of HTTP/1.1, and the beginning of HTTP/2.
#[test]
fn requests_that_come_a_byte_at_a_time() {
    let endpoint = Endpoint::start();
    let options = json!({ "requestHeadersTimeout": TIME, "requestTimeout": TIME });
    let stage = Stage::new(endpoint.address, options);
    let at = stage.address;
    let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    check("a request line", at, at, b"", &long("GET /"));
    check("a field", at, at, b"GET / HTTP/1.1\r\n", &long("x: "));
    let lines = "a: b\r\n".repeat(80);
    check("fields", at, at, b"GET / HTTP/1.1\r\n", lines.as_bytes());
    let first = b"GET /direct HTTP/1.1\r\nhost: a\r\n\r\n";
    check("a second request", at, at, first, &long("GET /"));
    check(
        "a chunk",
        at,
        at,
        [head, "fff\r\n"].concat().as_bytes(),
        &long(""),
    );
    let chunks = "1\r\na\r\n".repeat(80);
    check("chunks", at, at, head.as_bytes(), chunks.as_bytes());
    check("an extension", at, at, head.as_bytes(), &long("1;"));
    let body = [head, "0\r\n"].concat();
    check("a trailer", at, at, body.as_bytes(), &long("t: "));
    assert_eq!(endpoint.rest(), []);
}

/// R10: the lines that make a connection one of HTTP/2, which no head follows.
#[test]
fn a_preface_that_comes_a_byte_at_a_time() {
    let endpoint = Endpoint::start();
    let stage = Stage::new(endpoint.address, json!({ "requestHeadersTimeout": TIME }));
    let mut client = TcpStream::connect(stage.address).unwrap();
    client.set_nonblocking(true).unwrap();
    let mut sent = 0;
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n" {
        if !is_served(&mut client) || client.write(&[*byte]).is_err() {
            break;
        }
        sent += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(sent < 20, "{sent} bytes were waited for");
    eventually_closed(client);
}

fn eventually_closed(mut client: TcpStream) {
    crate::support::eventually(|| !is_served(&mut client));
}

/// A listener with filters that look at the first bytes.
fn inspecting(stage: &mut Stage, filter: &str, chain: Value) -> SocketAddr {
    let name = filter.rsplit('.').next().unwrap();
    let type_url = format!("type.googleapis.com/envoy.extensions.filters.listener.{filter}");
    let filters = json!([{ "name": name, "typedConfig": { "@type": type_url } }]);
    let more = json!({ "listenerFilters": filters, "listenerFiltersTimeout": TIME });
    stage.listener(more, chain)
}

/// A server's context with a certificate.
fn encrypted(more: Value) -> Value {
    let identity = Authority::new("one").issue(&["spiffe://cluster.local/ns/a/sa/b"]);
    let context = json!({ "commonTlsContext": { "tlsCertificates": [identity.inline()] } });
    let mut chain = json!({ "transportSocket": transport("Downstream", context) });
    merge(&mut chain, more);
    chain
}

/// A client hello whose one extension is long.
fn hello() -> Vec<u8> {
    let mut hello = vec![22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    hello.resize(500, 7);
    hello
}

/// R10: what comes before the first byte of HTTP: a PROXY header, what inspectors look at, and a handshake.
#[test]
fn beginnings_that_come_a_byte_at_a_time() {
    let endpoint = Endpoint::start();
    let mut stage = Stage::new(endpoint.address, json!({}));
    let others = stage.address;
    let proxied = inspecting(&mut stage, "proxy_protocol.v3.ProxyProtocol", json!({}));
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x02\x00";
    check("a PROXY header", proxied, others, v2, &long(""));
    let sniffed = inspecting(&mut stage, "tls_inspector.v3.TlsInspector", json!({}));
    check("an inspected hello", sniffed, others, b"", &hello());
    let time = json!({ "transportSocketConnectTimeout": TIME });
    let secure = stage.listener(json!({}), encrypted(time));
    check("a hello", secure, others, b"", &hello());
    assert_eq!(endpoint.rest(), []);
}

/// R10: a short PROXY header is late, too.
#[test]
fn a_proxy_header_that_does_not_end_is_not_waited_for() {
    let endpoint = Endpoint::start();
    let mut stage = Stage::new(endpoint.address, json!({}));
    let proxied = inspecting(&mut stage, "proxy_protocol.v3.ProxyProtocol", json!({}));
    for start in [
        &b""[..],
        b"P",
        b"PROXY TCP4 1.2.3.4",
        b"\r\n\r\n\0\r\nQUIT\n",
        b"\r\n",
    ] {
        let mut client = Client::connect(proxied);
        client.0.write_all(start).unwrap();
        assert!(client.is_closed(), "{}", start.escape_ascii());
    }
    serves_others(stage.address);
}

/// R10: a head of HTTP/2 in parts waits for no time of its own, and holds up nobody.
#[test]
fn a_frame_that_is_never_whole_costs_its_own_connection() {
    let endpoint = Endpoint::start();
    let options = json!({
        "commonHttpProtocolOptions": { "idleTimeout": TIME },
        "drainTimeout": TIME,
    });
    let stage = Stage::new(endpoint.address, options);
    let whole = frames::get(1, "/");
    for cut in [3, 9, whole.len() - 1] {
        let mut client = frames::Connection::open(stage.address, &[]);
        assert!(client.goes_on());
        client.send(&whole[..cut]);
        assert!(client.is_ended(), "{cut}: {:?}", client.seen);
    }
    serves_others(stage.address);
    assert_eq!(endpoint.rest(), []);
}
