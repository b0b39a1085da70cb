//! The mesh's network, inside its own network namespace: the node's address, pods behind routed
//! veth pairs, service addresses as nftables rules.
//!
//! Pods are routed, not bridged: each has one link to the node, a /32 route leads to it, and its
//! own gateway is 169.254.1.1, answered by nobody but a fixed neighbour entry. So every packet
//! between pods passes the node's hooks, and service addresses work from everywhere without the
//! kernel's bridge filter.

pub mod hosts;
pub mod pod;
pub mod services;

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use parking_lot::Mutex;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{RouteScope, RouteType};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use thiserror::Error;

pub use pod::PodNetwork;

/// The loopback link of every network namespace has this index.
const LOOPBACK: u32 = 1;

/// A range of IPv4 addresses, as `10.244.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub address: Ipv4Addr,
    /// Length of the common prefix in bits, 0 to 32.
    pub prefix: u8,
}

impl Range {
    /// The `n`th address of the range, if it is in it.
    pub fn nth(self, n: u32) -> Option<Ipv4Addr> {
        let size = 1u64 << (32 - u32::from(self.prefix.min(32)));
        (u64::from(n) < size).then(|| Ipv4Addr::from_bits(self.address.to_bits() + n))
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

/// Why the network, or a part of it, could not be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// No netlink socket could be opened.
    #[error("cannot open a netlink socket: {0}")]
    Netlink(#[source] io::Error),
    /// The kernel refused a link, an address or a route.
    #[error("cannot {step}: {source}")]
    Kernel {
        /// What was tried.
        step: String,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
    /// A network setting could not be written.
    #[error("cannot set {setting}: {source}")]
    Setting {
        /// Path below `/proc/sys`.
        setting: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A network namespace could not be made or entered.
    #[error("cannot make a network namespace: {0}")]
    Namespace(#[source] io::Error),
    /// Every address of the pod range is in use.
    #[error("no address is free in the pod range {0}")]
    Exhausted(Range),
    /// The rules of the service addresses, or of traffic that leaves the mesh, were refused.
    #[error("cannot apply nftables rules: {0}")]
    Rules(String),
    /// The socket for traffic that leaves the mesh could not be opened.
    #[error("cannot open a socket for traffic that leaves the mesh: {0}")]
    Egress(#[source] io::Error),
}

/// The network of a mesh. Clones share it.
#[derive(Clone, Debug)]
pub struct Network {
    netlink: Handle,
    pods: Range,
    services: Range,
    addresses: Arc<Mutex<pod::Addresses>>,
}

impl Network {
    /// Sets up the network namespace of the calling process: loopback, forwarding, the node's
    /// address, and the service range as local (so that a service without endpoints refuses
    /// connections at once). Needs a tokio runtime. To be called once, inside.
    ///
    /// # Errors
    /// When the kernel refuses a step.
    pub async fn start(pods: Range, services: Range) -> Result<Self, NetworkError> {
        let (connection, netlink, _) =
            rtnetlink::new_connection().map_err(NetworkError::Netlink)?;
        tokio::spawn(connection);
        set("net/ipv4/ip_forward", "1")?;
        set("net/ipv4/ip_unprivileged_port_start", "0")?;
        let addresses = Arc::new(Mutex::new(pod::Addresses::new(pods)));
        let network = Self {
            netlink,
            pods,
            services,
            addresses,
        };
        network.set_up_node().await?;
        Ok(network)
    }

    /// The node's own address: the first of the pod range. The API server listens there.
    pub fn node_address(&self) -> Ipv4Addr {
        self.pods.nth(1).unwrap_or(self.pods.address)
    }

    /// The pods' range.
    pub fn pod_range(&self) -> Range {
        self.pods
    }

    /// The services' range.
    pub fn service_range(&self) -> Range {
        self.services
    }

    async fn set_up_node(&self) -> Result<(), NetworkError> {
        let netlink = &self.netlink;
        let up = LinkUnspec::new_with_index(LOOPBACK).up().build();
        kernel("bring up loopback", netlink.link().set(up).execute().await)?;
        let node = self.node_address();
        let address = netlink.address().add(LOOPBACK, node.into(), 32);
        kernel("add the node's address", address.execute().await)?;
        // Locally delivered: where no rule redirects a service address, nobody listens and the
        // kernel refuses. Without a route, the node itself could not even try.
        let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(self.services.address, self.services.prefix)
            .output_interface(LOOPBACK)
            .pref_source(node)
            .kind(RouteType::Local)
            .scope(RouteScope::Host)
            .table_id(255);
        route.get_mut().header.address_family = AddressFamily::Inet;
        let adding = netlink.route().add(route.build());
        kernel("add the route of the service range", adding.execute().await)
    }
}

/// Writes a setting below `/proc/sys` for the calling thread's network namespace.
fn set(setting: &'static str, value: &str) -> Result<(), NetworkError> {
    std::fs::write(format!("/proc/sys/{setting}"), value)
        .map_err(|source| NetworkError::Setting { setting, source })
}

/// Names the step that a refusal belongs to.
fn kernel<T>(step: &str, result: Result<T, rtnetlink::Error>) -> Result<T, NetworkError> {
    result.map_err(|source| NetworkError::Kernel {
        step: step.to_owned(),
        source,
    })
}
