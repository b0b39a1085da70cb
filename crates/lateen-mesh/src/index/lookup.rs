//! Which services and rules a proxy sees.

use std::collections::{BTreeMap, BTreeSet};

use lateen_api::{
    DestinationRule, PeerAuthentication, Sidecar, VirtualService,
    common::{Port, labels_match},
    networking::{
        destination_rule::Subset,
        sidecar::{EgressListener, OutboundMode},
        traffic_policy::TrafficPolicy,
    },
    security::MutualTlsMode,
};

use super::{Index, Service, is_of_gateway_api};
use crate::{Proxy, ProxyKind, mesh_config::OutboundMode as MeshOutboundMode, names::ClusterName};

/// Destination rules for one host, taken together.
#[derive(Debug, Clone)]
pub struct MergedRule<'a> {
    /// The rule that others were added to: it names the whole.
    pub first: &'a DestinationRule,
    /// Settings for all endpoints.
    pub policy: Option<&'a TrafficPolicy>,
    /// Named groups of endpoints; the first of a name wins.
    pub subsets: Vec<&'a Subset>,
}

impl Index {
    /// The services that a proxy may send to, older ones first, one for each host.
    pub fn visible_services(&self, proxy: &Proxy) -> Vec<&Service> {
        let egress = self.egress_hosts(proxy);
        let mut services: Vec<&Service> = self
            .hosts
            .keys()
            .filter_map(|host| self.service_seen_from(host, &proxy.namespace))
            .filter(|service| {
                egress
                    .as_ref()
                    .is_none_or(|egress| admits(egress, |host| host.imports(service)))
            })
            .collect();
        services.sort_by(|a, b| (a.created, &a.host).cmp(&(b.created, &b.host)));
        services
    }

    /// The service of a host, when a proxy may send to it or rules that it applies do.
    pub fn reachable_service(&self, proxy: &Proxy, host: &str) -> Option<&Service> {
        let service = self.service_seen_from(host, &proxy.namespace)?;
        match self.egress_hosts(proxy) {
            Some(egress) if !admits(&egress, |host| host.imports(service)) => {
                let named = self.destinations(proxy).contains(host);
                named.then_some(service)
            }
            _ => Some(service),
        }
    }

    /// The services that a proxy may send to, and those that rules lead to although its Sidecar does not list them.
    pub fn reachable_services(&self, proxy: &Proxy) -> Vec<&Service> {
        let mut services = self.visible_services(proxy);
        let limited = self
            .sidecar(proxy)
            .is_some_and(|sidecar| !sidecar.spec.egress.is_empty());
        if limited {
            let seen: BTreeSet<&str> = services.iter().map(|one| one.host.as_str()).collect();
            let beyond = self.destinations(proxy);
            let beyond = beyond.iter().filter(|host| !seen.contains(host.as_str()));
            let found: Vec<&Service> = beyond
                .filter_map(|host| self.service_seen_from(host, &proxy.namespace))
                .collect();
            services.extend(found);
        }
        services
    }

    /// Hosts that the rules of a sidecar lead to.
    fn destinations(&self, proxy: &Proxy) -> BTreeSet<String> {
        let mut hosts = BTreeSet::new();
        // Where traffic to unknown destinations goes.
        if let Some(name) = self.cluster_of_unknown(proxy, "")
            && let Some(cluster) = ClusterName::parse(&name)
        {
            hosts.insert(cluster.host.to_owned());
        }
        for rules in self.virtual_services(proxy, "mesh") {
            let spec = &rules.spec;
            let http = spec.http.iter().flat_map(|rule| {
                let routes = rule.route.iter().map(|route| &route.destination);
                let mirrors = rule.mirrors.iter().map(|mirror| &mirror.destination);
                routes.chain(mirrors).chain(&rule.mirror)
            });
            let tls = spec.tls.iter().flat_map(|rule| &rule.route);
            let tcp = spec.tcp.iter().flat_map(|rule| &rule.route);
            let bytes = tls.chain(tcp).map(|route| &route.destination);
            let named = http.chain(bytes).map(|destination| &destination.host);
            hosts.extend(named.map(|host| self.resolve(host, rules.namespace())));
        }
        hosts
    }

