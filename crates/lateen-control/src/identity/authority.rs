//! The mesh's certificate authority, kept in the Secret that Istio uses.
//!
//! A Secret `cacerts` with an authority of the user's own comes first, as in Istio; else there is `istio-ca-secret`,
//! which the first control plane makes. So a restarted control plane keeps its identity, and replicas share one.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use lateen_identity::authority::AuthorityError;
use lateen_identity::signer::SignerError;
use lateen_identity::tls::{self, ClientCertificate, TlsError};
use lateen_identity::{AllowList, CertificateAuthority, Signer, TrustDomain};
use rustls::ServerConfig;

/// An authority that the user brings.
const BROUGHT: &str = "cacerts";
/// The self-made one.
const SELF_MADE: &str = "istio-ca-secret";
const CERTIFICATE: &str = "ca-cert.pem";
const KEY: &str = "ca-key.pem";
const CHAIN: &str = "cert-chain.pem";
const ROOT: &str = "root-cert.pem";
/// How long a self-made root is valid: Istio's ten years.
const ROOT_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);
/// How long the control plane's own certificates are valid; they are replaced at half of it.
const SERVER_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// A Secret could not be read or written.
    #[error("secret {name}: {source}")]
    Secret {
        name: &'static str,
        source: kube::Error,
    },
    /// A Secret lacks a key or holds something else.
    #[error("secret {name} has no usable {key}")]
    Content {
        name: &'static str,
        key: &'static str,
    },
    /// What a Secret holds cannot sign.
    #[error("secret {name}: {source}")]
    Signer {
        name: &'static str,
        source: SignerError,
    },
    /// The control plane's own certificate could not be made.
    #[error("cannot make the control plane's certificate: {0}")]
    Server(#[from] AuthorityError),
    /// It cannot be used.
    #[error("cannot use the control plane's certificate: {0}")]
    Tls(#[from] TlsError),
}

/// The authority, and the TLS configurations of the control plane's own servers.
pub(crate) struct Authority {
    signs: CertificateAuthority,
    names: Vec<String>,
    discovery: ArcSwap<ServerConfig>,
    webhook: ArcSwap<ServerConfig>,
}

/// The mesh's authority, with certificates for a server of these DNS names.
pub(crate) async fn load(
    client: &Client,
    namespace: &str,
    domain: &TrustDomain,
    names: Vec<String>,
) -> Result<Authority, LoadError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let signer = signer(&secrets, domain).await?;
    Authority::new(CertificateAuthority::new(domain.clone(), signer), names)
}

async fn signer(secrets: &Api<Secret>, domain: &TrustDomain) -> Result<Signer, LoadError> {
    let failed = |name| move |source| LoadError::Secret { name, source };
    for name in [BROUGHT, SELF_MADE] {
        if let Some(secret) = secrets.get_opt(name).await.map_err(failed(name))? {
            return read(name, &secret);
        }
    }
    let make = |source| LoadError::Signer {
        name: SELF_MADE,
        source,
    };
    let made = Signer::self_made(domain, ROOT_LIFETIME, SystemTime::now()).map_err(make)?;
    match secrets.create(&PostParams::default(), &secret(&made)).await {
        Ok(_) => Ok(made),
        // Another replica was faster: its authority is the mesh's.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let theirs = secrets.get(SELF_MADE).await.map_err(failed(SELF_MADE))?;
            read(SELF_MADE, &theirs)
        }
        Err(source) => Err(failed(SELF_MADE)(source)),
    }
}

fn read(name: &'static str, secret: &Secret) -> Result<Signer, LoadError> {
    let found = |key: &'static str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        bytes
            .and_then(|bytes| String::from_utf8(bytes.0.clone()).ok())
            .filter(|text| !text.trim().is_empty())
    };
    let needed = |key| found(key).ok_or(LoadError::Content { name, key });
    let (certificate, key) = (needed(CERTIFICATE)?, needed(KEY)?);
    let root = found(ROOT).unwrap_or_else(|| certificate.clone());
    // Istio's chain repeats the signing certificate; one that starts with another belongs after it.
    let chain = match found(CHAIN) {
        Some(chain) if chain.trim_start().starts_with(certificate.trim()) => chain,
        Some(rest) => format!("{}\n{rest}", certificate.trim_end()),
        None => certificate,
    };
    Signer::from_pem(&chain, &key, &root, SystemTime::now())
        .map_err(|source| LoadError::Signer { name, source })
}

