//! The same over HTTP/2, frame by frame.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderName, Request};
use serde_json::{Value, json};

use super::wire::Wire;
use super::{filter, with_router};
use crate::support::{PATIENCE, Proxy, Upstream, merge, to};

const JSON: (&str, &str) = ("content-type", "application/json");

/// A client on one connection.
struct Client(SendRequest<Bytes>);

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self(sender.ready().await.unwrap())
    }

    /// Sends a head.
    async fn open(&mut self, headers: &[(&str, &str)]) -> (ResponseFuture, SendStream<Bytes>) {
        let mut request = Request::post("http://x/").body(()).unwrap();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        std::future::poll_fn(|context| self.0.poll_ready(context))
            .await
            .unwrap();
        self.0.send_request(request, false).unwrap()
    }

    /// Sends a request with a body in these frames.
    async fn send(&mut self, headers: &[(&str, &str)], frames: &[&str]) -> (u16, String) {
        let (response, mut stream) = self.open(headers).await;
        for frame in frames {
            stream
                .send_data(Bytes::copy_from_slice(frame.as_bytes()), false)
                .unwrap();
        }
        stream.send_data(Bytes::new(), true).unwrap();
        read(response).await.unwrap()
    }
}

/// The answer to a request.
async fn read(response: ResponseFuture) -> Result<(u16, String), h2::Error> {
    let reading = async {
        let (head, mut body) = response.await?.into_parts();
        let mut text = Vec::new();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            text.extend_from_slice(&data);
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok((head.status.as_u16(), text))
    };
    tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("an answer in time")
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

/// A proxy with this filter and more fields of its connection manager.
fn start(upstream: SocketAddr, http2: bool, policy: Value, more: Value) -> (Proxy, SocketAddr) {
    let mut proxy = Proxy::start(1);
    let options = json!({ "typedExtensionProtocolOptions": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicitHttpConfig": { "http2ProtocolOptions": {} },
        },
    }});
    let options = if http2 { options } else { json!({}) };
    proxy.cluster("a", &[upstream], options);
    let mut manager = with_router(&[filter(policy)]);
    merge(&mut manager, more);
    let address = proxy.http(json!([to("a", json!({}))]), manager);
    (proxy, address)
}

