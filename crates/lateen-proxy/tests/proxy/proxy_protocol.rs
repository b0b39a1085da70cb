//! PROXY headers: what endpoints are told, and what clients may say.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use lateen_xds::ResourceType;
use serde_json::{Value, json};

use crate::support::{
    Answer, Client, PATIENCE, Proxy, Upstream, cluster, eventually, free_address, get, http_filter,
    http_listener, merge, socket_address, to, wait_for_listener,
};
use crate::tls_support::{Authority, transport};

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// An upstream that takes a PROXY header off each connection and answers requests with it, in text or hexadecimal, and
/// with the connection's number.
fn told_upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let Ok(stream) = stream else { return };
            std::thread::spawn(move || answer_with_header(stream, number));
        }
    });
    address
}

fn answer_with_header(mut stream: TcpStream, number: usize) -> Option<()> {
    let mut until = |end: &dyn Fn(&[u8]) -> bool| -> Option<(Vec<u8>, TcpStream)> {
        let mut bytes = Vec::new();
        let mut byte = [0];
        while !end(&bytes) {
            stream.read_exact(&mut byte).ok()?;
            bytes.push(byte[0]);
        }
        Some((bytes, stream.try_clone().ok()?))
    };
    let (header, _) = until(&|bytes| {
        if bytes.starts_with(b"PROXY ") {
            bytes.ends_with(b"\r\n")
        } else {
            bytes.len() >= 16 && bytes.len() == 16 + usize::from(bytes[15])
        }
    })?;
    let shown = match header.strip_prefix(V2) {
        Some(rest) => rest.iter().map(|byte| format!("{byte:02x}")).collect(),
        None => String::from_utf8_lossy(&header).trim_end().to_owned(),
    };
    loop {
        let (_, mut stream) = until(&|bytes| bytes.ends_with(b"\r\n\r\n"))?;
        let body = format!("{number} {shown}");
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).ok()?;
    }
}

/// A cluster whose connections begin with a header.
fn telling(name: &str, address: SocketAddr, version: &str, inner: Value) -> Value {
    let socket = json!({ "name": "proxy", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
        "config": { "version": version },
        "transportSocket": inner,
    }});
    cluster(name, &[address], json!({ "transportSocket": socket }))
}

fn plain() -> Value {
    json!({ "name": "raw", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
    }})
}

/// A number of the proxy's by its name and labels.
fn metric(proxy: &Proxy, name: &str) -> Option<u64> {
    let all = proxy.engine.metrics();
    let value = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
    all.lines().find_map(value)
}

/// The header of version 2 for two ends, without its signature.
fn v2(source: SocketAddr, destination: SocketAddr) -> String {
    let ip = |end: SocketAddr| match end {
        SocketAddr::V4(end) => end.ip().octets().map(|byte| format!("{byte:02x}")).concat(),
        SocketAddr::V6(_) => panic!("loopback is IPv4 here"),
    };
    format!(
        "2111000c{}{}{:04x}{:04x}",
        ip(source),
        ip(destination),
        source.port(),
        destination.port()
    )
}

fn v1(source: SocketAddr, destination: SocketAddr) -> String {
    format!(
        "PROXY TCP4 {} {} {} {}",
        source.ip(),
        destination.ip(),
        source.port(),
        destination.port()
    )
}

#[test]
fn endpoints_are_told_whose_requests_follow_and_clients_do_not_mix() {
    let upstream = told_upstream();
    let mut proxy = Proxy::start(1);
    let address = proxy.http(json!([to("c", json!({}))]), json!({}));
    for (version, header) in [
        ("V1", v1 as fn(SocketAddr, SocketAddr) -> String),
        ("V2", v2),
    ] {
        let resource = telling("c", upstream, version, plain());
        proxy.accept(ResourceType::Cluster, &[resource]);
        let (mut one, mut two) = (Client::connect(address), Client::connect(address));
        let ask = |client: &mut Client| {
            let own = client.0.local_addr().unwrap();
            let body = client.get("/", &[]).unwrap().body;
            let (number, told) = body.split_once(' ').unwrap();
            assert_eq!(told, header(own, address));
            number.parse::<usize>().unwrap()
        };
        let first = ask(&mut one);
        assert_eq!(ask(&mut one), first, "a client's connection is used again");
        let second = ask(&mut two);
        assert_ne!(first, second);
        assert_eq!(ask(&mut one), first);
        assert_eq!(ask(&mut two), second);
        // They are nobody else's, so they end with the client.
        drop((one, two));
        eventually(|| {
            let active = "envoy_cluster_upstream_cx_active{cluster_name=\"c\"}";
            metric(&proxy, active) == Some(0)
        });
    }
}

