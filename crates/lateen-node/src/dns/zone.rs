//! What names of the cluster's domain mean.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::Arc;

use hickory_proto::rr::rdata::{A, CNAME, PTR, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::Endpoint;

use crate::world::World;

/// How long answers may be remembered, in seconds; CoreDNS's value for cluster names.
const TTL: u32 = 5;

/// Aliases (ExternalName services) that are followed for one answer.
const MOST_ALIASES: usize = 4;

/// The answer to one question.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    Records(Vec<Record>),
    /// No such name, or no record of that type under it.
    Nothing {
        name_exists: bool,
    },
    /// The name is not the cluster's.
    Elsewhere,
}

/// The cluster's domain.
#[derive(Debug)]
pub(crate) struct Zone {
    world: Arc<World>,
    domain: Vec<String>,
    apex: Name,
}

/// What a name below `svc` stands for.
#[derive(Default)]
struct Found {
    exists: bool,
    addresses: BTreeSet<Ipv4Addr>,
    /// Targets with their ports.
    servers: Vec<(String, u16)>,
    alias: Option<String>,
}

impl Zone {
    pub(crate) fn new(world: Arc<World>, domain: &str) -> Self {
        let labels = domain.split('.').map(str::to_owned).collect();
        // A domain that is no name serves nothing; the root is a harmless stand-in.
        let apex = Name::from_str(&format!("{domain}.")).unwrap_or_else(|_| Name::root());
        Self {
            world,
            domain: labels,
            apex,
        }
    }

    /// The record that goes with negative answers.
    pub(crate) fn authority(&self) -> Record {
        let server = Name::from_str("ns.dns").and_then(|ns| ns.append_domain(&self.apex));
        let mail = Name::from_str("hostmaster").and_then(|name| name.append_domain(&self.apex));
        let (server, mail) = (
            server.unwrap_or_else(|_| Name::root()),
            mail.unwrap_or_else(|_| Name::root()),
        );
        let soa = SOA::new(server, mail, 1, 7200, 1800, 86_400, TTL);
        Record::from_rdata(self.apex.clone(), TTL, RData::SOA(soa))
    }

    /// Is the name one that others know?
    pub(crate) fn is_elsewhere(&self, name: &Name) -> bool {
        self.lookup(name, RecordType::A) == Answer::Elsewhere
    }

    /// Looks a name up.
    pub(crate) fn lookup(&self, name: &Name, kind: RecordType) -> Answer {
        let text = name.to_lowercase().to_ascii();
        let labels: Vec<&str> = text.trim_end_matches('.').split('.').collect();
        if let Some(address) = reverse(&labels) {
            return self.pointers(name, address, kind);
        }
        let Some(inner) = self.strip_domain(&labels) else {
            return Answer::Elsewhere;
        };
        let found = self.find(inner);
        if !found.exists {
            return Answer::Nothing { name_exists: false };
        }
        let records = self.records(name, &found, kind);
        if records.is_empty() {
            Answer::Nothing { name_exists: true }
        } else {
            Answer::Records(records)
        }
    }

