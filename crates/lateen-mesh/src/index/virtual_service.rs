//! Virtual services: which ones a proxy follows, and whom a change of one concerns.

use lateen_api::VirtualService;
use lateen_xds::ResourceType;

use super::{Index, declarations::exported, delegate, is_of_gateway_api, update::put_object};
use crate::{Impact, Key, Proxy, Scope};

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

    /// Sets or removes rules: they concern listeners and routes, and the clusters of proxies whose Sidecar lists what
    /// they see: what rules lead to comes on top.
    pub(super) fn set_virtual_service(
        &mut self,
        key: Key,
        rules: Option<VirtualService>,
    ) -> Impact {
        let changed = put_object(&mut self.virtual_services, key, rules);
        self.asked_labels.take();
        self.delegating = delegate::merged(&self.virtual_services, &self.mesh.domain);
        if !changed {
            return Impact::none();
        }
        let mut impact = Impact::of(Scope::All, [ResourceType::Listener, ResourceType::Route]);
        impact.merge(self.beyond_sidecars());
        impact
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
