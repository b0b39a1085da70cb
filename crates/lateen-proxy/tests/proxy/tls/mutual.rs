//! Whom the modes of mutual TLS accept, and what the upstream is told of clients.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::support::{Client, PATIENCE};

use super::*;

#[test]
fn modes_of_mutual_tls_accept_whom_they_should() {
    let upstream = Upstream::start("c");
    let mut proxy = proxy(&upstream);
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    join_mesh(&proxy, &ours, &ours.issue(&[SERVER]));
    let mesh = json!({ "transportProtocol": "tls", "applicationProtocols": [
        "istio-http/1.0", "istio-http/1.1", "istio-h2", "istio-peer-exchange", "istio",
    ]});
    let any_tls = json!({ "transportProtocol": "tls" });
    let chains = vec![chain(any_tls, Some(mesh_server()), "c", json!({}))];
    let strict = open(&mut proxy, "strict", chains);
    let chains = vec![
        chain(mesh, Some(mesh_server()), "c", json!({})),
        chain(
            json!({ "transportProtocol": "raw_buffer" }),
            None,
            "c",
            json!({}),
        ),
    ];
    let permissive = open(&mut proxy, "permissive", chains);

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
    let any_tls = json!({ "transportProtocol": "tls" });
    let chains = vec![chain(any_tls, Some(mesh_server()), "c", json!({}))];
    let address = open(&mut proxy, "l", chains);
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
        let more =
            json!({ "forwardClientCertDetails": mode, "setCurrentClientCertDetails": details });
        let chains = vec![chain(json!({}), Some(mesh_server()), "c", more)];
        let address = open(&mut proxy, mode, chains);
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
fn revoked_clients_and_clients_of_unknown_status_are_refused() {
    let upstream = Upstream::start("c");
    let mut proxy = proxy(&upstream);
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let numbered = |authority: &Authority, serial: u64| {
        authority.issue_with(&[WORKLOAD], |params| {
            params.serial_number = Some(serial.into());
        })
    };
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
    let address = open(&mut proxy, "l", chains);
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
