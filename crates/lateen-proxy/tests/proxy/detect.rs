//! Which filter chain serves a connection, by its first bytes.

use std::io::{Read, Write};
use std::net::TcpListener;

use lateen_xds::ResourceType;
use serde_json::json;

use crate::support::{
    Client, Proxy, Upstream, free_address, get, http_filter, socket_address, to, wait_for_listener,
};

#[test]
fn http_and_other_bytes_share_a_port() {
    let upstream = Upstream::start("http");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp_address = tcp.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut bytes = [0; 6];
            if stream.read_exact(&mut bytes).is_ok() {
                let _ = stream.write_all(&bytes);
            }
        }
    });
    let mut proxy = Proxy::start(1);
    proxy.cluster("http", &[upstream.address], json!({}));
    proxy.cluster("tcp", &[tcp_address], json!({}));
    let address = free_address();
    let inspector = json!({ "name": "http", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
    }});
    proxy.accept(ResourceType::Listener, &[json!({
        "name": "l",
        "address": socket_address(address),
        "listenerFilters": [inspector],
        "listenerFiltersTimeout": "0s",
        "continueOnListenerFiltersTimeout": true,
        "filterChains": [{
            "filterChainMatch": { "transportProtocol": "raw_buffer", "applicationProtocols": ["http/1.1", "h2c"] },
            "filters": [http_filter(json!({}))],
        }],
        "defaultFilterChain": { "filters": [{ "name": "tcp", "typedConfig": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "statPrefix": "t", "cluster": "tcp",
        }}]},
    })]);
    let hosts = json!([{ "name": "a", "domains": ["*"], "routes": [to("http", json!({}))] }]);
    proxy.accept(
        ResourceType::Route,
        &[json!({ "name": "r", "virtualHosts": hosts })],
    );
    wait_for_listener(address);
    assert_eq!(get(address, "/", &[]).name(), "http");
    let mut client = Client::connect(address);
    client.0.write_all(b"\x16\x03\x01abc").unwrap();
    let mut echoed = [0; 6];
    client.0.read_exact(&mut echoed).unwrap();
    assert_eq!(&echoed, b"\x16\x03\x01abc");
}

#[test]
fn a_connection_without_a_chain_is_closed() {
    let mut proxy = Proxy::start(1);
    let address = free_address();
    proxy.accept(
        ResourceType::Listener,
        &[json!({
            "name": "l",
            "address": socket_address(address),
            "filterChains": [{
                "filterChainMatch": { "destinationPort": 1 },
                "filters": [http_filter(json!({}))],
            }],
        })],
    );
    proxy.accept(ResourceType::Route, &[json!({ "name": "r" })]);
    wait_for_listener(address);
    assert!(Client::connect(address).is_closed());
}

#[test]
fn chains_with_the_same_conditions_are_refused() {
    let mut proxy = Proxy::start(1);
    let chain = json!({
        "filterChainMatch": { "transportProtocol": "raw_buffer" },
        "filters": [http_filter(json!({}))],
    });
    let rejected = proxy.send(
        ResourceType::Listener,
        &[json!({
            "name": "l",
            "address": socket_address(free_address()),
            "filterChains": [chain, chain],
        })],
    );
    assert!(
        rejected[0].reason.contains("same matching rules"),
        "{rejected:?}"
    );
}
