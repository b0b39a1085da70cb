//! Addresses and node ports of Services. What is taken is what the stored Services say, and those being written.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::target::Target;
use crate::field::FieldError;
use crate::status::{Result, Status};
use crate::store::Store;

/// From where Services get their addresses and ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRange {
    /// First address of the range, e.g. 10.96.0.0.
    pub network: Ipv4Addr,
    /// Bits of the network part, 8..=30.
    pub prefix: u8,
    /// Ports that every node opens.
    pub node_ports: RangeInclusive<u16>,
}

impl ServiceRange {
    /// Reads `10.96.0.0/16`; `None` when it is not a range of usable size.
    pub fn parse(text: &str, node_ports: RangeInclusive<u16>) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let prefix: u8 = prefix.parse().ok()?;
        let address: Ipv4Addr = address.parse().ok()?;
        (8..=30).contains(&prefix).then(|| Self {
            network: Ipv4Addr::from(u32::from(address) & (u32::MAX << (32 - prefix))),
            prefix,
            node_ports,
        })
    }

    /// The number of addresses, the first (network) and last (broadcast) included.
    fn size(&self) -> u32 {
        1 << (32 - self.prefix)
    }

    /// The address at `offset`, e.g. 1 for that of the service `kubernetes`.
    pub fn address(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) + offset)
    }

    fn contains(&self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).wrapping_sub(u32::from(self.network));
        offset > 0 && offset < self.size() - 1
    }

    /// Addresses below this offset are left for those who ask for a certain one, as in Kubernetes.
    fn dynamic(&self) -> u32 {
        (self.size() / 16).clamp(16, 256).min(self.size() - 2)
    }
}

/// The allocator.
pub(super) struct Services {
    range: ServiceRange,
    /// What is promised to writes that are under way.
    promised: Mutex<Vec<Promise>>,
    /// Offsets of the last address and port given out: the next search starts behind, so that an address that was just
    /// freed is not given to another service at once.
    last: Mutex<(u32, u16)>,
}

/// What one write under way will take.
struct Promise {
    number: u64,
    /// Namespace and name of the Service.
    service: (String, String),
    address: Option<Ipv4Addr>,
    ports: Vec<(String, u16)>,
}

/// Keeps a promise until the Service is stored or refused.
pub(super) struct Reservation<'a> {
    services: &'a Services,
    number: u64,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut promised = self.services.promised.lock();
        promised.retain(|promise| promise.number != self.number);
    }
}

impl Services {
    pub(super) fn new(range: ServiceRange) -> Self {
        let last = (range.dynamic(), 0);
        Self {
            range,
            promised: Mutex::new(Vec::new()),
            last: Mutex::new(last),
        }
    }

    /// The first address of the range.
    pub(super) fn first(&self) -> Ipv4Addr {
        self.range.address(1)
    }

    /// Keeps an updated Service's addresses and ports where the update does not name any.
    pub(super) fn carry_over(&self, target: &Target, service: &mut Value, old: &Value) {
        if !is_service(target) {
            return;
        }
        let (spec, before) = (&mut service["spec"], &old["spec"]);
        if has_address(spec) && has_address(before) && text(spec, "clusterIP").is_empty() {
            spec["clusterIP"] = before["clusterIP"].clone();
            if spec["clusterIPs"].as_array().is_none_or(Vec::is_empty) {
                spec["clusterIPs"] = before["clusterIPs"].clone();
            }
        }
        if !has_address(spec) && spec["clusterIP"] == before["clusterIP"] {
            remove(
                spec,
                &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"],
            );
        }
        let old_ports = before["ports"].as_array().cloned().unwrap_or_default();
        let opens = has_node_ports(spec);
        for port in spec["ports"].as_array_mut().into_iter().flatten() {
            let known = old_ports.iter().find(|old| {
                old["port"] == port["port"] && text(old, "protocol") == text(port, "protocol")
            });
            let Some(known) = known.and_then(|old| old.get("nodePort")) else {
                continue;
            };
            if opens && port["nodePort"].as_u64().unwrap_or(0) == 0 {
                port["nodePort"] = known.clone();
            } else if !opens && port.get("nodePort") == Some(known) {
                remove(port, &["nodePort"]);
            }
        }
    }

