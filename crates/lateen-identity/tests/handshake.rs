//! Who may speak to whom: real TLS handshakes in memory.

mod common;

use std::time::{Duration, SystemTime};

use common::{HOUR, Side, YEAR, authority, connect, domain, fresh, handshake, id, issue};
use lateen_identity::{
    AllowList, CertificateAuthority, IdMatch, Identity, Signer, TrustBundle, alpn, peer, tls,
};
use rcgen::{CertificateParams, KeyPair, KeyUsagePurpose, SanType};

const CLIENT: &str = "spiffe://cluster.local/ns/default/sa/client";
const SERVER: &str = "spiffe://cluster.local/ns/default/sa/server";

/// Client and server of one mesh: the client wants the server's exact id, the server any of its trust domain.
fn pair(ca: &CertificateAuthority) -> (Side, Side) {
    let bundle = ca.bundle().unwrap();
    let client = Side {
        identity: fresh(ca, CLIENT),
        bundle: bundle.clone(),
        allowed: AllowList::new([IdMatch::Exact(id(SERVER))]),
    };
    let server = Side {
        identity: fresh(ca, SERVER),
        bundle,
        allowed: AllowList::trust_domains([ca.trust_domain()]),
    };
    (client, server)
}

/// Expects a handshake to fail at the named side for the named reason.
fn refused(case: &str, client: Side, server: Side, side: &str, reason: &str) {
    let error = handshake(client, server).expect_err(case);
    assert!(
        error.starts_with(side) && error.contains(reason),
        "{case}: {error}"
    );
}

#[test]
fn each_side_learns_the_verified_id_of_the_other() {
    let (client, server) = pair(&authority("cluster.local"));
    assert_eq!(handshake(client, server), Ok((id(SERVER), id(CLIENT))));
}

#[test]
fn a_peer_with_another_id_or_root_or_time_is_refused_by_either_side() {
    let ca = authority("cluster.local");
    let other_root = authority("cluster.local");
    let foreign = authority("other.domain");
    let now = SystemTime::now();
    let wrong_id = "spiffe://cluster.local/ns/default/sa/mallory";
    for (case, identity, reason) in [
        ("root", fresh(&other_root, SERVER), "UnknownIssuer"),
        (
            "domain",
            fresh(&foreign, "spiffe://other.domain/ns/default/sa/server"),
            "UnknownIssuer",
        ),
        (
            "expired",
            issue(&ca, SERVER, now - 2 * HOUR, HOUR),
            "expired",
        ),
        (
            "early",
            issue(&ca, SERVER, now + HOUR, HOUR),
            "not valid yet",
        ),
        ("two URIs", forged(&[SERVER, CLIENT], now), "UriCount(2)"),
        ("no URI", forged(&[], now), "UriCount(0)"),
        (
            "no SPIFFE id",
            forged(&["https://cluster.local/"], now),
            "Scheme",
        ),
    ] {
        let (client, server) = pair(&ca);
        let bad = Side {
            identity: identity.clone(),
            ..server.clone()
        };
        refused(case, client.clone(), bad, "client", reason);
        let bad = Side { identity, ..client };
        refused(case, bad, server, "server", reason);
    }
    let (client, server) = pair(&ca);
    let bad = Side {
        identity: fresh(&ca, wrong_id),
        ..server
    };
    refused(
        "id",
        client,
        bad,
        "client",
        "ApplicationVerificationFailure",
    );
}

/// A root that a trust domain has cannot vouch for ids of another one, even when both are trusted.
#[test]
fn a_root_speaks_only_for_its_own_trust_domain() {
    let (ours, foreign) = (authority("cluster.local"), authority("other.domain"));
    let mut bundle = ours.bundle().unwrap();
    let roots = foreign
        .bundle()
        .unwrap()
        .certificates(&domain("other.domain"))
        .to_vec();
    bundle
        .insert(&domain("other.domain"), roots.clone())
        .unwrap();
    let both = AllowList::trust_domains([&domain("cluster.local"), &domain("other.domain")]);

    let (client, server) = pair(&ours);
    let server = Side {
        bundle,
        allowed: both,
        ..server
    };
    let friend = "spiffe://other.domain/ns/a/sa/b";
    let guest = Side {
        identity: fresh(&foreign, friend),
        ..client.clone()
    };
    assert_eq!(
        handshake(guest, server.clone()),
        Ok((id(SERVER), id(friend)))
    );

    // Another authority that claims our domain, and whose root is trusted only for the other one.
    let start = SystemTime::now() - HOUR;
    let signer = Signer::self_made(&domain("cluster.local"), YEAR, start).unwrap();
    let root = signer.root().clone();
    let impostor = CertificateAuthority::new(domain("cluster.local"), signer);
    let mut bundle = server.bundle.clone();
    bundle
        .insert(&domain("other.domain"), [roots, vec![root]].concat())
        .unwrap();
    let server = Side { bundle, ..server };
    let bad = Side {
        identity: fresh(&impostor, CLIENT),
        ..client
    };
    refused("impostor", bad, server, "server", "UnknownIssuer");
}

