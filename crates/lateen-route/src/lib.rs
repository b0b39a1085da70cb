//! xDS routes and load balancers compiled into matchers that decide, and explain, where a request goes.
//!
//! Start at [`RouteTable`]: it is compiled from an `envoy.config.route.v3.RouteConfiguration`, and
//! [`RouteTable::decide`] answers for one [`RequestView`]. [`balance::Balancer`] chooses an endpoint of a cluster
//! with Envoy's algorithms, fed by the hash of [`hash::HashPolicy`].
//!
//! Everything here is pure: no sockets, no clocks, no randomness of its own. The live proxy and the offline tools call
//! the same functions.
//!
//! *Accept means behave*: a field that is set and not implemented makes the compilation fail with its path
//! ([`Invalid`]). Fields that are accepted because they cannot change behaviour here (metadata, stat names) are taken
//! out of the message by name where it is compiled.

#![allow(
    deprecated,
    reason = "control planes still send deprecated fields, so they are read"
)]

pub mod balance;
pub mod body_fields;
mod compile;
pub mod constraint;
pub mod cookie;
pub mod cors;
pub mod fault;
pub mod filter;
pub mod format;
pub mod fraction;
#[cfg(test)]
mod fuzz;
pub mod hash;
pub mod header_match;
pub mod header_mutation;
pub mod internal_redirect;
pub mod invalid;
pub mod mutate;
mod path_match;
pub mod query_mutation;
pub mod redirect;
pub mod retry;
pub mod rewrite;
pub mod route;
pub mod session;
pub mod stateful_session;
pub mod string_match;
pub mod table;
mod view;

pub use invalid::{Invalid, Within, refuse_rest};
pub use route::{Action, Forward, Route, VirtualHost};
pub use table::{Decision, RouteTable};
pub use view::RequestView;
