//! TLS of listeners: modes of mutual TLS, names, protocols, secrets that come late, change and go.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lateen_xds::ResourceType;
use serde_json::{Value, json};

use crate::support::{
    Client, PATIENCE, Proxy, Upstream, eventually, free_address, http_filter, merge,
    socket_address, to, wait_for_listener,
};
use crate::tls_support::{Authority, ClientOptions, Identity, TlsClient, leaf, secret, transport};

const WORKLOAD: &str = "spiffe://cluster.local/ns/shop/sa/web";
const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/cart";
/// What a proxy of the mesh offers.
const MESH: &[&str] = &["istio-http/1.1", "istio"];

/// The mesh's context of a server, as the control plane sends it.
fn mesh_server() -> Value {
    transport(
        "Downstream",
        json!({
            "requireClientCertificate": true,
            "commonTlsContext": {
                "alpnProtocols": ["h2", "http/1.1"],
                "tlsCertificateSdsSecretConfigs": [secret("default", false)],
                "combinedValidationContext": {
                    "defaultValidationContext": { "matchTypedSubjectAltNames": [
                        { "sanType": "URI", "matcher": { "prefix": "spiffe://cluster.local/" } },
                    ]},
                    "validationContextSdsSecretConfig": secret("ROOTCA", false),
                },
            },
        }),
    )
}

/// A connection manager with one route to a cluster.
fn manager(cluster: &str, more: Value) -> Value {
    let mut fields = json!({
        "routeConfig": { "name": "r", "virtualHosts": [
            { "name": "all", "domains": ["*"], "routes": [to(cluster, json!({}))] },
        ]},
    });
    merge(&mut fields, more);
    let mut filter = http_filter(fields);
    filter["typedConfig"].as_object_mut().unwrap().remove("rds");
    filter
}

/// A filter chain for connections that match, with a transport and a route to a cluster.
fn chain(matching: Value, transport: Option<Value>, cluster: &str, more: Value) -> Value {
    let mut chain = json!({
        "name": cluster,
        "filterChainMatch": matching,
        "filters": [manager(cluster, more)],
    });
    if let Some(transport) = transport {
        chain["transportSocket"] = transport;
    }
    chain
}

/// A listener that looks at the client hello.
fn listener(name: &str, address: SocketAddr, chains: Vec<Value>) -> Value {
    json!({
        "name": name,
        "address": socket_address(address),
        "listenerFilters": [{
            "name": "tls",
            "typedConfig": { "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector" },
        }],
        "filterChains": chains,
    })
}

/// A proxy with an upstream behind the cluster `c`.
fn proxy(upstream: &Upstream) -> Proxy {
    let mut proxy = Proxy::start(1);
    proxy.cluster("c", &[upstream.address], json!({}));
    proxy
}

/// Puts what the agent of a workload puts.
fn join_mesh(proxy: &Proxy, authority: &Authority, identity: &Identity) {
    let secrets = proxy.engine.secrets();
    secrets
        .put_certificate("default", &identity.chain, &identity.key)
        .unwrap();
    secrets.put_trust("ROOTCA", &authority.pem).unwrap();
}

/// The body of a 200 answer; nothing when the connection was refused.
fn outcome(address: SocketAddr, options: &ClientOptions<'_>) -> Option<String> {
    let mut client = TlsClient::connect(address, options).ok()?;
    let answer = client.get("/", &[]).ok()?;
    answer.starts_with("HTTP/1.1 200").then_some(answer)
}

