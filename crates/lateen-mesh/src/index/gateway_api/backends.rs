//! What routes lead to, and whether they may.

use lateen_api::{
    common::PortSelector,
    gateway_api::{BackendKind, BackendReference},
    networking::virtual_service::Destination,
};

use super::{GATEWAY_GROUP, RouteKind};
use crate::{Index, Key};

/// Something that is wrong with a reference or a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// One word for programs.
    pub(super) reason: &'static str,
    /// What people want to know.
    pub(super) message: String,
}

impl Problem {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// Looks up what the routes of a namespace lead to.
pub(super) struct Backends<'a> {
    pub(super) index: &'a Index,
    /// Kind of the route.
    pub(super) kind: RouteKind,
    /// Namespace of the route.
    pub(super) namespace: &'a str,
    /// Whether another namespace must grant the reference: at gateways, where the request comes from outside.
    pub(super) grants: bool,
}

impl Backends<'_> {
    /// The destination of a reference. It is there also when something is wrong: then it leads nowhere, or to a service
    /// that does not exist, and requests are answered with 500.
    pub(super) fn destination(
        &self,
        reference: &BackendReference,
    ) -> (Destination, Option<Problem>) {
        let name = &reference.name;
        let wrong = |reason, message: String| {
            let problem = Problem::new(reason, message);
            (Self::nowhere(reference), Some(problem))
        };
        let Some(kind) = reference.backend_kind() else {
            let (group, kind) = reference.group_kind();
            return wrong(
                "InvalidKind",
                format!("backends of group {group:?} and kind {kind:?} are not served"),
            );
        };
        let namespace = reference.namespace.as_deref().unwrap_or(self.namespace);
        if self.grants && namespace != self.namespace && !self.granted(reference, namespace) {
            let own = self.namespace;
            return wrong(
                "RefNotPermitted",
                format!(
                    "no ReferenceGrant in namespace {namespace} lets routes of {own} refer to {name}"
                ),
            );
        }
        let Some(port) = reference.port else {
            return wrong(
                "InvalidDestination",
                format!("the reference to {name} needs a port"),
            );
        };
        let host = match kind {
            BackendKind::Service if name.contains('.') => {
                return wrong(
                    "InvalidDestination",
                    format!("{name} is a host; a reference to a Service has its name"),
                );
            }
            BackendKind::Service => self.index.resolve(name, namespace),
            BackendKind::Hostname if reference.namespace.is_some() => {
                return wrong(
                    "InvalidDestination",
                    format!("the host {name} is of no namespace"),
                );
            }
            BackendKind::Hostname => name.to_ascii_lowercase(),
        };
        let known = match kind {
            BackendKind::Service => {
                let key = Key::new(namespace, &**name);
                self.index.services.contains_key(&key)
            }
            BackendKind::Hostname => self.index.service_seen_from(&host, namespace).is_some(),
        };
        let problem = (!known).then(|| {
            Problem::new(
                "BackendNotFound",
                format!("there is no service {host}; requests are answered with 500"),
            )
        });
        let destination = Destination {
            host,
            subset: String::new(),
            port: Some(PortSelector { number: port }),
        };
        (destination, problem)
    }

    /// A destination that does not exist and never will.
    pub(super) fn nowhere(reference: &BackendReference) -> Destination {
        Destination {
            host: String::new(),
            subset: String::new(),
            port: Some(PortSelector {
                number: reference.port.unwrap_or_default(),
            }),
        }
    }

    fn granted(&self, reference: &BackendReference, namespace: &str) -> bool {
        let (group, kind) = reference.group_kind();
        let from = (GATEWAY_GROUP, self.kind.name(), self.namespace);
        let to = (group, kind, namespace, reference.name.as_str());
        self.index.is_granted(from, to)
    }
}
