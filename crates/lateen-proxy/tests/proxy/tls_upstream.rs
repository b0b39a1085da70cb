//! TLS to endpoints: which certificates are accepted, what is asked for, and which transport an endpoint gets.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use base64::Engine as _;
use lateen_xds::ResourceType;
use rustls::StreamOwned;
use serde_json::{Value, json};

use crate::support::{
    PATIENCE, Proxy, Upstream, cluster, eventually, filters, free_address, get, merge,
    socket_address, to, wait_for_listener,
};
use crate::tls_support::{
    Authority, ClientOptions, Identity, TlsClient, TlsUpstream, secret, transport,
};

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// A cluster with TLS whose peers are checked like this.
fn tls_cluster(name: &str, address: SocketAddr, validation: Value, more: Value) -> Value {
    let mut context = json!({ "commonTlsContext": { "validationContext": validation } });
    merge(&mut context, more);
    let socket = transport("Upstream", context);
    cluster(name, &[address], json!({ "transportSocket": socket }))
}

fn trusted(authority: &Authority, names: Value) -> Value {
    json!({
        "trustedCa": { "inlineString": authority.pem },
        "matchTypedSubjectAltNames": names,
    })
}

#[test]
fn servers_are_accepted_by_authority_and_name() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let identity = ours.issue(&[CART, "*.shop.test"]);
    let expired = ours.issue_with(&[CART], |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let for_clients = ours.issue_with(&[CART], |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    });
    let uri = |pattern: Value| json!([{ "sanType": "URI", "matcher": pattern }]);
    let dns = |pattern: Value| json!([{ "sanType": "DNS", "matcher": pattern }]);
    let mut proxy = Proxy::start(1);
    let address = proxy.http(json!([to("c", json!({}))]), json!({}));
    let check = |proxy: &mut Proxy, identity: &Identity, validation: Value, accepted: bool| {
        let upstream = TlsUpstream::start(identity, None, &[]);
        let resource = tls_cluster("c", upstream.address, validation.clone(), json!({}));
        proxy.accept(ResourceType::Cluster, &[resource]);
        let answer = get(address, "/", &[]);
        let wanted = if accepted { 200 } else { 503 };
        assert_eq!(answer.status, wanted, "{validation} {}", answer.body);
        if !accepted {
            assert_eq!(
                answer.body,
                "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
            );
        }
    };
    for (validation, accepted) in [
        (json!({}), true),
        (trusted(&ours, json!([])), true),
        (trusted(&theirs, json!([])), false),
        (trusted(&ours, uri(json!({ "exact": CART }))), true),
        (
            trusted(
                &ours,
                uri(json!({ "exact": "spiffe://cluster.local/ns/shop/sa/web" })),
            ),
            false,
        ),
        (
            trusted(&ours, uri(json!({ "prefix": "spiffe://cluster.local/" }))),
            true,
        ),
        (trusted(&ours, uri(json!({ "suffix": "/sa/cart" }))), true),
        (
            trusted(
                &ours,
                uri(json!({ "safeRegex": { "regex": "spiffe://.*/sa/c.rt" } })),
            ),
            true,
        ),
        (
            trusted(&ours, uri(json!({ "safeRegex": { "regex": "c.rt" } }))),
            false,
        ),
        (
            trusted(&ours, dns(json!({ "exact": "cart.shop.test" }))),
            true,
        ),
        (trusted(&ours, dns(json!({ "exact": "shop.test" }))), false),
        (trusted(&ours, dns(json!({ "exact": CART }))), false),
    ] {
        check(&mut proxy, &identity, validation, accepted);
    }
    check(&mut proxy, &expired, trusted(&ours, json!([])), false);
    check(&mut proxy, &expired, json!({}), true);
    check(&mut proxy, &for_clients, trusted(&ours, json!([])), false);
}

