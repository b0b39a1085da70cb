//! What the authority signs, and what it takes from a request.

mod common;

use std::time::{Duration, SystemTime};

use common::{HOUR, YEAR, authority, domain, id};
use lateen_identity::{
    CertificateAuthority, Signer, WorkloadKey, authority::AuthorityError, peer::certificate_id,
    signer::CLOCK_SKEW,
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

const ID: &str = "spiffe://cluster.local/ns/default/sa/reviews";

#[test]
fn only_the_public_key_is_taken_from_a_request() {
    let ca = authority("cluster.local");
    let key = KeyPair::generate().unwrap();
    let mut forged = CertificateParams::default();
    forged.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    forged.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    forged.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    forged
        .distinguished_name
        .push(DnType::CommonName, "istiod.istio-system.svc");
    forged.subject_alt_names = vec![
        SanType::URI(
            "spiffe://cluster.local/ns/istio-system/sa/istiod"
                .try_into()
                .unwrap(),
        ),
        SanType::DnsName("istiod.istio-system.svc".try_into().unwrap()),
    ];
    let csr = forged.serialize_request(&key).unwrap().pem().unwrap();

    let now = SystemTime::now();
    let issued = ca.sign(&csr, &id(ID), HOUR, now).unwrap();
    assert_eq!(issued.chain.len(), 1, "a root goes into the bundle only");
    assert_eq!(certificate_id(&issued.chain[0]), Ok(id(ID)));
    let (_, leaf) = x509_parser::parse_x509_certificate(&issued.chain[0]).unwrap();
    assert_eq!(leaf.subject().iter().count(), 0);
    assert_eq!(
        leaf.public_key().subject_public_key.data,
        key.public_key_raw()
    );
    assert!(!leaf.is_ca());
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(
        names.critical,
        "without a subject, the names are critical (RFC 5280, 4.1.2.6)"
    );
    assert_eq!(names.value.general_names.len(), 1);
    let usage = leaf.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
    let extended = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth && !extended.code_signing);
    assert_eq!(
        (issued.not_before, issued.not_after),
        (now - CLOCK_SKEW, now + HOUR)
    );
}

#[test]
fn the_same_request_gets_another_serial_each_time() {
    let ca = authority("cluster.local");
    let csr = WorkloadKey::generate().unwrap().request(&id(ID)).unwrap();
    let serial = || {
        let issued = ca.sign(&csr, &id(ID), HOUR, SystemTime::now()).unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(&issued.chain[0]).unwrap();
        leaf.raw_serial().to_vec()
    };
    assert_ne!(serial(), serial());
}

#[test]
fn a_request_that_proves_nothing_is_refused() {
    let good = WorkloadKey::generate().unwrap().request(&id(ID)).unwrap();
    let with = |key: KeyPair| {
        let request = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        request.pem().unwrap()
    };
    let weak = [&rcgen::PKCS_ECDSA_P521_SHA512, &rcgen::PKCS_ED25519]
        .map(|algorithm| with(KeyPair::generate_for(algorithm).unwrap()));
    // The last characters before the end are the signature's.
    let tail = good.find("\n-----END").unwrap();
    let mut broken = good.clone();
    let changed = if &good[tail - 8..tail - 7] == "A" {
        "B"
    } else {
        "A"
    };
    broken.replace_range(tail - 8..tail - 7, changed);
    for (case, csr, reason) in [
        ("empty", String::new(), "not one PEM block"),
        ("not PEM", "MIIB".to_owned(), "not one PEM block"),
        ("two", format!("{good}{good}"), "not one PEM block"),
        (
            "certificate",
            good.replace("CERTIFICATE REQUEST", "CERTIFICATE"),
            "not one PEM block",
        ),
        (
            "large",
            format!("{good}{}", "\n".repeat(16 * 1024)),
            "at most 16384",
        ),
        ("cut", cut(&good), "not a PKCS #10 structure"),
        ("signature", broken, "own signature is not valid"),
        ("P-521", weak[0].clone(), "key is not accepted"),
        ("Ed25519", weak[1].clone(), "key is not accepted"),
    ] {
        let refused = authority("cluster.local").sign(&csr, &id(ID), HOUR, SystemTime::now());
        let error = refused.expect_err(case).to_string();
        assert!(error.contains(reason), "{case}: {error}");
    }
}

