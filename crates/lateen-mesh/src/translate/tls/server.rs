//! TLS that is ended here.

use lateen_api::common::{ServerTlsMode, ServerTlsSettings, TlsProtocol as ProtocolSetting};
use lateen_xds::pb::envoy::{
    config::core::v3::TransportSocket,
    extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
        TlsParameters, certificate_validation_context::TrustChainVerification,
        common_tls_context::ValidationContextType, tls_parameters::TlsProtocol,
    },
    r#type::matcher::v3::string_matcher::MatchPattern,
};

use super::{
    AUTHORITY_SUFFIX, MESH_AUTHORITIES, OWN_SECRET, TLS, credential, exactly, file,
    file_authorities, file_certificate, matcher, one_of, parameters, protocols, secret, validation,
};
use crate::translate::build::{flag, transport_socket};

/// Ciphers that the mesh's own connections use.
const MESH_CIPHERS: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];
/// Ciphers that a server's settings may name; others are left out, as they would be refused by the proxy.
const KNOWN_CIPHERS: [&str; 15] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "DES-CBC3-SHA",
];

/// Mutual TLS of the mesh that a workload accepts.
pub(in crate::translate) fn mesh_server(trust_domain: &str) -> TransportSocket {
    let member = matcher(MatchPattern::Prefix(format!("spiffe://{trust_domain}/")));
    transport_socket(
        TLS,
        &DownstreamTlsContext {
            require_client_certificate: flag(true),
            common_tls_context: Some(CommonTlsContext {
                tls_params: parameters(&MESH_CIPHERS),
                tls_certificate_sds_secret_configs: vec![secret(OWN_SECRET, true)],
                alpn_protocols: protocols(&["h2", "http/1.1"]),
                validation_context_type: Some(validation(
                    secret(MESH_AUTHORITIES, true),
                    one_of(vec![member]),
                )),
                ..CommonTlsContext::default()
            }),
            ..DownstreamTlsContext::default()
        },
    )
}

/// TLS that a gateway's server or a Sidecar's listener ends with certificates of its own; none for modes that pass TLS
/// through.
pub(in crate::translate) fn own_server(settings: &ServerTlsSettings) -> Option<TransportSocket> {
    let mode = settings.mode.unwrap_or_default();
    let required = match mode {
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => return None,
        ServerTlsMode::Simple | ServerTlsMode::OptionalMutual => false,
        ServerTlsMode::Mutual | ServerTlsMode::IstioMutual => true,
    };
    let verified = required || mode == ServerTlsMode::OptionalMutual;
    let context = DownstreamTlsContext {
        require_client_certificate: flag(required),
        common_tls_context: Some(CommonTlsContext {
            alpn_protocols: protocols(&["h2", "http/1.1"]),
            tls_certificate_sds_secret_configs: certificates(settings, mode),
            validation_context_type: client_check(settings, mode, verified),
            tls_params: own_parameters(settings, mode),
            ..CommonTlsContext::default()
        }),
        ..DownstreamTlsContext::default()
    };
    Some(transport_socket(TLS, &context))
}

/// Names of the secrets that hold the certificates; none when they are files.
fn credentials(settings: &ServerTlsSettings) -> &[String] {
    match settings.credential_name.as_str() {
        _ if !settings.credential_names.is_empty() => &settings.credential_names,
        "" => &[],
        _ => std::slice::from_ref(&settings.credential_name),
    }
}

fn certificates(settings: &ServerTlsSettings, mode: ServerTlsMode) -> Vec<SdsSecretConfig> {
    if mode == ServerTlsMode::IstioMutual {
        return vec![secret(OWN_SECRET, true)];
    }
    let named = credentials(settings);
    if !named.is_empty() {
        return named.iter().map(|name| credential(name)).collect();
    }
    let files = |certificate: &str, key: &str| match (certificate, key) {
        ("", _) | (_, "") => secret(OWN_SECRET, true),
        (certificate, key) => file_certificate(certificate, key),
    };
    if settings.tls_certificates.is_empty() {
        return vec![files(&settings.server_certificate, &settings.private_key)];
    }
    let listed = settings.tls_certificates.iter();
    listed
        .map(|one| files(&one.server_certificate, &one.private_key))
        .collect()
}

fn client_check(
    settings: &ServerTlsSettings,
    mode: ServerTlsMode,
    verified: bool,
) -> Option<ValidationContextType> {
    let names = one_of(exactly(&settings.subject_alt_names));
    let named = credentials(settings).first();
    if !verified {
        let checked = named.is_some() && !settings.subject_alt_names.is_empty();
        return checked.then_some(ValidationContextType::ValidationContext(names));
    }
    let mut context = names;
    if settings.insecure_skip_verify == Some(true) {
        context.trust_chain_verification = TrustChainVerification::AcceptUntrusted.into();
    }
    let authorities = match (mode, named) {
        (ServerTlsMode::IstioMutual, _) => {
            context.crl = file(&settings.ca_crl);
            secret(MESH_AUTHORITIES, true)
        }
        (_, Some(name)) => {
            demand_keys(&mut context, settings);
            match settings.ca_cert_credential_name.as_str() {
                "" => credential(&format!("{name}{AUTHORITY_SUFFIX}")),
                own => credential(own),
            }
        }
        (_, None) => {
            context.crl = file(&settings.ca_crl);
            match settings.ca_certificates.as_str() {
                "" => secret(MESH_AUTHORITIES, true),
                path => file_authorities(path),
            }
        }
    };
    Some(validation(authorities, context))
}

fn demand_keys(context: &mut CertificateValidationContext, settings: &ServerTlsSettings) {
    context
        .verify_certificate_spki
        .clone_from(&settings.verify_certificate_spki);
    context
        .verify_certificate_hash
        .clone_from(&settings.verify_certificate_hash);
}

/// Versions, ciphers and curves; nothing when the settings leave them to the proxy.
fn own_parameters(settings: &ServerTlsSettings, mode: ServerTlsMode) -> Option<TlsParameters> {
    if mode == ServerTlsMode::IstioMutual {
        return None;
    }
    let version = |setting: Option<ProtocolSetting>| {
        i32::from(match setting.unwrap_or_default() {
            ProtocolSetting::Auto => TlsProtocol::TlsAuto,
            ProtocolSetting::V1_0 => TlsProtocol::TlSv10,
            ProtocolSetting::V1_1 => TlsProtocol::TlSv11,
            ProtocolSetting::V1_2 => TlsProtocol::TlSv12,
            ProtocolSetting::V1_3 => TlsProtocol::TlSv13,
        })
    };
    let known = |cipher: &&String| KNOWN_CIPHERS.contains(&cipher.as_str());
    let ciphers = settings.cipher_suites.iter().filter(known);
    let parameters = TlsParameters {
        tls_minimum_protocol_version: version(settings.min_protocol_version),
        tls_maximum_protocol_version: version(settings.max_protocol_version),
        cipher_suites: ciphers.cloned().collect(),
        ecdh_curves: settings.ecdh_curves.clone(),
        ..TlsParameters::default()
    };
    (parameters != TlsParameters::default()).then_some(parameters)
}
