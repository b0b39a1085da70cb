//! TCP through the whole proxy.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use lateen_xds::ResourceType;
use serde_json::{Value, json};

use crate::http1::script::{Script, read_head};
use crate::support::{PATIENCE, Proxy, free_address, merge, socket_address, wait_for_listener};

/// An upstream that echoes and, when the client is done, says how much it got.
fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut total = 0;
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    total += count;
                    if stream.write_all(&buffer[..count]).is_err() {
                        return;
                    }
                }
                let _ = stream.write_all(format!("[{total}]").as_bytes());
            });
        }
    });
    address
}

fn listener(proxy: &mut Proxy, target: Value) -> SocketAddr {
    let address = free_address();
    let mut filter = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "statPrefix": "t",
    });
    merge(&mut filter, target);
    proxy.accept(
        ResourceType::Listener,
        &[json!({
            "name": "tcp",
            "address": socket_address(address),
            "filterChains": [{ "filters": [{ "name": "tcp", "typedConfig": filter }] }],
        })],
    );
    wait_for_listener(address);
    address
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn bytes_pass_and_each_direction_ends_by_itself() {
    let mut proxy = Proxy::start(1);
    proxy.cluster("c", &[echo_server()], json!({}));
    let address = listener(&mut proxy, json!({ "cluster": "c" }));
    let mut stream = connect(address);
    stream.write_all(b"hello").unwrap();
    let mut echoed = [0; 5];
    stream.read_exact(&mut echoed).unwrap();
    assert_eq!(&echoed, b"hello");
    stream.shutdown(Shutdown::Write).unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "[5]", "the answer after the client's end");
}

#[test]
fn idle_connections_are_closed() {
    let mut proxy = Proxy::start(1);
    proxy.cluster("c", &[echo_server()], json!({}));
    let address = listener(&mut proxy, json!({ "cluster": "c", "idleTimeout": "0.2s" }));
    let mut stream = connect(address);
    assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
}

#[test]
fn connections_are_closed_when_there_is_nowhere_to_go() {
    let mut proxy = Proxy::start(1);
    proxy.cluster("nobody", &[free_address()], json!({}));
    proxy.cluster("empty", &[], json!({}));
    for cluster in ["nobody", "empty", "missing"] {
        let address = listener(&mut proxy, json!({ "cluster": cluster }));
        let mut stream = connect(address);
        stream
            .set_read_timeout(Some(Duration::from_secs(3)))
            .unwrap();
        assert!(matches!(stream.read(&mut [0; 1]), Ok(0)), "{cluster}");
    }
}

#[test]
fn weights_are_drawn_per_connection() {
    let (one, two) = (echo_server(), echo_server());
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[one], json!({}));
    proxy.cluster("two", &[two], json!({}));
    let weighted = json!({ "weightedClusters": { "clusters": [
        { "name": "one", "weight": 1 }, { "name": "two", "weight": 1 },
    ]}});
    let address = listener(&mut proxy, weighted);
    for _ in 0..20 {
        let mut stream = connect(address);
        stream.write_all(b"x").unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 1);
    }
}

#[test]
fn connections_live_only_so_long_and_are_logged_on_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut proxy = Proxy::start(1);
    proxy.cluster("up", &[echo_server()], json!({}));
    let log = json!({ "name": "file", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": path,
        "logFormat": { "textFormatSource": { "inlineString": "%ACCESS_LOG_TYPE% %BYTES_SENT% %RESPONSE_FLAGS%\n" } },
    }});
    let address = listener(
        &mut proxy,
        json!({
            "cluster": "up", "accessLog": [log], "maxDownstreamConnectionDuration": "0.6s",
            "accessLogOptions": { "accessLogFlushInterval": "0.2s", "flushAccessLogOnConnected": true },
        }),
    );
    let mut client = connect(address);
    client.write_all(b"hello").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    let lines = || std::fs::read_to_string(&path).unwrap_or_default();
    crate::support::eventually(|| lines().contains("TcpConnectionEnd 5 DT\n"));
    let text = lines();
    assert!(text.contains("TcpUpstreamConnected 0 -\n"), "{text}");
    assert!(text.contains("TcpPeriodic 5 -\n"), "{text}");
}

#[test]
fn what_is_not_implemented_is_refused_with_its_path() {
    let mut proxy = Proxy::start(1);
    for (field, value) in [
        ("onDemand", json!({})),
        ("metadataMatch", json!({})),
        ("accessLogOptions", json!({ "flushAccessLogOnStart": true })),
        (
            "maxDownstreamConnectionDurationJitterPercentage",
            json!({ "value": 5 }),
        ),
    ] {
        let mut filter = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "statPrefix": "t", "cluster": "up",
        });
        filter[field] = value;
        let listener = json!({
            "name": "tcp", "address": socket_address(free_address()),
            "filterChains": [{ "filters": [{ "name": "tcp", "typedConfig": filter }] }],
        });
        let rejected = proxy.send(ResourceType::Listener, &[listener]);
        let snake: String = field
            .chars()
            .flat_map(|c| {
                let lower = c.to_ascii_lowercase();
                [Some('_').filter(|_| c.is_ascii_uppercase()), Some(lower)]
            })
            .flatten()
            .collect();
        let path = format!("filter_chains[0].filters[0].typed_config.{snake}");
        assert!(
            rejected.len() == 1 && rejected[0].reason.starts_with(&path),
            "{path}: {rejected:?}"
        );
    }
}

/// What the endpoint of a tunnel is asked, and what it gets when it answers so.
#[track_caller]
fn check_tunnel(settings: Value, asked: &str, answer: &'static str, gets: &str, client_gets: &str) {
    let endpoint = Script::start(move |mut stream, _| {
        let head = read_head(&mut stream)?;
        stream.write_all(answer.as_bytes())?;
        let mut all = head.into_bytes();
        stream.read_to_end(&mut all)?;
        Ok(all)
    });
    let mut proxy = Proxy::start(1);
    proxy.cluster("c", &[endpoint.address], json!({}));
    let tunnel = json!({ "cluster": "c", "tunnelingConfig": settings });
    let address = listener(&mut proxy, tunnel);
    // From the connection that saw that somebody listens.
    endpoint.next();
    let mut stream = connect(address);
    stream.write_all(b"hello").unwrap();
    // A tunnel that was refused may be gone by then.
    let _ = stream.shutdown(Shutdown::Write);
    let mut all = String::new();
    let _ = stream.read_to_string(&mut all);
    let found = String::from_utf8(endpoint.next()).unwrap();
    assert_eq!(found, format!("{asked}{gets}"));
    assert_eq!(all, client_gets, "{answer}");
}

#[test]
fn connections_go_through_tunnels() {
    let connect = || json!({ "hostname": "a.test:80", "headersToAdd": [{ "header": { "key": "x-a", "value": "b" } }] });
    let asked = "CONNECT a.test:80 HTTP/1.1\r\nhost: a.test:80\r\nx-a: b\r\n\r\n";
    let agreed = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nearly";
    check_tunnel(connect(), asked, agreed, "hello", "early");
    let refused = "HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno";
    check_tunnel(connect(), asked, refused, "", "");
    let post = json!({ "hostname": "a.test:80", "usePost": true, "postPath": "/x" });
    let asked = "POST /x HTTP/1.1\r\nhost: a.test:80\r\ntransfer-encoding: chunked\r\n\r\n";
    let agreed = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly";
    check_tunnel(post, asked, agreed, "5\r\nhello\r\n0\r\n\r\n", "early");
}