    /// Gives a Service the addresses and ports that it lacks, and checks those that it names. The reservation must be
    /// kept until the Service is stored.
    pub(super) fn allocate(
        &self,
        store: &Store,
        target: &Target,
        service: &mut Value,
        old: Option<&Value>,
    ) -> Result<Option<Reservation<'_>>> {
        if !is_service(target) || target.subresource == "status" {
            return Ok(None);
        }
        let own = id(service);
        // In this order: what is no longer promised is stored already.
        let mut promised = self.promised.lock();
        let (others, _) = store.list("services", None, None);
        let mut addresses = BTreeSet::new();
        let mut ports = BTreeSet::new();
        for other in others.iter().filter(|other| id(other) != own) {
            addresses.extend(address_of(&other["spec"]));
            ports.extend(ports_of(&other["spec"]));
        }
        for promise in promised.iter().filter(|promise| promise.service != own) {
            addresses.extend(promise.address);
            ports.extend(promise.ports.iter().cloned());
        }
        let mut errors = Vec::new();
        self.allocate_address(&mut service["spec"], old, &addresses, &mut errors);
        self.allocate_ports(&mut service["spec"], ports, &mut errors);
        if !errors.is_empty() {
            return Err(Status::invalid("", "Service", &own.1, &errors));
        }
        let number = promised.last().map_or(0, |promise| promise.number + 1);
        promised.push(Promise {
            number,
            service: own,
            address: address_of(&service["spec"]),
            ports: ports_of(&service["spec"]),
        });
        Ok(Some(Reservation {
            services: self,
            number,
        }))
    }

    fn allocate_address(
        &self,
        spec: &mut Value,
        old: Option<&Value>,
        taken: &BTreeSet<Ipv4Addr>,
        errors: &mut Vec<FieldError>,
    ) {
        if !has_address(spec) {
            return;
        }
        let wanted = text(spec, "clusterIP").to_owned();
        let kept = old.is_some_and(|old| text(&old["spec"], "clusterIP") == wanted);
        let address = match wanted.as_str() {
            "" => match self.free_address(taken) {
                Some(address) => address.to_string(),
                None => {
                    errors.push(FieldError::invalid(
                        "spec.clusterIPs",
                        json!([""]),
                        "failed to allocate a serviceIP: range is full",
                    ));
                    return;
                }
            },
            "None" => wanted,
            _ if kept => wanted,
            _ => {
                let parsed: Option<Ipv4Addr> = wanted.parse().ok();
                let why = match parsed {
                    Some(address) if !self.range.contains(address) => Some(format!(
                        "failed to allocate IP {wanted}: the provided network does not match the current range"
                    )),
                    Some(address) if taken.contains(&address) => Some(format!(
                        "failed to allocate IP {wanted}: provided IP is already allocated"
                    )),
                    Some(_) => None,
                    None => Some(format!(
                        "failed to allocate IP {wanted}: not an IPv4 address"
                    )),
                };
                if let Some(why) = why {
                    errors.push(FieldError::invalid("spec.clusterIPs", json!([wanted]), why));
                    return;
                }
                wanted
            }
        };
        spec["clusterIP"] = json!(address);
        spec["clusterIPs"] = json!([address]);
        if spec["ipFamilies"].as_array().is_none_or(Vec::is_empty) {
            spec["ipFamilies"] = json!(["IPv4"]);
        }
        if text(spec, "ipFamilyPolicy").is_empty() {
            spec["ipFamilyPolicy"] = json!("SingleStack");
        }
    }

    fn free_address(&self, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
        let last = self.range.size() - 2;
        let first = self.range.dynamic();
        let mut cursor = self.last.lock();
        let offsets = (cursor.0..=last).chain(first..cursor.0).chain(1..first);
        for offset in offsets {
            let address = self.range.address(offset);
            if !taken.contains(&address) {
                cursor.0 = if offset < last { offset + 1 } else { first };
                return Some(address);
            }
        }
        None
    }

    fn allocate_ports(
        &self,
        spec: &mut Value,
        mut given: BTreeSet<(String, u16)>,
        errors: &mut Vec<FieldError>,
    ) {
        if !has_node_ports(spec) {
            return;
        }
        let range = &self.range.node_ports;
        let wants_health =
            text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local";
        // One number serves a port of the same number under several protocols.
        let mut by_port: Vec<(u64, u16)> = Vec::new();
        let list = spec["ports"].as_array_mut().into_iter().flatten();
        for (index, port) in list.enumerate() {
            let protocol = text(port, "protocol").to_owned();
            let number = port["port"].as_u64().unwrap_or(0);
            let chosen = match node_port(port) {
                Some(wanted) => {
                    let why = if !range.contains(&wanted) {
                        Some(format!(
                            "provided port is not in the valid range. The range of valid ports is {}-{}",
                            range.start(),
                            range.end()
                        ))
                    } else if given.contains(&(protocol.clone(), wanted)) {
                        Some("provided port is already allocated".to_owned())
                    } else {
                        None
                    };
                    if let Some(why) = why {
                        errors.push(FieldError::invalid(
                            format!("spec.ports[{index}].nodePort"),
                            json!(wanted),
                            why,
                        ));
                        continue;
                    }
                    wanted
                }
                None => {
                    let shared = by_port
                        .iter()
                        .find(|(known, _)| *known == number)
                        .map(|(_, node)| *node)
                        .filter(|node| !given.contains(&(protocol.clone(), *node)));
                    let Some(free) = shared.or_else(|| self.free_port(&given)) else {
                        errors.push(FieldError::invalid(
                            format!("spec.ports[{index}].nodePort"),
                            json!(0),
                            "failed to allocate a nodePort: range is full",
                        ));
                        continue;
                    };
                    port["nodePort"] = json!(free);
                    free
                }
            };
            by_port.push((number, chosen));
            given.insert((protocol, chosen));
        }
        if wants_health
            && health_port(spec).is_none()
            && let Some(free) = self.free_port(&given)
        {
            spec["healthCheckNodePort"] = json!(free);
        }
    }

    /// A port that no protocol uses.
    fn free_port(&self, given: &BTreeSet<(String, u16)>) -> Option<u16> {
        let range = &self.range.node_ports;
        let mut cursor = self.last.lock();
        let start = cursor.1.max(*range.start());
        let found = (start..=*range.end())
            .chain(*range.start()..start)
            .find(|number| given.iter().all(|(_, taken)| taken != number))?;
        cursor.1 = found.saturating_add(1);
        Some(found)
    }
}

