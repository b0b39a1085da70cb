//! Watches of Kubernetes objects, as one stream of events for the engine.

use std::collections::HashSet;
use std::fmt::Debug;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ApiResource, DynamicObject, TypeMeta};
use kube::core::GroupVersionKind;
use kube::runtime::watcher::{self, watcher};
use kube::{Client, Resource, ResourceExt as _};
use lateen_api::object::{Kind, Object, decode};
use lateen_api::validation::{Problem, validate};
use lateen_mesh::{Change, Key, ObjectKind};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Events on their way to the engine. Watches wait when the engine is behind.
pub(crate) const QUEUE: usize = 1024;

/// How long a failed watch waits before it tries again: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// How often a kind that the API does not serve (yet) is asked for.
const UNSERVED_RETRY: Duration = Duration::from_millis(500);
/// Annotation of client-side apply: as large as the object, and of no use here.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What the watches tell the engine.
#[derive(Debug)]
pub(crate) enum Event {
    /// An object changed or went; of Istio's kinds with the object as written, for debugging.
    Change(Box<Change>, Option<Box<DynamicObject>>),
    /// An object cannot be followed. Its last good form, if there was one, stays in effect.
    Refused(Refused),
    /// All objects of a kind that existed at the start have been told, or the API does not serve the kind.
    Synced(ObjectKind),
}

/// An object that cannot be followed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refused {
    pub(crate) kind: ObjectKind,
    pub(crate) key: Key,
    /// Generation of the specification that was refused.
    pub(crate) generation: i64,
    /// What is wrong, and where.
    pub(crate) reason: String,
    /// The status that the object has.
    pub(crate) status: Option<serde_json::Value>,
}

/// The kinds that are watched.
pub(crate) const KINDS: [ObjectKind; 21] = [
    ObjectKind::Namespace,
    ObjectKind::Node,
    ObjectKind::Pod,
    ObjectKind::Service,
    ObjectKind::EndpointSlice,
    ObjectKind::Gateway,
    ObjectKind::VirtualService,
    ObjectKind::DestinationRule,
    ObjectKind::ServiceEntry,
    ObjectKind::Sidecar,
    ObjectKind::PeerAuthentication,
    ObjectKind::WorkloadEntry,
    ObjectKind::StickySession,
    ObjectKind::BodyToHeaders,
    ObjectKind::GatewayClass,
    ObjectKind::KubernetesGateway,
    ObjectKind::HttpRoute,
    ObjectKind::GrpcRoute,
    ObjectKind::TcpRoute,
    ObjectKind::TlsRoute,
    ObjectKind::ReferenceGrant,
];