fn secret(signer: &Signer) -> Secret {
    let bytes = |text: String| ByteString(text.into_bytes());
    Secret {
        metadata: ObjectMeta {
            name: Some(SELF_MADE.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some(
            [
                (CERTIFICATE.to_owned(), bytes(signer.root_pem())),
                (KEY.to_owned(), bytes(signer.key_pem())),
            ]
            .into(),
        ),
        type_: Some("istio.io/ca-root".to_owned()),
        ..Secret::default()
    }
}

impl Authority {
    fn new(signs: CertificateAuthority, names: Vec<String>) -> Result<Self, LoadError> {
        let (discovery, webhook) = configurations(&signs, &names)?;
        Ok(Self {
            signs,
            names,
            discovery: ArcSwap::from(discovery),
            webhook: ArcSwap::from(webhook),
        })
    }

    /// What signs for workloads.
    pub(crate) fn signs(&self) -> &CertificateAuthority {
        &self.signs
    }

    /// The roots to trust, PEM.
    pub(crate) fn roots(&self) -> String {
        self.signs.bundle_pem()
    }

    /// TLS for discovery: workloads may show a certificate of the mesh instead of a token.
    pub(crate) fn discovery(&self) -> Arc<ServerConfig> {
        self.discovery.load_full()
    }

    /// TLS for the webhook, whose client is the API server.
    pub(crate) fn webhook(&self) -> Arc<ServerConfig> {
        self.webhook.load_full()
    }

    /// Replaces the control plane's own certificates in time, for ever.
    pub(crate) async fn renew(&self) {
        loop {
            tokio::time::sleep(SERVER_LIFETIME / 2).await;
            match configurations(&self.signs, &self.names) {
                Ok((discovery, webhook)) => {
                    self.discovery.store(discovery);
                    self.webhook.store(webhook);
                }
                Err(error) => tracing::error!(%error, "the old certificate stays in use"),
            }
        }
    }
}

fn configurations(
    signs: &CertificateAuthority,
    names: &[String],
) -> Result<(Arc<ServerConfig>, Arc<ServerConfig>), LoadError> {
    let identity = signs.server_identity(names, SERVER_LIFETIME, SystemTime::now())?;
    let discovery = tls::server(
        identity.clone(),
        &signs.bundle()?,
        AllowList::trust_domains([signs.trust_domain()]),
        ClientCertificate::Optional,
        &[b"h2"],
    )?;
    let webhook = tls::server_for_all(identity, &[b"h2", b"http/1.1"])?;
    Ok((Arc::new(discovery), Arc::new(webhook)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> Secret {
        let domain: TrustDomain = "cluster.local".parse().unwrap();
        let signer = Signer::self_made(&domain, ROOT_LIFETIME, SystemTime::now()).unwrap();
        secret(&signer)
    }

    #[test]
    fn authority_survives_its_secret() {
        let secret = made();
        let read = read(SELF_MADE, &secret).unwrap();
        assert_eq!(
            secret.data.unwrap()[CERTIFICATE].0,
            read.root_pem().into_bytes()
        );
        let signs = CertificateAuthority::new("cluster.local".parse().unwrap(), read);
        Authority::new(signs, vec!["istiod.istio-system.svc".to_owned()]).unwrap();
    }

    #[test]
    fn secret_without_its_keys_is_named() {
        for missing in [CERTIFICATE, KEY] {
            let mut secret = made();
            secret.data.as_mut().unwrap().remove(missing);
            let error = read(BROUGHT, &secret).unwrap_err();
            assert!(
                matches!(error, LoadError::Content { name: BROUGHT, key } if key == missing),
                "{error}"
            );
        }
        let mut other = made();
        let key = made().data.unwrap().remove(KEY).unwrap();
        other.data.as_mut().unwrap().insert(KEY.to_owned(), key);
        let error = read(SELF_MADE, &other).unwrap_err();
        assert!(matches!(error, LoadError::Signer { .. }), "{error}");
    }
}
