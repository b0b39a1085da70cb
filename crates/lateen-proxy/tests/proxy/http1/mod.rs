//! HTTP/1 byte by byte: framing that could be read in two ways, peers that break the rules, and connections that go on.

mod bodies;
mod endpoints;
pub mod script;

use std::io::{Read, Write};

use serde_json::json;

use crate::support::{Client, Proxy, Upstream, get, to};
use script::{Script, read_head};

/// A proxy with an upstream that says what it was sent.
fn plain() -> (Proxy, Upstream, std::net::SocketAddr) {
    let upstream = Upstream::start("one");
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[upstream.address], json!({}));
    let direct = json!({ "match": { "prefix": "/direct" }, "directResponse": { "status": 200, "body": { "inlineString": "direct" } } });
    let address = proxy.http(json!([direct, to("one", json!({}))]), json!({}));
    (proxy, upstream, address)
}

#[test]
fn requests_that_are_sent_ahead_are_answered_in_turn() {
    let (_proxy, upstream, address) = plain();
    let mut client = Client::connect(address);
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    let post = "POST /2 HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
    let all = [
        &request("/1?sleep=50"),
        post,
        &request("/direct"),
        &request("/3"),
    ]
    .concat();
    client.0.write_all(all.as_bytes()).unwrap();
    for expected in ["/1?sleep=50", "/2", "direct", "/3"] {
        let answer = client.read(false).unwrap();
        assert_eq!(answer.status, 200);
        if expected == "direct" {
            assert_eq!(answer.body, "direct");
        } else {
            assert_eq!(answer.seen()["path"], expected);
        }
    }
    assert_eq!(upstream.count(), 3);
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let (_proxy, _upstream, address) = plain();
    let mut client = Client::connect(address);
    client.0.set_nodelay(true).unwrap();
    for text in [
        "\r\n\r\nGET /a HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2;x\r\nab\r\n0\r\nt: u\r\n\r\n",
    ] {
        for byte in text.as_bytes() {
            client.0.write_all(&[*byte]).unwrap();
        }
        let answer = client.read(false).unwrap();
        assert_eq!(
            (answer.status, answer.seen()["path"].as_str()),
            (200, Some("/a"))
        );
    }
}

#[test]
fn fragments_are_taken_off() {
    let (_proxy, _upstream, address) = plain();
    for (target, expected) in [
        ("/a#b", "/a"),
        ("/a?q=1#b?c#d", "/a?q=1"),
        ("/#/../b", "/"),
        ("http://a/b#c", "/b"),
    ] {
        let mut client = Client::connect(address);
        let answer = client.send(&format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n"));
        let answer = answer.unwrap();
        assert_eq!(
            (answer.status, answer.seen()["path"].as_str()),
            (200, Some(expected)),
            "{target}"
        );
    }
}

#[test]
fn targets_that_lead_elsewhere_are_refused() {
    let (_proxy, upstream, address) = plain();
    for (line, status) in [
        ("GET a/b", 400),
        ("GET ftp://a/b", 400),
        ("GET http:///b", 400),
        ("GET /a b", 400),
        ("GET /\x01", 400),
        ("CONNECT a:80", 400),
        ("CONNECT /", 400),
        ("OPTIONS **", 400),
    ] {
        let mut client = Client::connect(address);
        let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
        let request = format!("{line} HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n{smuggled}");
        let answer = client.send(&request).unwrap();
        assert_eq!(answer.status, status, "{line}");
        assert_eq!(answer.header("connection"), Some("close"), "{line}");
        assert!(client.is_closed(), "{line}");
    }
    let mut client = Client::connect(address);
    let answer =
        client.send("CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(answer.unwrap().status, 404);
    assert!(client.is_closed());
    for host in ["a/b", "a b", "a\\b", "a#b"] {
        assert_eq!(
            get(address, "/", &[&format!("host: {host}")]).status,
            400,
            "{host}"
        );
    }
    assert_eq!(upstream.count(), 0);
    let odd = "/\"{}";
    assert_eq!(get(address, odd, &[]).seen()["path"], odd);
}

#[test]
fn nothing_passes_to_an_endpoint_that_does_not_switch() {
    let script = Script::start(|mut stream, _| {
        let head = read_head(&mut stream)?;
        assert!(head.contains("upgrade: websocket"), "{head}");
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
        let mut more = Vec::new();
        stream.read_to_end(&mut more)?;
        Ok(more)
    });
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[script.address], json!({}));
    let options = json!({ "upgradeConfigs": [{ "upgradeType": "websocket" }] });
    let address = proxy.http(json!([to("one", json!({}))]), options);
    let mut client = Client::connect(address);
    let answer = client
        .send(
            "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n\
             GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n",
        )
        .unwrap();
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    assert!(client.is_closed());
    assert_eq!(script.next(), b"");
}

#[test]
fn an_upgrade_to_http2_is_ignored() {
    let (_proxy, _upstream, address) = plain();
    let mut client = Client::connect(address);
    let headers = [
        "connection: upgrade, http2-settings",
        "upgrade: h2c",
        "http2-settings: AAM",
    ];
    for _ in 0..2 {
        let answer = client.get("/", &headers).unwrap();
        let seen = answer.seen();
        assert_eq!((answer.status, answer.header("connection")), (200, None));
        assert!(
            seen["headers"]["upgrade"].is_null() && seen["headers"]["http2-settings"].is_null()
        );
    }
}

#[test]
fn old_clients_are_answered_until_the_end() {
    let script = Script::start(|mut stream, _| {
        read_head(&mut stream)?;
        stream.write_all(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
        )?;
        Ok(Vec::new())
    });
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[script.address], json!({}));
    let options = json!({ "httpProtocolOptions": { "acceptHttp10": true } });
    let address = proxy.http(json!([to("one", json!({}))]), options);
    for fields in ["", "connection: keep-alive\r\n"] {
        let mut client = Client::connect(address);
        let answer = client
            .send(&format!("GET / HTTP/1.0\r\nhost: a\r\n{fields}\r\n"))
            .unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "abc"));
        assert_eq!(answer.header("transfer-encoding"), None);
        assert_eq!(answer.header("connection"), Some("close"));
    }
    let body = "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(Client::connect(address).send(body).unwrap().status, 400);
}

#[test]
fn old_clients_see_that_a_response_broke_off() {
    let script = Script::start(|mut stream, _| {
        read_head(&mut stream)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n")?;
        std::thread::sleep(std::time::Duration::from_millis(50));
        Ok(Vec::new())
    });
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[script.address], json!({}));
    let options = json!({ "httpProtocolOptions": { "acceptHttp10": true } });
    let address = proxy.http(json!([to("one", json!({}))]), options);
    let mut client = Client::connect(address);
    client
        .0
        .write_all(b"GET / HTTP/1.0\r\nhost: a\r\n\r\n")
        .unwrap();
    let broken = client.0.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(broken.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn nothing_follows_a_request_with_a_length_beside_chunks() {
    for (allowed, status, requests) in [(false, 400, 0), (true, 200, 1)] {
        let upstream = Upstream::start("one");
        let mut proxy = Proxy::start(1);
        proxy.cluster("one", &[upstream.address], json!({}));
        let options = json!({ "httpProtocolOptions": { "allowChunkedLength": allowed } });
        let address = proxy.http(json!([to("one", json!({}))]), options);
        let mut client = Client::connect(address);
        let answer = client
            .send(
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n\
                 0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n",
            )
            .unwrap();
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(client.is_closed());
        assert_eq!(upstream.count(), requests);
        if allowed {
            assert_eq!(answer.seen()["headers"]["content-length"], json!(null));
        }
    }
}
