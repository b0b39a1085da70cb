//! The mesh as the control plane knows it, and its translation to xDS.
//!
//! An [`Index`] holds services, endpoints, workloads and Istio's configuration. It is fed with [`Change`]s and says with
//! an [`Impact`] whom each one may concern. [`resources`] translates what one [`Proxy`] needs to know into xDS resources,
//! with Istio's names and structure. Everything is pure and deterministic: the same objects give the same bytes, in
//! whatever order they arrived; nothing here waits, reads a clock or opens a socket.
//!
//! ```text
//! Change -> Index::apply -> Impact -> Impact::narrow(proxy, type, subscribed) -> resources(index, proxy, type, names)
//! ```

pub mod change;
pub mod index;
pub mod mesh_config;
pub mod names;
pub mod protocol;
pub mod proxy;
pub mod resources;
mod translate;

pub use change::{Change, Impact, Key, ObjectKind, Scope};
pub use index::Index;
pub use mesh_config::MeshConfig;
pub use proxy::{NodeError, Proxy, ProxyKind};
pub use resources::resources;
