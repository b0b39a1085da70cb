//! HTTP through the whole proxy: routing, headers, local replies, versions, retries and limits.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::support::{Client, Proxy, Upstream, free_address, get, to};
use lateen_xds::ResourceType;
use serde_json::{Value, json};

#[test]
fn routes_choose_the_cluster_by_header_path_and_host() {
    let (one, two, three) = (
        Upstream::start("one"),
        Upstream::start("two"),
        Upstream::start("three"),
    );
    let mut proxy = Proxy::start(1);
    for (name, upstream) in [("one", &one), ("two", &two), ("three", &three)] {
        proxy.cluster(name, &[upstream.address], json!({}));
    }
    let mut by_header = to("two", json!({}));
    by_header["match"]["headers"] =
        json!([{ "name": "target", "stringMatch": { "exact": "two" } }]);
    let mut by_path = to("three", json!({ "prefixRewrite": "/new" }));
    by_path["match"] = json!({ "prefix": "/old" });
    let hosts = json!([
        { "name": "special", "domains": ["special.test"], "routes": [to("three", json!({}))] },
        { "name": "all", "domains": ["*"], "routes": [by_header, by_path, to("one", json!({}))] },
    ]);
    let address = proxy.http_hosts(hosts, json!({}));
    for (path, headers, name, upstream_path) in [
        ("/", &[][..], "one", "/"),
        ("/", &["target: two"][..], "two", "/"),
        ("/", &["target: three"][..], "one", "/"),
        ("/old/x?y=1", &[][..], "three", "/new/x?y=1"),
        ("/a/../old", &[][..], "one", "/a/../old"),
        ("/", &["host: special.test"][..], "three", "/"),
    ] {
        let answer = get(address, path, headers);
        assert_eq!(answer.status, 200);
        assert_eq!(
            (
                answer.name().as_str(),
                answer.seen()["path"].as_str().unwrap()
            ),
            (name, upstream_path)
        );
    }
}

#[test]
fn paths_are_normalised_before_they_are_matched() {
    let upstream = Upstream::start("one");
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[upstream.address], json!({}));
    let mut secret =
        json!({ "match": { "prefix": "/secret" }, "directResponse": { "status": 403 } });
    secret["name"] = json!("secret");
    let address = proxy.http(
        json!([secret, to("one", json!({}))]),
        json!({ "normalizePath": true }),
    );
    for path in ["/secret", "/x/../secret", "/%73ecret", "/x/%2e%2e/secret"] {
        assert_eq!(get(address, path, &[]).status, 403, "{path}");
    }
    assert_eq!(get(address, "/x/./y", &[]).seen()["path"], "/x/y");
}

#[test]
fn headers_tell_about_the_path_of_a_request() {
    let upstream = Upstream::start("one");
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[upstream.address], json!({}));
    let hosts = json!([{
        "name": "all", "domains": ["*"], "includeRequestAttemptCount": true, "routes": [to("one", json!({}))],
    }]);
    let more = json!({ "useRemoteAddress": true, "serverName": "istio-envoy", "tracing": {} });
    let address = proxy.http_hosts(hosts, more);
    let answer = get(
        address,
        "/",
        &[
            "x-envoy-original-path: /forged",
            "x-request-id: forged",
            "connection: x-hop",
            "x-hop: 1",
        ],
    );
    assert_eq!(answer.header("server"), Some("istio-envoy"));
    assert!(
        answer
            .header("x-envoy-upstream-service-time")
            .unwrap()
            .parse::<u32>()
            .is_ok()
    );
    assert!(answer.header("date").is_some());
    let headers = &answer.seen()["headers"];
    let header = |name: &str| headers[name].as_str().unwrap_or("").to_owned();
    assert_eq!(header("x-forwarded-for"), "127.0.0.1");
    assert_eq!(header("x-forwarded-proto"), "http");
    assert_eq!(header("x-envoy-attempt-count"), "1");
    assert_eq!(header("x-envoy-original-path"), "");
    assert_eq!(header("x-hop"), "");
    let id = header("x-request-id");
    assert_eq!((id.len(), &id[14..15]), (36, "9"), "{id}");
    let (trace, span) = (header("x-b3-traceid"), header("x-b3-spanid"));
    assert_eq!((trace.len(), span.len()), (32, 16));
    assert_eq!(trace[16..], span);
    assert_eq!(header("x-b3-sampled"), "1");

    let context = [
        format!("x-b3-traceid: {trace}"),
        format!("x-b3-spanid: {span}"),
    ];
    let answer = get(address, "/", &[&context[0], &context[1]]);
    let headers = &answer.seen()["headers"];
    assert_eq!(headers["x-b3-traceid"], json!(trace));
    assert_eq!(headers["x-b3-parentspanid"], json!(span));
    assert_ne!(headers["x-b3-spanid"], json!(span));
}

