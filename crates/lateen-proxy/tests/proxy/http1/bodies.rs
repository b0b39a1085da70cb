//! Bodies of requests: broken, unread, large, and answered before they are complete.

use std::io::{Read, Write};
use std::time::Duration;

use serde_json::json;

use super::plain;
use super::script::{Script, read_head};
use crate::support::{Client, Proxy, to};

/// A proxy before an endpoint that sends back what it reads: the head of the request as a body of its own, and then all
/// bytes that follow.
fn before_echo() -> (Proxy, Script, std::net::SocketAddr) {
    let script = Script::start(|mut stream, _| {
        let head = read_head(&mut stream)?;
        let mut body = Vec::new();
        if let Some(length) = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
        {
            body.resize(length.parse().unwrap(), 0);
            stream.read_exact(&mut body)?;
        }
        stream.write_all(
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(),
        )?;
        stream.write_all(&body)?;
        Ok(head.into_bytes())
    });
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[script.address], json!({}));
    let address = proxy.http(json!([to("one", json!({ "timeout": "0s" }))]), json!({}));
    (proxy, script, address)
}

#[test]
fn a_body_that_breaks_the_rules_is_answered_400_and_never_completed() {
    let script = Script::start(|mut stream, _| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        Ok(all)
    });
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[script.address], json!({}));
    let policy = json!({ "retryPolicy": { "retryOn": "5xx,reset", "numRetries": 3 } });
    let address = proxy.http(json!([to("one", policy)]), json!({}));
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let extension = format!("1;{}\r\na\r\n", "x".repeat(4000)).repeat(5);
    for chunks in [
        "xyz\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "3 ;\x01\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\nbad trailer\r\n\r\n",
        "3\r\nabc\r\n0\r\nt: a\n\nt: b\r\n\r\n",
        &extension,
    ] {
        let mut client = Client::connect(address);
        let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        let answer = client.send(&[head, chunks, smuggled].concat()).unwrap();
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (400, "Bad Request"),
            "{chunks}"
        );
        assert_eq!(answer.header("connection"), Some("close"), "{chunks}");
        assert!(client.is_closed(), "{chunks}");
        let seen = script.next();
        assert!(
            !seen.ends_with(b"0\r\n\r\n"),
            "{chunks}: {}",
            String::from_utf8_lossy(&seen)
        );
    }
}

#[test]
fn a_short_body_that_nobody_reads_is_passed_over() {
    let (_proxy, upstream, address) = plain();
    for (framing, body) in [
        ("content-length: 3", "abc".to_owned()),
        (
            "transfer-encoding: chunked",
            "3\r\nabc\r\n0\r\n\r\n".to_owned(),
        ),
        ("content-length: 50000", "x".repeat(50_000)),
    ] {
        let mut client = Client::connect(address);
        let head = format!("POST /direct HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n");
        assert_eq!(client.send(&head).unwrap().body, "direct", "{framing}");
        client.0.write_all(body.as_bytes()).unwrap();
        assert_eq!(
            client.get("/next", &[]).unwrap().seen()["path"],
            "/next",
            "{framing}"
        );
    }
    let count = upstream.count();
    // Longer ones end the connection, and the answer is not lost.
    for framing in ["content-length: 9000000", "transfer-encoding: chunked"] {
        let mut client = Client::connect(address);
        let head = format!("POST /direct HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n");
        client.0.write_all(head.as_bytes()).unwrap();
        let chunk = [b"10000\r\n", &[b'x'; 0x10000][..], b"\r\n"].concat();
        for _ in 0..4 {
            if client.0.write_all(&chunk).is_err() {
                break;
            }
        }
        assert_eq!(client.read(false).unwrap().body, "direct", "{framing}");
        assert!(client.is_closed(), "{framing}");
    }
    // Who waits to be asked and is not cannot go on either: nobody knows whether the body comes.
    let mut client = Client::connect(address);
    let head =
        "POST /direct HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n";
    let answer = client.send(head).unwrap();
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    assert!(client.is_closed());
    assert_eq!(upstream.count(), count);
}

