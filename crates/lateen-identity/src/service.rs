//! The messages of `istio.v1.auth.IstioCertificateService`, by which workloads get their certificates.
//!
//! Source: `security/v1alpha1/ca.proto` of Istio's API. The transport is the caller's.

use std::collections::BTreeMap;

/// Path of the one method, as gRPC names it.
pub const CREATE_CERTIFICATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
/// Name of the service.
pub const SERVICE: &str = "istio.v1.auth.IstioCertificateService";
/// Key of [`CertificateRequest::metadata`] by which node agents ask on behalf of a workload.
pub const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";
/// Audience of the service-account tokens that prove an identity to the authority.
pub const TOKEN_AUDIENCE: &str = "istio-ca";

/// Asks for a certificate.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateRequest {
    /// The certificate signing request, PEM.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// Lifetime wished for, in seconds; zero leaves it to the authority.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    /// What else the caller says (`google.protobuf.Struct`).
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<Metadata>,
}

/// The answer: one certificate an entry, PEM, leaf first, root last.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateResponse {
    /// The chain.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

/// The part of `google.protobuf.Struct` that matters here.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Metadata {
    /// Values by name.
    #[prost(btree_map = "string, message", tag = "1")]
    pub fields: BTreeMap<String, MetadataValue>,
}

/// The part of `google.protobuf.Value` that matters here.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MetadataValue {
    /// The text, when it is one.
    #[prost(string, optional, tag = "3")]
    pub string_value: Option<String>,
}

impl CertificateRequest {
    /// Whether the certificate is to be for somebody else than the caller.
    pub fn impersonates(&self) -> bool {
        let fields = self.metadata.as_ref().map(|metadata| &metadata.fields);
        fields.is_some_and(|fields| fields.contains_key(IMPERSONATED_IDENTITY))
    }
}

impl CertificateResponse {
    /// The chain without its root, and the root, both PEM; nothing for an answer that lacks one of them.
    pub fn split(&self) -> Option<(String, &str)> {
        let (root, chain) = self.cert_chain.split_last()?;
        if chain.is_empty() {
            return None;
        }
        let joined = chain.iter().map(|pem| format!("{}\n", pem.trim_end()));
        Some((joined.collect(), root))
    }
}