#[test]
fn inside_the_mesh_ids_are_kept() {
    let upstream = Upstream::start("one");
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[upstream.address], json!({}));
    let address = proxy.http(json!([to("one", json!({}))]), json!({}));
    let answer = get(
        address,
        "/",
        &["x-request-id: mine", "x-forwarded-for: 1.2.3.4"],
    );
    let headers = &answer.seen()["headers"];
    assert_eq!(headers["x-request-id"], "mine");
    assert_eq!(headers["x-forwarded-for"], "1.2.3.4");
    assert_eq!(answer.header("server"), Some("envoy"));
}

#[test]
fn answers_of_the_proxy_have_envoys_words() {
    let mut proxy = Proxy::start(1);
    let nobody = free_address();
    proxy.cluster("nobody", &[nobody], json!({}));
    proxy.cluster("empty", &[], json!({}));
    proxy.cluster(
        "full",
        &[nobody],
        json!({
            "circuitBreakers": { "thresholds": [{ "maxRequests": 0 }] },
        }),
    );
    let at = |path: &str, action: Value| json!({ "match": { "path": path }, "route": action });
    let routes = json!([
        at("/nobody", json!({ "cluster": "nobody" })),
        at("/retried", json!({
            "cluster": "nobody",
            "retryPolicy": { "retryOn": "connect-failure", "numRetries": 2 },
        })),
        at("/empty", json!({ "cluster": "empty" })),
        at("/missing", json!({ "cluster": "missing" })),
        at("/full", json!({ "cluster": "full" })),
        { "match": { "path": "/direct" }, "directResponse": { "status": 418, "body": { "inlineString": "tea" } } },
        { "match": { "path": "/redirect" }, "redirect": { "hostRedirect": "other.test", "pathRedirect": "/x" } },
    ]);
    let address = proxy.http(routes, json!({}));
    let connect = "upstream connect error or disconnect/reset before headers";
    for (path, status, body) in [
        ("/none", 404, String::new()),
        (
            "/nobody",
            503,
            format!("{connect}. reset reason: remote connection failure"),
        ),
        (
            "/retried",
            503,
            format!("{connect}. retried and the latest reset reason: remote connection failure"),
        ),
        ("/empty", 503, "no healthy upstream".to_owned()),
        ("/missing", 503, String::new()),
        ("/full", 503, format!("{connect}. reset reason: overflow")),
        ("/direct", 418, "tea".to_owned()),
        ("/redirect", 301, String::new()),
    ] {
        let answer = get(address, path, &[]);
        assert_eq!((answer.status, &answer.body), (status, &body), "{path}");
        assert_eq!(answer.header("server"), Some("envoy"));
        match path {
            "/full" => assert_eq!(answer.header("x-envoy-overloaded"), Some("true")),
            "/redirect" => assert_eq!(answer.header("location"), Some("http://other.test/x")),
            _ => {}
        }
        if !body.is_empty() {
            assert_eq!(answer.header("content-type"), Some("text/plain"));
        }
    }
    let grpc = get(address, "/empty", &["content-type: application/grpc"]);
    assert_eq!((grpc.status, grpc.header("grpc-status")), (200, Some("14")));
    assert_eq!(grpc.header("grpc-message"), Some("no healthy upstream"));
}

#[test]
fn failed_attempts_are_tried_again_with_the_same_body() {
    let upstream = Upstream::start("one");
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[upstream.address], json!({}));
    let policy = json!({ "retryPolicy": { "retryOn": "5xx", "numRetries": 2 } });
    let address = proxy.http(json!([to("one", policy)]), json!({}));
    let body = "x".repeat(5000);
    let answer = Client::connect(address)
        .send(&format!(
            "POST /?fail=2 HTTP/1.1\r\nhost: a\r\ncontent-length: 5000\r\n\r\n{body}"
        ))
        .unwrap();
    assert_eq!((answer.status, upstream.count()), (200, 3));
    assert_eq!(answer.seen()["body"], 5000);
    let answer = get(address, "/?fail=9", &[]);
    assert_eq!((answer.status, upstream.count()), (503, 6));
}

#[test]
fn responses_that_take_too_long_are_given_up() {
    let upstream = Upstream::start("one");
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[upstream.address], json!({}));
    let address = proxy.http(json!([to("one", json!({ "timeout": "0.2s" }))]), json!({}));
    let answer = get(address, "/?sleep=5000", &[]);
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (504, "upstream request timeout")
    );
    assert_eq!(
        get(address, "/?sleep=1", &[]).seen()["headers"]["x-envoy-expected-rq-timeout-ms"],
        "200"
    );
}

