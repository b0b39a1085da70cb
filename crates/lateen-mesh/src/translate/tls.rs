//! TLS settings of connections in both directions.

use lateen_api::networking::traffic_policy::{ClientTlsMode, ClientTlsSettings};
use lateen_xds::pb::envoy::{
    config::core::v3::{
        ApiConfigSource, ApiVersion, ConfigSource, GrpcService, TransportSocket,
        api_config_source::ApiType,
        config_source::ConfigSourceSpecifier,
        grpc_service::{EnvoyGrpc, TargetSpecifier},
    },
    extensions::transport_sockets::{
        raw_buffer::v3::RawBuffer,
        tls::v3::{
            CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
            TlsParameters, UpstreamTlsContext,
            common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
            tls_parameters::TlsProtocol,
        },
    },
    r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
};

use super::build::{flag, seconds, transport_socket};

/// Cluster of the bootstrap that serves secrets.
const SECRETS_CLUSTER: &str = "sds-grpc";
/// Name of the TLS transport socket.
const TLS: &str = "envoy.transport_sockets.tls";
/// Ciphers that the mesh's own connections use.
const MESH_CIPHERS: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];

/// A secret served by the proxy's agent. `wait`: without it nothing starts.
fn secret(name: &str, wait: bool) -> SdsSecretConfig {
    SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(ConfigSource {
            config_source_specifier: Some(ConfigSourceSpecifier::ApiConfigSource(
                ApiConfigSource {
                    api_type: ApiType::Grpc.into(),
                    transport_api_version: ApiVersion::V3.into(),
                    set_node_on_first_message_only: true,
                    grpc_services: vec![GrpcService {
                        target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
                            cluster_name: SECRETS_CLUSTER.to_owned(),
                            ..EnvoyGrpc::default()
                        })),
                        ..GrpcService::default()
                    }],
                    ..ApiConfigSource::default()
                },
            )),
            initial_fetch_timeout: if wait { seconds(0) } else { None },
            resource_api_version: ApiVersion::V3.into(),
            ..ConfigSource::default()
        }),
    }
}

fn matcher(pattern: MatchPattern) -> StringMatcher {
    StringMatcher {
        match_pattern: Some(pattern),
        ..StringMatcher::default()
    }
}

/// How the peer's certificate is checked: signed by an authority of the secret, with one of the names.
#[allow(deprecated)] // Istio still sends the untyped names, and every Envoy understands them
fn validation(authorities: SdsSecretConfig, names: Vec<StringMatcher>) -> ValidationContextType {
    ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(CertificateValidationContext {
            match_subject_alt_names: names,
            ..CertificateValidationContext::default()
        }),
        validation_context_sds_secret_config: Some(authorities),
        ..CombinedCertificateValidationContext::default()
    })
}

fn parameters(ciphers: &[&str]) -> Option<TlsParameters> {
    Some(TlsParameters {
        tls_minimum_protocol_version: TlsProtocol::TlSv12.into(),
        tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
        cipher_suites: ciphers.iter().map(ToString::to_string).collect(),
        ..TlsParameters::default()
    })
}

/// Mutual TLS of the mesh towards a service.
pub(super) fn mesh_client(
    server_name: &str,
    identities: impl IntoIterator<Item = String>,
    http2: bool,
) -> TransportSocket {
    let names = identities
        .into_iter()
        .map(|identity| matcher(MatchPattern::Exact(identity)))
        .collect();
    let protocols: &[&str] = if http2 { &["istio", "h2"] } else { &["istio"] };
    transport_socket(
        TLS,
        &UpstreamTlsContext {
            sni: server_name.to_owned(),
            common_tls_context: Some(CommonTlsContext {
                tls_params: parameters(&[]),
                tls_certificate_sds_secret_configs: vec![secret("default", true)],
                alpn_protocols: protocols.iter().map(ToString::to_string).collect(),
                validation_context_type: Some(validation(secret("ROOTCA", true), names)),
                ..CommonTlsContext::default()
            }),
            ..UpstreamTlsContext::default()
        },
    )
}

/// TLS towards a service as a DestinationRule wants it (modes SIMPLE and MUTUAL).
pub(super) fn own_client(
    settings: &ClientTlsSettings,
    alternative_names: &[String],
    http2: bool,
) -> TransportSocket {
    let names = if settings.subject_alt_names.is_empty() {
        alternative_names
    } else {
        &settings.subject_alt_names
    };
    let names = names
        .iter()
        .map(|name| matcher(MatchPattern::Exact(name.clone())))
        .collect();
    let authorities = match settings.ca_certificates.as_str() {
        "" => "system",
        file => file,
    };
    let certificates = match settings.mode {
        ClientTlsMode::Mutual => {
            vec![secret(
                &format!(
                    "file-cert:{}~{}",
                    settings.client_certificate, settings.private_key
                ),
                false,
            )]
        }
        _ => Vec::new(),
    };
    let unchecked = settings.insecure_skip_verify == Some(true);
    transport_socket(
        TLS,
        &UpstreamTlsContext {
            sni: settings.sni.clone(),
            common_tls_context: Some(CommonTlsContext {
                tls_params: parameters(&[]),
                tls_certificate_sds_secret_configs: certificates,
                alpn_protocols: if http2 {
                    vec!["h2".to_owned()]
                } else {
                    Vec::new()
                },
                validation_context_type: (!unchecked)
                    .then(|| validation(secret(&format!("file-root:{authorities}"), false), names)),
                ..CommonTlsContext::default()
            }),
            ..UpstreamTlsContext::default()
        },
    )
}

/// No TLS.
pub(super) fn plain() -> TransportSocket {
    transport_socket("envoy.transport_sockets.raw_buffer", &RawBuffer {})
}

/// Mutual TLS of the mesh that a workload accepts.
pub(super) fn mesh_server(trust_domain: &str) -> TransportSocket {
    let member = matcher(MatchPattern::Prefix(format!("spiffe://{trust_domain}/")));
    transport_socket(
        TLS,
        &DownstreamTlsContext {
            require_client_certificate: flag(true),
            common_tls_context: Some(CommonTlsContext {
                tls_params: parameters(&MESH_CIPHERS),
                tls_certificate_sds_secret_configs: vec![secret("default", true)],
                alpn_protocols: ["h2", "http/1.1"].map(str::to_owned).to_vec(),
                validation_context_type: Some(validation(secret("ROOTCA", true), vec![member])),
                ..CommonTlsContext::default()
            }),
            ..DownstreamTlsContext::default()
        },
    )
}
