//! How bodies come: their framing, their length, slowly, when asked for, and not at all.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use lateen_proxy::EngineConfig;
use serde_json::json;

use super::wire::{Wire, chunked, head, plain, post, send, start};
use super::{JSON, filter, with_router};
use crate::support::{Client, PATIENCE, Proxy, Upstream, eventually, to};

#[test]
fn framing_stays_as_the_client_chose_it() {
    let (_proxy, upstream, address) = plain(json!({ "reject": true }));
    let check = |request: &[u8], user: Option<&str>, length: Option<&str>, body: &str| {
        assert_eq!(send(address, request).status, 200, "{body}");
        let seen = upstream.next();
        assert_eq!(seen.header("x-user"), user, "{seen:?}");
        assert_eq!(seen.header("content-length"), length, "{seen:?}");
        let is_chunked = seen.header("transfer-encoding") == Some("chunked");
        assert_eq!(is_chunked, length.is_none(), "{seen:?}");
        assert_eq!(seen.rest(), body);
    };
    let text = r#"{"user": "ann"}"#;
    check(
        &post(&[JSON], text.as_bytes()),
        Some("ann"),
        Some("15"),
        text,
    );
    let whole = "f\r\n{\"user\": \"ann\"}\r\n0\r\n\r\n";
    check(&chunked(&[JSON], &[text]), Some("ann"), None, whole);
    // Extensions of chunks end at each hop (RFC 9112 section 7.1.1).
    let extended = "8;a=b\r\n{\"user\":\r\n7;c=\"d\"\r\n \"ann\"}\r\n000;e\r\n\r\n";
    let lines = head(&[JSON, "transfer-encoding: chunked"]);
    assert_eq!(
        send(address, &[&lines, extended.as_bytes()].concat()).status,
        200
    );
    let seen = upstream.next();
    assert_eq!(seen.header("x-user"), Some("ann"));
    assert!(!seen.rest().contains(';'), "{seen:?}");
    // Chunks that hold nothing are no body, whatever type they are said to be.
    let empty = "0\r\n\r\n";
    check(&chunked(&[JSON], &[]), None, None, empty);
    check(
        &chunked(&["content-type: text/plain"], &[]),
        None,
        None,
        empty,
    );
    check(&chunked(&[], &[]), None, None, empty);
    check(
        &post(&["content-type: text/plain"], b""),
        None,
        Some("0"),
        "",
    );
}

#[test]
fn the_longest_body_is_read_and_one_byte_more_is_not() {
    let (_proxy, upstream, address) = plain(json!({ "reject": true }));
    for (length, status) in [(199, 200), (200, 200), (201, 413)] {
        let start = r#"{"user": "ann"}"#;
        let body = format!("{start}{}", " ".repeat(length - start.len()));
        let (left, right) = body.split_at(100);
        let ones: Vec<String> = body.chars().map(String::from).collect();
        let ones: Vec<&str> = ones.iter().map(String::as_str).collect();
        for request in [
            post(&[JSON], body.as_bytes()),
            chunked(&[JSON], &[&body]),
            chunked(&[JSON], &[left, right]),
            chunked(&[JSON], &ones),
        ] {
            assert_eq!(send(address, &request).status, status, "{length}");
            if status == 200 {
                assert_eq!(upstream.next().header("x-user"), Some("ann"), "{length}");
            }
            assert!(upstream.is_quiet());
        }
    }
}