#[test]
fn the_server_name_is_the_configured_one_or_that_of_the_request() {
    let authority = Authority::new("ours");
    let upstream = TlsUpstream::start(&authority.issue(&["a.test"]), None, &["http/1.1"]);
    let mut proxy = Proxy::start(1);
    let address = proxy.http(json!([to("c", json!({}))]), json!({}));
    let mesh = "outbound_.8000_._.cart.shop.svc.cluster.local";
    let rules = |rules: Value| {
        json!({ HTTP_OPTIONS: {
            "@type": format!("type.googleapis.com/{HTTP_OPTIONS}"),
            "explicitHttpConfig": { "httpProtocolOptions": {} },
            "upstreamHttpProtocolOptions": rules,
        }})
    };
    for (sni, options, host, seen) in [
        ("", json!({}), "a.test", Some(json!(null))),
        (mesh, json!({}), "a.test", Some(json!(mesh))),
        (
            mesh,
            json!({ "autoSni": true }),
            "a.test:8080",
            Some(json!("a.test")),
        ),
        (
            "",
            json!({ "autoSni": true, "autoSanValidation": true }),
            "a.test",
            Some(json!("a.test")),
        ),
        (
            "",
            json!({ "autoSni": true, "autoSanValidation": true }),
            "b.test",
            None,
        ),
    ] {
        let validation = trusted(&authority, json!([]));
        let more = json!({ "sni": sni });
        let mut resource = tls_cluster("c", upstream.address, validation, json!({}));
        merge(&mut resource["transportSocket"]["typedConfig"], more);
        resource["typedExtensionProtocolOptions"] = rules(options.clone());
        proxy.accept(ResourceType::Cluster, &[resource]);
        let answer = get(address, "/", &[&format!("host: {host}")]);
        let found = (answer.status == 200).then(|| answer.seen()["sni"].clone());
        assert_eq!(found, seen, "{sni} {options} {host}");
        if found.is_some() {
            assert_eq!(answer.seen()["alpn"], "http/1.1");
        }
    }
}

#[test]
fn metadata_of_endpoints_chooses_their_transport() {
    let authority = Authority::new("ours");
    let tls = TlsUpstream::start(&authority.issue(&[CART]), Some(&authority), &["istio"]);
    let plain = Upstream::start("plain");
    let mut proxy = Proxy::start(1);
    let secrets = proxy.engine.secrets();
    let web = authority.issue(&["spiffe://cluster.local/ns/shop/sa/web"]);
    let mesh = transport(
        "Upstream",
        json!({ "sni": "outbound_.80_._.cart", "commonTlsContext": {
            "alpnProtocols": ["istio-peer-exchange", "istio"],
            "tlsCertificateSdsSecretConfigs": [secret("default", false)],
            "combinedValidationContext": {
                "defaultValidationContext": { "matchTypedSubjectAltNames": [
                    { "sanType": "URI", "matcher": { "exact": CART } },
                ]},
                "validationContextSdsSecretConfig": secret("ROOTCA", false),
            },
        }}),
    );
    let raw = json!({ "name": "raw", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
    }});
    let endpoint = |address: SocketAddr, metadata: Value| {
        json!({
            "endpoint": { "address": socket_address(address) },
            "metadata": { "filterMetadata": { "envoy.transport_socket_match": metadata } },
        })
    };
    let address = proxy.http(json!([to("c", json!({}))]), json!({}));
    proxy.accept(
        ResourceType::Cluster,
        &[json!({
            "name": "c",
            "type": "STATIC",
            "connectTimeout": "2s",
            "transportSocketMatches": [
                { "name": "tlsMode-istio", "match": { "tlsMode": "istio" }, "transportSocket": mesh },
                { "name": "tlsMode-disabled", "match": {}, "transportSocket": raw },
            ],
            "loadAssignment": { "clusterName": "c", "endpoints": [{ "lbEndpoints": [
                endpoint(tls.address, json!({ "tlsMode": "istio" })),
                endpoint(plain.address, json!({})),
            ]}]},
        })],
    );
    assert_eq!(
        get(address, "/", &[]).status,
        503,
        "it waits for its secrets"
    );
    secrets
        .put_certificate("default", &web.chain, &web.key)
        .unwrap();
    secrets.put_trust("ROOTCA", &authority.pem).unwrap();
    eventually(|| get(address, "/", &[]).status == 200);
    let mut seen = [0, 0];
    for _ in 0..10 {
        let answer = get(address, "/", &[]);
        assert_eq!(answer.status, 200, "{}", answer.body);
        if answer.seen()["name"] == "plain" {
            seen[0] += 1;
        } else {
            seen[1] += 1;
            assert_eq!(answer.seen()["client"], true);
            assert_eq!(answer.seen()["alpn"], "istio");
            assert_eq!(answer.seen()["sni"], "outbound_.80_._.cart");
        }
    }
    assert_eq!(seen, [5, 5]);
    secrets.remove("ROOTCA");
    // Connections that are open stay; new ones trust nobody.
    proxy.remove(ResourceType::Cluster, "c");
    let mut only_tls = tls_cluster("c", tls.address, json!({}), json!({}));
    only_tls["transportSocket"] = transport(
        "Upstream",
        json!({ "commonTlsContext": { "validationContextSdsSecretConfig": secret("ROOTCA", false) }}),
    );
    proxy.accept(ResourceType::Cluster, &[only_tls]);
    assert_eq!(get(address, "/", &[]).status, 503);
}

