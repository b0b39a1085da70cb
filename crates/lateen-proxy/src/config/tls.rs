//! TLS contexts of listeners and clusters.

use std::sync::Arc;
use std::time::Duration;

use lateen_route::{Invalid, Within, refuse_rest};
use lateen_xds::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use lateen_xds::pb::envoy::config::core::v3::grpc_service::TargetSpecifier;
use lateen_xds::pb::envoy::config::core::v3::{ConfigSource, TransportSocket, transport_socket};
use lateen_xds::pb::envoy::extensions::transport_sockets::tls::v3 as pb;
use lateen_xds::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use lateen_xds::pb::envoy::extensions::transport_sockets::tls::v3::downstream_tls_context::SessionTicketKeysType;
use lateen_xds::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
use rustls_pki_types::ServerName;

use super::context::Context;
use super::{RAW_BUFFER, decode, duration, flag};
use crate::secret::{Origin, SecretSlot};
use crate::stats::{PerWorker, SslStats};
use crate::tls::certificate::Certificate;
use crate::tls::client::ClientTls;
use crate::tls::context::{CertificateSource, Common};
use crate::tls::parameters::Parameters;
use crate::tls::server::{ServerResumption, ServerTls};
use crate::tls::validation::Validation;

const DOWNSTREAM: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
const UPSTREAM: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";

/// The cluster of Istio's bootstrap through which Envoy asks the agent for secrets. Here the agent is in the process.
const AGENT: &str = "sds-grpc";

/// How long a secret is waited for when nothing else is configured.
const FETCH_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest server name and longest application protocol, in bytes.
const LONGEST: usize = 255;

/// The transport of a filter chain; nothing for plaintext.
pub(crate) fn downstream(
    socket: Option<TransportSocket>,
    context: &Context<'_>,
    stats: Arc<PerWorker<SslStats>>,
) -> Result<Option<Arc<ServerTls>>, Invalid> {
    let Some(any) = typed(socket, DOWNSTREAM)? else {
        return Ok(None);
    };
    let mut message: pb::DownstreamTlsContext = decode(&any).within("typed_config")?;
    let common = message.common_tls_context.take();
    let path = "typed_config.common_tls_context";
    let common = common_context(common, context, true).within(path)?;
    if common.certificates.is_empty() {
        let reason = "a server needs a certificate";
        return Err(Invalid::new("tls_certificates", reason)).within(path);
    }
    let tickets = match message.session_ticket_keys_type.take() {
        None => true,
        Some(SessionTicketKeysType::DisableStatelessSessionResumption(disabled)) => !disabled,
        // Tickets of other proxies cannot be read: their format is the library's own.
        Some(SessionTicketKeysType::SessionTicketKeys(_)) => {
            return Err(Invalid::unsupported("typed_config.session_ticket_keys"));
        }
        Some(SessionTicketKeysType::SessionTicketKeysSdsSecretConfig(_)) => {
            let path = "typed_config.session_ticket_keys_sds_secret_config";
            return Err(Invalid::unsupported(path));
        }
    };
    let tls = ServerTls {
        common,
        require_client_certificate: flag(message.require_client_certificate.take(), false),
        scan_all: flag(message.full_scan_certs_on_sni_mismatch.take(), false),
        prefer_client_ciphers: std::mem::take(&mut message.prefer_client_ciphers),
        resumption: ServerResumption {
            tickets,
            memory: !std::mem::take(&mut message.disable_stateful_session_resumption),
        },
        stats,
        current: Default::default(),
    };
    refuse_rest(&message).within("typed_config")?;
    let fixed = tls.common.validation.as_ref();
    let checks = fixed.is_some_and(|fixed| fixed.checks_something());
    if tls.require_client_certificate && !checks && tls.common.validation_secret.is_none() {
        // Envoy would not even ask for one, and everybody would be served.
        let reason = "needs a validation context that says how to check the certificate";
        return Err(Invalid::new(
            "typed_config.require_client_certificate",
            reason,
        ));
    }
    tls.prepare()
        .map_err(|reason| Invalid::new("typed_config", reason))?;
    Ok(Some(Arc::new(tls)))
}