#[test]
fn large_bodies_pass_both_ways() {
    let (_proxy, script, address) = before_echo();
    let body: Vec<u8> = (0..6_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut client = Client::connect(address);
    let head = format!(
        "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.0.write_all(head.as_bytes()).unwrap();
    client.0.write_all(&body).unwrap();
    let mut all = Vec::new();
    client.0.read_to_end(&mut all).unwrap();
    assert!(all.ends_with(&body), "{} bytes", all.len());
    assert!(script.next().starts_with(b"POST / HTTP/1.1\r\n"));
}

#[test]
fn a_request_is_asked_for_and_framed_as_the_client_did() {
    let (_proxy, script, address) = before_echo();
    for (fields, body, expected) in [
        ("", "", &["content-length: 0\r\n"][..]),
        ("content-length: 3\r\n", "abc", &["content-length: 3\r\n"]),
        (
            "expect: 100-continue\r\ncontent-length: 3\r\n",
            "abc",
            &["content-length: 3\r\n"],
        ),
    ] {
        let mut client = Client::connect(address);
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
        client.0.write_all(head.as_bytes()).unwrap();
        if fields.starts_with("expect") {
            assert_eq!(
                read_head(&mut client.0).unwrap(),
                "HTTP/1.1 100 Continue\r\n\r\n"
            );
        }
        client.0.write_all(body.as_bytes()).unwrap();
        assert_eq!(client.read(false).unwrap().body, body, "{fields}");
        let seen = String::from_utf8(script.next()).unwrap();
        assert!(expected.iter().all(|line| seen.contains(line)), "{seen}");
        assert!(
            !seen.contains("expect") && !seen.contains("transfer-encoding"),
            "{seen}"
        );
    }
}

#[test]
fn an_answer_may_come_before_the_request_is_complete() {
    let script = Script::start(|mut stream, _| {
        read_head(&mut stream)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nearly\r\n")?;
        let mut body = [0; 8];
        stream.read_exact(&mut body)?;
        stream.write_all(b"4\r\nlate\r\n0\r\n\r\n")?;
        Ok(body.to_vec())
    });
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[script.address], json!({}));
    let address = proxy.http(json!([to("one", json!({}))]), json!({}));
    let mut client = Client::connect(address);
    client
        .0
        .write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\nfour")
        .unwrap();
    let head = read_head(&mut client.0).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let mut early = [0; 10];
    client.0.read_exact(&mut early).unwrap();
    assert_eq!(&early, b"5\r\nearly\r\n");
    client.0.write_all(b"more").unwrap();
    let mut late = [0; 14];
    client.0.read_exact(&mut late).unwrap();
    assert_eq!(&late, b"4\r\nlate\r\n0\r\n\r\n");
    assert_eq!(script.next(), b"fourmore");

    // A complete answer ends the exchange, whatever is still to come of the request.
    let script = Script::start(|mut stream, _| {
        read_head(&mut stream)?;
        stream.write_all(
            b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno",
        )?;
        // The rest is reset, not read.
        std::thread::sleep(Duration::from_millis(50));
        Ok(Vec::new())
    });
    proxy.cluster("one", &[script.address], json!({}));
    for _ in 0..3 {
        let mut client = Client::connect(address);
        let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9000000\r\n\r\n";
        client.0.write_all(head.as_bytes()).unwrap();
        let part = vec![b'x'; 100_000];
        while client.0.write_all(&part).is_ok() && client.0.take_error().unwrap().is_none() {
            client.0.set_nonblocking(true).unwrap();
            let answered = client.0.peek(&mut [0]).is_ok();
            client.0.set_nonblocking(false).unwrap();
            if answered {
                break;
            }
        }
        let answer = client.read(false).unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (413, "no"));
    }
}

#[test]
fn a_client_may_send_everything_before_it_reads_anything() {
    const LENGTH: usize = 12_000_000;
    let script = Script::start(|mut stream, _| {
        read_head(&mut stream)?;
        let mut writer = stream.try_clone()?;
        let writing = std::thread::spawn(move || {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n");
            writer.write_all(head.as_bytes())?;
            writer.write_all(&vec![b'y'; LENGTH - 1])
        });
        let mut body = vec![0; LENGTH];
        stream.read_exact(&mut body)?;
        writing.join().unwrap()?;
        // Last: a response that ends before its request ends the exchange, whatever is left of that.
        stream.write_all(b"y")?;
        Ok(b"complete".to_vec())
    });
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[script.address], json!({}));
    let address = proxy.http(json!([to("one", json!({ "timeout": "0s" }))]), json!({}));
    let mut client = Client::connect(address);
    client
        .0
        .set_write_timeout(Some(Duration::from_secs(8)))
        .unwrap();
    for _ in 0..2 {
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {LENGTH}\r\n\r\n");
        client.0.write_all(head.as_bytes()).unwrap();
        client.0.write_all(&vec![b'x'; LENGTH]).unwrap();
        let answer = client.read(false).unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, LENGTH));
        assert_eq!(script.next(), b"complete");
    }
}

/// An HTTP/2 endpoint that answers at once, and never reads a body.
fn deaf() -> std::net::SocketAddr {
    use bytes::Bytes;
    use http_body_util::Full;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let service = hyper::service::service_fn(|request| async move {
                    // It is kept, so that the stream is not reset.
                    std::mem::forget::<hyper::Request<hyper::body::Incoming>>(request);
                    let body = Full::new(Bytes::from_static(b"early"));
                    Ok::<_, std::convert::Infallible>(hyper::Response::new(body))
                });
                let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
    });
    address
}

#[test]
fn a_body_that_an_http2_endpoint_does_not_want_keeps_no_socket() {
    let mut proxy = Proxy::start(1);
    let options = json!({ "typedExtensionProtocolOptions": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicitHttpConfig": { "http2ProtocolOptions": {} },
        },
    }});
    proxy.cluster("one", &[deaf()], options);
    let address = proxy.http(json!([to("one", json!({}))]), json!({}));
    for (length, goes_on) in [(9_000_000, false), (5, true)] {
        let mut client = Client::connect(address);
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\nab");
        assert_eq!(client.send(&head).unwrap().body, "early");
        if goes_on {
            client.0.write_all(b"cde").unwrap();
            assert_eq!(client.get("/", &[]).unwrap().body, "early");
        } else {
            assert!(client.is_closed());
            let gauge =
                "envoy_http_downstream_cx_active{envoy_http_conn_manager_prefix=\"test\"} 0";
            crate::support::eventually(|| proxy.engine.metrics().contains(gauge));
            // It is closed, not only shut down: writing is answered by a reset.
            let gone = |client: &mut Client| client.0.write_all(b"more").is_err();
            crate::support::eventually(|| gone(&mut client));
        }
    }
}
