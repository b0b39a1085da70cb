//! Endpoints: responses that break the rules, and connections that are used again.

use std::io::{Read, Write};
use std::time::Duration;

use serde_json::json;

use super::script::{Script, read_head};
use crate::support::{Client, Proxy, eventually, get, to};

/// A proxy before an endpoint that answers every request of a connection with these bytes.
fn before(answer: &'static str) -> (Proxy, Script, std::net::SocketAddr) {
    let script = Script::start(move |mut stream, _| {
        let mut count = 0;
        while read_head(&mut stream).is_ok() {
            count += 1;
            stream.write_all(answer.as_bytes())?;
        }
        Ok(vec![count])
    });
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[script.address], json!({}));
    let address = proxy.http(json!([to("one", json!({}))]), json!({}));
    (proxy, script, address)
}

#[test]
fn endpoints_that_break_the_protocol_are_not_passed_on() {
    for answer in [
        "HTTP/1.1 200 OK\r\nbad name: 1\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 0\r\n\r\n",
        "HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 099 OK\r\ncontent-length: 0\r\n\r\n",
        "220 mail.test ESMTP\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: 1, 1\r\n\r\na",
        "HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\na",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\na",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    ] {
        let (_proxy, script, address) = before(answer);
        let found = get(address, "/", &[]);
        assert_eq!(found.status, 502, "{answer}");
        let words = "upstream connect error or disconnect/reset before headers. reset reason: protocol error";
        assert_eq!(found.body, words);
        // Its connection is not used again.
        assert_eq!(script.next(), [1], "{answer}");
    }
}

#[test]
fn what_follows_a_response_reaches_nobody() {
    let smuggled = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nsmuggled";
    for first in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 204 No Content\r\ncontent-length: 50\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n",
    ] {
        let answer: &'static str = format!("{first}{smuggled}").leak();
        let (_proxy, script, address) = before(answer);
        let mut client = Client::connect(address);
        for _ in 0..3 {
            let found = client.get("/", &[]).unwrap();
            assert_ne!(found.body, "smuggled", "{first}");
            assert_eq!(script.next(), [1], "{first}");
        }
    }
}

#[test]
fn a_head_says_what_a_body_would_be() {
    let (_proxy, script, address) = before("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
    let mut client = Client::connect(address);
    for _ in 0..3 {
        let found = client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        assert_eq!(
            (found.status, found.header("content-length")),
            (200, Some("5"))
        );
    }
    drop((client, _proxy));
    assert_eq!(script.next(), [3]);
}

#[test]
fn responses_before_the_response_are_passed_over() {
    let informational = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n";
    let last = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    for (count, status) in [(1, 200), (10, 200), (11, 502)] {
        let answer: &'static str = format!("{}{last}", informational.repeat(count)).leak();
        let (_proxy, _script, address) = before(answer);
        assert_eq!(get(address, "/", &[]).status, status, "{count}");
    }
}

#[test]
fn a_response_that_breaks_off_is_not_made_whole() {
    for (answer, received) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbegun", "begun"),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegun\r\n",
            "5\r\nbegun\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegun\r\nx\r\n",
            "5\r\nbegun\r\n",
        ),
    ] {
        let script = Script::start(move |mut stream, _| {
            read_head(&mut stream)?;
            stream.write_all(answer.as_bytes())?;
            Ok(Vec::new())
        });
        let mut proxy = Proxy::start(1);
        proxy.cluster("one", &[script.address], json!({}));
        let address = proxy.http(json!([to("one", json!({}))]), json!({}));
        let mut client = Client::connect(address);
        client
            .0
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .unwrap();
        let mut all = Vec::new();
        client.0.read_to_end(&mut all).unwrap();
        let text = String::from_utf8(all).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert_eq!(body, received, "{answer}");
    }
}

#[test]
fn an_idle_connection_that_ends_is_forgotten_at_once() {
    let script = Script::start(|mut stream, _| {
        read_head(&mut stream)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
        std::thread::sleep(Duration::from_millis(100));
        Ok(Vec::new())
    });
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[script.address], json!({}));
    let address = proxy.http(json!([to("one", json!({}))]), json!({}));
    let mut client = Client::connect(address);
    for _ in 0..3 {
        assert_eq!(client.get("/", &[]).unwrap().body, "ok");
        let gauge = "envoy_cluster_upstream_cx_active{cluster_name=\"one\"} 0";
        eventually(|| proxy.engine.metrics().contains(gauge));
        script.next();
    }
}

#[test]
fn a_client_that_leaves_ends_its_request() {
    let script = Script::start(|mut stream, _| {
        read_head(&mut stream)?;
        let mut more = Vec::new();
        stream.read_to_end(&mut more)?;
        Ok(b"ended".to_vec())
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut proxy = Proxy::start(1);
    let outliers =
        json!({ "consecutive5xx": 1, "consecutiveGatewayFailure": 1, "maxEjectionPercent": 100 });
    proxy.cluster(
        "one",
        &[script.address],
        json!({ "outlierDetection": outliers }),
    );
    let log = json!([{ "name": "file", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": path,
        "logFormat": { "textFormatSource": {
            "inlineString": "%REQ(:METHOD)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %BYTES_RECEIVED%\n",
        }},
    }}]);
    let route = to("one", json!({ "timeout": "0s" }));
    let address = proxy.http(json!([route]), json!({ "accessLog": log }));
    for request in [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc",
    ] {
        let mut client = Client::connect(address);
        client.0.write_all(request.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        drop(client);
        assert_eq!(script.next(), b"ended", "{request}");
    }
    let lines =
        "GET 0 DC downstream_remote_disconnect 0\nPOST 0 DC downstream_remote_disconnect 3\n";
    eventually(|| std::fs::read_to_string(&path).is_ok_and(|text| text == lines));
    let gauge = "envoy_http_downstream_rq_active{envoy_http_conn_manager_prefix=\"test\"} 0";
    assert!(proxy.engine.metrics().contains(gauge));
    // One that leaves in the middle of its request, too, and the endpoint is not to blame.
    let mut client = Client::connect(address);
    let half = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\na";
    client.0.write_all(half).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    drop(client);
    assert_eq!(script.next(), b"ended");
    let line = "POST 400 DC downstream_remote_disconnect 1\n";
    eventually(|| std::fs::read_to_string(&path).is_ok_and(|text| text.ends_with(line)));
    let ejections = "envoy_cluster_outlier_detection_ejections_active{cluster_name=\"one\"} 0";
    assert!(proxy.engine.metrics().contains(ejections));
}
