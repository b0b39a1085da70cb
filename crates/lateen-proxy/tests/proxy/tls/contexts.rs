//! Contexts that are refused, and handshakes that do not end.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::support::PATIENCE;

use super::*;

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