#[test]
fn connections_of_nobody_say_so() {
    let upstream = told_upstream();
    let mut proxy = Proxy::start(1);
    let more = json!({ "addProxyProtocolConnectionState": false });
    let address = proxy.http(json!([to("c", json!({}))]), more);
    proxy.accept(
        ResourceType::Cluster,
        &[telling("c", upstream, "V2", plain())],
    );
    let numbers = [(); 2].map(|()| {
        let body = get(address, "/", &[]).body;
        body.strip_suffix(" 20000000").map(str::to_owned)
    });
    assert!(numbers[0].is_some());
    assert_eq!(numbers[0], numbers[1], "anybody's requests may share it");
    // Version 1 knows no such thing: the header names the ends of the connection itself.
    proxy.accept(
        ResourceType::Cluster,
        &[telling("c", upstream, "V1", plain())],
    );
    let body = get(address, "/", &[]).body;
    let end = format!(" 127.0.0.1 127.0.0.1 {{}} {}", upstream.port());
    let (start, rest) = end.split_once(" {}").unwrap();
    assert!(body.contains(&format!("PROXY TCP4{start}")), "{body}");
    assert!(body.ends_with(rest), "{body}");
}

#[test]
fn tcp_connections_are_announced() {
    let upstream = told_upstream();
    let mut proxy = Proxy::start(1);
    proxy.accept(
        ResourceType::Cluster,
        &[telling("c", upstream, "V1", plain())],
    );
    let address = free_address();
    let filter = json!({ "name": "tcp", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "statPrefix": "t", "cluster": "c",
    }});
    proxy.accept(
        ResourceType::Listener,
        &[json!({
            "name": "tcp", "address": socket_address(address),
            "filterChains": [{ "filters": [filter] }],
        })],
    );
    wait_for_listener(address);
    let mut client = Client::connect(address);
    let own = client.0.local_addr().unwrap();
    let body = client.get("/", &[]).unwrap().body;
    assert!(body.ends_with(&v1(own, address)), "{body}");
}

/// A listener that takes PROXY headers, with a route that shows what the proxy knows of the connection.
fn accepting(proxy: &mut Proxy, filter: Value, chain: Value) -> SocketAddr {
    let upstream = Upstream::start("up");
    proxy.cluster("shown", &[upstream.address], json!({}));
    // The upstream lives as long as the test's process.
    std::mem::forget(upstream);
    let address = free_address();
    let mut typed = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
    });
    merge(&mut typed, filter);
    let mut route = to("shown", json!({}));
    route["requestHeadersToAdd"] = json!([{ "header": {
        "key": "x-ends",
        "value": "%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
    }}]);
    let routes = json!({
        "rds": null,
        "useRemoteAddress": true,
        "routeConfig": { "virtualHosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] },
    });
    let mut filters = http_filter(json!({}));
    filters["typedConfig"]
        .as_object_mut()
        .unwrap()
        .remove("rds");
    let mut routes = routes;
    routes.as_object_mut().unwrap().remove("rds");
    merge(&mut filters["typedConfig"], routes);
    let mut chain_json = json!({ "filters": [filters] });
    merge(&mut chain_json, chain);
    proxy.accept(
        ResourceType::Listener,
        &[json!({
            "name": format!("proxied-{}", address.port()), "address": socket_address(address),
            "listenerFiltersTimeout": "1s",
            "listenerFilters": [
                { "name": "proxy", "typedConfig": typed },
                { "name": "tls", "typedConfig": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
                }},
            ],
            "filterChains": [chain_json],
        })],
    );
    wait_for_listener(address);
    address
}