    /// The service of a host as a namespace sees it: its own one first, else the first that is exported to it.
    pub fn service_seen_from(&self, host: &str, namespace: &str) -> Option<&Service> {
        let declarations = self.hosts.get(host)?;
        let services = || {
            declarations
                .iter()
                .filter_map(|declaration| self.declared(host, declaration))
        };
        let seen = |service: &&Service| exported(&service.export_to, &service.namespace, namespace);
        services()
            .find(|service| service.namespace == namespace && seen(service))
            .or_else(|| services().find(seen))
    }

    /// The services that are other names of a host, as a namespace sees them, names of names included.
    pub fn aliases_of(&self, host: &str, namespace: &str) -> Vec<&Service> {
        let mut found = BTreeMap::new();
        let mut open = vec![host];
        while let Some(host) = open.pop() {
            for alias in self.aliases.get(host).into_iter().flatten() {
                let Some(service) = self.service_seen_from(alias, namespace) else {
                    continue;
                };
                if found.insert(alias.as_str(), service).is_none() {
                    open.push(alias);
                }
            }
        }
        found.into_values().collect()
    }

    /// The service that rules of a namespace mean by a host: that of their own namespace, else what the proxy sees.
    pub fn service_for_rules(
        &self,
        host: &str,
        namespace: &str,
        proxy: &Proxy,
    ) -> Option<&Service> {
        let declarations = self.hosts.get(host)?;
        declarations
            .iter()
            .filter_map(|declaration| self.declared(host, declaration))
            .find(|service| {
                service.namespace == namespace
                    && exported(&service.export_to, &service.namespace, &proxy.namespace)
            })
            .or_else(|| self.service_seen_from(host, &proxy.namespace))
    }

    pub(super) fn declared(
        &self,
        host: &str,
        declaration: &super::Declaration,
    ) -> Option<&Service> {
        if declaration.entry {
            self.entries
                .get(&declaration.key)?
                .iter()
                .find(|service| service.host == host)
                .map(AsRef::as_ref)
        } else {
            self.services.get(&declaration.key).map(AsRef::as_ref)
        }
    }

    /// The virtual services of one gateway (`namespace/name`, or `mesh`) that a proxy sees, older ones first.
    pub fn virtual_services(&self, proxy: &Proxy, gateway: &str) -> Vec<&VirtualService> {
        let merged = |(key, rules)| self.delegating.get(key).unwrap_or(rules).as_ref();
        let mut found: Vec<&VirtualService> = self
            .virtual_services
            .iter()
            .map(merged)
            .filter(|rules| {
                // Those without hosts are parts of others.
                !rules.spec.hosts.is_empty()
                    && self.is_for_client(rules, gateway, proxy)
                    && exported(&rules.spec.export_to, rules.namespace(), &proxy.namespace)
                    && bound_to(rules, gateway)
            })
            .collect();
        if gateway == "mesh"
            && let Some(egress) = self.egress_hosts(proxy)
        {
            found.retain(|rules| {
                let mut hosts = rules
                    .spec
                    .hosts
                    .iter()
                    .map(|host| self.resolve(host, rules.namespace()));
                hosts.any(|host| admits(&egress, |one| one.overlaps(&host, rules.namespace())))
            });
        }
        // Rules for this namespace alone come before those for several, and those before the ones for all. Of the latter,
        // routes of the Gateway API that the client's own namespace has come first.
        let rank = |rules: &VirtualService| match rules.spec.export_to.as_slice() {
            [] if rules.namespace() == proxy.namespace && is_of_gateway_api(rules) => 2,
            [] => 3,
            all if all.iter().any(|target| target == "*") => 3,
            _ if rules.namespace() == proxy.namespace => 0,
            _ => 1,
        };
        found.sort_by_key(|rules| {
            (
                rank(rules),
                rules.created(),
                rules.name().to_owned(),
                rules.namespace().to_owned(),
            )
        });
        found
    }

