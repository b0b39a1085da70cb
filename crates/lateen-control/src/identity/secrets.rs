//! Certificates of gateways: Secrets of Kubernetes, shown to the gateways of their namespace.
//!
//! A namespace's Secrets are read only once a gateway in it has proved an identity that may list them; nobody else is
//! ever shown one. Names are Istio's: `kubernetes://NAME` is a certificate with its key, and `kubernetes://NAME-cacert`
//! the authorities of clients, from a Secret of that name or from the key `ca.crt` of the one without the suffix.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use kube::runtime::watcher::{self, watcher};
use kube::{Client, ResourceExt as _};
use lateen_xds::pb::envoy::config::core::v3::{DataSource, data_source::Specifier};
use lateen_xds::pb::envoy::extensions::transport_sockets::tls::v3 as pb;
use lateen_xds::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use lateen_xds::pb::google::protobuf::Any;
use lateen_xds::{Names, Resource, ResourceType};
use parking_lot::{Mutex, RwLock};
use prost::Message as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Status;

use super::{Identity, gateway_certificates, store_secrets};
use crate::engine::World;

const SCHEME: &str = "kubernetes://";
const AUTHORITIES: &str = "-cacert";
/// Types that hold no certificates and may be many.
const UNSUITABLE: &str = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token";
/// How long a gateway may wait for its namespace's Secrets to be read.
const LIST_TIME: Duration = Duration::from_secs(10);
/// How long to wait after a failed watch.
const RETRY: Duration = Duration::from_millis(500);

/// The Secrets of the namespaces with gateways.
pub(crate) struct GatewaySecrets {
    client: Client,
    namespaces: Mutex<BTreeMap<String, Arc<NamespaceSecrets>>>,
    /// Watches; they end with this value.
    watches: Mutex<JoinSet<()>>,
}

/// The Secrets of one namespace.
pub(crate) struct NamespaceSecrets {
    namespace: String,
    secrets: RwLock<BTreeMap<String, Secret>>,
    /// Whether all that existed have been read.
    listed: watch::Sender<bool>,
}

impl GatewaySecrets {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            namespaces: Mutex::default(),
            watches: Mutex::default(),
        }
    }

    /// What a gateway of this identity may be shown; `None` when the identity may not list the Secrets of its
    /// namespace.
    pub(crate) async fn open(
        &self,
        world: &Arc<World>,
        identity: &Identity,
    ) -> Result<Option<Arc<NamespaceSecrets>>, Status> {
        if !self.may_list(identity).await? {
            tracing::info!(identity = %identity.id, "this gateway may not list secrets, so it is shown none");
            return Ok(None);
        }
        let found = self.listed(world, &identity.namespace).await?;
        Ok(Some(found))
    }

    /// The Secrets of a namespace, once all that exist have been read.
    pub(crate) async fn listed(
        &self,
        world: &Arc<World>,
        namespace: &str,
    ) -> Result<Arc<NamespaceSecrets>, Status> {
        let found = self.of_namespace(world, namespace);
        let mut listed = found.listed.subscribe();
        timeout(LIST_TIME, listed.wait_for(|listed| *listed))
            .await
            .map_err(|_| Status::unavailable("the namespace's secrets have not been read yet"))?
            .map_err(|_| Status::unavailable("the control plane is stopping"))?;
        Ok(found)
    }

    async fn may_list(&self, identity: &Identity) -> Result<bool, Status> {
        let namespace = &identity.namespace;
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(format!(
                    "system:serviceaccount:{namespace}:{}",
                    identity.account
                )),
                groups: Some(vec![
                    "system:serviceaccounts".to_owned(),
                    format!("system:serviceaccounts:{namespace}"),
                    "system:authenticated".to_owned(),
                ]),
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(namespace.clone()),
                    verb: Some("list".to_owned()),
                    resource: Some("secrets".to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answered = api
            .create(&PostParams::default(), &review)
            .await
            .map_err(|error| Status::unavailable(format!("access cannot be checked: {error}")))?;
        Ok(answered.status.is_some_and(|status| status.allowed))
    }

    /// The Secrets of a namespace, read from now on.
    pub(crate) fn of_namespace(
        &self,
        world: &Arc<World>,
        namespace: &str,
    ) -> Arc<NamespaceSecrets> {
        let mut namespaces = self.namespaces.lock();
        if let Some(found) = namespaces.get(namespace) {
            return Arc::clone(found);
        }
        let made = Arc::new(NamespaceSecrets {
            namespace: namespace.to_owned(),
            secrets: RwLock::default(),
            listed: watch::Sender::new(false),
        });
        namespaces.insert(namespace.to_owned(), Arc::clone(&made));
        let api = Api::namespaced(self.client.clone(), namespace);
        let task = follow(api, Arc::clone(&made), Arc::downgrade(world));
        self.watches.lock().spawn(task);
        made
    }
}