/// Namespace and name.
fn id(service: &Value) -> (String, String) {
    let metadata = &service["metadata"];
    (
        text(metadata, "namespace").to_owned(),
        text(metadata, "name").to_owned(),
    )
}

fn address_of(spec: &Value) -> Option<Ipv4Addr> {
    text(spec, "clusterIP").parse().ok()
}

/// All ports that a Service takes on nodes, with their protocols.
fn ports_of(spec: &Value) -> Vec<(String, u16)> {
    let listed = spec["ports"].as_array().into_iter().flatten();
    let named = listed.filter_map(|port| {
        node_port(port).map(|number| (text(port, "protocol").to_owned(), number))
    });
    let health = health_port(spec).map(|number| ("TCP".to_owned(), number));
    named.chain(health).collect()
}

fn is_service(target: &Target) -> bool {
    target.is("", "services")
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn has_address(spec: &Value) -> bool {
    text(spec, "type") != "ExternalName"
}

fn has_node_ports(spec: &Value) -> bool {
    match text(spec, "type") {
        "NodePort" => true,
        "LoadBalancer" => spec["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    }
}

fn node_port(port: &Value) -> Option<u16> {
    let number = port["nodePort"].as_u64().filter(|number| *number > 0)?;
    u16::try_from(number).ok()
}

fn health_port(spec: &Value) -> Option<u16> {
    let number = spec["healthCheckNodePort"]
        .as_u64()
        .filter(|number| *number > 0)?;
    u16::try_from(number).ok()
}

fn remove(value: &mut Value, fields: &[&str]) {
    if let Some(map) = value.as_object_mut() {
        for field in fields {
            map.shift_remove(*field);
        }
    }
}