    /// Whether rules for services are for a client: routes of the Gateway API are, when they are of its own namespace or of
    /// the service's (GEP-1426). Nobody else may say where its requests go.
    fn is_for_client(&self, rules: &VirtualService, gateway: &str, proxy: &Proxy) -> bool {
        if gateway != "mesh" || rules.namespace() == proxy.namespace || !is_of_gateway_api(rules) {
            return true;
        }
        let mut hosts = rules.spec.hosts.iter();
        hosts.any(|host| {
            let service = self.service_seen_from(host, &proxy.namespace);
            service.is_some_and(|service| service.namespace == rules.namespace())
        })
    }

    /// The destination rule for a service, as a client sees it: of the client's namespace, else of the service's,
    /// else of the root namespace. The most specific host wins.
    pub fn destination_rule(&self, proxy: &Proxy, service: &Service) -> Option<MergedRule<'_>> {
        let root = self.mesh.root_namespace.as_str();
        let own = (proxy.namespace != root).then_some(proxy.namespace.as_str());
        let levels = [own, Some(&*service.namespace), Some(root)];
        for (index, namespace) in levels.iter().enumerate() {
            let Some(namespace) = *namespace else {
                continue;
            };
            if levels[..index].contains(&Some(namespace)) {
                continue;
            }
            if let Some(rule) = self.rule_in(namespace, proxy, &service.host) {
                return Some(rule);
            }
        }
        None
    }

    /// The destination rules of a namespace whose host covers a host.
    pub(super) fn rules_for(
        &self,
        namespace: &str,
        host: &str,
    ) -> impl Iterator<Item = &DestinationRule> {
        let exact = self
            .rule_hosts
            .get(&(namespace.to_owned(), host.to_owned()));
        // Wildcards stand together: their first character is that of no other host.
        let wildcards = self
            .rule_hosts
            .range((namespace.to_owned(), "*".to_owned())..)
            .take_while(move |((owner, pattern), _)| owner == namespace && pattern.starts_with('*'))
            .filter(move |((_, pattern), _)| host_matches(pattern, host))
            .map(|(_, keys)| keys);
        let exact = exact.filter(|_| !host.starts_with('*'));
        exact
            .into_iter()
            .chain(wildcards)
            .flatten()
            .filter_map(|key| self.destination_rules.get(key))
            .map(AsRef::as_ref)
    }

    fn rule_in(&self, namespace: &str, proxy: &Proxy, host: &str) -> Option<MergedRule<'_>> {
        let mut candidates: Vec<(String, &DestinationRule)> = self
            .rules_for(namespace, host)
            .filter(|rule| exported(&rule.spec.export_to, namespace, &proxy.namespace))
            .filter(|rule| match &rule.spec.workload_selector {
                Some(selector) => {
                    namespace == proxy.namespace
                        && labels_match(&selector.match_labels, &proxy.labels)
                }
                None => true,
            })
            .map(|rule| (self.resolve(&rule.spec.host, namespace), rule))
            .filter(|(rule_host, _)| host_matches(rule_host, host))
            .collect();
        // Longest host first (an exact one is the longest that can match), selected ones first, then by age.
        candidates.sort_by_key(|(rule_host, rule)| {
            let selected = rule.spec.workload_selector.is_some();
            (
                std::cmp::Reverse(rule_host.len()),
                !selected,
                rule.created(),
                rule.name().to_owned(),
            )
        });
        let (best_host, first) = candidates.first()?.clone();
        let same: Vec<&DestinationRule> = candidates
            .iter()
            .filter(|(rule_host, _)| *rule_host == best_host)
            .map(|(_, rule)| *rule)
            .collect();
        let mut names = BTreeSet::new();
        let subsets = same
            .iter()
            .flat_map(|rule| &rule.spec.subsets)
            .filter(|subset| names.insert(&subset.name));
        Some(MergedRule {
            first,
            policy: same
                .iter()
                .find_map(|rule| rule.spec.traffic_policy.as_ref()),
            subsets: subsets.collect(),
        })
    }

    /// The Sidecar that applies to a proxy: one that selects it, else that of its namespace, else of the root namespace.
    pub fn sidecar(&self, proxy: &Proxy) -> Option<&Sidecar> {
        if proxy.kind != ProxyKind::Sidecar {
            return None;
        }
        let in_namespace = |namespace: &str| {
            let mut all: Vec<&Sidecar> = self
                .sidecars
                .values()
                .map(AsRef::as_ref)
                .filter(|sidecar| sidecar.namespace() == namespace)
                .collect();
            all.sort_by_key(|sidecar| (sidecar.created(), sidecar.name().to_owned()));
            all
        };
        let own = in_namespace(&proxy.namespace);
        let selecting = |sidecar: &&Sidecar| {
            sidecar
                .spec
                .workload_selector
                .as_ref()
                .is_some_and(|selector| labels_match(&selector.labels, &proxy.labels))
        };
        let general = |sidecar: &&Sidecar| sidecar.spec.workload_selector.is_none();
        own.iter()
            .find(|sidecar| selecting(sidecar))
            .or_else(|| own.iter().find(|sidecar| general(sidecar)))
            .copied()
            .or_else(|| {
                in_namespace(&self.mesh.root_namespace)
                    .into_iter()
                    .find(general)
            })
    }

    /// The cluster that a proxy sends traffic to unknown destinations to; `None` when it refuses it. `passthrough`: the
    /// one for the destination itself.
    pub(crate) fn cluster_of_unknown(&self, proxy: &Proxy, passthrough: &str) -> Option<String> {
        let sidecar = self.sidecar(proxy);
        let policy = sidecar.and_then(|sidecar| {
            let policy = sidecar.spec.outbound_traffic_policy.as_ref()?;
            Some((sidecar, policy))
        });
        let Some((sidecar, policy)) = policy else {
            let passes = self.mesh.outbound_traffic_policy.mode == MeshOutboundMode::AllowAny;
            return passes.then(|| passthrough.to_owned());
        };
        if policy.mode.unwrap_or_default() != OutboundMode::AllowAny {
            return None;
        }
        let Some(egress) = &policy.egress_proxy else {
            return Some(passthrough.to_owned());
        };
        let host = self.resolve(&egress.host, sidecar.namespace());
        let port = egress.port.as_ref().map_or(0, |port| port.number);
        Some(ClusterName::outbound(port, &egress.subset, &host).to_string())
    }

    /// Ports of a workload for which its own policy says what is accepted.
    pub fn ports_with_own_mode(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> BTreeSet<u32> {
        self.peer_authentications
            .values()
            .filter(|policy| policy.namespace() == namespace)
            .filter(|policy| {
                policy.spec.selector.as_ref().is_some_and(|selector| {
                    !selector.match_labels.is_empty()
                        && labels_match(&selector.match_labels, labels)
                })
            })
            .flat_map(|policy| policy.spec.port_levels())
            .filter_map(|(port, _)| port.parse().ok())
            .collect()
    }

    /// What a workload accepts on one of its own ports.
    pub fn mutual_tls_mode(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
        port: u32,
    ) -> MutualTlsMode {
        let policies = |namespace: &str| {
            let mut all: Vec<&PeerAuthentication> = self
                .peer_authentications
                .values()
                .map(AsRef::as_ref)
                .filter(|policy| policy.namespace() == namespace)
                .collect();
            all.sort_by_key(|policy| (policy.created(), policy.name().to_owned()));
            all
        };
        let mode = |policy: &PeerAuthentication| {
            policy
                .spec
                .mtls
                .as_ref()
                .map(|mtls| mtls.mode)
                .filter(|mode| *mode != MutualTlsMode::Unset)
        };
        let own = policies(namespace);
        let selecting = own.iter().find(|policy| {
            policy.spec.selector.as_ref().is_some_and(|selector| {
                !selector.match_labels.is_empty() && labels_match(&selector.match_labels, labels)
            })
        });
        let general = |policy: &&&PeerAuthentication| {
            policy
                .spec
                .selector
                .as_ref()
                .is_none_or(|selector| selector.match_labels.is_empty())
        };
        let port_level = selecting
            .and_then(|policy| policy.spec.port_level_mtls.as_ref()?.get(&port.to_string()))
            .map(|mtls| mtls.mode)
            .filter(|mode| *mode != MutualTlsMode::Unset);
        port_level
            .or_else(|| selecting.and_then(|policy| mode(policy)))
            .or_else(|| own.iter().find(general).and_then(|policy| mode(policy)))
            .or_else(|| {
                policies(&self.mesh.root_namespace)
                    .iter()
                    .find(general)
                    .and_then(|policy| mode(policy))
            })
            .unwrap_or(MutualTlsMode::Permissive)
    }

    /// What the workloads of a namespace accept, policies of single workloads aside.
    pub fn mutual_tls_mode_of_namespace(&self, namespace: &str) -> MutualTlsMode {
        self.mutual_tls_mode(namespace, &BTreeMap::new(), 0)
    }

    /// The full host of a name in a namespace's configuration.
    pub fn resolve(&self, host: &str, namespace: &str) -> String {
        resolve_host(host, namespace, &self.mesh.domain)
    }

    /// What a proxy's listeners are for, in the order of its Sidecar: those of one port first. Without a Sidecar there is
    /// one entry for everything.
    pub(crate) fn egress<'a>(&'a self, proxy: &Proxy) -> Vec<Egress<'a>> {
        let sidecar = self.sidecar(proxy);
        let listed = sidecar.map_or(&[][..], |sidecar| &sidecar.spec.egress);
        if listed.is_empty() {
            return vec![Egress {
                listener: None,
                hosts: None,
            }];
        }
        let of = |listener: &'a EgressListener| Egress {
            listener: Some(listener),
            hosts: Some(
                listener
                    .hosts
                    .iter()
                    .filter_map(|host| EgressHost::parse(host, &proxy.namespace))
                    .collect(),
            ),
        };
        listed.iter().map(of).collect()
    }

    /// Hosts that a Sidecar lets a proxy see; `None` when there is no such limit.
    fn egress_hosts(&self, proxy: &Proxy) -> Option<Vec<EgressHost>> {
        let sidecar = self.sidecar(proxy)?;
        if sidecar.spec.egress.is_empty() {
            return None;
        }
        let hosts = sidecar
            .spec
            .egress
            .iter()
            .flat_map(|listener| &listener.hosts);
        Some(
            hosts
                .filter_map(|host| EgressHost::parse(host, &proxy.namespace))
                .collect(),
        )
    }
}

