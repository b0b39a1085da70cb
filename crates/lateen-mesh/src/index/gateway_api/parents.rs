//! What routes are attached to: services of the mesh and listeners of gateways.

use lateen_api::gateway_api::{
    Gateway, ParentKind, ParentReference,
    gateway::{FromNamespaces, Listener},
};

use super::{GATEWAY_GROUP, Route, RouteKind, listeners};
use crate::{Index, Key, index::host_matches};

/// A route at one parent: where it is, or why it is not.
pub(super) struct Attachment<'a> {
    pub(super) reference: &'a ParentReference,
    pub(super) outcome: Result<Bound<'a>, Denied>,
}

/// Where a route is attached.
pub(super) enum Bound<'a> {
    /// Requests of the mesh to these hosts.
    Mesh(Vec<String>),
    /// Requests to a listener.
    Listener(&'a Gateway, &'a Listener),
}

/// Why a route is not attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Denied {
    /// One word for programs; the Gateway API has a list of them.
    pub(super) reason: &'static str,
    /// What people want to know.
    pub(super) message: String,
}

impl Denied {
    fn no_parent(message: String) -> Self {
        Self {
            reason: "NoMatchingParent",
            message,
        }
    }

    /// How near the route came, for the one reason that is told of several listeners.
    pub(super) fn nearness(&self) -> u8 {
        match self.reason {
            "NotAllowedByListeners" => 0,
            "NoMatchingListenerHostname" => 1,
            _ => 2,
        }
    }
}

impl Index {
    /// Where a route of a namespace is attached; parents that somebody else takes care of are left out.
    pub(super) fn attachments<'a>(
        &'a self,
        route: &'a Route,
        namespace: &'a str,
    ) -> Vec<Attachment<'a>> {
        let mut found = Vec::new();
        for reference in route.parents() {
            let Some(kind) = reference.parent_kind() else {
                continue;
            };
            let key = Key::new(reference.namespace_for(namespace), &*reference.name);
            let mut add = |outcome| found.push(Attachment { reference, outcome });
            match kind {
                ParentKind::Service => add(self.service_parent(&key, reference)),
                ParentKind::ServiceEntry => add(match self.service_entries.get(&key) {
                    Some(entry) => Ok(Bound::Mesh(entry.spec.hosts.clone())),
                    None => {
                        let name = &reference.name;
                        Err(Denied::no_parent(format!(
                            "there is no ServiceEntry {name}"
                        )))
                    }
                }),
                ParentKind::Gateway => {
                    let gateway = self.gateway_api.gateways.get(&key);
                    // One of another class is somebody else's, and one that does not exist may be.
                    let ours = |gateway: &&std::sync::Arc<Gateway>| {
                        self.is_our_class(&gateway.spec.gateway_class_name)
                    };
                    let Some(gateway) = gateway.filter(ours) else {
                        continue;
                    };
                    for listener in self.served_listeners(gateway) {
                        add(self.listener_parent((gateway, listener), reference, route, namespace));
                    }
                }
            }
        }
        found
    }

    fn service_parent(
        &self,
        key: &Key,
        reference: &ParentReference,
    ) -> Result<Bound<'static>, Denied> {
        let name = &reference.name;
        let Some(service) = self.services.get(key) else {
            let message = format!("there is no Service {name}");
            return Err(Denied::no_parent(message));
        };
        match reference.port {
            Some(port) if service.port(port).is_none() => Err(Denied::no_parent(format!(
                "Service {name} has no port {port}"
            ))),
            _ => Ok(Bound::Mesh(vec![service.host.clone()])),
        }
    }

    fn listener_parent<'a>(
        &'a self,
        (gateway, listener): (&'a Gateway, &'a Listener),
        reference: &ParentReference,
        route: &Route,
        namespace: &str,
    ) -> Result<Bound<'a>, Denied> {
        if let Some(port) = reference.port
            && port != listener.port
        {
            return Err(Denied::no_parent(format!("no listener is at port {port}")));
        }
        if let Some(section) = &reference.section_name
            && *section != listener.name
        {
            return Err(Denied::no_parent(format!("there is no listener {section}")));
        }
        let name = &listener.name;
        let not_allowed = |message: String| Denied {
            reason: "NotAllowedByListeners",
            message,
        };
        if !allows_kind(listener, route.kind()) {
            return Err(not_allowed(format!(
                "listener {name} takes no routes of kind {}",
                route.kind().name()
            )));
        }
        if !self.allows_namespace(gateway, listener, namespace) {
            return Err(not_allowed(format!(
                "listener {name} takes no routes of namespace {namespace}"
            )));
        }
        let overlaps = |host: &String| {
            let own = listener.hostname.as_deref().unwrap_or("*");
            host_matches(own, host) || host_matches(host, own)
        };
        let hosts = route.hostnames();
        if !hosts.is_empty() && !hosts.iter().any(overlaps) {
            return Err(Denied {
                reason: "NoMatchingListenerHostname",
                message: format!("listener {name} has none of the route's hosts"),
            });
        }
        Ok(Bound::Listener(gateway, listener))
    }

    /// Whether a listener takes routes of a namespace.
    fn allows_namespace(&self, gateway: &Gateway, listener: &Listener, namespace: &str) -> bool {
        let allowed = listener.allowed_routes.as_ref();
        let allowed = allowed.and_then(|allowed| allowed.namespaces.as_ref());
        match allowed.and_then(|allowed| allowed.from).unwrap_or_default() {
            FromNamespaces::All => true,
            FromNamespaces::Same => gateway.namespace() == namespace,
            FromNamespaces::None => false,
            FromNamespaces::Selector => {
                let selector = allowed.and_then(|allowed| allowed.selector.as_ref());
                let labels = self.namespaces.get(namespace);
                // A namespace that is not known has no labels: it is not selected.
                selector
                    .zip(labels)
                    .is_some_and(|(selector, labels)| selector.matches(labels))
            }
        }
    }
}

/// Whether a listener takes routes of a kind: its protocol must, and its own list when it has one.
fn allows_kind(listener: &Listener, kind: RouteKind) -> bool {
    let listed = listener
        .allowed_routes
        .as_ref()
        .map(|allowed| &allowed.kinds);
    let listed = listed.filter(|kinds| !kinds.is_empty());
    listeners::kinds_of(listener).contains(&kind)
        && listed.is_none_or(|kinds| {
            kinds.iter().any(|allowed| {
                allowed.group.as_deref().unwrap_or(GATEWAY_GROUP) == GATEWAY_GROUP
                    && allowed.kind == kind.name()
            })
        })
}
