//! The control plane: Kubernetes watchers, push engine, discovery endpoint, admission webhooks and manifests.
//!
//! ```text
//! watchers -> events -> engine (owns the index) -> marks in sessions -> discovery streams -> resources on demand
//! ```
//!
//! * [`Control::start`] runs everything; [`command`] is the command line of the `istiod` pod.
//! * [`inject`](mod@inject) adds the sidecar to a pod, for the webhook and for files alike.
//! * [`manifests`] are the objects that install the control plane and a gateway.
//!
//! It knows a Kubernetes API and nothing of where that runs.

mod awaited_subsets;
pub mod command;
mod debug;
mod engine;
mod gateway_deploy;
mod gateway_status;
mod http_server;
mod identity;
pub mod inject;
pub mod manifests;
mod metrics;
mod session;
mod source;
mod start;
mod status;
mod store_probe;
mod watch;
mod webhook;

pub use lateen_mesh::MeshConfig;
pub use start::{Addresses, Control, ControlConfig, StartError, run};

/// Label of the sidecar in every place where Istio names its container.
pub(crate) const PROXY_CONTAINER: &str = "istio-proxy";

/// The release of Istio whose behaviour and names are followed, told to tools that ask.
pub const ISTIO_VERSION: &str = "1.31.1";
