//! The data plane: listeners, codecs, pools, filters, statistics, access log and admin.
//!
//! Start at [`run`], which is the whole process, or at [`Engine`], which is the part that serves traffic. Discovery
//! updates go to the engine's handler; it compiles them, keeps them consistent and swaps them into place. Traffic is
//! served by workers: one thread each, with its own runtime, sockets and connection pools, so that a request never
//! leaves its thread. Discovery, admin and statistics live on a thread of their own.
//!
//! Path of a connection: `worker` accepts it, `connection` finds its filter chain, then `http` or `tcp` serves it.

#![allow(
    deprecated,
    reason = "control planes still send deprecated fields, so they are read"
)]

mod access_log;
mod admin;
pub mod agent;
mod balancing;
mod cluster;
pub mod command;
mod config;
mod connection;
mod dns;
mod engine;
mod flags;
#[cfg(test)]
mod fuzz;
mod histogram;
mod http;
mod http1;
mod listener;
mod log_filter;
pub mod logging;
mod memory;
mod net;
mod outlier;
mod pool;
mod process;
mod prometheus;
mod proxy_protocol;
mod record;
mod relay;
mod secret;
mod shared;
mod sniff;
mod stats;
mod sticky;
mod stream;
mod tcp;
mod telemetry;
mod tls;
mod upstream;
mod worker;

pub use engine::{Engine, EngineConfig};
pub use process::{ProxyConfig, RunError, run};
pub use secret::{SecretError, Secrets};
pub use tls::any_server::client_of_any_server;