/// The transport to endpoints; nothing for plaintext.
pub(crate) fn upstream(
    socket: Option<TransportSocket>,
    context: &Context<'_>,
) -> Result<Option<Arc<ClientTls>>, Invalid> {
    let Some(any) = typed(socket, UPSTREAM)? else {
        return Ok(None);
    };
    let mut message: pb::UpstreamTlsContext = decode(&any).within("typed_config")?;
    // Deprecated and ignored: the usage of keys is always enforced.
    message.enforce_rsa_key_usage = None;
    if message.allow_renegotiation {
        let reason = "renegotiation is not supported by this proxy";
        return Err(Invalid::new("typed_config.allow_renegotiation", reason));
    }
    let common = message.common_tls_context.take();
    let path = "typed_config.common_tls_context";
    let common = common_context(common, context, false).within(path)?;
    if common.certificates.len() > 1 {
        let reason = "a client shows at most one certificate";
        return Err(Invalid::new("tls_certificates", reason)).within(path);
    }
    let tls = ClientTls {
        common,
        server_name: server_name(std::mem::take(&mut message.sni)).within("typed_config.sni")?,
        host_server_name: std::mem::take(&mut message.auto_host_sni),
        check_server_name: std::mem::take(&mut message.auto_sni_san_validation),
        sessions: message
            .max_session_keys
            .take()
            .map_or(1, |value| value.value as usize),
        current: Default::default(),
    };
    refuse_rest(&message).within("typed_config")?;
    tls.prepare()
        .map_err(|reason| Invalid::new("typed_config", reason))?;
    Ok(Some(Arc::new(tls)))
}

/// TLS to a server whose certificate must be for this name and be signed by one of the authorities in a secret of the
/// discovery stream.
pub(crate) fn to_server(
    name: &str,
    authorities: &str,
    context: &Context<'_>,
) -> Result<Arc<ClientTls>, Invalid> {
    let is_address = name.parse::<std::net::IpAddr>().is_ok();
    let matcher = pb::SubjectAltNameMatcher {
        san_type: if is_address {
            pb::subject_alt_name_matcher::SanType::IpAddress.into()
        } else {
            pb::subject_alt_name_matcher::SanType::Dns.into()
        },
        matcher: Some(StringMatcher {
            match_pattern: Some(MatchPattern::Exact(name.to_owned())),
            ..StringMatcher::default()
        }),
        ..pb::SubjectAltNameMatcher::default()
    };
    let checks = pb::common_tls_context::CombinedCertificateValidationContext {
        default_validation_context: Some(pb::CertificateValidationContext {
            match_typed_subject_alt_names: vec![matcher],
            ..pb::CertificateValidationContext::default()
        }),
        validation_context_sds_secret_config: Some(pb::SdsSecretConfig {
            name: authorities.to_owned(),
            sds_config: Some(ConfigSource {
                config_source_specifier: Some(ConfigSourceSpecifier::Ads(Default::default())),
                ..ConfigSource::default()
            }),
        }),
        ..Default::default()
    };
    let common = pb::CommonTlsContext {
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(checks)),
        ..pb::CommonTlsContext::default()
    };
    let common = common_context(Some(common), context, false)?;
    Ok(Arc::new(ClientTls {
        common,
        server_name: if is_address {
            None
        } else {
            server_name(name.to_owned())?
        },
        host_server_name: false,
        check_server_name: false,
        sessions: 1,
        current: Default::default(),
    }))
}

/// The content of a transport socket that must be of this type; nothing for plaintext.
fn typed(
    socket: Option<TransportSocket>,
    type_url: &str,
) -> Result<Option<lateen_xds::pb::google::protobuf::Any>, Invalid> {
    let Some(transport_socket::ConfigType::TypedConfig(any)) =
        socket.and_then(|socket| socket.config_type)
    else {
        return Ok(None);
    };
    if any.type_url == RAW_BUFFER {
        return Ok(None);
    }
    if any.type_url != type_url {
        let reason = format!(
            "transport `{}` is not supported by this proxy",
            any.type_url
        );
        return Err(Invalid::new("typed_config", reason));
    }
    Ok(Some(any))
}

