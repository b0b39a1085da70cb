//! Resources of the discovery protocol and their types.

use std::collections::BTreeSet;
use std::fmt;

use envoy_types::pb::google::protobuf::Any;

/// The resource types that proxies subscribe to, in the order in which a consistent update is applied
/// (make before break: clusters, endpoints, listeners, routes; secrets whenever asked for).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceType {
    /// `envoy.config.cluster.v3.Cluster`
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`
    Endpoint,
    /// `envoy.config.listener.v3.Listener`
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration`
    Route,
    /// `envoy.extensions.transport_sockets.tls.v3.Secret`
    Secret,
}

impl ResourceType {
    /// All types, in the order of a consistent update.
    pub const ALL: [Self; 5] = [
        Self::Cluster,
        Self::Endpoint,
        Self::Listener,
        Self::Route,
        Self::Secret,
    ];

    /// The type URL on the wire.
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        }
    }

    /// The type of a type URL, if it is one of ours.
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == url)
    }

    /// Whether a subscription without names means all resources (listeners and clusters).
    pub fn is_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Cluster => "cluster",
            Self::Endpoint => "endpoint",
            Self::Listener => "listener",
            Self::Route => "route",
            Self::Secret => "secret",
        })
    }
}

/// One named resource, encoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Name, unique within its type.
    pub name: String,
    /// Version of the content: equal content has an equal version.
    pub version: String,
    /// The encoded message with its type URL.
    pub body: Any,
}

/// Which resources of a type are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// Every resource of the type (a wildcard subscription, or a change of unknown extent).
    All,
    /// Only those of these names.
    Only(BTreeSet<String>),
}

impl Names {
    /// No resource at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether a resource of this name is meant.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(name),
        }
    }

    /// Whether nothing is meant.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Only(names) if names.is_empty())
    }

    /// Adds what `other` means.
    pub fn extend(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::All, _) => {}
            (_, Self::All) => *self = Self::All,
            (Self::Only(mine), Self::Only(theirs)) => mine.extend(theirs),
        }
    }
}

impl Default for Names {
    fn default() -> Self {
        Self::Only(BTreeSet::new())
    }
}

impl<S: Into<String>> FromIterator<S> for Names {
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> Self {
        Self::Only(names.into_iter().map(Into::into).collect())
    }
}
