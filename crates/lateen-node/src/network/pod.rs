//! A pod's network: a namespace of its own, an address, a link to the node.

use std::collections::HashSet;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use lateen_sys::namespace;
use nix::libc;
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::packet_route::neighbour::NeighbourState;
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::{LOOPBACK, Network, NetworkError, Range, kernel, set};

/// Every pod's gateway. No link has this address: a fixed neighbour entry leads to the node.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// Addresses at the start of the range that are never given to pods: the network's own and the
/// node's, with some room.
const RESERVED: u32 = 4;

/// The network of one pod. The namespace, its link and its routes go when this is
/// [removed](PodNetwork::remove), at the latest when the last process and this are gone.
#[derive(Debug)]
pub struct PodNetwork {
    namespace: OwnedFd,
    address: Ipv4Addr,
    link: u32,
    network: Network,
}

impl Network {
    /// Makes the network of a pod (some 5 ms).
    ///
    /// # Errors
    /// When the pod range is used up or the kernel refuses a step.
    pub async fn add_pod(&self) -> Result<PodNetwork, NetworkError> {
        let address = self
            .addresses
            .lock()
            .take()
            .ok_or(NetworkError::Exhausted(self.pods))?;
        match self.connect_pod(address).await {
            Ok((namespace, link)) => Ok(PodNetwork {
                namespace,
                address,
                link,
                network: self.clone(),
            }),
            Err(error) => {
                self.addresses.lock().give_back(address);
                Err(error)
            }
        }
    }

    async fn connect_pod(&self, address: Ipv4Addr) -> Result<(OwnedFd, u32), NetworkError> {
        let runtime = tokio::runtime::Handle::current();
        let (namespace, connection, inside) = tokio::task::spawn_blocking(move || {
            let namespace = namespace::new_network()?;
            // A netlink socket belongs to the namespace in which it was opened, wherever it is
            // used: this one configures the pod from here.
            let (connection, inside) = namespace::in_network(namespace.as_fd(), || {
                let _runtime = runtime.enter();
                set("net/ipv4/ip_unprivileged_port_start", "0").map_err(io::Error::other)?;
                let (connection, inside, _) = rtnetlink::new_connection()?;
                Ok((connection, inside))
            })?;
            Ok((namespace, connection, inside))
        })
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(NetworkError::Namespace)?;
        let connection = tokio::spawn(connection);
        let link = self.link_pod(address, &namespace, &inside).await;
        // The socket would keep the namespace alive.
        connection.abort();
        Ok((namespace, link?))
    }

    /// Makes the veth pair and the routes on both sides.
    async fn link_pod(
        &self,
        address: Ipv4Addr,
        namespace: &OwnedFd,
        inside: &Handle,
    ) -> Result<u32, NetworkError> {
        let outer = &self.netlink;
        let [.., c, d] = address.octets();
        let name = format!("pod-{c}-{d}");
        let (node_mac, pod_mac) = (mac(0x0a, address), mac(0x0e, address));
        let peer = LinkUnspec::new_with_name("eth0")
            .address(pod_mac.to_vec())
            .setns_by_fd(namespace.as_raw_fd())
            .build();
        let pair = LinkVeth::new(&name, "eth0")
            .address(node_mac.to_vec())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        kernel(
            "make the pod's link",
            outer.link().add(pair).execute().await,
        )?;

        let up = LinkUnspec::new_with_index(LOOPBACK).up().build();
        kernel(
            "bring up the pod's loopback",
            inside.link().set(up).execute().await,
        )?;
        let eth0 = index_of(inside, "eth0").await?;
        let add = inside.address().add(eth0, address.into(), 32);
        kernel("add the pod's address", add.execute().await)?;
        let up = LinkUnspec::new_with_index(eth0).up().build();
        kernel(
            "bring up the pod's link",
            inside.link().set(up).execute().await,
        )?;
        self.add_neighbour(inside, eth0, GATEWAY, node_mac).await?;
        let gateway = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(GATEWAY, 32)
            .output_interface(eth0)
            .scope(RouteScope::Link)
            .build();
        kernel(
            "add the pod's gateway",
            inside.route().add(gateway).execute().await,
        )?;
        let default = RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(GATEWAY)
            .output_interface(eth0)
            .onlink()
            .build();
        kernel(
            "add the pod's default route",
            inside.route().add(default).execute().await,
        )?;

        // Neither end can be up before both exist (ENOTCONN).
        let link = index_of(outer, &name).await?;
        let up = LinkUnspec::new_with_index(link).up().build();
        kernel(
            "bring up the node's end of the pod's link",
            outer.link().set(up).execute().await,
        )?;
        self.add_neighbour(outer, link, address, pod_mac).await?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .output_interface(link)
            .scope(RouteScope::Link)
            .pref_source(self.node_address())
            .build();
        kernel(
            "add the route to the pod",
            outer.route().add(route).execute().await,
        )?;
        Ok(link)
    }

