//! The client half: one delta ADS stream that follows what its [`Handler`] wants, and reconnects for ever.
//!
//! Listeners and clusters are subscribed as wildcards; names of endpoints, routes and secrets come from the handler,
//! which derives them from what it accepted. Each response is answered with an ACK, or with a NACK that names every
//! rejected resource; the other resources of the same response still take effect. After a reconnect the server is told
//! the versions that are held, so that it sends only what differs.

mod connect;
#[cfg(test)]
mod fuzz;
mod session;

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;

use crate::{Resource, ResourceType};
pub use connect::connect;
use session::Held;

/// Shortest and longest pause between two attempts to connect. The pause doubles with each failure and is drawn at
/// random below its bound, so that proxies do not return in step.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Largest message that is accepted from the server, in bytes.
const LARGEST_MESSAGE: usize = 64 << 20;

/// Receives updates. Called from one task, never at the same time.
pub trait Handler: Send {
    /// Takes an update over and says which of its resources cannot be accepted. All others must be in effect, or
    /// waiting for resources that [`Handler::wanted`] names, when this returns.
    fn update(&mut self, update: Update) -> Vec<Rejection>;

    /// The names wanted of a type that is not subscribed as a wildcard.
    fn wanted(&self, kind: ResourceType) -> BTreeSet<String>;

    /// The stream was opened or lost. Resources stay in effect while it is lost.
    fn connection_changed(&mut self, connected: bool);
}

/// The content of one response.
#[derive(Debug, Clone)]
pub struct Update {
    /// Type of all its resources.
    pub kind: ResourceType,
    /// Added and changed resources.
    pub changed: Vec<Resource>,
    /// Names of resources that do not exist (any more).
    pub removed: Vec<String>,
    /// The server's version of the whole, for display only.
    pub version: String,
}

/// A resource that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Its name.
    pub name: String,
    /// Why, with the path of the field.
    pub reason: String,
}

/// Where the server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A host name or address, with a port.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// Called with every TCP socket before it is connected.
pub type PrepareSocket = Arc<dyn Fn(BorrowedFd<'_>) -> io::Result<()> + Send + Sync>;

/// How connections are protected and what they prove. Both are asked for each connection, so that files can change.
#[derive(Clone)]
pub struct Security {
    /// The TLS configuration.
    pub tls: Arc<dyn Fn() -> io::Result<Arc<rustls::ClientConfig>> + Send + Sync>,
    /// Name in the server's certificate, when it is not the host of the target.
    pub server_name: Option<String>,
    /// Bearer token that tells the server who calls.
    pub token: Arc<dyn Fn() -> Option<String> + Send + Sync>,
}

/// A client of one server.
pub struct Client<H> {
    target: Target,
    node: Node,
    handler: H,
    prepare: Option<PrepareSocket>,
    security: Option<Security>,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("cannot connect")]
    Connect(#[source] tonic::transport::Error),
    #[error("stream failed: {}: {}", .0.code(), .0.message())]
    Stream(#[from] tonic::Status),
    #[error("server ended the stream")]
    Ended,
}

impl<H: Handler> Client<H> {
    /// Prepares a client; nothing is sent before [`Client::run`]. `node` identifies the proxy to the server.
    pub fn new(target: Target, node: Node, handler: H) -> Self {
        Self {
            target,
            node,
            handler,
            prepare: None,
            security: None,
        }
    }

    /// Calls `prepare` with every TCP socket before it connects.
    #[must_use]
    pub fn prepare_sockets(mut self, prepare: PrepareSocket) -> Self {
        self.prepare = Some(prepare);
        self
    }

    /// Speaks TLS over TCP, and shows a token.
    #[must_use]
    pub fn secure(mut self, security: Security) -> Self {
        self.security = Some(security);
        self
    }

    /// Follows the server until the future is dropped.
    pub async fn run(mut self) {
        let mut held = Held::default();
        let mut failures = 0u32;
        loop {
            let started = tokio::time::Instant::now();
            let error = match self.follow(&mut held).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            self.handler.connection_changed(false);
            // A stream that lived for a while shows that the server works.
            failures = if started.elapsed() > BACK_OFF.1 {
                0
            } else {
                failures + 1
            };
            let bound = BACK_OFF
                .0
                .saturating_mul(1 << failures.min(9))
                .min(BACK_OFF.1);
            let pause = bound.mul_f64(fastrand::f64());
            let error = chain(&error);
            tracing::warn!(server = %self.target, error, ?pause, "discovery stream lost");
            tokio::time::sleep(pause).await;
        }
    }

    /// One stream, from connecting to its end.
    async fn follow(&mut self, held: &mut Held) -> Result<std::convert::Infallible, StreamError> {
        let security = self.security.as_ref();
        let channel = connect(&self.target, self.prepare.clone(), security)
            .await
            .map_err(StreamError::Connect)?;
        let mut client = AggregatedDiscoveryServiceClient::new(channel)
            .max_decoding_message_size(LARGEST_MESSAGE);
        // Requests answer responses one by one and subscriptions are few, so the queue cannot grow without bound.
        let (requests, queue) = tokio::sync::mpsc::unbounded_channel();
        for request in held.first_requests(&self.node, &self.handler) {
            let _ = requests.send(request);
        }
        let queue = tokio_stream::wrappers::UnboundedReceiverStream::new(queue);
        let mut request = tonic::Request::new(queue);
        if let Some(security) = security {
            security.authorize(&mut request);
        }
        let mut responses = client
            .delta_aggregated_resources(request)
            .await?
            .into_inner();
        self.handler.connection_changed(true);
        tracing::info!(server = %self.target, "discovery stream open");
        while let Some(response) = responses.message().await? {
            for request in held.respond(response, &mut self.handler) {
                requests.send(request).map_err(|_| StreamError::Ended)?;
            }
        }
        Err(StreamError::Ended)
    }
}

impl Security {
    /// Adds the token to a request.
    pub fn authorize<T>(&self, request: &mut tonic::Request<T>) {
        let token = (self.token)();
        let value = token.and_then(|token| format!("Bearer {token}").parse().ok());
        if let Some(value) = value {
            request.metadata_mut().insert("authorization", value);
        }
    }
}

/// An error with its causes, as the transport's own text says only that it failed.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(formatter, "{host}:{port}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests;