#[test]
fn modes_of_mutual_tls_accept_whom_they_should() {
    let upstream = Upstream::start("c");
    let mut proxy = proxy(&upstream);
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    join_mesh(&proxy, &ours, &ours.issue(&[SERVER]));
    let mesh = json!({ "transportProtocol": "tls", "applicationProtocols": [
        "istio-http/1.0", "istio-http/1.1", "istio-h2", "istio-peer-exchange", "istio",
    ]});
    let (strict, permissive) = (free_address(), free_address());
    let any_tls = json!({ "transportProtocol": "tls" });
    let chains = vec![chain(any_tls, Some(mesh_server()), "c", json!({}))];
    proxy.accept(
        ResourceType::Listener,
        &[listener("strict", strict, chains)],
    );
    let chains = vec![
        chain(mesh, Some(mesh_server()), "c", json!({})),
        chain(
            json!({ "transportProtocol": "raw_buffer" }),
            None,
            "c",
            json!({}),
        ),
    ];
    let listener = listener("permissive", permissive, chains);
    proxy.accept(ResourceType::Listener, &[listener]);
    wait_for_listener(strict);
    wait_for_listener(permissive);

    let identities = [
        ("a workload", ours.issue(&[WORKLOAD]), true),
        ("of another authority", theirs.issue(&[WORKLOAD]), false),
        (
            "of another trust domain",
            ours.issue(&["spiffe://evil/ns/shop/sa/web"]),
            false,
        ),
        ("no identity", ours.issue(&["web.shop"]), false),
        (
            "expired",
            ours.issue_with(&[WORKLOAD], |params| {
                params.not_before = rcgen::date_time_ymd(2020, 1, 1);
                params.not_after = rcgen::date_time_ymd(2021, 1, 1);
            }),
            false,
        ),
        (
            "not yet valid",
            ours.issue_with(&[WORKLOAD], |params| {
                params.not_before = rcgen::date_time_ymd(3000, 1, 1);
            }),
            false,
        ),
        (
            "for servers only",
            ours.issue_with(&[WORKLOAD], |params| {
                params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
            }),
            false,
        ),
    ];
    for (mode, address) in [("strict", strict), ("permissive", permissive)] {
        for (who, identity, accepted) in &identities {
            let options = ClientOptions {
                identity: Some(identity),
                protocols: MESH,
                ..ClientOptions::default()
            };
            let answer = outcome(address, &options);
            assert_eq!(answer.is_some(), *accepted, "{mode}: {who}");
        }
        let nobody = ClientOptions {
            protocols: MESH,
            ..ClientOptions::default()
        };
        assert!(
            outcome(address, &nobody).is_none(),
            "{mode}: no certificate"
        );
        let plain = Client::connect(address).get("/", &[]);
        let accepted = plain.is_ok_and(|answer| answer.status == 200);
        assert_eq!(accepted, mode == "permissive", "{mode}: plaintext");
    }
    // TLS of the application itself is for nobody here: no chain takes it.
    let own = ClientOptions {
        identity: Some(&identities[0].1),
        ..ClientOptions::default()
    };
    assert!(outcome(permissive, &own).is_none());
    assert!(
        outcome(strict, &own).is_some(),
        "a client without protocols"
    );
}