/// What is known of a connection that begins with these bytes; nothing when it is closed.
fn ends(address: SocketAddr, header: &[u8], split: bool) -> Option<(Answer, SocketAddr)> {
    let mut client = Client::connect(address);
    client.0.set_nodelay(true).unwrap();
    let own = client.0.local_addr().unwrap();
    let (one, two) = header.split_at(if split { header.len() / 2 } else { 0 });
    client.0.write_all(one).ok()?;
    if split {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    client.0.write_all(two).ok()?;
    Some((client.get("/", &[]).ok()?, own))
}

#[test]
fn clients_are_who_their_header_says() {
    let mut proxy = Proxy::start(1);
    let required = accepting(&mut proxy, json!({ "statPrefix": "strict" }), json!({}));
    let optional = accepting(
        &mut proxy,
        json!({ "allowRequestsWithoutProxyProtocol": true, "disallowedVersions": ["V1"] }),
        json!({}),
    );
    let binary = |tail: &[u8]| [V2, tail].concat();
    let long = {
        // Types and values after the addresses are passed over, however many they are.
        let mut tail = vec![
            0x21, 0x11, 0xff, 0xff, 192, 0, 2, 9, 198, 51, 100, 7, 0, 7, 0, 80,
        ];
        tail.resize(4 + 0xffff, 4);
        binary(&tail)
    };
    let own = "OWN";
    for (address, header, expected) in [
        (
            required,
            b"PROXY TCP4 192.0.2.9 198.51.100.7 7 80\r\n".to_vec(),
            Some("192.0.2.9:7 198.51.100.7:80"),
        ),
        (
            required,
            b"PROXY TCP6 2001:db8::9 2001:db8::7 7 80\r\n".to_vec(),
            Some("[2001:db8::9]:7 [2001:db8::7]:80"),
        ),
        (required, b"PROXY UNKNOWN\r\n".to_vec(), Some(own)),
        (required, binary(&[0x20, 0, 0, 0]), Some(own)),
        (required, long, Some("192.0.2.9:7 198.51.100.7:80")),
        (required, Vec::new(), None),
        (required, b"PROXY TCP4 192.0.2.9\r\n".to_vec(), None),
        (required, binary(&[0x21, 0x11, 0, 4, 1, 2, 3, 4]), None),
        (optional, Vec::new(), Some(own)),
        (
            optional,
            binary(&[
                0x21, 0x11, 0, 12, 192, 0, 2, 9, 198, 51, 100, 7, 0, 7, 0, 80,
            ]),
            Some("192.0.2.9:7 198.51.100.7:80"),
        ),
    ] {
        for split in [false, true] {
            let begins = String::from_utf8_lossy(&header[..header.len().min(40)]).into_owned();
            let Some((answer, client)) = ends(address, &header, split) else {
                assert_eq!(expected, None, "{begins:?}");
                continue;
            };
            let seen = answer.seen();
            let shown = match expected {
                Some("OWN") => format!("{client} {address}"),
                other => other.unwrap_or_default().to_owned(),
            };
            assert_eq!(
                seen["headers"]["x-ends"],
                format!("{shown} 127.0.0.1"),
                "{begins:?}"
            );
            let ip = shown.split(' ').next().unwrap().rsplit_once(':').unwrap().0;
            assert_eq!(
                seen["headers"]["x-forwarded-for"],
                ip.trim_matches(['[', ']'])
            );
        }
    }
    // A version that is not recognised is content: here the first line of no request.
    let (answer, _) = ends(
        optional,
        b"PROXY TCP4 192.0.2.9 198.51.100.7 7 80\r\n",
        false,
    )
    .unwrap();
    assert_eq!(answer.status, 400);
    let strict = "{envoy_proxy_protocol_prefix=\"strict\"}";
    for (name, labels, expected) in [
        ("versions_v1_found", strict, 6),
        ("versions_v2_found", strict, 4),
        ("versions_v1_error", strict, 2),
        ("versions_v2_error", strict, 2),
        ("not_found_disallowed", strict, 2),
        ("not_found_allowed", "{}", 3),
        ("versions_v2_found", "{}", 2),
    ] {
        let full = format!("envoy_proxy_proto_{name}{labels}");
        assert_eq!(metric(&proxy, &full), Some(expected), "{full}");
    }
    // One that says nothing is closed when the time for the filters is up.
    let mut silent = TcpStream::connect(required).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    silent.write_all(b"PROXY TCP4 1").unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap_or(0), 0);
}

#[test]
fn the_header_comes_before_tls() {
    let authority = Authority::new("ours");
    let identity = authority.issue(&["a.test"]);
    let mut proxy = Proxy::start(1);
    let server = transport(
        "Downstream",
        json!({ "commonTlsContext": { "tlsCertificates": [identity.inline()] } }),
    );
    let inner = accepting(&mut proxy, json!({}), json!({ "transportSocket": server }));
    let client = transport(
        "Upstream",
        json!({ "commonTlsContext": { "validationContext": { "trustedCa": { "inlineString": authority.pem } } } }),
    );
    for version in ["V1", "V2"] {
        let resource = telling("c", inner, version, client.clone());
        proxy.accept(ResourceType::Cluster, &[resource]);
        let outer = free_address();
        let name = format!("outer-{version}");
        proxy.accept(
            ResourceType::Listener,
            &[http_listener(&name, outer, json!({}))],
        );
        let hosts = json!([{ "name": "all", "domains": ["*"], "routes": [to("c", json!({}))] }]);
        proxy.accept(
            ResourceType::Route,
            &[json!({ "name": "r", "virtualHosts": hosts })],
        );
        wait_for_listener(outer);
        let mut client = Client::connect(outer);
        let own = client.0.local_addr().unwrap();
        let seen = client.get("/", &[]).unwrap().seen();
        let expected = format!("{own} {outer} 127.0.0.1");
        assert_eq!(seen["headers"]["x-ends"], expected, "{version}");
    }
}

#[test]
fn what_is_not_implemented_is_refused_with_its_path() {
    let mut proxy = Proxy::start(1);
    let at = free_address();
    for (field, value, path) in [
        (
            "addedTlvs",
            json!([{ "type": 200, "value": "YQ==" }]),
            "config.added_tlvs",
        ),
        (
            "passThroughTlvs",
            json!({ "matchType": "INCLUDE_ALL" }),
            "config.pass_through_tlvs",
        ),
    ] {
        let mut resource = telling("c", at, "V2", plain());
        resource["transportSocket"]["typedConfig"]["config"][field] = value;
        let rejected = proxy.send(ResourceType::Cluster, &[resource]);
        let path = format!("transport_socket.typed_config.{path}");
        assert!(
            rejected.len() == 1 && rejected[0].reason.starts_with(&path),
            "{path}: {rejected:?}"
        );
    }
}