#[test]
fn a_client_without_a_certificate_is_refused_unless_it_is_optional() {
    let ca = authority("cluster.local");
    for (certificate, accepted) in [
        (tls::ClientCertificate::Required, false),
        (tls::ClientCertificate::Optional, true),
    ] {
        let (_, server) = pair(&ca);
        let (bundle, allowed) = (server.bundle, server.allowed);
        let protocols = alpn::SERVER_HTTP;
        let config =
            tls::server(server.identity, &bundle, allowed, certificate, protocols).unwrap();
        match connect(anonymous(&ca), config) {
            Ok((_, server)) => {
                assert!(accepted, "accepted without a certificate");
                let nobody = peer::peer_id(server.peer_certificates());
                assert_eq!(nobody, Err(peer::PeerError::NoCertificate));
            }
            Err(error) => {
                assert!(
                    !accepted && error.contains("sent no certificates"),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn an_empty_bundle_or_allow_list_accepts_nobody() {
    let ca = authority("cluster.local");
    let (client, server) = pair(&ca);
    let nobody = |side: &Side| Side {
        allowed: AllowList::default(),
        ..side.clone()
    };
    let reason = "ApplicationVerificationFailure";
    refused(
        "client's list",
        nobody(&client),
        server.clone(),
        "client",
        reason,
    );
    refused(
        "server's list",
        client.clone(),
        nobody(&server),
        "server",
        reason,
    );

    let bundle = TrustBundle::new();
    let made = tls::client(client.identity, &bundle, client.allowed, &[]);
    assert!(matches!(made, Err(tls::TlsError::EmptyBundle)));
    let required = tls::ClientCertificate::Required;
    let made = tls::server(server.identity, &bundle, server.allowed, required, &[]);
    assert!(matches!(made, Err(tls::TlsError::EmptyBundle)));
}

#[test]
fn a_root_is_rotated_without_a_failed_handshake() {
    let mut ca = authority("cluster.local");
    let (old_client, old_server) = pair(&ca);
    let old_root = ca.bundle().unwrap().certificates(ca.trust_domain())[0].clone();
    let start = SystemTime::now() - Duration::from_secs(60);
    let signer = Signer::self_made(ca.trust_domain(), YEAR, start).unwrap();

    // Step 1: everyone trusts both, certificates are the old ones.
    ca.trust(signer.root().clone()).unwrap();
    let both = ca.bundle().unwrap();
    let updated = |side: &Side| Side {
        bundle: both.clone(),
        ..side.clone()
    };
    let (old_client, old_server) = (updated(&old_client), updated(&old_server));
    // Step 2: some have new certificates, in every combination.
    ca.activate(signer).unwrap();
    let (new_client, new_server) = pair(&ca);
    for client in [&old_client, &new_client] {
        for server in [&old_server, &new_server] {
            let ids = handshake(client.clone(), server.clone());
            assert_eq!(ids, Ok((id(SERVER), id(CLIENT))));
        }
    }
    // Step 3: the old root is gone, and what it signed is refused.
    ca.retire(&old_root).unwrap();
    let (client, server) = pair(&ca);
    assert!(handshake(client.clone(), server.clone()).is_ok());
    refused("retired", old_client, server, "server", "UnknownIssuer");
    refused("retired", client, old_server, "client", "UnknownIssuer");
}

/// A certificate with these URI names, from a root that nobody trusts: the names are refused before the chain.
fn forged(uris: &[&str], now: SystemTime) -> Identity {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.not_before = (now - HOUR).into();
    params.not_after = (now + HOUR).into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.subject_alt_names = uris
        .iter()
        .map(|uri| SanType::URI((*uri).try_into().unwrap()))
        .collect();
    let certificate = params.self_signed(&key).unwrap();
    Identity::from_pem(&certificate.pem(), &key.serialize_pem()).unwrap()
}

/// A client that verifies the server as ours does, and shows nothing of itself.
fn anonymous(ca: &CertificateAuthority) -> rustls::ClientConfig {
    let (client, _) = pair(ca);
    let protocols = alpn::CLIENT_HTTP11;
    let mut config =
        tls::client(client.identity, &client.bundle, client.allowed, protocols).unwrap();
    let bare = rustls::ClientConfig::builder_with_provider(config.crypto_provider().clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.client_auth_cert_resolver = bare.client_auth_cert_resolver;
    config
}
