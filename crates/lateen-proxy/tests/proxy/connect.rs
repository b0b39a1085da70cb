//! CONNECT: where tunnels lead, and that nothing in one is ever taken for a request.

use std::io::{Read, Write};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::http1::script::{Script, read_head};
use crate::support::{Client, PATIENCE, Proxy, Upstream, filters, get, merge, to};

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";

/// Connection managers that let clients open tunnels.
fn enabled() -> Value {
    json!({ "upgradeConfigs": [{ "upgradeType": "CONNECT" }] })
}

/// A route for tunnels to a cluster, with more fields of the action.
fn tunnels(cluster: &str, more: Value) -> Value {
    let mut action = json!({ "cluster": cluster });
    merge(&mut action, more);
    json!({ "match": { "connectMatcher": {} }, "route": action })
}

/// The same where tunnels end at the proxy.
fn ends_here(cluster: &str) -> Value {
    let upgrade = json!({ "upgradeType": "CONNECT", "connectConfig": {} });
    tunnels(cluster, json!({ "upgradeConfigs": [upgrade] }))
}

/// An endpoint that says all that it was sent when its peer is done.
fn collector() -> Script {
    Script::start(|mut stream, _| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        Ok(all)
    })
}

/// What a client that sends a request at once behind its CONNECT is told, and that nothing else is.
#[track_caller]
fn check_refused(routes: Value, options: Value, fields: &str, status: u16) {
    let upstream = Upstream::start("one");
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[upstream.address], json!({}));
    proxy.cluster("none", &[], json!({}));
    let address = proxy.http(routes, options);
    let mut client = Client::connect(address);
    let request = format!("CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n{fields}\r\n{SMUGGLED}");
    let answer = client.send(&request).unwrap();
    assert_eq!(answer.status, status, "{fields}");
    assert_eq!(answer.header("connection"), Some("close"), "{fields}");
    assert!(client.is_closed(), "{fields}");
    assert_eq!(upstream.count(), 0, "{fields}");
}

#[test]
fn what_follows_a_refused_tunnel_is_no_request() {
    let plain = || json!([to("one", json!({}))]);
    check_refused(plain(), json!({}), "", 404);
    check_refused(plain(), enabled(), "", 404);
    check_refused(json!([tunnels("one", json!({}))]), json!({}), "", 403);
    check_refused(json!([tunnels("none", json!({}))]), enabled(), "", 503);
    let off = json!({ "upgradeConfigs": [{ "upgradeType": "CONNECT", "enabled": false }] });
    check_refused(json!([tunnels("one", off)]), enabled(), "", 403);
    let length = "content-length: 3\r\n";
    check_refused(json!([ends_here("one")]), enabled(), length, 400);
    let chunked = "transfer-encoding: chunked\r\n";
    check_refused(json!([ends_here("one")]), enabled(), chunked, 501);
}

#[test]
fn what_follows_a_tunnel_is_bytes() {
    let endpoint = collector();
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[endpoint.address], json!({}));
    let address = proxy.http(json!([ends_here("one")]), json!({}));
    let mut client = Client::connect(address);
    let request = format!("CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n{SMUGGLED}");
    client.0.write_all(request.as_bytes()).unwrap();
    let head = read_head(&mut client.0).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        !head.contains("content-length") && !head.contains("transfer-encoding"),
        "{head}"
    );
    client.0.write_all(b"more").unwrap();
    client.0.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(endpoint.next(), format!("{SMUGGLED}more").into_bytes());
    assert!(client.is_closed());
}

/// An endpoint answers as told; `passes` are the bytes of the client that it gets.
#[track_caller]
fn check_passed_on(response: &'static str, status: u16, passes: &str) {
    let endpoint = Script::start(move |mut stream, _| {
        let head = read_head(&mut stream)?;
        assert!(
            head.starts_with("CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n"),
            "{head}"
        );
        // Nothing comes before the answer, however long it takes.
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        let early = stream.read(&mut [0; 100]);
        assert!(early.is_err(), "{early:?} bytes before the answer");
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(response.as_bytes())?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        Ok(all)
    });
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[endpoint.address], json!({}));
    let address = proxy.http(json!([tunnels("one", json!({}))]), enabled());
    let mut client = Client::connect(address);
    let request = format!("CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n{SMUGGLED}");
    client.0.write_all(request.as_bytes()).unwrap();
    let head = read_head(&mut client.0).unwrap();
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    client.0.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&endpoint.next()),
        passes,
        "{response}"
    );
    assert!(client.0.read_to_end(&mut Vec::new()).is_ok());
}