#[test]
fn a_change_of_transport_leaves_no_old_connection_in_use() {
    let authority = Authority::new("ours");
    let upstream = TlsUpstream::start(&authority.issue(&["a.test"]), None, &[]);
    let mut proxy = Proxy::start(1);
    let address = proxy.http(json!([to("c", json!({}))]), json!({}));
    let resource = |sni: &str| {
        let validation = trusted(&authority, json!([]));
        let mut resource = tls_cluster("c", upstream.address, validation, json!({}));
        resource["transportSocket"]["typedConfig"]["sni"] = json!(sni);
        resource
    };
    for sni in ["one.test", "two.test"] {
        proxy.accept(ResourceType::Cluster, &[resource(sni)]);
        assert_eq!(get(address, "/", &[]).seen()["sni"], sni);
    }
}

#[test]
fn a_filter_chooses_the_protocols_that_are_offered_unless_the_cluster_keeps_its_own() {
    let authority = Authority::new("ours");
    let identity = authority.issue(&["a.test"]);
    let upstream = TlsUpstream::start(&identity, None, &["istio-http/1.1", "istio"]);
    // One override, for HTTP/1.1: a message of a type that the descriptors lack.
    let mut config = b"\x0a\x19\x08\x01\x12\x0eistio-http/1.1".to_vec();
    config.extend(b"\x12\x05istio");
    let alpn = json!({
        "@type": "type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
        "@value": base64::engine::general_purpose::STANDARD.encode(config),
    });
    let mut proxy = Proxy::start(1);
    let address = proxy.http(
        json!([to("c", json!({}))]),
        filters(&[("istio.alpn", alpn)]),
    );
    for (keep, offered) in [(false, "istio-http/1.1"), (true, "istio")] {
        let validation = trusted(&authority, json!([]));
        let mut resource = tls_cluster("c", upstream.address, validation, json!({}));
        resource["transportSocket"]["typedConfig"]["commonTlsContext"]["alpnProtocols"] =
            json!(["istio"]);
        if keep {
            resource["metadata"] =
                json!({ "filterMetadata": { "istio": { "alpn_override": "false" } } });
        }
        proxy.accept(ResourceType::Cluster, &[resource]);
        assert_eq!(get(address, "/", &[]).seen()["alpn"], offered);
    }
}

/// An upstream that echoes, in plaintext, and says how much it got when the client is done.
fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut text = Vec::new();
                let _ = stream.read_to_end(&mut text);
                let _ = stream.write_all(format!("[{}]", text.len()).as_bytes());
            });
        }
    });
    address
}

#[test]
fn each_direction_of_a_tcp_connection_ends_by_itself_through_tls() {
    let authority = Authority::new("ours");
    let identity = authority.issue(&["a.test"]);
    let mut proxy = Proxy::start(1);
    // The first listener encrypts, the second one decrypts: both roles on the way.
    let (outer, inner) = (free_address(), free_address());
    proxy.cluster("plain", &[echo_server()], json!({}));
    let validation = trusted(&authority, json!([]));
    proxy.accept(
        ResourceType::Cluster,
        &[tls_cluster("tls", inner, validation, json!({}))],
    );
    let server = transport(
        "Downstream",
        json!({ "commonTlsContext": { "tlsCertificates": [identity.inline()] } }),
    );
    for (name, address, target) in [("inner", inner, "plain"), ("outer", outer, "tls")] {
        let mut chain = json!({ "filters": [{ "name": "tcp", "typedConfig": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "statPrefix": name, "cluster": target,
        }}]});
        if name == "inner" {
            chain["transportSocket"] = server.clone();
        }
        proxy.accept(
            ResourceType::Listener,
            &[json!({ "name": name, "address": socket_address(address), "filterChains": [chain] })],
        );
        wait_for_listener(address);
    }
    let text = vec![b'x'; 100_000];
    let mut stream = TcpStream::connect(outer).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&text).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "[100000]", "the answer after the client's end");

    let client = TlsClient::connect(inner, &ClientOptions::default()).unwrap();
    let StreamOwned { mut conn, mut sock } = client.0;
    conn.writer().write_all(b"hello").unwrap();
    conn.send_close_notify();
    while conn.wants_write() {
        conn.write_tls(&mut sock).unwrap();
    }
    let mut rest = String::new();
    StreamOwned::new(conn, sock)
        .read_to_string(&mut rest)
        .unwrap();
    assert_eq!(rest, "[5]", "the answer after the client's farewell");
}