#[test]
fn a_rejected_body_is_no_request() {
    let (_proxy, upstream, address) = plain(json!({ "reject": true }));
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    let next = "GET /next HTTP/1.1\r\nhost: x\r\n\r\n";
    let long = smuggled.repeat(10_000);
    for request in [
        post(&[JSON], smuggled.as_bytes()),
        post(&["content-type: text/plain"], smuggled.as_bytes()),
        post(&[JSON], long.as_bytes()),
        chunked(&[JSON], &[smuggled]),
        chunked(&["content-type: text/plain"], &[smuggled]),
        chunked(&[JSON], &[&long, &long]),
    ] {
        let mut client = Client::connect(address);
        // The proxy may close before it has read everything.
        let _ = client.0.write_all(&request);
        let _ = client.0.write_all(next.as_bytes());
        let first = client.read(false).unwrap();
        assert!([400, 413, 415].contains(&first.status), "{first:?}");
        // Either the next request is understood, or nothing more is.
        match client.read(false) {
            Ok(second) => {
                assert_eq!(second.status, 200, "{second:?}");
                let seen = upstream.next();
                assert!(seen.head[0].starts_with("get /next "), "{seen:?}");
            }
            Err(_) => assert!(upstream.is_quiet()),
        }
        assert!(upstream.is_quiet());
    }
}