    async fn add_neighbour(
        &self,
        netlink: &Handle,
        link: u32,
        address: Ipv4Addr,
        mac: [u8; 6],
    ) -> Result<(), NetworkError> {
        let adding = netlink
            .neighbours()
            .add(link, address.into())
            .link_layer_address(&mac)
            .state(NeighbourState::Permanent)
            .replace();
        kernel("add a neighbour", adding.execute().await)
    }
}

impl PodNetwork {
    /// The pod's address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The pod's network namespace.
    pub fn namespace(&self) -> &OwnedFd {
        &self.namespace
    }

    /// Takes the pod off the network. Its address may be given to another pod when this is
    /// dropped.
    ///
    /// # Errors
    /// When the kernel refuses; a link that is gone already is no error.
    pub async fn remove(&self) -> Result<(), NetworkError> {
        match self.network.netlink.link().del(self.link).execute().await {
            Err(rtnetlink::Error::NetlinkError(message)) if message.raw_code() == -libc::ENODEV => {
                Ok(())
            }
            other => kernel("remove the pod's link", other),
        }
    }
}

impl Drop for PodNetwork {
    fn drop(&mut self) {
        self.network.addresses.lock().give_back(self.address);
    }
}

async fn index_of(netlink: &Handle, name: &str) -> Result<u32, NetworkError> {
    use futures_util::TryStreamExt;
    let mut links = netlink.link().get().match_name(name.to_owned()).execute();
    let step = format!("find the link {name}");
    match kernel(&step, links.try_next().await)? {
        Some(link) => Ok(link.header.index),
        None => Err(NetworkError::Kernel {
            step,
            source: rtnetlink::Error::RequestFailed,
        }),
    }
}

/// A locally administered MAC address made from the pod's address.
fn mac(kind: u8, address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [kind, 0x58, a, b, c, d]
}

/// Which addresses of the pod range are in use. Addresses are given out in turn, so that one that
/// was just given back rests as long as possible.
#[derive(Debug)]
pub(super) struct Addresses {
    range: Range,
    next: u32,
    used: HashSet<Ipv4Addr>,
}

impl Addresses {
    pub(super) fn new(range: Range) -> Self {
        Self {
            range,
            next: RESERVED,
            used: HashSet::new(),
        }
    }

    fn take(&mut self) -> Option<Ipv4Addr> {
        let first = self.next;
        loop {
            let candidate = self.range.nth(self.next);
            // The last address of a range is its broadcast address.
            let last = self.range.nth(self.next + 1).is_none();
            self.next = if last { RESERVED } else { self.next + 1 };
            match candidate {
                Some(address) if !last && self.used.insert(address) => return Some(address),
                _ if self.next == first => return None,
                _ => {}
            }
        }
    }

    fn give_back(&mut self, address: Ipv4Addr) {
        self.used.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_rotate_and_run_out() {
        let range = Range {
            address: Ipv4Addr::new(10, 0, 0, 0),
            prefix: 29,
        };
        let mut addresses = Addresses::new(range);
        let taken: Vec<_> = std::iter::from_fn(|| addresses.take()).collect();
        assert_eq!(taken, [4, 5, 6].map(|last| Ipv4Addr::new(10, 0, 0, last)));
        addresses.give_back(taken[1]);
        assert_eq!(addresses.take(), Some(taken[1]));
        assert_eq!(addresses.take(), None);
    }
}
