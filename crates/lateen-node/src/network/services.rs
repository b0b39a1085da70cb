//! Service addresses as nftables rules: what kube-proxy does.
//!
//! One verdict map leads from (address, protocol, port) to a chain of that front, which chooses an
//! endpoint at random (or by the client's address, for session affinity `ClientIP`) and rewrites the
//! destination. A change touches the fronts that differ and nothing else, in one transaction. A
//! front without endpoints has no entry: the service range is local to the node, where nobody
//! listens, so the kernel refuses the connection.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::NetworkError;
use crate::enter::find_program;
use crate::world::World;

/// Changes within this time are applied together.
const GATHER: Duration = Duration::from_millis(3);

/// Pause before rules that were refused are applied again, from nothing.
const RETRY: Duration = Duration::from_secs(1);

/// How long `nft` may take.
const NFT_TIME: Duration = Duration::from_secs(20);

/// Name of the table that holds everything.
const TABLE: &str = "lateen";

/// Transport protocol of a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Where clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Front {
    address: Ipv4Addr,
    protocol: Protocol,
    port: u16,
}

/// Where they end up.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Backs {
    endpoints: Vec<SocketAddrV4>,
    by_client: bool,
}

type Fronts = BTreeMap<Front, Backs>;

/// Keeps the rules in step with the services, for ever.
pub(crate) async fn follow(world: Arc<World>, node: Ipv4Addr) {
    let mut changes = world.changes();
    let mut applied: Option<Fronts> = None;
    world.complete().await;
    loop {
        changes.borrow_and_update();
        let wanted = fronts(&world, node);
        let script = match &applied {
            None => start_script(node) + &difference(&Fronts::new(), &wanted),
            Some(present) => difference(present, &wanted),
        };
        match apply(&script).await {
            Ok(()) => applied = Some(wanted),
            Err(error) => {
                tracing::error!(%error, "service rules refused");
                applied = None;
                tokio::time::sleep(RETRY).await;
                continue;
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(GATHER).await;
    }
}

/// Runs a script as one transaction; an empty one is nothing to do.
pub(crate) async fn apply(script: &str) -> Result<(), NetworkError> {
    if script.is_empty() {
        return Ok(());
    }
    let refused = |reason: String| NetworkError::Rules(reason);
    let program = find_program("nft").ok_or_else(|| refused("nft was not found".into()))?;
    let mut child = Command::new(program)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| refused(error.to_string()))?;
    let work = async {
        if let Some(mut input) = child.stdin.take() {
            input.write_all(script.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(NFT_TIME, work)
        .await
        .map_err(|_| refused("nft took too long".into()))?
        .map_err(|error| refused(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(refused(said.lines().take(3).collect::<Vec<_>>().join("; ")))
}

/// The ready endpoints of a service's port: those that are ready, else those that still serve
/// while they end, as kube-proxy does.
pub(crate) fn endpoints(world: &World, service: &Service, port: &ServicePort) -> Vec<SocketAddrV4> {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let (mut ready, mut serving) = (BTreeSet::new(), BTreeSet::new());
    for slice in world.slices(namespace, name) {
        let ports = slice.ports.as_deref().unwrap_or_default();
        let named = |name: Option<&str>| name.unwrap_or_default().to_owned();
        let wanted = named(port.name.as_deref());
        let Some(number) = ports
            .iter()
            .find(|known| named(known.name.as_deref()) == wanted)
            .and_then(|known| u16::try_from(known.port?).ok())
        else {
            continue;
        };
        for endpoint in slice.endpoints.iter().flatten() {
            let conditions = endpoint.conditions.as_ref();
            let is_ready = conditions.and_then(|c| c.ready).unwrap_or(true);
            let serves = conditions.and_then(|c| c.serving).unwrap_or(is_ready);
            for address in &endpoint.addresses {
                let Ok(address) = address.parse::<Ipv4Addr>() else {
                    continue;
                };
                let target = SocketAddrV4::new(address, number);
                if is_ready {
                    ready.insert(target);
                } else if serves {
                    serving.insert(target);
                }
            }
        }
    }
    if ready.is_empty() {
        serving.into_iter().collect()
    } else {
        ready.into_iter().collect()
    }
}

/// The protocol of a service port; nothing for SCTP.
pub(crate) fn protocol(port: &ServicePort) -> Option<Protocol> {
    match port.protocol.as_deref().unwrap_or("TCP") {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    }
}

/// Everything that is to be rewritten.
fn fronts(world: &World, node: Ipv4Addr) -> Fronts {
    let mut fronts = Fronts::new();
    for service in world.services() {
        let Some(spec) = &service.spec else { continue };
        let Some(cluster_ip) = spec.cluster_ip.as_ref().and_then(|ip| ip.parse().ok()) else {
            continue;
        };
        let by_client = spec.session_affinity.as_deref() == Some("ClientIP");
        let external = spec
            .external_ips
            .iter()
            .flatten()
            .filter_map(|ip| ip.parse().ok());
        let addresses: Vec<Ipv4Addr> = std::iter::once(cluster_ip).chain(external).collect();
        for port in spec.ports.iter().flatten() {
            let endpoints = endpoints(world, &service, port);
            let Some(protocol) = protocol(port).filter(|_| !endpoints.is_empty()) else {
                continue;
            };
            let backs = Backs {
                endpoints,
                by_client,
            };
            let number = |port: i32| u16::try_from(port).ok();
            for address in &addresses {
                if let Some(port) = number(port.port) {
                    let front = Front {
                        address: *address,
                        protocol,
                        port,
                    };
                    fronts.insert(front, backs.clone());
                }
            }
            if let Some(port) = port.node_port.and_then(number).filter(|port| *port > 0) {
                fronts.insert(
                    Front {
                        address: node,
                        protocol,
                        port,
                    },
                    backs,
                );
            }
        }
    }
    fronts
}

/// The table without any service. Deleting it first makes this a fresh start, whatever was there.
fn start_script(node: Ipv4Addr) -> String {
    format!(
        "add table ip {TABLE}
delete table ip {TABLE}
add table ip {TABLE}
add map ip {TABLE} services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
add set ip {TABLE} hairpins {{ type ipv4_addr . ipv4_addr; }}
add chain ip {TABLE} prerouting {{ type nat hook prerouting priority -100; policy accept; }}
add chain ip {TABLE} output {{ type nat hook output priority -100; policy accept; }}
add chain ip {TABLE} postrouting {{ type nat hook postrouting priority 100; policy accept; }}
add rule ip {TABLE} prerouting ip daddr . meta l4proto . th dport vmap @services
add rule ip {TABLE} output ip daddr . meta l4proto . th dport vmap @services
add rule ip {TABLE} postrouting ip saddr . ip daddr @hairpins snat to {node}
"
    )
}

/// The commands that lead from one state to another.
fn difference(present: &Fronts, wanted: &Fronts) -> String {
    let mut script = String::new();
    // Writing to a String cannot fail.
    for front in present.keys().filter(|front| !wanted.contains_key(front)) {
        let chain = chain(front);
        let _ = writeln!(
            script,
            "delete element ip {TABLE} services {{ {} }}",
            key(front)
        );
        let _ = writeln!(script, "flush chain ip {TABLE} {chain}");
        let _ = writeln!(script, "delete chain ip {TABLE} {chain}");
    }
    for (front, backs) in wanted {
        let chain = chain(front);
        let old = present.get(front);
        if old == Some(backs) {
            continue;
        }
        if old.is_some() {
            let _ = writeln!(script, "flush chain ip {TABLE} {chain}");
        } else {
            let _ = writeln!(script, "add chain ip {TABLE} {chain}");
        }
        let _ = writeln!(
            script,
            "add rule ip {TABLE} {chain} {}",
            rewrite(front, backs)
        );
        if old.is_none() {
            let key = key(front);
            let _ = writeln!(
                script,
                "add element ip {TABLE} services {{ {key} : goto {chain} }}"
            );
        }
    }
    // A pod that reaches itself through a service must see another source than its own address,
    // or it would answer itself past the rewriting.
    let (old, new) = (addresses(present), addresses(wanted));
    for address in old.difference(&new) {
        let _ = writeln!(
            script,
            "delete element ip {TABLE} hairpins {{ {address} . {address} }}"
        );
    }
    for address in new.difference(&old) {
        let _ = writeln!(
            script,
            "add element ip {TABLE} hairpins {{ {address} . {address} }}"
        );
    }
    script
}

fn addresses(fronts: &Fronts) -> BTreeSet<Ipv4Addr> {
    fronts
        .values()
        .flat_map(|backs| &backs.endpoints)
        .map(|endpoint| *endpoint.ip())
        .collect()
}

fn chain(front: &Front) -> String {
    let address = front.address.to_string().replace('.', "-");
    format!("front-{address}-{}-{}", front.protocol, front.port)
}

fn key(front: &Front) -> String {
    format!("{} . {} . {}", front.address, front.protocol, front.port)
}

/// The rule that chooses an endpoint.
fn rewrite(front: &Front, backs: &Backs) -> String {
    let protocol = front.protocol;
    if let [only] = backs.endpoints.as_slice() {
        return format!(
            "meta l4proto {protocol} dnat to {}:{}",
            only.ip(),
            only.port()
        );
    }
    let choice = if backs.by_client {
        "jhash ip saddr"
    } else {
        "numgen random"
    };
    let count = backs.endpoints.len();
    let listed = backs.endpoints.iter().enumerate();
    let listed = listed.map(|(n, end)| format!("{n} : {} . {}", end.ip(), end.port()));
    let listed = listed.collect::<Vec<_>>().join(", ");
    format!(
        "meta l4proto {protocol} dnat ip addr . port to {choice} mod {count} map {{ {listed} }}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn front(port: u16) -> Front {
        Front {
            address: Ipv4Addr::new(10, 96, 0, 1),
            protocol: Protocol::Tcp,
            port,
        }
    }

    fn backs(ends: &[&str]) -> Backs {
        let endpoints = ends.iter().map(|end| end.parse().unwrap()).collect();
        Backs {
            endpoints,
            by_client: false,
        }
    }

    #[test]
    fn only_what_differs_is_touched() {
        let present = Fronts::from([
            (front(80), backs(&["10.244.0.4:8080"])),
            (front(81), backs(&["10.244.0.5:1"])),
        ]);
        let wanted = Fronts::from([
            (front(80), backs(&["10.244.0.4:8080", "10.244.0.6:8080"])),
            (front(82), backs(&["10.244.0.4:2"])),
        ]);
        assert_eq!(difference(&wanted, &wanted), "");
        let script = difference(&present, &wanted);
        let lines: Vec<_> = script.lines().collect();
        assert_eq!(
            lines,
            [
                "delete element ip lateen services { 10.96.0.1 . tcp . 81 }",
                "flush chain ip lateen front-10-96-0-1-tcp-81",
                "delete chain ip lateen front-10-96-0-1-tcp-81",
                "flush chain ip lateen front-10-96-0-1-tcp-80",
                "add rule ip lateen front-10-96-0-1-tcp-80 meta l4proto tcp dnat ip addr . port to \
                 numgen random mod 2 map { 0 : 10.244.0.4 . 8080, 1 : 10.244.0.6 . 8080 }",
                "add chain ip lateen front-10-96-0-1-tcp-82",
                "add rule ip lateen front-10-96-0-1-tcp-82 meta l4proto tcp dnat to 10.244.0.4:2",
                "add element ip lateen services { 10.96.0.1 . tcp . 82 : goto front-10-96-0-1-tcp-82 }",
                "delete element ip lateen hairpins { 10.244.0.5 . 10.244.0.5 }",
                "add element ip lateen hairpins { 10.244.0.6 . 10.244.0.6 }",
            ]
        );
    }
}