/// What the listeners of one entry of a Sidecar are for.
pub(crate) struct Egress<'a> {
    /// The entry; none without a Sidecar.
    listener: Option<&'a EgressListener>,
    /// All when unset.
    hosts: Option<Vec<EgressHost>>,
}

impl<'a> Egress<'a> {
    /// The entry of the Sidecar, when it is for one port.
    pub(crate) fn of_port(&self) -> Option<(&'a EgressListener, &'a Port)> {
        let listener = self.listener?;
        Some((listener, listener.port.as_ref()?))
    }

    /// Whether a service is among its hosts.
    pub(crate) fn imports(&self, service: &Service) -> bool {
        let hosts = self.hosts.as_ref();
        hosts.is_none_or(|hosts| admits(hosts, |host| host.imports(service)))
    }
}

/// A host that a Sidecar lets through: `namespace/host`.
struct EgressHost {
    /// `*` for all.
    namespace: String,
    host: String,
    /// Takes out what others let in.
    excludes: bool,
}

/// Whether hosts that a Sidecar lists let something in.
fn admits(egress: &[EgressHost], found: impl Fn(&EgressHost) -> bool) -> bool {
    let of = |excludes: bool| egress.iter().filter(move |host| host.excludes == excludes);
    of(false).any(&found) && !of(true).any(&found)
}

