//! Group `gateway.networking.k8s.io`: the Gateway API.
//!
//! The fields are those of the standard channel of version 1.6, of the kinds that are served. A field that is not here
//! has no effect, so the schema does not have it and the API server says so. Defaults are the upstream schema's.

pub mod gateway;
pub mod gateway_class;
pub mod grpc_route;
pub mod http_route;
pub mod l4_route;
pub mod reference_grant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use gateway::GatewaySpec;
pub use gateway_class::GatewayClassSpec;
pub use grpc_route::GrpcRouteSpec;
pub use http_route::HttpRouteSpec;
pub use l4_route::{TcpRouteSpec, TlsRouteSpec};
pub use reference_grant::ReferenceGrantSpec;

use crate::Object;

/// Listeners that somebody asks for.
pub type Gateway = Object<GatewaySpec>;
/// Who takes care of gateways.
pub type GatewayClass = Object<GatewayClassSpec>;
/// Rules for gRPC requests.
pub type GrpcRoute = Object<GrpcRouteSpec>;
/// Rules for HTTP requests.
pub type HttpRoute = Object<HttpRouteSpec>;
/// Where connections of a port go.
pub type TcpRoute = Object<TcpRouteSpec>;
/// Where connections with a server name go.
pub type TlsRoute = Object<TlsRouteSpec>;
/// Permission to refer to objects of a namespace from others.
pub type ReferenceGrant = Object<ReferenceGrantSpec>;

/// Group of all kinds of this module.
pub const GROUP: &str = "gateway.networking.k8s.io";
/// Group of Istio's kinds that routes may refer to.
const ISTIO_GROUP: &str = "networking.istio.io";

/// What a route is attached to: a listener of a Gateway, or a service of the mesh.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct ParentReference {
    /// API group; that of the Gateway API when unset, empty for a Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub group: Option<String>,
    /// Kind; `Gateway` when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: Option<String>,
    /// Namespace; that of the route when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Listener of a Gateway; all when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
    /// Port of the listener or the service; all when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u32>,
}

/// Kinds that a route can be attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ParentKind {
    /// A Gateway of the Gateway API.
    Gateway,
    /// A Service: requests of the mesh to it.
    Service,
    /// A ServiceEntry: requests of the mesh to its hosts.
    ServiceEntry,
}

impl ParentReference {
    /// The kind that is meant; `None` for one that somebody else may know.
    pub fn parent_kind(&self) -> Option<ParentKind> {
        let group = self.group.as_deref().unwrap_or(GROUP);
        match (group, self.kind.as_deref().unwrap_or("Gateway")) {
            (GROUP, "Gateway") => Some(ParentKind::Gateway),
            ("", "Service") => Some(ParentKind::Service),
            (ISTIO_GROUP, "ServiceEntry") => Some(ParentKind::ServiceEntry),
            _ => None,
        }
    }

    /// The reference with group and kind written out, as statuses show it.
    pub fn written_out(&self) -> Self {
        let group = self.group.clone().unwrap_or_else(|| GROUP.to_owned());
        let kind = self.kind.clone().unwrap_or_else(|| "Gateway".to_owned());
        Self {
            group: Some(group),
            kind: Some(kind),
            ..self.clone()
        }
    }

    /// The namespace that is meant, for a route of a namespace.
    pub fn namespace_for<'a>(&'a self, route: &'a str) -> &'a str {
        self.namespace.as_deref().unwrap_or(route)
    }
}

/// Where requests go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct BackendReference {
    /// API group; the core group when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub group: Option<String>,
    /// Kind; `Service` when unset. `Hostname` of Istio's group stands for a host that the mesh knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: Option<String>,
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace; that of the route when unset. Another one needs a ReferenceGrant for routes at gateways.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Port of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u32>,
}

/// Kinds that requests can go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendKind {
    /// A Service of Kubernetes.
    Service,
    /// A host that the mesh knows.
    Hostname,
}

impl BackendReference {
    /// Group and kind as they are meant.
    pub fn group_kind(&self) -> (&str, &str) {
        let group = self.group.as_deref().unwrap_or_default();
        (group, self.kind.as_deref().unwrap_or("Service"))
    }

    /// The kind that is meant; `None` for one that is not served.
    pub fn backend_kind(&self) -> Option<BackendKind> {
        match self.group_kind() {
            ("", "Service") => Some(BackendKind::Service),
            (ISTIO_GROUP, "Hostname") => Some(BackendKind::Hostname),
            _ => None,
        }
    }
}

/// An object that another one needs, a Secret for example.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct SecretReference {
    /// API group; the core group when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub group: Option<String>,
    /// Kind; `Secret` when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: Option<String>,
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace; the own one when unset. Another one needs a ReferenceGrant.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

impl SecretReference {
    /// Whether it is a Secret that is meant.
    pub fn is_secret(&self) -> bool {
        self.group.as_deref().unwrap_or_default().is_empty()
            && self.kind.as_deref().unwrap_or("Secret") == "Secret"
    }
}

/// An object of the own namespace, by its kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["group", "kind", "name"]))]
pub struct LocalReference {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name of the object.
    pub name: String,
}
