//! A single-node Kubernetes API server for development, with its controllers.
//!
//! One generic store is driven by a table of [`Resource`](resource::Resource) rows: built-in kinds come from a fixed
//! table, every CustomResourceDefinition adds a row. A row's [`Strategy`](strategy::Strategy) says how objects of that
//! resource are decoded, defaulted, checked and shown; everything else (storage, watches, patches, selectors,
//! negotiation) is the same for all.
//!
//! # What it is not
//!
//! * Every authenticated client may do everything: there is no authorization, and access reviews say so. Clients are the
//!   administrator, whose token stands in the kubeconfig, and service accounts.
//! * Lists and reads show the present; older states are not kept. A watch reaches back over the latest 4096 events of
//!   its resource, and not beyond the last start: then it ends with 410 and the client lists again.
//! * Request bodies come in JSON, YAML or protobuf, answers in JSON or YAML.
//! * A kind that is not in the table is refused, never stored.
//!
//! Start with [`Cluster::start`].

pub mod admission;
mod apply;
mod bootstrap;
pub mod builtin;
mod clock;
mod cluster;
pub mod controllers;
mod expression;
pub mod extension;
pub mod field;
#[cfg(test)]
mod fuzz;
mod names;
pub mod patch;
pub mod protobuf;
pub mod registry;
pub mod resource;
pub mod schema;
pub mod selector;
pub mod server;
mod serving;
pub mod status;
pub mod store;
pub mod strategy;
#[cfg(test)]
mod testing;
mod tokens;
pub mod user;

pub use cluster::{Cluster, Config, StartError, client};
pub use controllers::AutoscalerConfig;
pub use serving::CertificateError;