impl EgressHost {
    fn parse(text: &str, own: &str) -> Option<Self> {
        let (namespace, host) = text.split_once('/')?;
        let (namespace, excludes) = match namespace.strip_prefix('~') {
            Some("") => return None,
            Some(namespace) => (namespace, true),
            None => (namespace, false),
        };
        let namespace = if namespace == "." { own } else { namespace };
        Some(Self {
            namespace: namespace.to_owned(),
            host: host.to_owned(),
            excludes,
        })
    }

    fn imports(&self, service: &Service) -> bool {
        self.covers_namespace(&service.namespace) && host_matches(&self.host, &service.host)
    }

    /// Rules for a wildcard are needed for the one host of it that is imported.
    fn overlaps(&self, host: &str, namespace: &str) -> bool {
        self.covers_namespace(namespace)
            && (host_matches(&self.host, host) || host_matches(host, &self.host))
    }

    fn covers_namespace(&self, namespace: &str) -> bool {
        self.namespace == "*" || self.namespace == namespace
    }
}

/// Whether `pattern` (a host, `*.domain` or `*`) covers `host`, which may be a wildcard itself.
pub fn host_matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some("") => true,
        Some(suffix) => host.strip_prefix('*').unwrap_or(host).ends_with(suffix),
        None => pattern == host,
    }
}

