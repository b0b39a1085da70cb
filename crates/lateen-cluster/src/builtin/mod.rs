//! The kinds that the server serves without a CustomResourceDefinition, with the behaviour that Kubernetes gives them.
//!
//! A kind is a [`Kind`](kind::Kind): its schema from the committed tables and a few functions for what a schema cannot
//! say. Everything is checked against what Kubernetes 1.36 answers; where a kind does less than there, its row says so
//! ([`rows`]). Roles and bindings are stored and listed but not enforced: every client with the token may do everything.

mod convert;
mod defaults;
mod kind;
mod metrics;
mod prepare;
mod read;
mod row;
mod rows;
mod table;
mod validate;

pub use rows::rows;
pub use table::human_duration;
pub(crate) use validate::metadata_errors;
pub(crate) use validate::text::{dns_1035_label, dns_subdomain};

#[cfg(test)]
mod tests;
