//! The authority and the serving certificate, kept in the state folder.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

/// The authority is good for ten years, as kubeadm's.
const AUTHORITY_DAYS: i64 = 3650;

/// A serving certificate is made anew with every start.
const SERVING_DAYS: i64 = 365;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read or written.
    #[error("cannot use {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A key or certificate cannot be made, or a stored one not be read.
    #[error("cannot make the certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// TLS does not accept the certificate.
    #[error("cannot serve with the certificate: {0}")]
    Serve(#[from] rustls::Error),
}

/// What clients verify the server by, and what it serves with.
pub(crate) struct Certificates {
    pub(crate) ca_pem: String,
    pub(crate) config: Arc<ServerConfig>,
}

impl Certificates {
    /// Loads the authority from `folder`, or makes one, and makes a serving certificate for `names` (DNS names and
    /// addresses).
    pub(crate) fn open(folder: &Path, names: &[String]) -> Result<Self, CertificateError> {
        let (key_path, ca_path) = (folder.join("ca.key"), folder.join("ca.crt"));
        let (ca_pem, issuer) = match (read(&key_path)?, read(&ca_path)?) {
            (Some(key), Some(ca)) => (ca, Issuer::new(authority(), KeyPair::from_pem(&key)?)),
            _ => {
                let key = KeyPair::generate()?;
                let params = authority();
                let ca = params.self_signed(&key)?.pem();
                write_private(&key_path, &key.serialize_pem())?;
                write_private(&ca_path, &ca)?;
                (ca, Issuer::new(params, key))
            }
        };
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.to_vec())?;
        params
            .distinguished_name
            .push(DnType::CommonName, "lateen-apiserver");
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        (params.not_before, params.not_after) = validity(SERVING_DAYS);
        let certificate = params.signed_by(&key, &issuer)?;
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            ca_pem,
            config: Arc::new(config),
        })
    }
}

/// The same for every start, so that certificates made later chain to the stored authority.
fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "lateen-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = validity(AUTHORITY_DAYS);
    params
}

/// From yesterday, as clocks differ.
fn validity(days: i64) -> (OffsetDateTime, OffsetDateTime) {
    let now = OffsetDateTime::now_utc();
    (
        now.saturating_sub(Duration::days(1)),
        now.saturating_add(Duration::days(days)),
    )
}

/// The file's text; `None` when there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<String>, CertificateError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CertificateError::File {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Writes a file that only its owner may read.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), CertificateError> {
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| CertificateError::File {
        path: path.to_owned(),
        source,
    })
}
