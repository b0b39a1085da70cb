//! TCP through the whole proxy.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use lateen_xds::ResourceType;
use serde_json::{Value, json};

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
        ("tunnelingConfig", json!({ "hostname": "a:1" })),
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
