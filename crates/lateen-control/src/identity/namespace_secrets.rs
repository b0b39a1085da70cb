//! The Secrets of one namespace, and the names that gateways ask for them by.
//!
//! Names are Istio's: `kubernetes://NAME` is a certificate with its key, and `kubernetes://NAME-cacert` the authorities of
//! clients, from a Secret of that name or from the key `ca.crt` of the one without the suffix.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use lateen_xds::pb::envoy::config::core::v3::{DataSource, data_source::Specifier};
use lateen_xds::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use lateen_xds::{Names, Resource};
use parking_lot::RwLock;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;

use super::secret_content::{authorities, bytes, certificate, resource};

const SCHEME: &str = "kubernetes://";
const AUTHORITIES: &str = "-cacert";

/// The Secrets of one namespace.
pub(crate) struct NamespaceSecrets {
    namespace: String,
    secrets: RwLock<BTreeMap<String, Secret>>,
    /// Whether all that existed have been read.
    listed: watch::Sender<bool>,
}

impl fmt::Debug for NamespaceSecrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the content: it holds private keys.
        write!(formatter, "NamespaceSecrets({})", self.namespace)
    }
}

impl NamespaceSecrets {
    /// Those of a namespace of which none have been read.
    pub(super) fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            secrets: RwLock::default(),
            listed: watch::Sender::new(false),
        }
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whether all that existed have been read.
    pub(super) fn is_listed(&self) -> bool {
        *self.listed.borrow()
    }

    /// Changes when all that existed have been read.
    pub(super) fn listing(&self) -> watch::Receiver<bool> {
        self.listed.subscribe()
    }

    /// These are all that exist.
    pub(super) fn set_all(&self, all: BTreeMap<String, Secret>) {
        *self.secrets.write() = all;
        self.listed.send_replace(true);
    }

    pub(super) fn set(&self, secret: Secret) {
        self.secrets.write().insert(secret.name_any(), secret);
    }

    pub(super) fn remove(&self, name: &str) {
        self.secrets.write().remove(name);
    }

    /// Those of the named secrets that exist, as a proxy takes them.
    pub(crate) fn resources(&self, names: &Names) -> Vec<Resource> {
        // Secrets are never subscribed as a whole.
        let Names::Only(names) = names else {
            return Vec::new();
        };
        names
            .iter()
            .filter_map(|name| self.resource(name))
            .collect()
    }

    /// An entry of a Secret, if it is there.
    pub(crate) fn entry(&self, secret: &str, key: &str) -> Option<Vec<u8>> {
        let secrets = self.secrets.read();
        bytes(secrets.get(secret)?, key).map(<[u8]>::to_vec)
    }

    /// Why a Secret holds no certificate with its key; nothing while the Secrets have not been read.
    pub(crate) fn certificate_problem(&self, name: &str) -> Option<String> {
        if !self.is_listed() {
            return None;
        }
        let secrets = self.secrets.read();
        let Some(secret) = secrets.get(name) else {
            return Some(format!("there is no Secret {name}"));
        };
        let Some(Type::TlsCertificate(pair)) = certificate(secret) else {
            return Some(format!("Secret {name} has no tls.crt and tls.key"));
        };
        let pem = |source: Option<DataSource>| match source.and_then(|source| source.specifier) {
            Some(Specifier::InlineBytes(bytes)) => bytes,
            _ => Vec::new(),
        };
        let chain = pem(pair.certificate_chain);
        let mut chain = CertificateDer::pem_slice_iter(&chain).peekable();
        if chain.peek().is_none() || chain.any(|block| block.is_err()) {
            return Some(format!("Secret {name}: tls.crt holds no certificates"));
        }
        let key = PrivateKeyDer::from_pem_slice(&pem(pair.private_key));
        key.is_err()
            .then(|| format!("Secret {name}: tls.key holds no private key"))
    }

    /// A Secret of the namespace, if it is known.
    pub(super) fn get(&self, name: &str) -> Option<Secret> {
        self.secrets.read().get(name).cloned()
    }

    fn resource(&self, name: &str) -> Option<Resource> {
        let rest = name.strip_prefix(SCHEME)?;
        let local = match rest.split_once('/') {
            Some((namespace, local)) => (namespace == self.namespace).then_some(local)?,
            None => rest,
        };
        self.named(name, local)
    }

    /// A certificate, or with the suffix the authorities of clients, under the name that a proxy asked for.
    pub(super) fn named(&self, name: &str, local: &str) -> Option<Resource> {
        let secrets = self.secrets.read();
        let own = secrets
            .get(local)
            .and_then(|secret| match local.ends_with(AUTHORITIES) {
                true => Some((secret, authorities(secret)?)),
                false => Some((secret, certificate(secret)?)),
            });
        let (secret, content) = own.or_else(|| {
            let secret = secrets.get(local.strip_suffix(AUTHORITIES)?)?;
            Some((secret, authorities(secret)?))
        })?;
        Some(resource(name, secret, content))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use lateen_xds::pb::envoy::extensions::transport_sockets::tls::v3 as pb;
    use prost::Message as _;

    use super::*;

    fn secrets() -> NamespaceSecrets {
        let secret = |name: &str, keys: &[&str]| {
            let data = keys.iter().map(|key| {
                (
                    (*key).to_owned(),
                    ByteString(format!("{name} {key}").into_bytes()),
                )
            });
            let mut secret = Secret {
                data: Some(data.collect()),
                ..Secret::default()
            };
            secret.metadata.name = Some(name.to_owned());
            (name.to_owned(), secret)
        };
        NamespaceSecrets {
            namespace: "edge".to_owned(),
            secrets: RwLock::new(BTreeMap::from([
                secret("web", &["tls.crt", "tls.key", "ca.crt"]),
                secret("old", &["cert", "key"]),
                secret("old-cacert", &["cacert"]),
                secret("half", &["tls.crt"]),
                secret("empty", &[]),
            ])),
            listed: watch::Sender::new(true),
        }
    }

    #[test]
    fn certificates_are_looked_at_before_somebody_needs_them() {
        let secrets = secrets();
        let check = |name: &str, expected: Option<&str>| {
            let found = secrets.certificate_problem(name);
            assert_eq!(found.as_deref(), expected, "{name}");
        };
        check("nothing", Some("there is no Secret nothing"));
        check("half", Some("Secret half has no tls.crt and tls.key"));
        let message = "Secret web: tls.crt holds no certificates";
        check("web", Some(message));
        secrets.listed.send_replace(false);
        check("nothing", None);
    }

    #[test]
    fn names_lead_to_the_secrets_of_the_own_namespace_only() {
        let secrets = secrets();
        let check = |name: &str, expected: Option<&str>| {
            let found = secrets.resources(&[name].into_iter().collect());
            let text = found.first().map(|resource| {
                let secret = pb::Secret::decode(resource.body.value.as_slice()).unwrap();
                assert_eq!((secret.name.as_str(), found.len()), (name, 1));
                let source = match secret.r#type.unwrap() {
                    Type::TlsCertificate(pair) => pair.certificate_chain,
                    Type::ValidationContext(context) => context.trusted_ca,
                    other => panic!("{other:?}"),
                };
                match source.unwrap().specifier.unwrap() {
                    Specifier::InlineBytes(bytes) => String::from_utf8(bytes).unwrap(),
                    other => panic!("{other:?}"),
                }
            });
            assert_eq!(text.as_deref(), expected, "{name}");
        };
        check("kubernetes://web", Some("web tls.crt"));
        check("kubernetes://edge/web", Some("web tls.crt"));
        check("kubernetes://web-cacert", Some("web ca.crt"));
        check("kubernetes://old", Some("old cert"));
        check("kubernetes://old-cacert", Some("old-cacert cacert"));
        for name in [
            "web",
            "kubernetes://other/web",
            "kubernetes-gateway://edge/web",
            "kubernetes://half",
            "kubernetes://empty",
            "kubernetes://empty-cacert",
            "kubernetes://nothing",
            "default",
        ] {
            check(name, None);
        }
        assert!(secrets.resources(&Names::All).is_empty());
    }
}
