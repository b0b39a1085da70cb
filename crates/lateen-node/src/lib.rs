//! Laptop mode's node: pods as processes in namespaces, with network, DNS, images, probes, logs
//! and the kubelet endpoint. Rootless.
//!
//! How the parts come together in `lateen up`:
//!
//! ```text
//! outer   enter::start(Plan)  ->  (Inside, OutsideServer); then OutsideServer::serve
//! inner   enter::inside()     ->  Inner { config, channel, users }     first thing in main, no thread yet
//!         Outside::start(channel)                                      in the tokio runtime
//!         Network::start(pods, services)                               the node's address exists from here on:
//!                                                                      the API server may listen on it
//!         Node::start(NodeConfig)                                      needs a kube::Client
//! ```
//!
//! The hidden subcommands `lateen inside`, `lateen container` and `lateen init` are
//! [`enter::inside`], [`container::main`] and [`redirect::main`].

pub mod container;
mod dns;
mod egress;
pub mod enter;
mod events;
mod expose;
mod images;
mod kubelet;
mod logs;
pub mod network;
mod node;
pub mod outside;
mod pods;
pub mod redirect;
mod registration;
mod relay;
mod usage;
mod world;

pub use expose::HOST_ADDRESS;
pub use images::OpenError as ImagesError;
pub use network::Network;
pub use network::hosts::HostAddresses;
pub use node::{Node, NodeConfig, StartError};
pub use outside::{Outside, OutsideServer};
