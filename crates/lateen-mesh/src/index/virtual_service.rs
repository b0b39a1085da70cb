//! Which virtual services a proxy follows.

use lateen_api::VirtualService;

use super::{Index, declarations::exported, is_of_gateway_api};
use crate::Proxy;

impl Index {
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
        let egress = self.egress_hosts(proxy);
        if gateway == "mesh" && egress.are_limited() {
            found.retain(|rules| {
                let mut hosts = rules
                    .spec
                    .hosts
                    .iter()
                    .map(|host| self.resolve(host, rules.namespace()));
                hosts.any(|host| egress.overlap(&host, rules.namespace()))
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
