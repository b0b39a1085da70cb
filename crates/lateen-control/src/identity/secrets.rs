//! Certificates of gateways: Secrets of Kubernetes, shown to the gateways of their namespace.
//!
//! A namespace's Secrets are read only once a gateway in it has proved an identity that may list them; nobody else is
//! ever shown one.

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
use lateen_xds::{Names, ResourceType};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Status;

use super::namespace_secrets::NamespaceSecrets;
use super::{Identity, gateway_certificates, store_secrets};
use crate::engine::World;

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
        let mut listed = found.listing();
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
        let made = Arc::new(NamespaceSecrets::new(namespace));
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
            Ok(watcher::Event::InitDone) => into.set_all(std::mem::take(&mut listing)),
            Ok(watcher::Event::Apply(secret)) => into.set(secret),
            Ok(watcher::Event::Delete(secret)) => into.remove(&secret.name_any()),
            Err(error) => {
                tracing::warn!(namespace = into.namespace(), %error, "cannot watch secrets");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        }
        let Some(world) = world.upgrade() else {
            return;
        };
        if into.is_listed() {
            world.nudge();
            for connection in world.connections.lock().values() {
                let shown = connection.secrets.as_ref();
                if shown.is_some_and(|shown| Arc::ptr_eq(shown, &into)) {
                    connection.changes.mark(ResourceType::Secret, Names::All);
                } else {
                    connection.mark_secrets(|name| {
                        store_secrets::is_of(name, into.namespace())
                            || gateway_certificates::is_of(name, into.namespace())
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
