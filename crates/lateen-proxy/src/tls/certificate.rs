//! Certificates with their keys, as contexts and secrets give them.

use std::sync::Arc;

use lateen_identity::Identity;
use lateen_route::{Invalid, Within, refuse_rest};
use lateen_xds::pb::envoy::config::core::v3::DataSource;
use lateen_xds::pb::envoy::config::core::v3::data_source::Specifier;
use lateen_xds::pb::envoy::extensions::transport_sockets::tls::v3 as pb;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use x509_parser::parse_x509_certificate;

use super::names::{NameKind, alternative_names, stands_for};

/// Longest content of a file or variable, in bytes.
const MOST_BYTES: u64 = 1 << 20;

/// A certificate chain with the key of its first certificate.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) key: Arc<CertifiedKey>,
    /// DNS names that a client may ask for, lower case; the common name when there are none.
    server_names: Vec<String>,
    /// The key signs with an elliptic curve.
    pub(crate) elliptic: bool,
}

impl Certificate {
    /// Reads a chain, leaf first, and its key, both PEM.
    pub(crate) fn from_pem(chain: &str, key: &str) -> Result<Self, String> {
        let (chain, key) = Identity::from_pem(chain, key)
            .map_err(|error| error.to_string())?
            .into_parts();
        let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
            .map_err(|error| format!("the key cannot be used with the certificate: {error}"))?;
        let leaf = key.cert.first().map(AsRef::as_ref).unwrap_or_default();
        let (_, parsed) = parse_x509_certificate(leaf)
            .map_err(|error| format!("the certificate cannot be read: {error}"))?;
        let mut server_names: Vec<String> = alternative_names(&parsed)
            .into_iter()
            .filter(|name| name.kind == NameKind::Dns)
            .map(|name| name.value.to_ascii_lowercase())
            .collect();
        if server_names.is_empty() {
            let common = parsed.subject().iter_common_name();
            server_names = common
                .filter_map(|name| name.as_str().ok())
                .map(str::to_ascii_lowercase)
                .collect();
        }
        let elliptic = key.key.algorithm() == rustls::SignatureAlgorithm::ECDSA;
        Ok(Self {
            key: Arc::new(key),
            server_names,
            elliptic,
        })
    }

    /// Compiles the message.
    pub(crate) fn compile(mut message: pb::TlsCertificate) -> Result<Self, Invalid> {
        let missing = |field| Invalid::new(field, "is required");
        let chain = message
            .certificate_chain
            .take()
            .ok_or_else(|| missing("certificate_chain"))?;
        let key = message
            .private_key
            .take()
            .ok_or_else(|| missing("private_key"))?;
        refuse_rest(&message)?;
        let chain = read(chain).within("certificate_chain")?;
        let key = read(key).within("private_key")?;
        Self::from_pem(&chain, &key).map_err(|reason| Invalid::new("", reason))
    }

    /// Whether it is made for a server of this name.
    pub(crate) fn is_for(&self, server_name: &str) -> bool {
        self.server_names
            .iter()
            .any(|name| stands_for(name, server_name))
    }
}

/// The text of a data source. Files are read when the configuration is taken over.
pub(crate) fn read(source: DataSource) -> Result<String, Invalid> {
    if source.watched_directory.is_some() {
        return Err(Invalid::unsupported("watched_directory"));
    }
    let text = |bytes| {
        String::from_utf8(bytes).map_err(|_| Invalid::new("", "is not text (PEM is expected)"))
    };
    match source.specifier {
        Some(Specifier::InlineString(content)) => Ok(content),
        Some(Specifier::InlineBytes(content)) => text(content).within("inline_bytes"),
        Some(Specifier::Filename(path)) => {
            read_file(&path).map_err(|reason| Invalid::new("filename", reason))
        }
        Some(Specifier::EnvironmentVariable(name)) => std::env::var(&name).map_err(|_| {
            let reason = format!("the variable `{name}` is not set");
            Invalid::new("environment_variable", reason)
        }),
        None => Err(Invalid::new("", "is empty")),
    }
}

/// The content of a file, which must not be longer than a certificate store can be.
pub(crate) fn read_file(path: &str) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("cannot read `{path}`: {error}");
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > MOST_BYTES {
        return Err(format!(
            "`{path}` has {length} bytes, and at most {MOST_BYTES} are read"
        ));
    }
    std::fs::read_to_string(path).map_err(failed)
}
