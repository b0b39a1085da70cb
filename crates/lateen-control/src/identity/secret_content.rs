//! What Secrets of Kubernetes hold, as proxies take it.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use lateen_xds::pb::envoy::config::core::v3::{DataSource, data_source::Specifier};
use lateen_xds::pb::envoy::extensions::transport_sockets::tls::v3 as pb;
use lateen_xds::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use lateen_xds::pb::google::protobuf::Any;
use lateen_xds::{Resource, ResourceType};
use prost::Message as _;

/// The content of a Secret under the name that a proxy asked for.
pub(super) fn resource(name: &str, secret: &Secret, content: Type) -> Resource {
    let version = format!(
        "{}/{}",
        secret.name_any(),
        secret.resource_version().unwrap_or_default()
    );
    let message = pb::Secret {
        name: name.to_owned(),
        r#type: Some(content),
    };
    Resource {
        name: name.to_owned(),
        version,
        body: Any {
            type_url: ResourceType::Secret.type_url().to_owned(),
            value: message.encode_to_vec(),
        },
    }
}

/// The certificate and key of a Secret of type `kubernetes.io/tls`, or of Istio's older generic form.
pub(super) fn certificate(secret: &Secret) -> Option<Type> {
    let pair = |chain, key| Some((bytes(secret, chain)?, bytes(secret, key)?));
    let (chain, key) = pair("tls.crt", "tls.key").or_else(|| pair("cert", "key"))?;
    Some(Type::TlsCertificate(pb::TlsCertificate {
        certificate_chain: Some(inline(chain)),
        private_key: Some(inline(key)),
        ..pb::TlsCertificate::default()
    }))
}

/// The authorities in a Secret, and the certificates that they revoked.
pub(super) fn authorities(secret: &Secret) -> Option<Type> {
    let roots = bytes(secret, "ca.crt").or_else(|| bytes(secret, "cacert"))?;
    let revoked = bytes(secret, "ca.crl").or_else(|| bytes(secret, "crl"));
    Some(Type::ValidationContext(pb::CertificateValidationContext {
        trusted_ca: Some(inline(roots)),
        crl: revoked.map(inline),
        ..pb::CertificateValidationContext::default()
    }))
}

/// An entry of a Secret that is not empty.
pub(super) fn bytes<'a>(secret: &'a Secret, key: &str) -> Option<&'a [u8]> {
    let found = secret.data.as_ref()?.get(key)?;
    (!found.0.is_empty()).then_some(found.0.as_slice())
}

/// Bytes within a message.
pub(super) fn inline(bytes: &[u8]) -> DataSource {
    DataSource {
        specifier: Some(Specifier::InlineBytes(bytes.to_vec())),
        ..DataSource::default()
    }
}