/// One request over HTTP/2 with prior knowledge.
async fn http2_get(address: std::net::SocketAddr, path: &str) -> (u16, Value) {
    use http_body_util::{BodyExt, Empty};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::get(format!("http://test{path}"))
        .body(Empty::<bytes::Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

#[test]
fn both_versions_are_spoken_on_both_sides() {
    let client = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let upstream = Upstream::start("one");
    let mut proxy = Proxy::start(1);
    let protocol = |kind: Value| {
        let mut options = json!({
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        });
        crate::support::merge(&mut options, kind);
        json!({ "typedExtensionProtocolOptions": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options,
        }})
    };
    proxy.cluster("h1", &[upstream.address], json!({}));
    let http2 = json!({ "explicitHttpConfig": { "http2ProtocolOptions": {} } });
    proxy.cluster("h2", &[upstream.address], protocol(http2));
    let same = json!({ "useDownstreamProtocolConfig": { "httpProtocolOptions": {}, "http2ProtocolOptions": {} } });
    proxy.cluster("same", &[upstream.address], protocol(same));
    let routes: Vec<_> = ["h1", "h2", "same"]
        .iter()
        .map(
            |name| json!({ "match": { "path": format!("/{name}") }, "route": { "cluster": name } }),
        )
        .collect();
    let address = proxy.http(json!(routes), json!({}));
    for (path, from1, from2) in [
        ("/h1", "HTTP/1.1", "HTTP/1.1"),
        ("/h2", "HTTP/2.0", "HTTP/2.0"),
        ("/same", "HTTP/1.1", "HTTP/2.0"),
    ] {
        assert_eq!(get(address, path, &[]).seen()["version"], from1, "{path}");
        let (status, seen) = client.block_on(http2_get(address, path));
        assert_eq!(
            (status, seen["version"].as_str()),
            (200, Some(from2)),
            "{path}"
        );
    }
}

#[test]
fn requests_with_doubtful_framing_are_refused() {
    let upstream = Upstream::start("one");
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[upstream.address], json!({}));
    let address = proxy.http(json!([to("one", json!({}))]), json!({}));
    let post = |fields: &str| format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
    let codings = [
        "xchunked",
        "chunked, identity",
        "gzip, chunked",
        "chunked, chunked",
        "chunked;q=1",
        "identity",
        "\x0bchunked",
    ];
    let lengths = [
        "3\r\ncontent-length: 4",
        "3\r\ncontent-length: 3",
        "3, 3",
        "+3",
        "-3",
        "0x3",
        "3 3",
        "99999999999999999999",
        "",
    ];
    let heads = [
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nbad header: x\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length : 3\r\n\r\nabc",
        "FETCH / HTTP/1.1\r\nhost: a\r\n\r\n",
    ];
    let mut requests: Vec<(String, u16)> = heads.map(|head| (head.to_owned(), 400)).into();
    for length in lengths {
        requests.push((post(&format!("content-length: {length}\r\n")) + "abc", 400));
    }
    for (index, coding) in codings.iter().enumerate() {
        // Control characters stand in no field.
        let status = if index + 1 < codings.len() { 501 } else { 400 };
        let body = "0\r\n\r\n";
        requests.push((
            post(&format!("transfer-encoding: {coding}\r\n")) + body,
            status,
        ));
    }
    let two = "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n";
    requests.push((post(two) + "0\r\n\r\n", 501));
    for version in ["HTTP/1.0", "HTTP/1.2", "HTTP/2.0"] {
        requests.push((format!("GET / {version}\r\nhost: a\r\n\r\n"), 426));
    }
    for (request, status) in requests {
        let mut client = Client::connect(address);
        // What follows is no request of its own.
        let smuggled = format!("{request}GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n");
        let answer = client.send(&smuggled).unwrap();
        assert_eq!(answer.status, status, "{request}");
        assert_eq!(answer.header("server"), Some("envoy"), "{request}");
        assert!(client.is_closed(), "{request}");
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_body_is_framed_once() {
    let upstream = Upstream::start("one");
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[upstream.address], json!({}));
    let address = proxy.http(json!([to("one", json!({}))]), json!({}));
    // A length beside chunks would let the next hop end the body elsewhere.
    let smuggled = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n\
        0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut client = Client::connect(address);
    let answer = client.send(smuggled).unwrap();
    assert_eq!((answer.status, upstream.count()), (400, 0));
    assert!(client.is_closed());
}

#[test]
fn heads_that_are_too_large_are_refused() {
    let upstream = Upstream::start("one");
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[upstream.address], json!({}));
    let address = proxy.http(json!([to("one", json!({}))]), json!({}));
    let lines: String = (0..150).map(|n| format!("x-{n}: 1\r\n")).collect();
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{lines}\r\n");
    let large = format!(
        "GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
        "y".repeat(70_000)
    );
    for request in [many, large] {
        let mut client = Client::connect(address);
        let _ = client.0.write_all(request.as_bytes());
        let answer = client.read(false).unwrap();
        assert_eq!(answer.status, 431);
    }
    assert_eq!(get(address, "/", &["x: y"]).status, 200);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_websocket_passes_after_the_upstream_switched() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
            .unwrap();
        let mut message = [0; 4];
        stream.read_exact(&mut message).unwrap();
        stream.write_all(&message).unwrap();
        String::from_utf8(head).unwrap().to_ascii_lowercase()
    });
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[upstream], json!({}));
    let address = proxy.http(
        json!([to("one", json!({}))]),
        json!({ "upgradeConfigs": [{ "upgradeType": "websocket" }] }),
    );
    let mut client = Client::connect(address);
    let answer = client
        .get("/", &["connection: Upgrade", "upgrade: websocket"])
        .unwrap();
    assert_eq!(
        (answer.status, answer.header("upgrade")),
        (101, Some("websocket"))
    );
    client.0.write_all(b"ping").unwrap();
    let mut echoed = [0; 4];
    client.0.read_exact(&mut echoed).unwrap();
    assert_eq!(&echoed, b"ping");
    assert!(server.join().unwrap().contains("upgrade: websocket"));

    let refused = get(address, "/", &["connection: Upgrade", "upgrade: other"]);
    assert_eq!(refused.status, 403);
}