#[test]
fn plaintext_gets_no_answer_from_a_strict_listener() {
    let upstream = Upstream::start("c");
    let mut proxy = proxy(&upstream);
    let authority = Authority::new("ours");
    join_mesh(&proxy, &authority, &authority.issue(&[SERVER]));
    let address = free_address();
    let chains = vec![chain(
        json!({ "transportProtocol": "tls" }),
        Some(mesh_server()),
        "c",
        json!({}),
    )];
    proxy.accept(ResourceType::Listener, &[listener("l", address, chains)]);
    wait_for_listener(address);
    for bytes in [
        &b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..],
        b"\x00",
        b"PRI * HTTP/2.0",
    ] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        let error = ended.map_err(|error| error.kind());
        assert_eq!(error, Err(ErrorKind::ConnectionReset), "{bytes:?}");
        assert_eq!(answer, b"", "{bytes:?}");
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_client_certificate_is_told_to_the_upstream() {
    let upstream = Upstream::start("c");
    let mut proxy = proxy(&upstream);
    let authority = Authority::new("ours");
    join_mesh(&proxy, &authority, &authority.issue(&[SERVER]));
    let identity = authority.issue(&[WORKLOAD, "web.shop"]);
    let hash = "Hash=";
    for (mode, details, earlier, starts, holds) in [
        ("SANITIZE", json!({}), "By=x", None, vec![]),
        ("FORWARD_ONLY", json!({}), "By=x", Some("By=x"), vec![]),
        (
            "ALWAYS_FORWARD_ONLY",
            json!({}),
            "By=x",
            Some("By=x"),
            vec![],
        ),
        (
            "SANITIZE_SET",
            json!({ "uri": true, "dns": true, "subject": true }),
            "By=x",
            Some(concat!(
                "By=spiffe://cluster.local/ns/shop/sa/cart;",
                "Hash="
            )),
            vec![
                ";Subject=\"\";URI=spiffe://cluster.local/ns/shop/sa/web;DNS=web.shop",
                hash,
            ],
        ),
        (
            "APPEND_FORWARD",
            json!({ "cert": true, "chain": true }),
            "By=x",
            Some("By=x,By=spiffe://cluster.local/ns/shop/sa/cart;Hash="),
            vec![
                ";Cert=\"-----BEGIN%20CERTIFICATE-----%0A",
                ";Chain=\"-----BEGIN%20",
            ],
        ),
    ] {
        let address = free_address();
        let more =
            json!({ "forwardClientCertDetails": mode, "setCurrentClientCertDetails": details });
        let chains = vec![chain(json!({}), Some(mesh_server()), "c", more)];
        proxy.accept(ResourceType::Listener, &[listener(mode, address, chains)]);
        wait_for_listener(address);
        let options = ClientOptions {
            identity: Some(&identity),
            protocols: &["http/1.1"],
            ..ClientOptions::default()
        };
        let mut client = TlsClient::connect(address, &options).unwrap();
        let line = format!("x-forwarded-client-cert: {earlier}");
        let answer = client.get("/", &[&line]).unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        let seen: Value = serde_json::from_str(body).unwrap();
        let value = seen["headers"]["x-forwarded-client-cert"].as_str();
        assert_eq!(value.is_some(), starts.is_some(), "{mode}: {value:?}");
        let value = value.unwrap_or_default();
        assert!(
            value.starts_with(starts.unwrap_or_default()),
            "{mode}: {value}"
        );
        for part in holds {
            assert!(value.contains(part), "{mode}: {value}");
        }
        assert_eq!(seen["headers"]["x-forwarded-proto"], "https", "{mode}");
    }
}

#[test]
fn the_server_name_chooses_chain_and_certificate() {
    let (one, two) = (Upstream::start("one"), Upstream::start("two"));
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[one.address], json!({}));
    proxy.cluster("two", &[two.address], json!({}));
    let authority = Authority::new("ours");
    let identities = [
        authority.issue(&["one.test"]),
        authority.issue(&["*.two.test"]),
        authority.issue(&["other.two.test"]),
    ];
    let server = |identities: &[&Identity]| {
        let certificates: Vec<_> = identities
            .iter()
            .map(|identity| identity.inline())
            .collect();
        transport(
            "Downstream",
            json!({ "commonTlsContext": { "tlsCertificates": certificates } }),
        )
    };
    let address = free_address();
    let chains = vec![
        chain(
            json!({ "serverNames": ["one.test"] }),
            Some(server(&[&identities[0]])),
            "one",
            json!({}),
        ),
        chain(
            json!({ "serverNames": ["*.two.test"] }),
            Some(server(&[&identities[1], &identities[2]])),
            "two",
            json!({}),
        ),
    ];
    proxy.accept(ResourceType::Listener, &[listener("l", address, chains)]);
    wait_for_listener(address);
    for (server_name, shown) in [
        ("one.test", Some(0)),
        ("ONE.test", Some(0)),
        ("a.two.test", Some(1)),
        ("three.test", None),
        ("", None),
    ] {
        let options = ClientOptions {
            server_name,
            ..ClientOptions::default()
        };
        let client = TlsClient::connect(address, &options);
        let found = client.ok().map(|client| client.server_certificate());
        let wanted = shown.map(|index: usize| leaf(&identities[index]));
        assert_eq!(found, wanted, "{server_name}");
    }
}

