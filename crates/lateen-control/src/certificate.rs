//! The certificate authority behind the webhook's certificate.
//!
//! Its key lives in the Secret that Istio uses, so that a restarted control plane keeps its identity and replicas share
//! one.

use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, ResourceExt as _};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};

/// Where Istio keeps its self-made CA.
const SECRET: &str = "istio-ca-secret";
const CERTIFICATE_KEY: &str = "ca-cert.pem";
const PRIVATE_KEY_KEY: &str = "ca-key.pem";
/// How long certificates are valid: Istio's lifetime of a self-made root.
const LIFETIME: Duration = Duration::days(3650);
/// Tolerance for clocks that are behind.
const SKEW: Duration = Duration::days(1);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// The Secret could not be read or written.
    #[error("secret {SECRET}: {0}")]
    Secret(#[from] kube::Error),
    /// The Secret lacks a key or holds something else.
    #[error("secret {SECRET} has no usable {0}")]
    Content(&'static str),
    /// Making a certificate failed.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// The certificate cannot be used for TLS.
    #[error("cannot use the certificate: {0}")]
    Use(#[from] rustls::Error),
}

/// A certificate authority of our own.
pub(crate) struct Authority {
    certificate: String,
    key: KeyPair,
}

impl Authority {
    /// The mesh's authority: the one in the Secret, or a new one that is put there.
    pub(crate) async fn load(client: &Client, namespace: &str) -> Result<Self, CertificateError> {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        if let Some(secret) = secrets.get_opt(SECRET).await? {
            return Self::from_secret(&secret);
        }
        let made = Self::new()?;
        match secrets.create(&PostParams::default(), &made.secret()).await {
            Ok(_) => Ok(made),
            // Another replica was faster: its authority is the mesh's.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                Self::from_secret(&secrets.get(SECRET).await?)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn new() -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?;
        let certificate = params()?.self_signed(&key)?.pem();
        Ok(Self { certificate, key })
    }

    fn from_secret(secret: &Secret) -> Result<Self, CertificateError> {
        let text = |name: &'static str| {
            let bytes = secret.data.as_ref().and_then(|data| data.get(name));
            bytes
                .and_then(|bytes| String::from_utf8(bytes.0.clone()).ok())
                .ok_or(CertificateError::Content(name))
        };
        let key = KeyPair::from_pem(&text(PRIVATE_KEY_KEY)?)
            .map_err(|_| CertificateError::Content(PRIVATE_KEY_KEY))?;
        tracing::debug!(secret = secret.name_any(), "certificate authority read");
        Ok(Self {
            certificate: text(CERTIFICATE_KEY)?,
            key,
        })
    }

    fn secret(&self) -> Secret {
        let bytes = |text: String| ByteString(text.into_bytes());
        let data = [
            (CERTIFICATE_KEY.to_owned(), bytes(self.certificate.clone())),
            (PRIVATE_KEY_KEY.to_owned(), bytes(self.key.serialize_pem())),
        ];
        Secret {
            metadata: ObjectMeta {
                name: Some(SECRET.to_owned()),
                ..ObjectMeta::default()
            },
            data: Some(data.into()),
            type_: Some("istio.io/ca-root".to_owned()),
            ..Secret::default()
        }
    }

    /// The authority's certificate in PEM, as a webhook's `caBundle`.
    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A TLS server for these DNS names.
    pub(crate) fn server(&self, names: &[String]) -> Result<Arc<ServerConfig>, CertificateError> {
        let issuer = Issuer::new(params()?, &self.key);
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new(names)?;
        leaf.distinguished_name = DistinguishedName::new();
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        set_validity(&mut leaf);
        let leaf = leaf.signed_by(&key, &issuer)?;
        let authority = CertificateDer::from_pem_slice(self.certificate.as_bytes())
            .map_err(|_| CertificateError::Content(CERTIFICATE_KEY))?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone(), authority], key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// What the authority's certificate says. The same each time, so that certificates issued after a restart name the
/// same issuer as the certificate in the Secret.
fn params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "cluster.local");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params);
    Ok(params)
}

fn set_validity(params: &mut CertificateParams) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - SKEW;
    params.not_after = now + LIFETIME;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authority_survives_its_secret() {
        let made = Authority::new().unwrap();
        let read = Authority::from_secret(&made.secret()).unwrap();
        assert_eq!(read.certificate(), made.certificate());
        assert_eq!(read.key.serialize_pem(), made.key.serialize_pem());
        read.server(&["istiod.istio-system.svc".to_owned()])
            .unwrap();
    }

    #[test]
    fn secret_without_its_keys_is_named() {
        let check = |name: &'static str| {
            let mut secret = Authority::new().unwrap().secret();
            secret.data.as_mut().unwrap().remove(name);
            let error = Authority::from_secret(&secret).err().unwrap();
            assert!(matches!(error, CertificateError::Content(found) if found == name));
        };
        check(CERTIFICATE_KEY);
        check(PRIVATE_KEY_KEY);
    }
}
