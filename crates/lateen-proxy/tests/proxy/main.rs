//! The proxy over real sockets: configuration goes in where the discovery client puts it, upstreams and clients are on
//! loopback.

#![allow(unreachable_pub, reason = "nothing is exported from a test binary")]

mod access_log;
mod agent;
mod balance;
mod body_to_headers;
mod change;
mod connect;
mod cors;
mod destination;
mod detect;
mod discovery;
mod fault;
mod header_mutation;
mod http;
mod http1;
mod internal_redirect;
mod limits;
mod mirror;
mod names;
mod outlier;
mod paths;
mod process;
mod proxy_protocol;
mod stateful_session;
mod sticky;
mod sticky_store;
mod support;
mod tcp;
mod telemetry;
mod tls;
mod tls_support;
mod tls_upstream;
