//! The request handler: from an HTTP request of a known user to its answer.
//!
//! [`Api::handle`] is all that a client reaches, over TLS or in this process. It understands the path ([`target`]),
//! negotiates ([`accept`]) and calls the handler of the verb; what a write goes through is in [`write`].
//!
//! This is a development server: every authenticated user may do everything. Access reviews answer accordingly.

mod accept;
mod admit;
mod applying;
pub(crate) mod body;
mod delete;
mod discovery;
mod kubelet;
mod metadata;
mod namespaces;
mod openapi;
mod query;
mod read;
mod respond;
mod review;
mod route;
mod services;
mod subresource;
mod target;
mod usage;
mod watch;
mod write;

use std::collections::HashSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub use body::{Body, BodyError};
pub(crate) use kubelet::Kubelet;
use services::Services;

use crate::admission::Admission;
use crate::registry::Registry;
use crate::status::Status;
use crate::store::{Store, WriteError};
use crate::tokens::Tokens;
use crate::user::User;

pub(crate) use body::full;
pub(crate) use review::rows as review_rows;
pub use services::ServiceRange;
pub(crate) use usage::rows as usage_rows;

/// The API server's state, shared by all requests.
pub struct Api {
    pub(crate) store: Store,
    pub(crate) registry: Registry,
    admission: ArcSwap<Vec<Arc<dyn Admission>>>,
    services: Services,
    pub(crate) tokens: Tokens,
    kubelet: Kubelet,
    documents: openapi::Documents,
    /// Ends watches and other long answers when the server stops.
    stopping: CancellationToken,
}

impl Api {
    /// A server over `store` that serves the rows of `registry`.
    pub(crate) fn new(
        store: Store,
        registry: Registry,
        range: ServiceRange,
        tokens: Tokens,
        kubelet: Kubelet,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            registry,
            admission: ArcSwap::default(),
            services: Services::new(range),
            tokens,
            kubelet,
            documents: openapi::Documents::new(),
            stopping: CancellationToken::new(),
        })
    }

    /// A server with keys of its own in `folder`, and no node.
    #[cfg(test)]
    pub(crate) fn for_test(
        folder: &std::path::Path,
        store: Store,
        registry: Registry,
        range: ServiceRange,
    ) -> Arc<Self> {
        let socket = folder.join("kubelet.sock");
        let tokens = Tokens::open(folder).expect("makes keys");
        Self::new(store, registry, range, tokens, Kubelet { socket })
    }

    /// The objects.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The table of resources.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Adds an admission hook behind those that are there.
    pub fn add_admission(&self, hook: Arc<dyn Admission>) {
        self.admission.rcu(|hooks| {
            let mut hooks = Vec::clone(hooks);
            hooks.push(hook.clone());
            hooks
        });
    }

    /// The address of the service `kubernetes`: the first of the range.
    pub(crate) fn first_address(&self) -> std::net::Ipv4Addr {
        self.services.first()
    }

    /// Ends all long answers (watches), so that connections can finish.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Answers one request; `user` is `None` when the client did not say who it is.
    pub fn handle(
        self: Arc<Self>,
        request: Request<Body>,
        user: Option<User>,
    ) -> BoxFuture<'static, Response<Body>> {
        Box::pin(self.answer(request, user))
    }

    async fn answer(self: Arc<Self>, request: Request<Body>, user: Option<User>) -> Response<Body> {
        let mut warnings = Vec::new();
        let mut response = match route::route(&self, request, user, &mut warnings).await {
            Ok(response) => response,
            Err(status) => respond::error_response(&status),
        };
        // A write that was tried again tells the same twice.
        let mut seen = HashSet::new();
        warnings.retain(|warning| seen.insert(warning.clone()));
        respond::add_warnings(&mut response, &warnings);
        response
    }
}

/// The answer to a request that is refused before it is looked at.
pub(crate) fn refuse(status: &Status) -> Response<Body> {
    respond::error_response(status)
}

/// The error of a write that the store refused for reasons of its own.
fn store_failure(error: &WriteError) -> Status {
    match error {
        WriteError::TooLarge { .. } => Status::new(413, "RequestEntityTooLarge", error.to_string()),
        _ => Status::internal(error),
    }
}

/// The text at `metadata.{field}`, empty when there is none.
fn meta<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests;