/// Starts a watch of every kind. They end when the set is dropped.
pub(crate) fn start(client: &Client, events: &mpsc::Sender<Event>) -> JoinSet<()> {
    let mut watches = JoinSet::new();
    for kind in KINDS {
        let (client, events) = (client.clone(), events.clone());
        match kind {
            ObjectKind::Namespace => typed(&mut watches, kind, client, events, Change::Namespace),
            ObjectKind::Node => typed(&mut watches, kind, client, events, Change::Node),
            ObjectKind::Pod => typed(&mut watches, kind, client, events, Change::Pod),
            ObjectKind::Service => typed(&mut watches, kind, client, events, Change::Service),
            ObjectKind::EndpointSlice => {
                typed(&mut watches, kind, client, events, Change::EndpointSlice);
            }
            ObjectKind::Gateway => istio(&mut watches, kind, client, events, Change::Gateway),
            ObjectKind::VirtualService => {
                istio(&mut watches, kind, client, events, Change::VirtualService);
            }
            ObjectKind::DestinationRule => {
                istio(&mut watches, kind, client, events, Change::DestinationRule);
            }
            ObjectKind::ServiceEntry => {
                istio(&mut watches, kind, client, events, Change::ServiceEntry);
            }
            ObjectKind::Sidecar => istio(&mut watches, kind, client, events, Change::Sidecar),
            ObjectKind::WorkloadEntry => {
                istio(&mut watches, kind, client, events, Change::WorkloadEntry);
            }
            ObjectKind::StickySession => {
                istio(&mut watches, kind, client, events, Change::StickySession);
            }
            ObjectKind::BodyToHeaders => {
                istio(&mut watches, kind, client, events, Change::BodyToHeaders);
            }
            ObjectKind::GatewayClass => {
                istio(&mut watches, kind, client, events, Change::GatewayClass);
            }
            ObjectKind::KubernetesGateway => {
                let change = Change::KubernetesGateway;
                istio(&mut watches, kind, client, events, change);
            }
            ObjectKind::HttpRoute => istio(&mut watches, kind, client, events, Change::HttpRoute),
            ObjectKind::GrpcRoute => istio(&mut watches, kind, client, events, Change::GrpcRoute),
            ObjectKind::TcpRoute => istio(&mut watches, kind, client, events, Change::TcpRoute),
            ObjectKind::TlsRoute => istio(&mut watches, kind, client, events, Change::TlsRoute),
            ObjectKind::ReferenceGrant => {
                istio(&mut watches, kind, client, events, Change::ReferenceGrant);
            }
            ObjectKind::PeerAuthentication => {
                istio(
                    &mut watches,
                    kind,
                    client,
                    events,
                    Change::PeerAuthentication,
                );
            }
        }
    }
    watches
}

/// A built-in kind.
trait BuiltIn: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static {}

impl BuiltIn for Namespace {}
impl BuiltIn for Node {}
impl BuiltIn for Pod {}
impl BuiltIn for Service {}
impl BuiltIn for EndpointSlice {}

fn typed<K: BuiltIn>(
    watches: &mut JoinSet<()>,
    kind: ObjectKind,
    client: Client,
    events: mpsc::Sender<Event>,
    change: fn(K) -> Change,
) {
    let told = move |object: K| Event::Change(Box::new(change(object)), None);
    watches.spawn(follow(kind, Api::all(client), events, told));
}

/// A kind of Istio's, Lateen's or the Gateway API's. It is watched undecoded, so that one object that does not fit does not hide the others: its last
/// good form stays in effect.
fn istio<S: Kind>(
    watches: &mut JoinSet<()>,
    kind: ObjectKind,
    client: Client,
    events: mpsc::Sender<Event>,
    change: fn(Object<S>) -> Change,
) {
    let gvk = GroupVersionKind::gvk(S::GROUP, S::VERSIONS[0], S::KIND);
    let resource = ApiResource::from_gvk_with_plural(&gvk, S::PLURAL);
    let told = move |mut object: DynamicObject| {
        // Items of a list may come without their type.
        object.types = Some(TypeMeta {
            api_version: format!("{}/{}", S::GROUP, S::VERSIONS[0]),
            kind: S::KIND.to_owned(),
        });
        match followable(&object, kind) {
            Ok(decoded) => Event::Change(Box::new(change(decoded)), Some(Box::new(object))),
            Err(reason) => {
                let (namespace, name) = (object.namespace(), object.name_any());
                tracing::warn!(?kind, namespace, name, %reason, "object ignored, its last good form stays");
                Event::Refused(Refused {
                    kind,
                    key: key(&object),
                    generation: object.metadata.generation.unwrap_or_default(),
                    reason,
                    status: object.data.get("status").cloned(),
                })
            }
        }
    };
    watches.spawn(follow(kind, Api::all_with(client, &resource), events, told));
}

