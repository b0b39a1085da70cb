//! Messages that several kinds share.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a text must look. Exactly one field is set; none at all means "present".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("oneOf" = crate::crd::rules::at_most_one(&["exact", "prefix", "regex"])))]
pub struct StringMatch {
    /// The whole text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
    /// The beginning of the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// An RE2 expression for the whole text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
}

/// The one condition of a [`StringMatch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition<'a> {
    /// Anything, as long as it is there.
    Present,
    /// The whole text.
    Exact(&'a str),
    /// The beginning of the text.
    Prefix(&'a str),
    /// An RE2 expression for the whole text.
    Regex(&'a str),
}

impl StringMatch {
    /// The condition that is set. The regular expression `*` means present, as Istio has it.
    pub fn condition(&self) -> Condition<'_> {
        match (&self.exact, &self.prefix, &self.regex) {
            (Some(text), _, _) => Condition::Exact(text),
            (_, Some(text), _) => Condition::Prefix(text),
            (_, _, Some(text)) if text != "*" => Condition::Regex(text),
            _ => Condition::Present,
        }
    }
}

/// A port by number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PortSelector {
    /// Port number, 1 to 65535.
    pub number: u32,
}

/// Labels that a workload must have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSelector {
    /// Labels and their values; all must match.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Labels that a workload must have, in the spelling of the security kinds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Labels and their values; all must match.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
}

/// Whether `labels` has all of `wanted`.
pub fn labels_match(wanted: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    wanted
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

/// A share in percent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Percent {
    /// 0 to 100; four decimals count.
    pub value: f64,
}

/// A port of a gateway, a service entry or a Sidecar.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Port {
    /// Port number, 1 to 65535.
    pub number: u32,
    /// Protocol: HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, MONGO, TCP, TLS (any case).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    /// Label of the port.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Port of the endpoints when it differs.
    #[serde(skip_serializing_if = "is_zero")]
    pub target_port: u32,
}

/// TLS settings of a server that a gateway or a Sidecar opens.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerTlsSettings {
    /// Answer plain HTTP requests with a redirect (301) to HTTPS.
    #[serde(skip_serializing_if = "is_false")]
    pub https_redirect: bool,
    /// What is done with TLS connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<ServerTlsMode>,
    /// File with the server's certificate chain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub server_certificate: String,
    /// File with the server's private key.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub private_key: String,
    /// File with the certificates of the authorities that sign client certificates.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ca_certificates: String,
    /// File with the list of revoked client certificates.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ca_crl: String,
    /// Secret with certificate and key.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub credential_name: String,
    /// Secrets with certificates of different key types, at most two.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub credential_names: Vec<String>,
    /// Secret with the certificates of the authorities that sign client certificates.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ca_cert_credential_name: String,
    /// Certificates of different key types, at most two.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tls_certificates: Vec<TlsCertificate>,
    /// Names of which a client certificate must have one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subject_alt_names: Vec<String>,
    /// Base64 SHA-256 hashes of the public keys of accepted client certificates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verify_certificate_spki: Vec<String>,
    /// Hexadecimal SHA-256 hashes of accepted client certificates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verify_certificate_hash: Vec<String>,
    /// Lowest protocol version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_protocol_version: Option<TlsProtocol>,
    /// Highest protocol version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_protocol_version: Option<TlsProtocol>,
    /// Cipher suites in order of preference.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cipher_suites: Vec<String>,
    /// Elliptic curves in order of preference.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ecdh_curves: Vec<String>,
    /// Accept client certificates that cannot be verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insecure_skip_verify: Option<bool>,
}

/// Files of one certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsCertificate {
    /// File with the certificate chain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub server_certificate: String,
    /// File with the private key.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub private_key: String,
    /// File with the certificates of the authorities that sign client certificates.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ca_certificates: String,
}

/// What a server does with TLS connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServerTlsMode {
    /// Route by server name without decrypting.
    #[default]
    Passthrough,
    /// Decrypt with the server's certificate.
    Simple,
    /// Decrypt and require a client certificate.
    Mutual,
    /// Route by a server name that is itself the name of a cluster.
    AutoPassthrough,
    /// Require the mesh's own certificates.
    IstioMutual,
    /// Decrypt; a client certificate is verified when there is one.
    OptionalMutual,
}

/// Versions of TLS.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum TlsProtocol {
    /// The proxy's default.
    #[default]
    #[serde(rename = "TLS_AUTO")]
    Auto,
    /// TLS 1.0
    #[serde(rename = "TLSV1_0")]
    V1_0,
    /// TLS 1.1
    #[serde(rename = "TLSV1_1")]
    V1_1,
    /// TLS 1.2
    #[serde(rename = "TLSV1_2")]
    V1_2,
    /// TLS 1.3
    #[serde(rename = "TLSV1_3")]
    V1_3,
}

/// For `skip_serializing_if`.
pub(crate) fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// For `skip_serializing_if`.
pub(crate) fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Names of gRPC's status codes in order: the position is the number (gRPC's "Status codes and their use").
pub const GRPC_CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Reads a list as Kubernetes writes it: `null` is an empty one, and elements that are `null` are left out.
pub(crate) fn without_nulls<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    let elements = Option::<Vec<Option<T>>>::deserialize(deserializer)?;
    Ok(elements.into_iter().flatten().flatten().collect())
}