#[test]
fn no_spelling_of_a_header_gets_past_the_body() {
    let upstream = Wire::start();
    let (_proxy, address) = start(upstream.address, false, json!({}), json!({}));
    run(async {
        let mut client = Client::connect(address).await;
        for headers in [
            [JSON, ("x-user", "eve"), ("x-user", "eve")],
            [JSON, ("x_user", "eve"), ("x-user", "eve")],
            [JSON, ("x_user", "eve"), ("x_user", "eve")],
            [JSON, ("content-length", "15"), ("x-user", "eve")],
        ] {
            let (status, _) = client.send(&headers, &[r#"{"user":"#, r#" "ann"}"#]).await;
            assert_eq!(status, 200, "{headers:?}");
            let seen = upstream.next();
            assert_eq!(seen.header("x-user"), Some("ann"), "{headers:?}");
        }
    });
}

#[test]
fn trailers_do_not_stand_beside_the_header() {
    let upstream = Upstream::start("a");
    let (_proxy, address) = start(upstream.address, true, json!({}), json!({}));
    run(async {
        let mut client = Client::connect(address).await;
        let mut check = async |body: &str, expected: Value| {
            let (response, mut stream) = client.open(&[JSON, ("te", "trailers")]).await;
            stream
                .send_data(Bytes::copy_from_slice(body.as_bytes()), false)
                .unwrap();
            let mut trailers = HeaderMap::new();
            for name in ["x-user", "x_user", "x-sum"] {
                trailers.insert(name, "1".parse().unwrap());
            }
            stream.send_trailers(trailers).unwrap();
            let (status, text) = read(response).await.unwrap();
            assert_eq!(status, 200, "{body}");
            let seen: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(seen["text"], body);
            assert_eq!(seen["trailers"], expected, "{body}");
        };
        check(r#"{"user": "ann"}"#, json!({ "x-sum": "1" })).await;
        check("{}", json!({ "x-sum": "1", "x-user": "1", "x_user": "1" })).await;
    });
}

#[test]
fn frames_that_hold_nothing_are_no_body() {
    for http2 in [false, true] {
        let upstream = Upstream::start("a");
        let policy = json!({ "reject": true });
        let (_proxy, address) = start(upstream.address, http2, policy, json!({}));
        run(async {
            let mut client = Client::connect(address).await;
            for headers in [[JSON], [("content-type", "text/plain")]] {
                let (status, text) = client.send(&headers, &["", ""]).await;
                assert_eq!(status, 200, "{headers:?}");
                let seen: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(seen["body"], 0);
            }
            let (status, _) = client.send(&[("content-type", "text/plain")], &["a"]).await;
            assert_eq!(status, 415);
            let (status, _) = client.send(&[JSON], &["", "a"]).await;
            assert_eq!(status, 400);
        });
    }
}

#[test]
fn a_body_may_be_longer_than_the_window_and_cut_finely() {
    let upstream = Upstream::start("a");
    let policy = json!({ "max_bytes": 300_000, "reject": true });
    let (_proxy, address) = start(upstream.address, true, policy, json!({}));
    run(async {
        let mut client = Client::connect(address).await;
        let mut check = async |length: usize, cut: usize, expected: u16| {
            let start = r#"{"user": "ann"}"#;
            let body = format!("{start}{}", " ".repeat(length - start.len()));
            let frames: Vec<&str> = body
                .as_bytes()
                .chunks(cut)
                .map(|frame| std::str::from_utf8(frame).unwrap())
                .collect();
            let (status, text) = client.send(&[JSON], &frames).await;
            assert_eq!(status, expected, "{length}");
            if status == 200 {
                let seen: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(seen["body"], length);
                assert_eq!(seen["headers"]["x-user"], "ann");
            }
        };
        check(300_000, 16_384, 200).await;
        check(300_000, 1000, 200).await;
        check(40, 1, 200).await;
        check(300_001, 16_384, 413).await;
        check(40, 20, 200).await;
    });
}

#[test]
fn a_slow_or_broken_body_is_its_own_streams_matter() {
    let upstream = Upstream::start("a");
    let idle = json!({ "streamIdleTimeout": "0.5s" });
    let (_proxy, address) = start(upstream.address, true, json!({}), idle);
    run(async {
        let mut client = Client::connect(address).await;
        let (slow, mut stream) = client.open(&[JSON]).await;
        stream.send_data(Bytes::from_static(b"{"), false).unwrap();
        let (broken, mut other) = client.open(&[JSON]).await;
        other.send_data(Bytes::from_static(b"{"), false).unwrap();
        // Both wait for their bodies now.
        tokio::time::sleep(Duration::from_millis(100)).await;
        other.send_reset(Reason::CANCEL);
        read(broken).await.unwrap_err();
        let (status, _) = client.send(&[JSON], &[r#"{"user": "ann"}"#]).await;
        assert_eq!(status, 200);
        let (status, _) = read(slow).await.unwrap();
        assert_eq!(status, 408);
        // A length that is not kept is a malformed request (RFC 9113 section 8.1.1).
        for length in ["1", "10"] {
            let (response, mut stream) = client.open(&[JSON, ("content-length", length)]).await;
            let _ = stream.send_data(Bytes::from_static(b"{}"), true);
            match read(response).await {
                Ok((status, _)) => assert_eq!(status, 400, "{length}"),
                Err(error) => assert!(error.is_reset() || error.is_go_away(), "{error}"),
            }
        }
    });
    // Only the one that was whole.
    assert_eq!(upstream.count(), 1);
}