#[test]
fn protocols_are_agreed_on_and_foreign_lists_do_no_harm() {
    let upstream = Upstream::start("c");
    let mut proxy = proxy(&upstream);
    let authority = Authority::new("ours");
    join_mesh(&proxy, &authority, &authority.issue(&[SERVER]));
    let identity = authority.issue(&[WORKLOAD]);
    let address = free_address();
    let chains = vec![chain(json!({}), Some(mesh_server()), "c", json!({}))];
    proxy.accept(ResourceType::Listener, &[listener("l", address, chains)]);
    wait_for_listener(address);
    for (protocols, agreed) in [
        (&["http/1.1"][..], Some("http/1.1")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["istio-http/1.1", "istio"], None),
        (&[], None),
    ] {
        let options = ClientOptions {
            identity: Some(&identity),
            protocols,
            ..ClientOptions::default()
        };
        let mut client = TlsClient::connect(address, &options).unwrap();
        let found = client.0.conn.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(found.as_deref(), agreed.map(str::as_bytes), "{protocols:?}");
        if agreed != Some("h2") {
            let answer = client.get("/", &[]).unwrap();
            assert!(
                answer.starts_with("HTTP/1.1 200"),
                "{protocols:?}: {answer}"
            );
        }
    }
}

#[test]
fn a_listener_waits_for_its_secrets_and_serves_nobody_without_them() {
    let upstream = Upstream::start("c");
    let mut proxy = proxy(&upstream);
    let authority = Authority::new("ours");
    let identity = authority.issue(&[WORKLOAD]);
    let address = free_address();
    let chains = vec![chain(json!({}), Some(mesh_server()), "c", json!({}))];
    proxy.accept(ResourceType::Listener, &[listener("l", address, chains)]);
    assert!(TcpStream::connect(address).is_err(), "it is not open yet");
    let secrets = proxy.engine.secrets();
    assert!(secrets.wanted().contains("default") && secrets.wanted().contains("ROOTCA"));
    join_mesh(&proxy, &authority, &authority.issue(&[SERVER]));
    wait_for_listener(address);
    let options = ClientOptions {
        identity: Some(&identity),
        ..ClientOptions::default()
    };
    assert!(outcome(address, &options).is_some());
    secrets.remove("ROOTCA");
    assert!(outcome(address, &options).is_none(), "without authorities");
    assert!(outcome(address, &ClientOptions::default()).is_none());
    secrets
        .put_trust("ROOTCA", &Authority::new("other").pem)
        .unwrap();
    assert!(outcome(address, &options).is_none(), "other authorities");
    secrets.put_trust("ROOTCA", &authority.pem).unwrap();
    assert!(outcome(address, &options).is_some());
    secrets.remove("default");
    assert!(
        outcome(address, &options).is_none(),
        "without a certificate"
    );
}

