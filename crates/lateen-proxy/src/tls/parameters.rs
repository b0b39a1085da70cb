//! Protocol versions, cipher suites and key exchanges, in the names that configurations use (BoringSSL's).

use std::sync::Arc;

use lateen_route::{Invalid, refuse_rest};
use lateen_xds::pb::envoy::extensions::transport_sockets::tls::v3::TlsParameters;
use lateen_xds::pb::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, SupportedCipherSuite, SupportedProtocolVersion};

/// What a handshake may choose from.
#[derive(Debug, Clone)]
pub(crate) struct Parameters {
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) versions: Vec<&'static SupportedProtocolVersion>,
}

/// TLS 1.2 suites by name. They are the ones of Envoy's default list.
const SUITES: [(&str, SupportedCipherSuite); 6] = [
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
];

/// Suites without forward secrecy or with weak integrity, which Envoy still knows. A list that names them only loses
/// choices: they are never negotiated here.
const OLD_SUITES: [&str; 10] = [
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-RSA-AES256-SHA",
    "ECDHE-RSA-AES128-SHA256",
    "DES-CBC3-SHA",
];

/// Suites of TLS 1.3, which no list limits.
const MODERN: [SupportedCipherSuite; 3] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
];

/// Key exchanges by name.
const GROUPS: [(&str, &dyn SupportedKxGroup); 4] = [
    ("X25519", kx_group::X25519),
    ("P-256", kx_group::SECP256R1),
    ("P-384", kx_group::SECP384R1),
    ("X25519MLKEM768", kx_group::X25519MLKEM768),
];

impl Parameters {
    /// Compiles the message. `server` decides the newest version when none is given.
    pub(crate) fn compile(message: Option<TlsParameters>, server: bool) -> Result<Self, Invalid> {
        let mut message = message.unwrap_or_default();
        let minimum = std::mem::take(&mut message.tls_minimum_protocol_version);
        let maximum = std::mem::take(&mut message.tls_maximum_protocol_version);
        let from = match TlsProtocol::try_from(minimum) {
            Ok(TlsProtocol::TlsAuto | TlsProtocol::TlSv12) => 2,
            Ok(TlsProtocol::TlSv13) => 3,
            _ => {
                let reason = "TLS 1.0 and 1.1 are not supported by this proxy";
                return Err(Invalid::new("tls_minimum_protocol_version", reason));
            }
        };
        let to = match TlsProtocol::try_from(maximum) {
            Ok(TlsProtocol::TlsAuto) if server || from == 3 => 3,
            Ok(TlsProtocol::TlsAuto | TlsProtocol::TlSv12) => 2,
            Ok(TlsProtocol::TlSv13) => 3,
            _ => {
                let reason = "TLS 1.0 and 1.1 are not supported by this proxy";
                return Err(Invalid::new("tls_maximum_protocol_version", reason));
            }
        };
        if from > to {
            let reason = "must not be below the minimum";
            return Err(Invalid::new("tls_maximum_protocol_version", reason));
        }
        let mut versions: Vec<&'static SupportedProtocolVersion> = Vec::new();
        if to == 3 {
            versions.push(&TLS13);
        }
        if from == 2 {
            versions.push(&TLS12);
        }
        let mut suites = suites(&std::mem::take(&mut message.cipher_suites))?;
        if suites.is_empty() && to == 2 {
            return Err(Invalid::new(
                "cipher_suites",
                "none of them is supported by this proxy",
            ));
        }
        suites.extend(MODERN);
        let groups = groups(&std::mem::take(&mut message.ecdh_curves))?;
        refuse_rest(&message)?;
        let provider = CryptoProvider {
            cipher_suites: suites,
            kx_groups: groups,
            ..aws_lc_rs::default_provider()
        };
        Ok(Self {
            provider: Arc::new(provider),
            versions,
        })
    }
}

fn suites(names: &[String]) -> Result<Vec<SupportedCipherSuite>, Invalid> {
    if names.is_empty() {
        return Ok(SUITES.iter().map(|(_, suite)| *suite).collect());
    }
    let mut suites = Vec::new();
    // `[A|B]` is a group of equal preference, which a list in one order satisfies.
    let all = names
        .iter()
        .flat_map(|name| name.split([':', '|']))
        .map(|name| name.trim_start_matches('[').trim_end_matches(']'));
    for name in all {
        if let Some((_, suite)) = SUITES.iter().find(|(known, _)| *known == name) {
            if !suites.contains(suite) {
                suites.push(*suite);
            }
        } else if !OLD_SUITES.contains(&name) {
            return Err(Invalid::new(
                "cipher_suites",
                format!("`{name}` is not a known cipher suite"),
            ));
        }
    }
    Ok(suites)
}

fn groups(names: &[String]) -> Result<Vec<&'static dyn SupportedKxGroup>, Invalid> {
    if names.is_empty() {
        return Ok(vec![kx_group::X25519, kx_group::SECP256R1]);
    }
    let find = |name: &String| {
        let found = GROUPS.iter().find(|(known, _)| known == name);
        found.map(|(_, group)| *group).ok_or_else(|| {
            Invalid::new(
                "ecdh_curves",
                format!("`{name}` is not supported by this proxy"),
            )
        })
    };
    names.iter().map(find).collect()
}

/// The name that logs and statistics have for a suite: OpenSSL's for TLS 1.2, the standard's for TLS 1.3.
pub(crate) fn suite_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        _ => SUITES
            .iter()
            .find(|(_, known)| known.suite() == suite)
            .map_or("", |(name, _)| name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_suites_and_curves_are_taken_or_refused_by_name() {
        let texts = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        for (minimum, maximum, ciphers, curves, server, outcome) in [
            (0, 0, &[][..], &[][..], true, Ok((2, 9))),
            (0, 0, &[], &[], false, Ok((1, 9))),
            (3, 4, &["AES128-GCM-SHA256"], &["P-256"], true, Ok((2, 3))),
            (
                3,
                3,
                &["AES128-GCM-SHA256"],
                &[],
                true,
                Err("cipher_suites"),
            ),
            (4, 0, &[], &[], false, Ok((1, 9))),
            (
                3,
                3,
                &["[ECDHE-RSA-AES128-GCM-SHA256|ECDHE-RSA-CHACHA20-POLY1305]"],
                &["X25519", "X25519MLKEM768"],
                true,
                Ok((1, 5)),
            ),
            (1, 0, &[], &[], true, Err("tls_minimum_protocol_version")),
            (4, 3, &[], &[], true, Err("tls_maximum_protocol_version")),
            (0, 0, &["NONE-SUCH"], &[], true, Err("cipher_suites")),
            (0, 0, &[], &["P-521"], true, Err("ecdh_curves")),
        ] {
            let message = TlsParameters {
                tls_minimum_protocol_version: minimum,
                tls_maximum_protocol_version: maximum,
                cipher_suites: texts(ciphers),
                ecdh_curves: texts(curves),
                ..TlsParameters::default()
            };
            let compiled = Parameters::compile(Some(message.clone()), server)
                .map(|all| (all.versions.len(), all.provider.cipher_suites.len()))
                .map_err(|error| error.to_string());
            match outcome {
                Ok(counts) => assert_eq!(compiled, Ok(counts), "{message:?}"),
                Err(path) => assert!(compiled.unwrap_err().starts_with(path), "{message:?}"),
            }
        }
    }
}