fn common_context(
    message: Option<pb::CommonTlsContext>,
    context: &Context<'_>,
    server: bool,
) -> Result<Common, Invalid> {
    let mut message = message.unwrap_or_default();
    let parameters = Parameters::compile(message.tls_params.take(), server).within("tls_params")?;
    let mut certificates = Vec::new();
    let inline = std::mem::take(&mut message.tls_certificates);
    for (index, certificate) in inline.into_iter().enumerate() {
        let certificate =
            Certificate::compile(certificate).within_item("tls_certificates", index)?;
        certificates.push(CertificateSource::Inline(Arc::new(certificate)));
    }
    let secrets = std::mem::take(&mut message.tls_certificate_sds_secret_configs);
    // Ignored beside certificates that are given, by the definition of the field.
    if certificates.is_empty() {
        for (index, config) in secrets.into_iter().enumerate() {
            let slot =
                secret(config, context).within_item("tls_certificate_sds_secret_configs", index)?;
            certificates.push(CertificateSource::Secret(slot));
        }
    }
    let (mut validation, mut validation_secret) = (None, None);
    match message.validation_context_type.take() {
        None => {}
        Some(ValidationContextType::ValidationContext(fixed)) => {
            validation = Some(Validation::compile(fixed).within("validation_context")?);
        }
        Some(ValidationContextType::ValidationContextSdsSecretConfig(config)) => {
            let path = "validation_context_sds_secret_config";
            validation_secret = Some(secret(config, context).within(path)?);
        }
        Some(ValidationContextType::CombinedValidationContext(mut combined)) => {
            let path = "combined_validation_context";
            if let Some(fixed) = combined.default_validation_context.take() {
                let fixed = Validation::compile(fixed).within("default_validation_context");
                validation = Some(fixed.within(path)?);
            }
            if let Some(config) = combined.validation_context_sds_secret_config.take() {
                let slot = secret(config, context).within("validation_context_sds_secret_config");
                validation_secret = Some(slot.within(path)?);
            }
            refuse_rest(&combined).within(path)?;
        }
        Some(_) => return Err(Invalid::unsupported("validation_context_type")),
    }
    let mut protocols = Vec::new();
    for (index, protocol) in std::mem::take(&mut message.alpn_protocols)
        .into_iter()
        .enumerate()
    {
        if protocol.is_empty() || protocol.len() > LONGEST {
            let reason = format!("must have 1 to {LONGEST} bytes");
            return Err(Invalid::new("", reason)).within_item("alpn_protocols", index);
        }
        protocols.push(protocol.into_bytes());
    }
    refuse_rest(&message)?;
    Ok(Common {
        parameters,
        protocols,
        certificates,
        validation: validation.map(Arc::new),
        validation_secret,
    })
}

/// The place of a secret that a context refers to.
fn secret(
    mut message: pb::SdsSecretConfig,
    context: &Context<'_>,
) -> Result<Arc<SecretSlot>, Invalid> {
    let name = std::mem::take(&mut message.name);
    if name.is_empty() {
        return Err(Invalid::new("name", "is required"));
    }
    let source = message
        .sds_config
        .take()
        .ok_or_else(|| Invalid::new("sds_config", "is required: there are no static secrets"))?;
    refuse_rest(&message)?;
    let patience = match &source.initial_fetch_timeout {
        None => Some(FETCH_TIMEOUT),
        Some(time) => {
            let path = "sds_config.initial_fetch_timeout";
            Some(duration(*time).within(path)?).filter(|time| !time.is_zero())
        }
    };
    let origin = origin(source).within("sds_config")?;
    Ok(context.secrets().slot(origin, &name, patience))
}

/// Who has the secret: the control plane, or the agent that Istio's configuration reaches through its own cluster.
fn origin(source: ConfigSource) -> Result<Origin, Invalid> {
    let refused = || {
        let reason = format!("only the aggregated stream (`ads`) and `{AGENT}` are supported");
        Invalid::new("", reason)
    };
    match source.config_source_specifier {
        Some(ConfigSourceSpecifier::Ads(_)) => Ok(Origin::Discovery),
        Some(ConfigSourceSpecifier::ApiConfigSource(api)) => {
            let target = api.grpc_services.into_iter().next();
            match target.and_then(|service| service.target_specifier) {
                Some(TargetSpecifier::EnvoyGrpc(envoy)) if envoy.cluster_name == AGENT => {
                    Ok(Origin::Local)
                }
                Some(TargetSpecifier::GoogleGrpc(google))
                    if google.target_uri.starts_with("unix:") =>
                {
                    Ok(Origin::Local)
                }
                _ => Err(refused()),
            }
        }
        _ => Err(refused()),
    }
}

/// A name to ask for. Empty means none.
fn server_name(name: String) -> Result<Option<ServerName<'static>>, Invalid> {
    if name.is_empty() {
        return Ok(None);
    }
    match ServerName::try_from(name.clone()) {
        // An address is no server name (RFC 6066, section 3), and is not sent.
        Ok(ServerName::IpAddress(_)) => Ok(None),
        Ok(parsed) => Ok(Some(parsed)),
        Err(_) => Err(Invalid::new(
            "",
            format!("`{name}` is not a valid server name"),
        )),
    }
}