#[test]
fn a_secret_of_the_discovery_stream_is_asked_for_and_used() {
    let upstream = Upstream::start("c");
    let mut proxy = proxy(&upstream);
    let authority = Authority::new("ours");
    let address = free_address();
    let server = transport(
        "Downstream",
        json!({ "commonTlsContext": {
            "tlsCertificateSdsSecretConfigs": [secret("kubernetes://shop", true)],
        }}),
    );
    let chains = vec![chain(json!({}), Some(server), "c", json!({}))];
    proxy.accept(ResourceType::Listener, &[listener("l", address, chains)]);
    assert!(
        proxy
            .wanted(ResourceType::Secret)
            .contains("kubernetes://shop")
    );
    assert!(TcpStream::connect(address).is_err(), "it is not open yet");
    let resource = |identity: &Identity| json!({ "name": "kubernetes://shop", "tlsCertificate": identity.inline() });
    let (first, second) = (authority.issue(&["shop"]), authority.issue(&["shop"]));
    proxy.accept(ResourceType::Secret, &[resource(&first)]);
    wait_for_listener(address);
    let shown = || {
        TlsClient::connect(address, &ClientOptions::default())
            .unwrap()
            .server_certificate()
    };
    assert_eq!(shown(), leaf(&first));
    proxy.accept(ResourceType::Secret, &[resource(&second)]);
    assert_eq!(shown(), leaf(&second));
    let mismatch = Identity {
        chain: first.chain,
        key: second.key.clone(),
    };
    let rejected = proxy.send(ResourceType::Secret, &[resource(&mismatch)]);
    assert!(
        rejected[0].reason.contains("tls_certificate"),
        "{rejected:?}"
    );
    assert_eq!(shown(), leaf(&second), "the last good one stays");
    proxy.remove(ResourceType::Secret, "kubernetes://shop");
    let refused = TlsClient::connect(address, &ClientOptions::default());
    assert!(refused.is_err(), "a removed secret serves nobody");
    proxy.remove(ResourceType::Listener, "l");
    eventually(|| proxy.wanted(ResourceType::Secret).is_empty());
}

#[test]
fn secrets_change_under_load_without_a_failed_request() {
    let upstream = Upstream::start("c");
    let mut proxy = proxy(&upstream);
    let authority = Authority::new("ours");
    join_mesh(&proxy, &authority, &authority.issue(&[SERVER]));
    let identity = authority.issue(&[WORKLOAD]);
    let address = free_address();
    let chains = vec![chain(json!({}), Some(mesh_server()), "c", json!({}))];
    proxy.accept(ResourceType::Listener, &[listener("l", address, chains)]);
    wait_for_listener(address);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut requests = 0;
                    while !done.load(Ordering::Relaxed) {
                        let options = ClientOptions {
                            identity: Some(&identity),
                            protocols: MESH,
                            ..ClientOptions::default()
                        };
                        assert!(outcome(address, &options).is_some(), "request {requests}");
                        requests += 1;
                    }
                    requests
                })
            })
            .collect();
        for _ in 0..50 {
            join_mesh(&proxy, &authority, &authority.issue(&[SERVER]));
            std::thread::sleep(Duration::from_millis(10));
        }
        done.store(true, Ordering::Relaxed);
        for client in clients {
            assert!(client.join().unwrap() > 0);
        }
    });
}

