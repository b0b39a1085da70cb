//! TLS settings of connections in both directions.

mod client;
mod server;

pub(super) use client::{Client, mesh_client, own_client, plain};
pub(super) use server::{mesh_server, own_server};

use lateen_api::networking::traffic_policy::ClientTlsSettings;
use lateen_xds::pb::envoy::{
    config::core::v3::{
        AggregatedConfigSource, ApiConfigSource, ApiVersion, ConfigSource, DataSource, GrpcService,
        api_config_source::ApiType,
        config_source::ConfigSourceSpecifier,
        data_source::Specifier,
        grpc_service::{EnvoyGrpc, TargetSpecifier},
    },
    extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, SdsSecretConfig, TlsParameters,
        common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
        tls_parameters::TlsProtocol,
    },
    r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
};

use super::build::seconds;

/// Cluster of the bootstrap that serves secrets of the workload itself and of its files.
const SECRETS_CLUSTER: &str = "sds-grpc";
/// Name of the TLS transport socket.
const TLS: &str = "envoy.transport_sockets.tls";
/// The workload's own certificate and key.
const OWN_SECRET: &str = "default";
/// The authorities of the mesh.
const MESH_AUTHORITIES: &str = "ROOTCA";
/// Suffix of the secret that holds the authorities beside a certificate.
const AUTHORITY_SUFFIX: &str = "-cacert";
/// A credential that stands for the workload's own certificate.
const BUILT_IN: &str = "builtin://";
/// Schemes of credentials that are complete names of resources; others are secrets of the proxy's namespace.
const SCHEMES: [&str; 4] = [
    "kubernetes://",
    "kubernetes-gateway://",
    "configmap://",
    "invalid://",
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

/// A secret that a credential names, served by the control plane. One that is missing holds nothing else up.
fn credential(name: &str) -> SdsSecretConfig {
    match name.strip_prefix(BUILT_IN) {
        Some("") => return secret(OWN_SECRET, true),
        Some(AUTHORITY_SUFFIX) => return secret(MESH_AUTHORITIES, true),
        _ => {}
    }
    let name = name.strip_prefix("sds://").unwrap_or(name);
    let complete = SCHEMES.iter().any(|scheme| name.starts_with(scheme));
    SdsSecretConfig {
        name: if complete {
            name.to_owned()
        } else {
            format!("kubernetes://{name}")
        },
        sds_config: Some(ConfigSource {
            config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
            resource_api_version: ApiVersion::V3.into(),
            ..ConfigSource::default()
        }),
    }
}

/// Whether a credential may be looked up by proxies that have no right to read secrets.
pub(super) fn is_public_credential(settings: &ClientTlsSettings) -> bool {
    settings.credential_name.starts_with("configmap://")
}

fn file_certificate(certificate: &str, key: &str) -> SdsSecretConfig {
    secret(&format!("file-cert:{certificate}~{key}"), false)
}

fn file_authorities(path: &str) -> SdsSecretConfig {
    secret(&format!("file-root:{path}"), false)
}

fn matcher(pattern: MatchPattern) -> StringMatcher {
    StringMatcher {
        match_pattern: Some(pattern),
        ..StringMatcher::default()
    }
}

fn exactly(names: &[String]) -> Vec<StringMatcher> {
    let names = names.iter().cloned();
    names.map(MatchPattern::Exact).map(matcher).collect()
}

fn file(path: &str) -> Option<DataSource> {
    (!path.is_empty()).then(|| DataSource {
        specifier: Some(Specifier::Filename(path.to_owned())),
        ..DataSource::default()
    })
}

/// How the peer's certificate is checked: signed by an authority of the secret, and as the context says.
fn validation(
    authorities: SdsSecretConfig,
    context: CertificateValidationContext,
) -> ValidationContextType {
    ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(context),
        validation_context_sds_secret_config: Some(authorities),
        ..CombinedCertificateValidationContext::default()
    })
}

/// Demands that a certificate has one of the names; any when there are none.
#[allow(deprecated)] // Istio still sends the untyped names, and every Envoy understands them
fn one_of(names: Vec<StringMatcher>) -> CertificateValidationContext {
    CertificateValidationContext {
        match_subject_alt_names: names,
        ..CertificateValidationContext::default()
    }
}

fn parameters(ciphers: &[&str]) -> Option<TlsParameters> {
    Some(TlsParameters {
        tls_minimum_protocol_version: TlsProtocol::TlSv12.into(),
        tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
        cipher_suites: ciphers.iter().map(ToString::to_string).collect(),
        ..TlsParameters::default()
    })
}

fn protocols(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_name_secrets() {
        let check = |name: &str, resource: &str, over_ads: bool| {
            let found = credential(name);
            let source = found
                .sds_config
                .and_then(|source| source.config_source_specifier);
            let ads = matches!(source, Some(ConfigSourceSpecifier::Ads(_)));
            assert_eq!((found.name.as_str(), ads), (resource, over_ads), "{name}");
        };
        check("shop", "kubernetes://shop", true);
        check("other/shop", "kubernetes://other/shop", true);
        check("kubernetes-gateway://a/b", "kubernetes-gateway://a/b", true);
        check("configmap://a/b", "configmap://a/b", true);
        check("builtin://", "default", false);
        check("builtin://-cacert", "ROOTCA", false);
    }
}