#[test]
fn who_waits_for_a_continue_is_answered_before_the_body_is_sent() {
    let (_proxy, upstream, address) = plain(json!({ "reject": true }));
    let check = |lines: &[&str], expected: u16| {
        let lines: Vec<&str> = ["expect: 100-continue"]
            .iter()
            .chain(lines)
            .copied()
            .collect();
        let mut client = Client::connect(address);
        client.0.write_all(&head(&lines)).unwrap();
        let answer = client.read(expected == 100).unwrap();
        assert_eq!(answer.status, expected, "{lines:?}");
        client
    };
    for refused in [
        check(&["content-type: text/plain", "content-length: 9"], 415),
        check(
            &["content-type: text/plain", "transfer-encoding: chunked"],
            415,
        ),
        check(&[JSON, "content-length: 201"], 413),
    ] {
        // The body was not asked for, so what comes next could be it or a request: nothing is read any more.
        let mut refused = refused;
        let _ = refused.0.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n");
        assert!(refused.is_closed());
    }
    let mut client = check(&[JSON, "content-length: 1"], 100);
    client.0.write_all(b"{").unwrap();
    assert_eq!(client.read(false).unwrap().status, 400);
    assert!(upstream.is_quiet());
    let mut client = check(&[JSON, "content-length: 15"], 100);
    client.0.write_all(br#"{"user": "ann"}"#).unwrap();
    assert_eq!(client.read(false).unwrap().status, 200);
    assert_eq!(upstream.next().header("x-user"), Some("ann"));
}

#[test]
fn a_slow_body_times_out_and_reaches_nobody() {
    let idle = json!({ "streamIdleTimeout": "0.4s" });
    let (_proxy, upstream, address) = start(json!({}), idle);
    for framing in ["content-length: 100", "transfer-encoding: chunked"] {
        let mut client = Client::connect(address);
        client.0.write_all(&head(&[JSON, framing])).unwrap();
        // Bytes that keep coming do not prolong it.
        let mut drip = client.0.try_clone().unwrap();
        let dripping = std::thread::spawn(move || {
            let byte: &[u8] = if framing.starts_with('c') {
                b" "
            } else {
                b"1\r\n \r\n"
            };
            for _ in 0..50 {
                if drip.write_all(byte).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let answer = client.read(false).unwrap();
        assert_eq!(answer.status, 408, "{framing}");
        drop(client);
        dripping.join().unwrap();
    }
    assert!(upstream.is_quiet());
}

#[test]
fn bodies_that_are_not_looked_at_are_not_held_back() {
    let (_proxy, upstreams, address) = {
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut proxy = Proxy::start(1);
        proxy.cluster("a", &[upstream.local_addr().unwrap()], json!({}));
        let routes = json!([to("a", json!({}))]);
        let address = proxy.http(routes, with_router(&[filter(json!({}))]));
        (proxy, upstream, address)
    };
    let check = |lines: &[&str]| {
        let mut client = Client::connect(address);
        client.0.write_all(&head(lines)).unwrap();
        client.0.write_all(b"first half").unwrap();
        let (mut upstream, _) = upstreams.accept().unwrap();
        upstream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
        // The second half is never sent.
        while !seen.ends_with(b"first half") {
            let count = upstream.read(&mut buffer).unwrap();
            assert!(count > 0, "{lines:?}");
            seen.extend_from_slice(&buffer[..count]);
        }
    };
    check(&["content-type: text/plain", "content-length: 100"]);
    check(&[JSON, "content-length: 201"]);
    check(&[JSON, "content-encoding: gzip", "content-length: 100"]);
}

#[test]
fn a_body_that_was_read_can_be_sent_again_whole() {
    let upstream = Upstream::start("a");
    let mut proxy = Proxy::start(1);
    proxy.cluster("a", &[upstream.address], json!({}));
    let retry = json!({ "retryPolicy": { "retryOn": "5xx", "numRetries": 1 } });
    let policy = filter(json!({ "max_bytes": 4 << 20 }));
    let address = proxy.http(json!([to("a", retry)]), with_router(&[policy]));
    // Longer than what is kept of others for another attempt.
    let start = r#"{"user": "ann"}"#;
    let body = format!("{start}{}", " ".repeat(2 << 20));
    for request in [
        post(&[JSON], body.as_bytes()),
        chunked(&[JSON], &[&body[..100], &body[100..]]),
    ] {
        let before = upstream.count();
        let path = format!("/?fail={}", before + 1);
        let request = String::from_utf8(request).unwrap();
        let request = request.replacen("/", &path, 1);
        let answer = send(address, request.as_bytes());
        assert_eq!(answer.status, 200);
        assert_eq!(upstream.count(), before + 2);
        let seen = answer.seen();
        assert_eq!(seen["body"], body.len());
        assert_eq!(seen["headers"]["x-user"], "ann");
    }
}

#[test]
fn a_worker_holds_back_so_many_bytes_and_no_more() {
    let upstream = Wire::start();
    let mut proxy = Proxy::start_with(&EngineConfig {
        most_held_bytes: 10_000,
        ..EngineConfig::default()
    });
    proxy.cluster("a", &[upstream.address], json!({}));
    let policy = filter(json!({ "max_bytes": 8000 }));
    let address = proxy.http(json!([to("a", json!({}))]), with_router(&[policy]));
    let body = format!(r#"{{"user": "ann"}}{}"#, " ".repeat(5985));
    let requests = [
        post(&[JSON], body.as_bytes()),
        chunked(&[JSON], &[&body[..3000], &body[3000..]]),
    ];
    // What was held is given back with each answer.
    for request in requests.iter().cycle().take(20) {
        assert_eq!(send(address, request).status, 200);
        assert_eq!(upstream.next().header("x-user"), Some("ann"));
    }
    let mut slow = Client::connect(address);
    slow.0
        .write_all(&requests[0][..requests[0].len() - 1])
        .unwrap();
    eventually(|| send(address, &requests[0]).status == 503);
    // Requests that are not held back go on.
    let other = post(&["content-type: text/plain"], body.as_bytes());
    assert_eq!(send(address, &other).status, 200);
    drop(slow);
    eventually(|| send(address, &requests[1]).status == 200);
}

#[test]
fn who_waits_for_a_continue_is_asked_for_bodies_that_pass() {
    let (_proxy, upstream, address) = plain(json!({}));
    let long = " ".repeat(300);
    for (line, body, user) in [
        ("content-type: text/plain", "text", None),
        (JSON, long.as_str(), None),
        (JSON, "{", None),
        (JSON, r#"{"user": "ann"}"#, Some("ann")),
    ] {
        let whole = post(&[line, "expect: 100-continue"], body.as_bytes());
        let (head, rest) = whole.split_at(whole.len() - body.len());
        let mut client = Client::connect(address);
        client.0.write_all(head).unwrap();
        assert_eq!(client.read(true).unwrap().status, 100, "{line} {body}");
        client.0.write_all(rest).unwrap();
        assert_eq!(client.read(false).unwrap().status, 200, "{line} {body}");
        let seen = upstream.next();
        assert_eq!(seen.header("x-user"), user, "{line} {body}");
        assert_eq!(seen.rest(), body);
    }
}