#[test]
fn contexts_that_cannot_be_carried_out_are_rejected_by_path() {
    let upstream = Upstream::start("c");
    let mut proxy = proxy(&upstream);
    let authority = Authority::new("ours");
    let certificate = authority.issue(&["a"]).inline();
    let common = |more: Value| {
        let mut common = json!({ "tlsCertificates": [certificate] });
        merge(&mut common, more);
        json!({ "commonTlsContext": common })
    };
    let mut renamed = common(json!({}));
    renamed["sessionTicketKeys"] = json!({ "keys": [{ "inlineString": "x" }] });
    let mut stapled = common(json!({}));
    stapled["ocspStaplePolicy"] = json!("MUST_STAPLE");
    let mut unchecked = common(json!({}));
    unchecked["requireClientCertificate"] = json!(true);
    for (context, path) in [
        (unchecked, "require_client_certificate"),
        (
            json!({ "commonTlsContext": {} }),
            "common_tls_context.tls_certificates",
        ),
        (renamed, "session_ticket_keys"),
        (stapled, "ocsp_staple_policy"),
        (
            common(json!({ "tlsParams": { "tlsMinimumProtocolVersion": "TLSv1_0" } })),
            "common_tls_context.tls_params.tls_minimum_protocol_version",
        ),
        (
            common(json!({ "tlsParams": { "signatureAlgorithms": ["ed25519"] } })),
            "common_tls_context.tls_params.signature_algorithms",
        ),
        (
            common(json!({ "validationContext": { "trustedCa": { "inlineString": "x" } } })),
            "validation_context.trusted_ca",
        ),
        (
            common(json!({ "validationContext": { "allowExpiredCertificate": true } })),
            "validation_context.allow_expired_certificate",
        ),
        (
            common(json!({ "validationContext": { "verifyCertificateHash": ["ab"] } })),
            "verify_certificate_hash[0]",
        ),
        (
            common(json!({ "keyLog": { "path": "/tmp/keys" } })),
            "key_log",
        ),
        (
            common(json!({ "alpnProtocols": [""] })),
            "alpn_protocols[0]",
        ),
        (
            json!({ "commonTlsContext": { "tlsCertificateSdsSecretConfigs": [{ "name": "x" }] } }),
            "tls_certificate_sds_secret_configs[0].sds_config",
        ),
    ] {
        let chains = vec![chain(
            json!({}),
            Some(transport("Downstream", context)),
            "c",
            json!({}),
        )];
        let rejected = proxy.send(
            ResourceType::Listener,
            &[listener("bad", free_address(), chains)],
        );
        let reason = rejected
            .first()
            .map_or("accepted", |rejection| &rejection.reason);
        assert!(
            reason.starts_with("filter_chains[0].transport_socket.typed_config")
                && reason.contains(path),
            "{path}: {reason}"
        );
    }
}

#[test]
fn revoked_clients_and_clients_of_unknown_status_are_refused() {
    let upstream = Upstream::start("c");
    let mut proxy = proxy(&upstream);
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let numbered = |authority: &Authority, serial: u64| {
        authority.issue_with(&[WORKLOAD], |params| {
            params.serial_number = Some(serial.into());
        })
    };
    let address = free_address();
    let server = transport(
        "Downstream",
        json!({
            "requireClientCertificate": true,
            "commonTlsContext": {
                "tlsCertificates": [ours.issue(&["a"]).inline()],
                "validationContext": {
                    "trustedCa": { "inlineString": format!("{}{}", ours.pem, theirs.pem) },
                    "crl": { "inlineString": ours.revoke(&[7]) },
                },
            },
        }),
    );
    let chains = vec![chain(json!({}), Some(server), "c", json!({}))];
    proxy.accept(ResourceType::Listener, &[listener("l", address, chains)]);
    wait_for_listener(address);
    for (who, identity, accepted) in [
        ("in good standing", numbered(&ours, 6), true),
        ("revoked", numbered(&ours, 7), false),
        (
            "of an authority without a list",
            numbered(&theirs, 6),
            false,
        ),
    ] {
        let options = ClientOptions {
            identity: Some(&identity),
            ..ClientOptions::default()
        };
        assert_eq!(outcome(address, &options).is_some(), accepted, "{who}");
    }
}

#[test]
fn a_handshake_that_takes_too_long_is_ended() {
    let upstream = Upstream::start("c");
    let mut proxy = proxy(&upstream);
    let authority = Authority::new("ours");
    let address = free_address();
    let certificates = json!([authority.issue(&["a"]).inline()]);
    let server = transport(
        "Downstream",
        json!({ "commonTlsContext": { "tlsCertificates": certificates } }),
    );
    let mut slow = chain(json!({}), Some(server), "c", json!({}));
    slow["transportSocketConnectTimeout"] = json!("0.2s");
    let mut resource = listener("l", address, vec![slow]);
    // Without an inspector the time begins with the connection.
    resource.as_object_mut().unwrap().remove("listenerFilters");
    proxy.accept(ResourceType::Listener, &[resource]);
    wait_for_listener(address);
    for bytes in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        let ended = stream.read(&mut [0]);
        let timed_out = ended
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        assert!(!timed_out, "{bytes:?}: {ended:?}");
    }
}