/// The object as the mesh knows it, or why it cannot be followed.
///
/// The webhook refuses what is invalid before it is stored. An object of Lateen's own kinds or a route of the Gateway API
/// may still have been stored before that rule was, or while nobody validated: proxies would reject the whole cluster,
/// listener or route configuration for it.
fn followable<S: Kind>(object: &DynamicObject, kind: ObjectKind) -> Result<Object<S>, String> {
    let value = serde_json::to_value(object).map_err(|error| error.to_string())?;
    let is_checked = matches!(
        kind,
        ObjectKind::StickySession
            | ObjectKind::BodyToHeaders
            | ObjectKind::HttpRoute
            | ObjectKind::GrpcRoute
    );
    let problems = is_checked.then(|| validate(&value)).flatten();
    match problems.unwrap_or_default().as_slice() {
        [] => decode::<S>(&value).map_err(|error| error.to_string()),
        problems => {
            let texts: Vec<_> = problems.iter().map(Problem::to_string).collect();
            Err(texts.join("; "))
        }
    }
}

/// Follows one kind for ever.
async fn follow<K>(
    kind: ObjectKind,
    api: Api<K>,
    events: mpsc::Sender<Event>,
    told: impl Fn(K) -> Event,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut stream = std::pin::pin!(watcher(api, watcher::Config::default()));
    let mut follower = Follower {
        kind,
        known: HashSet::new(),
        listed: None,
        synced: false,
        events,
    };
    let mut pause = RETRY.0;
    while let Some(event) = stream.next().await {
        let alive = match event {
            Ok(event) => {
                pause = RETRY.0;
                follower.event(event, &told).await
            }
            Err(error) if is_unserved(&error) => {
                let alive = follower.synced().await;
                tokio::time::sleep(UNSERVED_RETRY).await;
                alive
            }
            Err(error) => {
                tracing::warn!(?kind, %error, "watch failed, trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY.1);
                true
            }
        };
        if !alive {
            return;
        }
    }
}

struct Follower {
    kind: ObjectKind,
    /// Objects that the engine was told of: after a gap in the watch, those that are missing were deleted in it.
    known: HashSet<Key>,
    /// Objects of a list in progress.
    listed: Option<HashSet<Key>>,
    synced: bool,
    events: mpsc::Sender<Event>,
}

impl Follower {
    /// Passes an event on. False when the engine has gone.
    async fn event<K: Resource>(
        &mut self,
        event: watcher::Event<K>,
        told: &impl Fn(K) -> Event,
    ) -> bool {
        match event {
            watcher::Event::Init => {
                self.listed = Some(HashSet::new());
                true
            }
            watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
                self.apply(object, told).await
            }
            watcher::Event::Delete(object) => self.delete(key(&object)).await,
            watcher::Event::InitDone => {
                let listed = self.listed.take().unwrap_or_default();
                let gone: Vec<Key> = self.known.difference(&listed).cloned().collect();
                for key in gone {
                    if !self.delete(key).await {
                        return false;
                    }
                }
                self.synced().await
            }
        }
    }

    async fn apply<K: Resource>(&mut self, mut object: K, told: &impl Fn(K) -> Event) -> bool {
        let key = key(&object);
        if let Some(listed) = &mut self.listed {
            listed.insert(key.clone());
        }
        let meta = object.meta_mut();
        meta.managed_fields = None;
        if let Some(annotations) = &mut meta.annotations {
            annotations.remove(LAST_APPLIED);
        }
        self.known.insert(key);
        self.events.send(told(object)).await.is_ok()
    }

    async fn delete(&mut self, key: Key) -> bool {
        if !self.known.remove(&key) {
            return true;
        }
        let change = Change::Deleted(self.kind, key);
        self.events
            .send(Event::Change(Box::new(change), None))
            .await
            .is_ok()
    }

    async fn synced(&mut self) -> bool {
        if std::mem::replace(&mut self.synced, true) {
            return true;
        }
        self.events.send(Event::Synced(self.kind)).await.is_ok()
    }
}

fn key(object: &impl Resource) -> Key {
    let meta = object.meta();
    Key::new(
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

/// Whether the API says that it does not know the kind: its CustomResourceDefinition may come later.
fn is_unserved(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(inner) | watcher::Error::WatchStartFailed(inner)) =
        error
    else {
        return false;
    };
    matches!(inner, kube::Error::Api(status) if status.code == 404)
}