#[test]
fn no_byte_passes_before_the_endpoint_agrees() {
    check_passed_on("HTTP/1.1 200 OK\r\n\r\n", 200, SMUGGLED);
    check_passed_on(
        "HTTP/1.1 299 Fine\r\ncontent-length: 3\r\n\r\n",
        299,
        SMUGGLED,
    );
    check_passed_on("HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n", 403, "");
    check_passed_on("HTTP/1.1 302 No\r\ncontent-length: 2\r\n\r\nno", 302, "");
    check_passed_on("HTTP/1.1 101 Switch\r\nupgrade: x\r\n\r\n", 502, "");
}

#[test]
fn filters_that_look_at_paths_find_none() {
    let endpoint = collector();
    let mut proxy = Proxy::start(1);
    proxy.cluster(
        "one",
        &[endpoint.address],
        json!({ "lbPolicy": "RING_HASH" }),
    );
    let type_url = |name: &str| format!("type.googleapis.com/envoy.extensions.filters.http.{name}");
    let filters = filters(&[
        (
            "fault",
            json!({ "@type": type_url("fault.v3.HTTPFault"), "headers": [{ "name": ":path", "presentMatch": true }] }),
        ),
        ("cors", json!({ "@type": type_url("cors.v3.Cors") })),
        (
            "mutation",
            json!({ "@type": type_url("header_mutation.v3.HeaderMutation"), "mutations": {
            "requestMutations": [{ "append": { "header": { "key": "x-path", "value": "%REQ(:PATH)% %PATH% %QUERY_PARAM(a)%" } } }],
        } }),
        ),
    ]);
    let mut options = enabled();
    merge(&mut options, filters);
    merge(
        &mut options,
        json!({ "normalizePath": true, "mergeSlashes": true }),
    );
    let mut route = ends_here("one");
    merge(
        &mut route["route"],
        json!({
            "prefixRewrite": "/other",
            "hashPolicy": [{ "queryParameter": { "name": "a" } }],
        }),
    );
    let address = proxy.http(json!([route]), options);
    let mut client = Client::connect(address);
    client
        .0
        .write_all(b"CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\nx")
        .unwrap();
    assert!(
        read_head(&mut client.0)
            .unwrap()
            .starts_with("HTTP/1.1 200 ")
    );
    drop(client);
    assert_eq!(endpoint.next(), b"x");
    assert_eq!(
        get(address, "/", &[]).status,
        404,
        "the route is for tunnels alone"
    );
}

/// A client of HTTP/2 with a tunnel, and what it does with it.
fn over_http2<F: Future>(
    address: std::net::SocketAddr,
    act: impl FnOnce(TokioIo<hyper::upgrade::Upgraded>) -> F,
) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = Request::builder().method(Method::CONNECT).uri("a:80");
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let output = act(TokioIo::new(hyper::upgrade::on(response).await.unwrap())).await;
        connection.abort();
        output
    })
}

#[test]
fn streams_of_http2_are_tunnels() {
    let endpoint = Script::start(|mut stream, _| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        stream.write_all(b"answer after the end")?;
        Ok(all)
    });
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[endpoint.address], json!({}));
    let address = proxy.http(json!([ends_here("one")]), json!({}));
    let text = over_http2(address, async |mut stream| {
        stream.write_all(SMUGGLED.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    });
    assert_eq!(endpoint.next(), SMUGGLED.as_bytes());
    assert_eq!(text, "answer after the end");
}

#[test]
fn a_tunnel_that_its_client_resets_is_over() {
    // It says nothing until the tunnel must be gone: only who looks for a reset finds one.
    let endpoint = Script::start(|mut stream, _| {
        let mut all = vec![0];
        stream.read_exact(&mut all)?;
        stream.write_all(b"b")?;
        stream.read_to_end(&mut all)?;
        std::thread::sleep(Duration::from_millis(1500));
        stream.write_all(b"x")?;
        std::thread::sleep(Duration::from_millis(100));
        assert!(stream.write_all(b"x").is_err(), "somebody still listens");
        Ok(all)
    });
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[endpoint.address], json!({}));
    let options = json!({ "streamIdleTimeout": "0s" });
    let address = proxy.http(json!([ends_here("one")]), options);
    let found = over_http2(address, async |mut stream| {
        stream.write_all(b"a").await.unwrap();
        stream.read_exact(&mut [0]).await.unwrap();
        // Without the other side's end, this is a reset of the stream.
        drop(stream);
        tokio::task::spawn_blocking(move || endpoint.next())
            .await
            .unwrap()
    });
    assert_eq!(found, b"a");
}