#[test]
fn keys_of_istios_agents_are_accepted() {
    let ca = authority("cluster.local");
    for algorithm in [
        &rcgen::PKCS_RSA_SHA256,
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let csr = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        let issued = ca
            .sign(&csr.pem().unwrap(), &id(ID), HOUR, SystemTime::now())
            .unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(&issued.chain[0]).unwrap();
        assert_eq!(
            leaf.public_key().subject_public_key.data,
            key.public_key_raw()
        );
    }
}

#[test]
fn ids_and_times_outside_the_authority_are_refused_or_shortened() {
    let ca = authority("cluster.local");
    let csr = WorkloadKey::generate().unwrap().request(&id(ID)).unwrap();
    let now = SystemTime::now();
    let sign = |of: &str, lifetime, at| ca.sign(&csr, &id(of), lifetime, at);
    assert!(matches!(
        sign("spiffe://other/ns/a/sa/b", HOUR, now),
        Err(AuthorityError::TrustDomain { .. })
    ));
    assert!(matches!(
        sign("spiffe://cluster.local", HOUR, now),
        Err(AuthorityError::NoWorkload(_))
    ));
    assert!(matches!(
        sign(ID, Duration::ZERO, now),
        Err(AuthorityError::Sign(_))
    ));
    assert!(matches!(
        sign(ID, HOUR, now + 2 * YEAR),
        Err(AuthorityError::Expired)
    ));
    assert_eq!(sign(ID, 50 * YEAR, now).unwrap().not_after, ca.not_after());
}

#[test]
fn a_signer_below_another_root_is_loaded_and_its_chain_is_sent() {
    let now = SystemTime::now();
    let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let params = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_before = (now - HOUR).into();
        params.not_after = (now + YEAR).into();
        params
    };
    let root = params("root").self_signed(&root_key).unwrap();
    let above = rcgen::Issuer::new(params("root"), root_key);
    let signing = params("signing").signed_by(&key, &above).unwrap();
    let key_pem = key.serialize_pem();

    let signer = Signer::from_pem(&signing.pem(), &key_pem, &root.pem(), now).unwrap();
    let ca = CertificateAuthority::new(domain("cluster.local"), signer);
    let csr = WorkloadKey::generate().unwrap().request(&id(ID)).unwrap();
    let issued = ca.sign(&csr, &id(ID), HOUR, now).unwrap();
    assert_eq!(issued.chain[1..], [signing.der().clone()]);
    assert_eq!(ca.bundle_pem(), root.pem());
    let ids = common::handshake(
        side(&ca, "spiffe://cluster.local/ns/a/sa/a"),
        side(&ca, "spiffe://cluster.local/ns/b/sa/b"),
    );
    assert!(ids.is_ok(), "{ids:?}");

    let other = KeyPair::generate().unwrap().serialize_pem();
    for (case, chain, key, at, reason) in [
        ("key", signing.pem(), &other, now, "belong together"),
        (
            "leaf",
            issued.chain_pem(),
            &key_pem,
            now,
            "not marked as a certificate authority",
        ),
        (
            "late",
            signing.pem(),
            &key_pem,
            now + 2 * YEAR,
            "not valid at this time",
        ),
        (
            "empty",
            String::new(),
            &key_pem,
            now,
            "holds no certificate",
        ),
    ] {
        let error = Signer::from_pem(&chain, key, &root.pem(), at)
            .expect_err(case)
            .to_string();
        assert!(error.contains(reason), "{case}: {error}");
    }
}

#[test]
fn roots_change_only_in_an_order_that_keeps_peers_able_to_speak() {
    let mut ca = authority("cluster.local");
    let root = ca.bundle().unwrap().certificates(ca.trust_domain())[0].clone();
    let next = Signer::self_made(ca.trust_domain(), YEAR, SystemTime::now()).unwrap();
    assert!(matches!(
        ca.activate(next),
        Err(AuthorityError::UntrustedSigner)
    ));
    assert!(matches!(ca.retire(&root), Err(AuthorityError::RootInUse)));
    assert!(matches!(
        ca.trust(b"junk".to_vec().into()),
        Err(AuthorityError::Root(_))
    ));
}

fn side(ca: &CertificateAuthority, of: &str) -> common::Side {
    common::Side {
        identity: common::fresh(ca, of),
        bundle: ca.bundle().unwrap(),
        allowed: lateen_identity::AllowList::trust_domains([ca.trust_domain()]),
    }
}

/// A request without its second line of base64.
fn cut(pem: &str) -> String {
    let lines = pem.lines().enumerate().filter(|(n, _)| *n != 2);
    lines.map(|(_, line)| format!("{line}\n")).collect()
}
