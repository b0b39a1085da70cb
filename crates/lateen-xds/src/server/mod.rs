//! The server half of the aggregated discovery service: delta and state of the world, over TCP and unix sockets.
//!
//! The server knows the protocol; what there is to send comes from a [`Source`]. The first request of a stream names
//! its node, for which the source opens a [`Session`]; the session answers for resources and marks what changed in
//! its [`Changes`]. A stream holds only names and versions of what its client has, and changes that arrive while the
//! client is slow are merged, so that a stream's memory is bounded by its subscriptions.
//!
//! Order within one push: clusters, endpoints, secrets, listeners, routes; removed clusters and endpoints come last
//! (make before break). Listeners and routes wait until the client has acknowledged the endpoints of clusters that are
//! new to it, and removals until it has acknowledged the listeners and routes; both for some seconds at most. Endpoints
//! are sent again after their cluster changed, even when they are the same: Envoy keeps a changed cluster warming
//! until then.

mod authority;
mod caller;
mod changes;
mod delta;
mod hold;
mod listen;
mod push;
mod references;
mod secure;
mod stream;
mod watch;
mod world;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::google::protobuf::Any;
use tokio::sync::watch as flag;
use tonic::Status;

use crate::{Names, Resource, ResourceType};

pub use caller::Caller;
pub use changes::Changes;
pub use listen::ServeError;
pub use secure::TlsSource;

/// Where the resources come from.
pub trait Source: Send + Sync + 'static {
    /// What serves one stream.
    type Session: Session;

    /// Opens a session for the node that a stream named in its first request.
    ///
    /// # Errors
    /// The status that the stream ends with, such as `INVALID_ARGUMENT` for a node without an id.
    fn open(
        &self,
        caller: Caller,
        node: Node,
        variant: Variant,
    ) -> impl Future<Output = Result<Self::Session, Status>> + Send;
}

/// What one stream is served from. Dropped when the stream ends.
pub trait Session: Send + Sync + 'static {
    /// The current resources of a type among `names`; those that do not exist are left out.
    fn resources(&self, kind: ResourceType, names: &Names) -> Vec<Resource>;

    /// Where the source marks what changed for this session.
    fn changes(&self) -> &Changes;

    /// A label for the current state, shown in version fields for people to read.
    fn version(&self) -> String;

    /// Told about everything that was sent and answered, for status and metrics.
    fn progress(&self, kind: ResourceType, progress: Progress<'_>);

    /// Told whenever marked changes have been worked off, with the number of responses that they took: none when
    /// nothing differed in the end.
    fn pushed(&self, _responses: usize) {}

    /// Told when something was sent although the client has not acknowledged what it builds on: the time for that was
    /// up. `missing` names endpoints of new clusters (before listeners and routes) or routes (before removals) that
    /// were not even asked for.
    fn overdue(&self, _missing: &[String]) {}

    /// Told what the client wants of a type, whenever that changed.
    fn subscribed(&self, _kind: ResourceType, _names: &Names) {}

    /// The answer to a request for a type that is not a [`ResourceType`], such as a debug type.
    fn other(&self, _type_url: &str, _names: &[String]) -> Vec<Any> {
        Vec::new()
    }

    /// What the server calls itself in `control_plane.identifier`.
    fn identifier(&self) -> String {
        String::new()
    }
}

/// What happened to one type of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// A response was handed to the transport.
    Sent {
        /// Nonce of the response.
        nonce: &'a str,
        /// Number of resources in it.
        resources: usize,
        /// Number of names in it that no longer exist.
        removed: usize,
        /// Encoded size of the resources.
        bytes: usize,
    },
    /// The client accepted the response of this nonce.
    Acked {
        /// Nonce of the response.
        nonce: &'a str,
    },
    /// The client rejected (parts of) the response of this nonce.
    Nacked {
        /// Nonce of the response.
        nonce: &'a str,
        /// What the client says is wrong.
        message: &'a str,
    },
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A TCP connection from this address.
    Tcp(SocketAddr),
    /// A unix socket: access was decided by the mode of its file.
    Unix,
}

/// The two forms of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// `DeltaAggregatedResources`
    Delta,
    /// `StreamAggregatedResources`
    StateOfTheWorld,
}

/// What a client may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Streams open at once; more are refused with `RESOURCE_EXHAUSTED`.
    pub streams: usize,
    /// Names that one stream may subscribe to, per type.
    pub names: usize,
    /// Size of one request in bytes.
    pub request_bytes: usize,
    /// How long a new stream may take to send its first request.
    pub first_request: Duration,
    /// How often an idle connection is probed; it is closed when a probe is not answered in a third of that.
    pub keepalive: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: 10_000,
            names: 65_536,
            request_bytes: 8 << 20,
            first_request: Duration::from_secs(15),
            keepalive: Duration::from_secs(30),
        }
    }
}

/// An ADS server. Clones serve the same streams, for instance on several sockets.
#[derive(Debug)]
pub struct Server<S> {
    inner: Arc<Inner<S>>,
}

#[derive(Debug)]
struct Inner<S> {
    source: S,
    limits: Limits,
    streams: AtomicUsize,
    stopped: flag::Sender<bool>,
}

impl<S: Source> Server<S> {
    /// A server of what `source` has.
    pub fn new(source: S, limits: Limits) -> Self {
        let inner = Inner {
            source,
            limits,
            streams: AtomicUsize::new(0),
            stopped: flag::Sender::new(false),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Ends all streams and makes every `serve` return.
    pub fn stop(&self) {
        self.inner.stopped.send_replace(true);
    }
}

impl<S> Clone for Server<S> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

#[cfg(test)]
mod tests;
