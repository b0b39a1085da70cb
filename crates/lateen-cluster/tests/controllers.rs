//! The controllers against the real API server, in one process. The node is played by [`support::Kubelet`], which reports
//! pods running and ready, as in life another process does.

#[path = "controllers/endpoints.rs"]
mod endpoints;
#[path = "controllers/namespaces.rs"]
mod namespaces;
#[path = "controllers/ownership.rs"]
mod ownership;
#[path = "controllers/rollout.rs"]
mod rollout;
#[path = "controllers/stateful.rs"]
mod stateful;
#[path = "controllers/support.rs"]
mod support;
