//! The Gateway API: its objects, and the virtual services and gateways of Istio's kinds that they become.
//!
//! Routes have no translation of their own. Each becomes parts, one for each parent and host; the parts of all routes for
//! one parent and host are sorted together into one virtual service, which stands among the user's own and is marked with
//! Istio's annotation. A changed object touches the parts that follow from it, and only virtual services that differ then
//! concern anybody.

mod backends;
mod certificates;
mod connections;
mod filters;
mod listeners;
mod parents;
mod parts;
mod rules;
mod status;
mod update;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use lateen_api::{
    Kind as _, VirtualService,
    gateway_api::{
        GROUP as GATEWAY_GROUP, Gateway, GatewayClass, GrpcRoute, GrpcRouteSpec, HttpRoute,
        HttpRouteSpec, ParentKind, ParentReference, ReferenceGrant, TcpRoute, TcpRouteSpec,
        TlsRoute, TlsRouteSpec,
    },
};

pub use certificates::parse_certificate_name;
pub(crate) use rules::regex_quoted;
pub use update::deployment_of;

pub use status::{ListenerStatus, ObjectStatus, ParentStatus, StatusContent};

use super::{Index, of_namespace};
use crate::{Key, ObjectKind};
use parts::Part;

/// Name of our controller in classes and statuses, as Istio has it.
pub const CONTROLLER: &str = "istio.io/gateway-controller";
/// Classes that exist also without an object.
const CLASSES: [&str; 2] = ["istio", "lateen"];

/// Annotation that marks virtual services made from routes, and its value.
const SEMANTICS: (&str, &str) = ("internal.istio.io/route-semantics", "gateway");
/// Annotation of what a virtual service or gateway was made from.
const PARENTS: &str = "internal.istio.io/parents";

/// Kinds of routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RouteKind {
    Http,
    Grpc,
    Tcp,
    Tls,
}

impl RouteKind {
    /// As `kind` fields have it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http => HttpRouteSpec::KIND,
            Self::Grpc => GrpcRouteSpec::KIND,
            Self::Tcp => TcpRouteSpec::KIND,
            Self::Tls => TlsRouteSpec::KIND,
        }
    }

    fn object_kind(self) -> ObjectKind {
        match self {
            Self::Http => ObjectKind::HttpRoute,
            Self::Grpc => ObjectKind::GrpcRoute,
            Self::Tcp => ObjectKind::TcpRoute,
            Self::Tls => ObjectKind::TlsRoute,
        }
    }
}

/// A route of any kind.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Route {
    Http(Arc<HttpRoute>),
    Grpc(Arc<GrpcRoute>),
    Tcp(Arc<TcpRoute>),
    Tls(Arc<TlsRoute>),
}

impl Route {
    fn kind(&self) -> RouteKind {
        match self {
            Self::Http(_) => RouteKind::Http,
            Self::Grpc(_) => RouteKind::Grpc,
            Self::Tcp(_) => RouteKind::Tcp,
            Self::Tls(_) => RouteKind::Tls,
        }
    }

    fn parents(&self) -> &[ParentReference] {
        match self {
            Self::Http(route) => &route.spec.parent_refs,
            Self::Grpc(route) => &route.spec.parent_refs,
            Self::Tcp(route) => &route.spec.parent_refs,
            Self::Tls(route) => &route.spec.parent_refs,
        }
    }

    fn hostnames(&self) -> &[String] {
        match self {
            Self::Http(route) => &route.spec.hostnames,
            Self::Grpc(route) => &route.spec.hostnames,
            Self::Tcp(_) => &[],
            Self::Tls(route) => &route.spec.hostnames,
        }
    }

    fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Http(route) => &route.metadata,
            Self::Grpc(route) => &route.metadata,
            Self::Tcp(route) => &route.metadata,
            Self::Tls(route) => &route.metadata,
        }
    }

    /// The status that the object has.
    fn status(&self) -> Option<&serde_json::Value> {
        let status = match self {
            Self::Http(route) => &route.status,
            Self::Grpc(route) => &route.status,
            Self::Tcp(route) => &route.status,
            Self::Tls(route) => &route.status,
        };
        status.as_ref()
    }

    /// Converts its rules.
    fn convert(&self, backends: &backends::Backends<'_>) -> rules::Converted {
        match self {
            Self::Http(route) => rules::of_http(route, backends),
            Self::Grpc(route) => rules::of_grpc(route, backends),
            Self::Tcp(route) => connections::of_rules(&route.spec.rules, backends),
            Self::Tls(route) => connections::of_rules(&route.spec.rules, backends),
        }
    }
}

/// Kind, namespace and name of a route.
type RouteId = (RouteKind, Key);
/// What a route can be attached to.
type ParentId = (ParentKind, Key);

/// The objects of the Gateway API and what follows from them.
#[derive(Debug, Clone, Default)]
pub(super) struct GatewayApi {
    classes: BTreeMap<String, Arc<GatewayClass>>,
    gateways: BTreeMap<Key, Arc<Gateway>>,
    grants: BTreeMap<Key, Arc<ReferenceGrant>>,
    routes: BTreeMap<RouteId, Route>,
    /// Routes by what they are attached to, or want to be.
    attached: BTreeMap<ParentId, BTreeSet<RouteId>>,
    /// What each route becomes.
    parts: BTreeMap<RouteId, Vec<Part>>,
    /// The virtual service of each name, and the routes that have a part in it.
    merged: BTreeMap<String, Merged>,
    /// Istio's gateways that each gateway became, one for each listener.
    made: BTreeMap<Key, BTreeSet<Key>>,
}

/// A virtual service made from routes.
#[derive(Debug, Clone, Default)]
struct Merged {
    routes: BTreeSet<RouteId>,
    /// Where it stands among the virtual services.
    key: Option<Key>,
}

/// Whether a virtual service was made from routes of the Gateway API: it has rules of its own for prefixes, for backends
/// that do not exist, and for who sees it.
pub(crate) fn is_of_gateway_api(rules: &VirtualService) -> bool {
    let annotations = rules.metadata.annotations.as_ref();
    annotations.is_some_and(|all| {
        all.get(SEMANTICS.0)
            .is_some_and(|value| value == SEMANTICS.1)
    })
}

impl Index {
    /// Whether a grant lets objects (group, kind, namespace) refer to an object (group, kind, namespace, name).
    pub(super) fn is_granted(
        &self,
        from: (&str, &str, &str),
        to: (&str, &str, &str, &str),
    ) -> bool {
        let (group, kind, namespace, name) = to;
        let grants = of_namespace(&self.gateway_api.grants, namespace);
        let mut grants = grants.map(|(_, grant)| &grant.spec);
        grants.any(|grant| {
            let mut who = grant.from.iter();
            let mut what = grant.to.iter();
            who.any(|one| (&*one.group, &*one.kind, &*one.namespace) == from)
                && what.any(|one| {
                    one.group == group
                        && one.kind == kind
                        && one.name.as_ref().is_none_or(|wanted| wanted == name)
                })
        })
    }

    /// Whether gateways of a class are ours.
    fn is_our_class(&self, name: &str) -> bool {
        match self.gateway_api.classes.get(name) {
            Some(class) => class.spec.controller_name == CONTROLLER,
            None => CLASSES.contains(&name),
        }
    }
}
