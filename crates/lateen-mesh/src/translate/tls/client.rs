//! TLS towards endpoints.

use lateen_api::networking::traffic_policy::{ClientTlsMode, ClientTlsSettings};
use lateen_xds::pb::envoy::{
    config::core::v3::TransportSocket,
    extensions::transport_sockets::{
        raw_buffer::v3::RawBuffer,
        tls::v3::{
            CertificateValidationContext, CommonTlsContext, SdsSecretConfig, UpstreamTlsContext,
            common_tls_context::ValidationContextType,
        },
    },
};

use super::{
    AUTHORITY_SUFFIX, MESH_AUTHORITIES, OWN_SECRET, TLS, credential, exactly, file,
    file_authorities, file_certificate, is_public_credential, one_of, parameters, protocols,
    secret, validation,
};
use crate::translate::build::transport_socket;

/// What a client's TLS depends on besides its settings.
pub(in crate::translate) struct Client<'a> {
    /// Names of the server when the settings give none.
    pub(in crate::translate) alternative_names: &'a [String],
    /// Whether HTTP/2 is spoken without a choice.
    pub(in crate::translate) http2: bool,
    /// Whether the proxy may read secrets of its namespace.
    pub(in crate::translate) reads_secrets: bool,
}

/// Mutual TLS of the mesh towards a service.
pub(in crate::translate) fn mesh_client(
    server_name: &str,
    identities: &[String],
    http2: bool,
) -> TransportSocket {
    transport_socket(
        TLS,
        &UpstreamTlsContext {
            sni: server_name.to_owned(),
            common_tls_context: Some(CommonTlsContext {
                tls_params: parameters(&[]),
                tls_certificate_sds_secret_configs: vec![secret(OWN_SECRET, true)],
                alpn_protocols: protocols(if http2 { &["istio", "h2"] } else { &["istio"] }),
                validation_context_type: Some(validation(
                    secret(MESH_AUTHORITIES, true),
                    one_of(exactly(identities)),
                )),
                ..CommonTlsContext::default()
            }),
            ..UpstreamTlsContext::default()
        },
    )
}

/// TLS towards a service as a DestinationRule wants it (modes SIMPLE and MUTUAL). None when it needs a secret that
/// the proxy has no right to read: sidecars read secrets only for rules that select them.
pub(in crate::translate) fn own_client(
    settings: &ClientTlsSettings,
    client: &Client<'_>,
) -> Option<TransportSocket> {
    let by_credential = !settings.credential_name.is_empty();
    if by_credential && !client.reads_secrets && !is_public_credential(settings) {
        return None;
    }
    let mutual = settings.mode == ClientTlsMode::Mutual;
    let certificates = match (mutual, by_credential) {
        (false, _) => Vec::new(),
        (true, true) => vec![credential(&settings.credential_name)],
        (true, false) => vec![file_certificate(
            &settings.client_certificate,
            &settings.private_key,
        )],
    };
    let unchecked = settings.insecure_skip_verify == Some(true);
    let validation_context_type = match (unchecked, by_credential) {
        (true, true) => None,
        (true, false) => Some(ValidationContextType::ValidationContext(
            CertificateValidationContext::default(),
        )),
        (false, _) => Some(checked(settings, client)),
    };
    let context = UpstreamTlsContext {
        sni: settings.sni.clone(),
        common_tls_context: Some(CommonTlsContext {
            tls_params: parameters(&[]),
            tls_certificate_sds_secret_configs: certificates,
            alpn_protocols: protocols(if client.http2 { &["h2"] } else { &[] }),
            validation_context_type,
            ..CommonTlsContext::default()
        }),
        ..UpstreamTlsContext::default()
    };
    Some(transport_socket(TLS, &context))
}

fn checked(settings: &ClientTlsSettings, client: &Client<'_>) -> ValidationContextType {
    let names = if settings.subject_alt_names.is_empty() {
        client.alternative_names
    } else {
        &settings.subject_alt_names
    };
    let by_file = settings.credential_name.is_empty();
    let context = CertificateValidationContext {
        crl: file(&settings.ca_crl).filter(|_| by_file),
        ..one_of(exactly(names))
    };
    validation(authorities(settings), context)
}

fn authorities(settings: &ClientTlsSettings) -> SdsSecretConfig {
    let (name, path) = (&settings.credential_name, &settings.ca_certificates);
    match (name.as_str(), path.as_str()) {
        ("", "") => file_authorities("system"),
        ("", path) => file_authorities(path),
        (name, _) => credential(&format!("{name}{AUTHORITY_SUFFIX}")),
    }
}

/// No TLS.
pub(in crate::translate) fn plain() -> TransportSocket {
    transport_socket("envoy.transport_sockets.raw_buffer", &RawBuffer {})
}
