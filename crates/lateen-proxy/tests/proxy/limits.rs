//! What clients may take of a listener: fields, names, requests, age and time.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use lateen_xds::ResourceType;
use serde_json::{Value, json};

use crate::support::{Client, Proxy, Upstream, free_address, get, http_listener, to};

/// A proxy whose listener has these options, before an upstream.
fn start(options: Value) -> (Proxy, std::net::SocketAddr, Upstream) {
    let upstream = Upstream::start("up");
    let mut proxy = Proxy::start(1);
    proxy.cluster("up", &[upstream.address], json!({}));
    let address = proxy.http(json!([to("up", json!({}))]), options);
    (proxy, address, upstream)
}

fn common(options: Value) -> Value {
    json!({ "commonHttpProtocolOptions": options })
}

fn counted(proxy: &Proxy, name: &str) -> u64 {
    let full = format!("envoy_http_{name}{{envoy_http_conn_manager_prefix=\"test\"}}");
    let all = proxy.engine.metrics();
    let value = |line: &str| line.strip_prefix(&full)?.trim().parse().ok();
    all.lines().find_map(value).unwrap_or_default()
}

#[test]
fn requests_have_so_many_fields_at_most() {
    let fields =
        |count: usize| -> Vec<String> { (1..count).map(|n| format!("x-{n}: 1")).collect() };
    for (most, count, status) in [
        (Some(5), 5, 200),
        (Some(5), 6, 431),
        (None, 100, 200),
        (None, 101, 431),
        (Some(150), 150, 200),
    ] {
        let options = most.map_or(json!({}), |most| json!({ "maxHeadersCount": most }));
        let mut proxy = Proxy::start(1);
        // The proxy answers itself: the upstream's own limit is lower.
        let route = json!({ "match": { "prefix": "/" }, "directResponse": { "status": 200 } });
        let address = proxy.http(json!([route]), common(options));
        let lines = fields(count);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        // With the host there are as many as wanted.
        assert_eq!(get(address, "/", &lines).status, status, "{most:?} {count}");
    }
}

#[test]
fn names_with_underscores_pass_or_are_refused_or_dropped() {
    for (action, name, seen) in [
        ("ALLOW", "x_user", Some(json!("1"))),
        ("REJECT_REQUEST", "x_user", None),
        ("REJECT_REQUEST", "x-user", Some(json!("1"))),
        ("DROP_HEADER", "x_user", Some(json!(null))),
        ("DROP_HEADER", "x-user", Some(json!("1"))),
    ] {
        let (_proxy, address, _upstream) =
            start(common(json!({ "headersWithUnderscoresAction": action })));
        let answer = get(address, "/", &[&format!("{name}: 1"), "x-value: a_b"]);
        let Some(seen) = seen else {
            assert_eq!(answer.status, 400, "{action} {name}");
            continue;
        };
        assert_eq!(answer.seen()["headers"][name], seen, "{action} {name}");
        assert_eq!(answer.seen()["headers"]["x-value"], "a_b");
    }
}

#[test]
fn connections_end_after_so_many_requests() {
    let (proxy, address, _upstream) = start(common(json!({ "maxRequestsPerConnection": 2 })));
    let mut client = Client::connect(address);
    let first = client.get("/", &[]).unwrap();
    assert_eq!(first.header("connection"), None);
    let second = client.get("/", &[]).unwrap();
    assert_eq!(
        (second.status, second.header("connection")),
        (200, Some("close"))
    );
    assert!(client.is_closed());
    assert_eq!(counted(&proxy, "downstream_cx_max_requests_reached"), 1);
    assert_eq!(counted(&proxy, "downstream_cx_drain_close"), 0);
}

#[test]
fn connections_end_at_an_age_after_what_is_in_progress() {
    let (proxy, address, _upstream) = start(json!({
        "commonHttpProtocolOptions": { "maxConnectionDuration": "0.3s" },
        "drainTimeout": "0.2s",
    }));
    let mut idle = Client::connect(address);
    idle.get("/", &[]).unwrap();
    let mut busy = Client::connect(address);
    let answer = busy.get("/?sleep=1200", &[]).unwrap();
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    assert!(busy.is_closed() && idle.is_closed());
    assert_eq!(counted(&proxy, "downstream_cx_max_duration_reached"), 2);
}

#[test]
fn streams_of_http2_end_well_when_their_connection_is_used_up() {
    let (_proxy, address, _upstream) = start(common(json!({ "maxRequestsPerConnection": 2 })));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let executor = hyper_util::rt::TokioExecutor::new();
        let (sender, connection) = hyper::client::conn::http2::handshake(executor, io)
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        let request = |path: &str| {
            hyper::Request::builder()
                .uri(format!("http://test{path}"))
                .body(http_body_util::Empty::<bytes::Bytes>::new())
                .unwrap()
        };
        let (mut one, mut two) = (sender.clone(), sender);
        let both = tokio::join!(
            one.send_request(request("/?sleep=300")),
            two.send_request(request("/?sleep=300"))
        );
        assert_eq!(both.0.unwrap().status(), 200);
        assert_eq!(both.1.unwrap().status(), 200);
        let ended = tokio::time::timeout(Duration::from_secs(8), connection).await;
        ended.expect("the connection ends").unwrap().unwrap();
    });
}

#[test]
fn heads_and_requests_have_a_time() {
    for (option, sent, status, body, stat) in [
        (
            "requestHeadersTimeout",
            "GET / HTTP/1.1\r\nhost:",
            408,
            "request header timeout",
            "downstream_rq_header_timeout",
        ),
        (
            "requestTimeout",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nab",
            408,
            "request timeout",
            "downstream_rq_timeout",
        ),
    ] {
        let (proxy, address, _upstream) = start(json!({ option: "0.3s" }));
        let mut client = Client::connect(address);
        let began = Instant::now();
        let answer = client.send(sent).unwrap();
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (status, body),
            "{option}"
        );
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(began.elapsed() >= Duration::from_millis(250));
        assert!(client.is_closed());
        assert_eq!(counted(&proxy, stat), 1);
        // In time: an upstream that takes longer is no matter, nor is the time between requests.
        let mut client = Client::connect(address);
        assert_eq!(client.get("/?sleep=500", &[]).unwrap().status, 200);
        std::thread::sleep(Duration::from_millis(400));
        let whole = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nab";
        assert_eq!(client.send(whole).unwrap().status, 200, "{option}");
    }
    // A body that comes to its end in time.
    let (_proxy, address, _upstream) = start(json!({ "requestTimeout": "2s" }));
    let mut client = Client::connect(address);
    let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\na";
    client.0.write_all(head).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(client.send("b").unwrap().status, 200);
    client.0.set_nonblocking(true).unwrap();
    assert!(client.0.read(&mut [0]).is_err(), "the connection stays");
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    let mut proxy = Proxy::start(1);
    for (options, path) in [
        (json!({ "maxHeadersCount": 0 }), "max_headers_count"),
        (json!({ "maxStreamDuration": "1s" }), "max_stream_duration"),
    ] {
        let listener = http_listener("l", free_address(), common(options));
        let rejected = proxy.send(ResourceType::Listener, &[listener]);
        let path =
            format!("filter_chains[0].filters[0].typed_config.common_http_protocol_options.{path}");
        assert!(
            rejected.len() == 1 && rejected[0].reason.starts_with(&path),
            "{path}: {rejected:?}"
        );
    }
}