/// Keeps a namespace's Secrets, and tells its gateways when one changed.
async fn follow(api: Api<Secret>, into: Arc<NamespaceSecrets>, world: Weak<World>) {
    let suitable = watcher::Config::default().fields(UNSUITABLE);
    let mut events = std::pin::pin!(watcher(api, suitable));
    let mut listing = BTreeMap::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => listing.clear(),
            Ok(watcher::Event::InitApply(secret)) => {
                listing.insert(secret.name_any(), secret);
            }
            Ok(watcher::Event::InitDone) => {
                *into.secrets.write() = std::mem::take(&mut listing);
                into.listed.send_replace(true);
            }
            Ok(watcher::Event::Apply(secret)) => {
                into.secrets.write().insert(secret.name_any(), secret);
            }
            Ok(watcher::Event::Delete(secret)) => {
                into.secrets.write().remove(&secret.name_any());
            }
            Err(error) => {
                tracing::warn!(namespace = into.namespace, %error, "cannot watch secrets");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        }
        let Some(world) = world.upgrade() else {
            return;
        };
        if *into.listed.borrow() {
            world.nudge();
            for connection in world.connections.lock().values() {
                let shown = connection.secrets.as_ref();
                if shown.is_some_and(|shown| Arc::ptr_eq(shown, &into)) {
                    connection.changes.mark(ResourceType::Secret, Names::All);
                } else {
                    connection.mark_secrets(|name| {
                        store_secrets::is_of(name, &into.namespace)
                            || gateway_certificates::is_of(name, &into.namespace)
                    });
                }
            }
        }
    }
}

impl fmt::Debug for GatewaySecrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("GatewaySecrets(..)")
    }
}

impl fmt::Debug for NamespaceSecrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the content: it holds private keys.
        write!(formatter, "NamespaceSecrets({})", self.namespace)
    }
}

impl NamespaceSecrets {
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
        if !*self.listed.borrow() {
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
fn certificate(secret: &Secret) -> Option<Type> {
    let pair = |chain, key| Some((bytes(secret, chain)?, bytes(secret, key)?));
    let (chain, key) = pair("tls.crt", "tls.key").or_else(|| pair("cert", "key"))?;
    Some(Type::TlsCertificate(pb::TlsCertificate {
        certificate_chain: Some(inline(chain)),
        private_key: Some(inline(key)),
        ..pb::TlsCertificate::default()
    }))
}

/// The authorities in a Secret, and the certificates that they revoked.
fn authorities(secret: &Secret) -> Option<Type> {
    let roots = bytes(secret, "ca.crt").or_else(|| bytes(secret, "cacert"))?;
    let revoked = bytes(secret, "ca.crl").or_else(|| bytes(secret, "crl"));
    Some(Type::ValidationContext(pb::CertificateValidationContext {
        trusted_ca: Some(inline(roots)),
        crl: revoked.map(inline),
        ..pb::CertificateValidationContext::default()
    }))
}

pub(super) fn bytes<'a>(secret: &'a Secret, key: &str) -> Option<&'a [u8]> {
    let found = secret.data.as_ref()?.get(key)?;
    (!found.0.is_empty()).then_some(found.0.as_slice())
}

pub(super) fn inline(bytes: &[u8]) -> DataSource {
    DataSource {
        specifier: Some(Specifier::InlineBytes(bytes.to_vec())),
        ..DataSource::default()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

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
