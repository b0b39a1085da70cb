//! Which services a proxy may send to.

use std::collections::BTreeSet;

use super::{Index, Service};
use crate::{Proxy, names::ClusterName};

impl Index {
    /// The services that a proxy may send to, older ones first, one for each host.
    pub fn visible_services(&self, proxy: &Proxy) -> Vec<&Service> {
        let egress = self.egress_hosts(proxy);
        let mut services: Vec<&Service> = self
            .hosts
            .keys()
            .filter_map(|host| self.service_seen_from(host, &proxy.namespace))
            .filter(|service| egress.contain(service))
            .collect();
        services.sort_by(|a, b| (a.created, &a.host).cmp(&(b.created, &b.host)));
        services
    }

    /// The service of a host, when a proxy may send to it or rules that it applies do.
    pub fn reachable_service(&self, proxy: &Proxy, host: &str) -> Option<&Service> {
        let service = self.service_seen_from(host, &proxy.namespace)?;
        let reachable =
            self.egress_hosts(proxy).contain(service) || self.destinations(proxy).contains(host);
        reachable.then_some(service)
    }

    /// The services that a proxy may send to, and those that rules lead to although its Sidecar does not list them.
    pub fn reachable_services(&self, proxy: &Proxy) -> Vec<&Service> {
        let mut services = self.visible_services(proxy);
        if self.egress_hosts(proxy).are_limited() {
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
}