    fn strip_domain<'a>(&self, labels: &'a [&'a str]) -> Option<&'a [&'a str]> {
        let split = labels.len().checked_sub(self.domain.len())?;
        let (inner, domain) = labels.split_at(split);
        domain
            .iter()
            .zip(&self.domain)
            .all(|(a, b)| a == b)
            .then_some(inner)
    }

    fn records(&self, name: &Name, found: &Found, kind: RecordType) -> Vec<Record> {
        if let Some(alias) = &found.alias {
            return self.alias(name, alias, kind);
        }
        match kind {
            RecordType::A | RecordType::ANY => found
                .addresses
                .iter()
                .map(|address| Record::from_rdata(name.clone(), TTL, RData::A(A(*address))))
                .collect(),
            RecordType::SRV => found
                .servers
                .iter()
                .filter_map(|(target, port)| {
                    let target = Name::from_str(target).ok()?;
                    let weight = u16::try_from(100 / found.servers.len()).unwrap_or(1).max(1);
                    let data = RData::SRV(SRV::new(0, weight, *port, target));
                    Some(Record::from_rdata(name.clone(), TTL, data))
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    /// An alias, and what it leads to as far as the cluster knows.
    fn alias(&self, name: &Name, target: &str, kind: RecordType) -> Vec<Record> {
        let mut records = Vec::new();
        let (mut owner, mut target) = (name.clone(), target.to_owned());
        for _ in 0..MOST_ALIASES {
            let Ok(canonical) = Name::from_str(&format!("{}.", target.trim_end_matches('.')))
            else {
                break;
            };
            let data = RData::CNAME(CNAME(canonical.clone()));
            records.push(Record::from_rdata(owner, TTL, data));
            let text = canonical.to_lowercase().to_ascii();
            let labels: Vec<&str> = text.trim_end_matches('.').split('.').collect();
            let Some(inner) = self.strip_domain(&labels) else {
                break;
            };
            let found = self.find(inner);
            match &found.alias {
                Some(next) => next.clone_into(&mut target),
                None => {
                    records.extend(self.records(&canonical, &found, kind));
                    break;
                }
            }
            owner = canonical;
        }
        records
    }

    /// Finds what the labels before the domain stand for.
    fn find(&self, labels: &[&str]) -> Found {
        match labels {
            // The domain itself, and the names between it and those that mean something.
            [] | ["svc" | "pod"] => Found {
                exists: true,
                ..Found::default()
            },
            [namespace, "svc"] => Found {
                exists: self.namespace_exists(namespace),
                ..Found::default()
            },
            [name, namespace, "svc"] => self.service(namespace, name, |_| true, None),
            [port, protocol, name, namespace, "svc"]
                if port.starts_with('_') && protocol.starts_with('_') =>
            {
                let wanted = (&port[1..], &protocol[1..]);
                self.service(namespace, name, |_| true, Some(wanted))
            }
            [host, name, namespace, "svc"] => self.endpoint(namespace, name, host),
            [address, _, "pod"] => match dashed(address) {
                Some(address) => Found {
                    exists: true,
                    addresses: BTreeSet::from([address]),
                    ..Found::default()
                },
                None => Found::default(),
            },
            _ => Found::default(),
        }
    }

    fn namespace_exists(&self, namespace: &str) -> bool {
        let services = self.world.services();
        services
            .iter()
            .any(|service| service.metadata.namespace.as_deref() == Some(namespace))
    }

    fn endpoint(&self, namespace: &str, name: &str, host: &str) -> Found {
        let found = self.service(
            namespace,
            name,
            |endpoint| host_label(endpoint) == host,
            None,
        );
        let headless = self
            .world
            .service(namespace, name)
            .is_some_and(|s| is_headless(&s));
        if headless && !found.addresses.is_empty() {
            found
        } else {
            Found::default()
        }
    }

    /// A service, or those of its endpoints that `wanted` chooses; `port` names one of its ports.
    fn service(
        &self,
        namespace: &str,
        name: &str,
        wanted: impl Fn(&Endpoint) -> bool,
        port: Option<(&str, &str)>,
    ) -> Found {
        let mut found = Found::default();
        let Some(service) = self.world.service(namespace, name) else {
            return found;
        };
        let Some(spec) = &service.spec else {
            return found;
        };
        found.exists = true;
        if spec.type_.as_deref() == Some("ExternalName") {
            found.alias = spec.external_name.clone();
            return found;
        }
        let own = format!("{name}.{namespace}.svc.{}.", self.domain.join("."));
        if !is_headless(&service) {
            found.addresses.extend(
                spec.cluster_ip
                    .as_ref()
                    .and_then(|ip| ip.parse::<Ipv4Addr>().ok()),
            );
            let ports = spec.ports.iter().flatten();
            let matching = ports.filter(|known| {
                let protocol = known.protocol.as_deref().unwrap_or("TCP");
                matches(known.name.as_deref(), protocol, port)
            });
            found.servers = matching
                .filter_map(|port| Some((own.clone(), u16::try_from(port.port).ok()?)))
                .collect();
        } else {
            self.endpoints(&service, &own, wanted, port, &mut found);
        }
        // A port that the service does not have is a name that does not exist.
        found.exists = port.is_none() || !found.servers.is_empty();
        if port.is_some() {
            found.addresses.clear();
        }
        found
    }

    fn endpoints(
        &self,
        service: &Service,
        own: &str,
        wanted: impl Fn(&Endpoint) -> bool,
        port: Option<(&str, &str)>,
        found: &mut Found,
    ) {
        let meta = &service.metadata;
        let unready_too = service
            .spec
            .as_ref()
            .and_then(|spec| spec.publish_not_ready_addresses)
            == Some(true);
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        for slice in self
            .world
            .slices(namespace, meta.name.as_deref().unwrap_or_default())
        {
            for endpoint in slice
                .endpoints
                .iter()
                .flatten()
                .filter(|endpoint| wanted(endpoint))
            {
                let ready = endpoint
                    .conditions
                    .as_ref()
                    .and_then(|c| c.ready)
                    .unwrap_or(true);
                if !ready && !unready_too {
                    continue;
                }
                let addresses = endpoint.addresses.iter();
                found
                    .addresses
                    .extend(addresses.filter_map(|ip| ip.parse::<Ipv4Addr>().ok()));
                for known in slice.ports.iter().flatten() {
                    let protocol = known.protocol.as_deref().unwrap_or("TCP");
                    let number = known.port.and_then(|port| u16::try_from(port).ok());
                    if let Some(number) = number
                        && matches(known.name.as_deref(), protocol, port)
                    {
                        let target = format!("{}.{own}", host_label(endpoint));
                        found.servers.push((target, number));
                    }
                }
            }
        }
    }

    /// Names of an address: of the service that has it, or of headless endpoints.
    fn pointers(&self, name: &Name, address: Ipv4Addr, kind: RecordType) -> Answer {
        let mut targets = BTreeSet::new();
        for service in self.world.services() {
            let Some(spec) = &service.spec else { continue };
            let meta = &service.metadata;
            let of = meta.namespace.as_deref().unwrap_or_default();
            let service_name = meta.name.as_deref().unwrap_or_default();
            let own = format!("{service_name}.{of}.svc.{}.", self.domain.join("."));
            if spec.cluster_ip.as_deref() == Some(address.to_string().as_str()) {
                targets.insert(own);
            } else if is_headless(&service) {
                for slice in self.world.slices(of, service_name) {
                    let endpoints = slice.endpoints.iter().flatten();
                    let here = endpoints.filter(|endpoint| {
                        endpoint
                            .addresses
                            .iter()
                            .any(|ip| ip.parse() == Ok(address))
                    });
                    targets.extend(here.map(|endpoint| format!("{}.{own}", host_label(endpoint))));
                }
            }
        }
        let names = targets
            .iter()
            .filter_map(|target| Name::from_str(target).ok());
        let records: Vec<_> = names
            .map(|target| Record::from_rdata(name.clone(), TTL, RData::PTR(PTR(target))))
            .collect();
        match (records.is_empty(), kind) {
            // Names of private addresses are nobody else's to know (RFC 6303).
            (true, _) if address.is_private() || address.is_loopback() => {
                Answer::Nothing { name_exists: false }
            }
            (true, _) => Answer::Elsewhere,
            (false, RecordType::PTR | RecordType::ANY) => Answer::Records(records),
            (false, _) => Answer::Nothing { name_exists: true },
        }
    }
}

fn is_headless(service: &Service) -> bool {
    service
        .spec
        .as_ref()
        .and_then(|spec| spec.cluster_ip.as_deref())
        == Some("None")
}

/// The label of an endpoint below its headless service: its host name, else its address.
fn host_label(endpoint: &Endpoint) -> String {
    endpoint.hostname.clone().unwrap_or_else(|| {
        endpoint
            .addresses
            .first()
            .map(|address| address.replace('.', "-"))
            .unwrap_or_default()
    })
}

fn matches(name: Option<&str>, protocol: &str, wanted: Option<(&str, &str)>) -> bool {
    wanted.is_none_or(|(port, kind)| {
        name.unwrap_or_default() == port && protocol.eq_ignore_ascii_case(kind)
    })
}

/// `10-244-0-5` as an address.
fn dashed(label: &str) -> Option<Ipv4Addr> {
    label.replace('-', ".").parse().ok()
}

/// The address that a name below `in-addr.arpa` asks about.
fn reverse(labels: &[&str]) -> Option<Ipv4Addr> {
    let [d, c, b, a, "in-addr", "arpa"] = labels else {
        return None;
    };
    format!("{a}.{b}.{c}.{d}").parse().ok()
}