#[test]
fn access_log_lines_have_istios_format() {
    let upstream = Upstream::start("one");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[upstream.address], json!({}));
    let format = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
        %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
        \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
        %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
        \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% \
        %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% \
        %ROUTE_NAME%\n";
    let log = json!([{ "name": "file", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": path,
        "logFormat": { "textFormatSource": { "inlineString": format } },
    }}]);
    let mut named = to("one", json!({}));
    named["match"] = json!({ "path": "/a" });
    named["name"] = json!("default");
    let address = proxy.http(json!([named]), json!({ "accessLog": log }));
    get(address, "/a", &["user-agent: test/1", "x-request-id: id"]);
    get(address, "/none", &["x-request-id: id2"]);
    let mut lines = Vec::new();
    crate::support::eventually(|| {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        lines = text.lines().map(str::to_owned).collect();
        lines.len() == 2
    });
    let words: Vec<_> = lines[0].split(' ').collect();
    let upstream = upstream.address.to_string();
    assert_eq!(
        &words[1..9],
        [
            "\"GET",
            "/a",
            "HTTP/1.1\"",
            "200",
            "-",
            "via_upstream",
            "-",
            "\"-\""
        ]
    );
    assert_eq!(words[9], "0", "received");
    assert!(words[10].parse::<u32>().unwrap() > 50, "sent");
    assert_eq!(
        &words[13..17],
        ["\"-\"", "\"test/1\"", "\"id\"", "\"test\""]
    );
    assert_eq!(&words[17..19], [format!("\"{upstream}\"").as_str(), "one"]);
    assert_eq!(words[20], address.to_string());
    assert_eq!(&words[22..], ["-", "default"]);
    assert!(
        lines[1].contains("\" 404 NR route_not_found - \"-\" 0 0 "),
        "{}",
        lines[1]
    );
}

#[test]
fn resources_that_are_not_understood_are_refused_with_their_path() {
    let mut proxy = Proxy::start(1);
    for (kind, resource, path) in [
        (
            ResourceType::Route,
            json!({ "name": "r", "virtualHosts": [{ "name": "a", "domains": ["*"], "routes": [
                { "match": { "prefix": "/" }, "route": { "cluster": "c", "hedgePolicy": { "hedgeOnPerTryTimeout": true } } },
            ]}]}),
            "virtual_hosts[0].routes[0].route.hedge_policy",
        ),
        (
            ResourceType::Route,
            json!({ "name": "r", "virtualHosts": [
                { "name": "a", "domains": ["*"] }, { "name": "b", "domains": ["x", "*"] },
            ]}),
            "virtual_hosts[1].domains[1]",
        ),
        (
            ResourceType::Cluster,
            json!({ "name": "c", "type": "STATIC", "healthChecks": [{}] }),
            "health_checks",
        ),
        (
            ResourceType::Cluster,
            json!({ "name": "c", "type": "STATIC", "transportSocket": { "name": "tls", "typedConfig": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "allowRenegotiation": true,
            }}}),
            "transport_socket.typed_config.allow_renegotiation",
        ),
        (
            ResourceType::Listener,
            crate::support::http_listener("l", free_address(), json!({ "addUserAgent": true })),
            "filter_chains[0].filters[0].typed_config.add_user_agent",
        ),
    ] {
        let rejected = proxy.send(kind, &[resource]);
        assert_eq!(rejected.len(), 1, "{path}");
        assert!(
            rejected[0].reason.starts_with(path),
            "{}: {}",
            path,
            rejected[0].reason
        );
    }
}