/// The full host of a name in a namespace's configuration: names without a dot are services of the namespace.
pub fn resolve_host(host: &str, namespace: &str, domain: &str) -> String {
    let host = host.to_ascii_lowercase();
    // No name is no service. Colons are of IPv6 addresses.
    if host.is_empty() || host.contains(['.', ':']) || host.starts_with('*') {
        host
    } else {
        format!("{host}.{namespace}.svc.{domain}")
    }
}

/// Whether something that a namespace exports is seen from another.
pub(super) fn exported(export_to: &[String], owner: &str, viewer: &str) -> bool {
    if export_to.is_empty() {
        return true;
    }
    if export_to.iter().any(|target| target == "~") {
        return false;
    }
    export_to.iter().any(|target| match target.as_str() {
        "*" => true,
        "." => owner == viewer,
        namespace => namespace == viewer,
    })
}

/// Whether rules are bound to a gateway: by name in their own namespace or by `namespace/name`.
fn bound_to(rules: &VirtualService, gateway: &str) -> bool {
    if rules.spec.gateways.is_empty() {
        return gateway == "mesh";
    }
    rules
        .spec
        .gateways
        .iter()
        .any(|name| gateway_name(name, rules.namespace()) == gateway)
}

/// `namespace/name` of a gateway that rules of a namespace refer to; `mesh` stays.
pub(crate) fn gateway_name(name: &str, namespace: &str) -> String {
    if name == "mesh" || name.contains('/') {
        name.to_owned()
    } else {
        format!("{namespace}/{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_match_by_suffix() {
        let check = |pattern, host, expected| {
            assert_eq!(host_matches(pattern, host), expected, "{pattern} {host}")
        };
        check("*", "a.example.com", true);
        check("*.example.com", "a.example.com", true);
        check("*.example.com", "example.com", false);
        check("*.example.com", "*.b.example.com", true);
        check("a.example.com", "a.example.com", true);
        check("a.example.com", "b.example.com", false);
    }

    #[test]
    fn short_names_are_of_the_namespace() {
        let check =
            |host, expected| assert_eq!(resolve_host(host, "shop", "cluster.local"), expected);
        check("reviews", "reviews.shop.svc.cluster.local");
        check("Reviews.Other", "reviews.other");
        check("*", "*");
    }

    #[test]
    fn exports_follow_export_to() {
        let check = |list: &[&str], viewer, expected| {
            let list: Vec<String> = list.iter().map(ToString::to_string).collect();
            assert_eq!(
                exported(&list, "owner", viewer),
                expected,
                "{list:?} {viewer}"
            );
        };
        check(&[], "x", true);
        check(&["."], "x", false);
        check(&["."], "owner", true);
        check(&["~"], "owner", false);
        check(&["a", "x"], "x", true);
    }
}
