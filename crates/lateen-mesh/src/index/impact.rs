//! Which resources a service or a rule for one can touch, by name.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lateen_api::networking::http_route::HttpRoute;
use lateen_xds::ResourceType;

use super::{Discovery, Index, Service, ServicePort, cache::Class};
use crate::{Impact, Key, Proxy, Scope, names::ClusterName, protocol::Protocol};

/// All that a service or a rule for one can touch.
pub(super) const ROUTING: [ResourceType; 4] = [
    ResourceType::Cluster,
    ResourceType::Endpoint,
    ResourceType::Listener,
    ResourceType::Route,
];

/// Address of listeners that serve every destination address.
const ANY_ADDRESS: &str = "0.0.0.0";

impl Index {
    /// What a proxy shares translations with others by.
    pub(crate) fn class_of(&self, proxy: &Proxy) -> Arc<Class> {
        let asked = self.asked_labels.get_or_init(|| self.labels_in_rules());
        let labels = proxy.labels.iter().filter(|(key, _)| asked.contains(*key));
        Arc::new(Class {
            kind: proxy.kind,
            namespace: proxy.namespace.clone(),
            labels: labels
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            extensions: proxy.extensions().clone(),
            locality: self.locality_of(proxy),
        })
    }

    /// Keys of labels by which rules choose clients, or by which clients prefer endpoints.
    fn labels_in_rules(&self) -> BTreeSet<String> {
        let of_http = |rule: &HttpRoute| -> Vec<String> {
            let conditions = rule.r#match.iter();
            let keys = conditions.flat_map(|condition| condition.source_labels.keys());
            keys.cloned().collect()
        };
        let mut keys = BTreeSet::new();
        for rules in self.virtual_services.values() {
            let spec = &rules.spec;
            keys.extend(spec.http.iter().flat_map(of_http));
            let tls = spec.tls.iter().flat_map(|rule| &rule.r#match);
            keys.extend(tls.flat_map(|condition| condition.source_labels.keys().cloned()));
            let tcp = spec.tcp.iter().flat_map(|rule| &rule.r#match);
            keys.extend(tcp.flat_map(|condition| condition.source_labels.keys().cloned()));
        }
        for rule in self.destination_rules.values() {
            let selector = rule.spec.workload_selector.iter();
            keys.extend(selector.flat_map(|selector| selector.match_labels.keys().cloned()));
            let whole = rule.spec.traffic_policy.iter();
            let of_subsets = rule.spec.subsets.iter();
            let policies = whole.chain(of_subsets.filter_map(|one| one.traffic_policy.as_ref()));
            for policy in policies {
                let of_ports = policy.port_level_settings.iter();
                let balancers = policy
                    .load_balancer
                    .iter()
                    .chain(of_ports.filter_map(|level| level.load_balancer.as_ref()));
                let settings = balancers.filter_map(|one| one.locality_lb_setting.as_ref());
                let priorities = settings.flat_map(|setting| &setting.failover_priority);
                keys.extend(priorities.map(|priority| label_key(priority)));
            }
        }
        for sidecar in self.sidecars.values() {
            let selector = sidecar.spec.workload_selector.iter();
            keys.extend(selector.flat_map(|selector| selector.labels.keys().cloned()));
        }
        keys
    }

    /// Names of the clusters of a host, whoever sees which of them.
    pub(super) fn clusters_of(&self, host: &str) -> Impact {
        let names = self.cluster_names_of(host).into_iter();
        Impact::of_named(names.map(|name| (ResourceType::Cluster, name)))
    }

    /// Everything that a service appears in. It is asked before and after a change.
    pub(super) fn touched(&self, service: &Service) -> Impact {
        let mut named = Vec::new();
        for name in self.cluster_names(service) {
            named.push((ResourceType::Endpoint, name.clone()));
            named.push((ResourceType::Cluster, name));
        }
        for port in service
            .ports
            .iter()
            .filter(|port| port.protocol != Protocol::Udp)
        {
            let number = port.number;
            let listeners = self.listener_names(service, port).into_iter();
            named.extend(listeners.map(|name| (ResourceType::Listener, name)));
            if port.protocol.is_http() || port.protocol == Protocol::Auto {
                named.push((ResourceType::Route, number.to_string()));
                named.push((ResourceType::Route, format!("{}:{number}", service.host)));
            }
        }
        let mut impact = Impact::of_named(named);
        // A gateway's ports follow from the services that it is behind.
        impact.merge(Impact::of(
            Scope::Gateways(Default::default()),
            [ResourceType::Listener, ResourceType::Route],
        ));
        // So do those of the workloads behind the service.
        let selected = |labels: &BTreeMap<String, String>| {
            Scope::Selected(service.namespace.clone(), labels.clone())
        };
        let own: Vec<Scope> = match (&service.selector, &service.discovery) {
            (Some(selector), _) | (_, Discovery::Workloads(selector)) => vec![selected(selector)],
            (_, Discovery::Static(entries)) => {
                let addresses = entries.iter().map(|entry| entry.address.clone());
                addresses.map(Scope::Address).collect()
            }
            _ => Vec::new(),
        };
        for scope in own {
            let kinds = [ResourceType::Cluster, ResourceType::Listener];
            impact.merge(Impact::of(scope, kinds));
        }
        // Listeners that a Sidecar opens hold services of other ports too.
        for (key, sidecar) in &self.sidecars {
            if sidecar
                .spec
                .egress
                .iter()
                .any(|egress| egress.port.is_some())
            {
                let kinds = [ResourceType::Listener, ResourceType::Route];
                impact.merge(Impact::of(self.scope_of(&key.namespace), kinds));
            }
        }
        impact
    }

    /// Names of the listeners of clients that a port of a service can be part of.
    pub(super) fn listener_names(&self, service: &Service, port: &ServicePort) -> Vec<String> {
        let mut binds: BTreeSet<String> = service.addresses.iter().cloned().collect();
        binds.insert(ANY_ADDRESS.to_owned());
        if service.is_headless() && !port.protocol.is_http() {
            let endpoints = self.endpoints(service, port).into_iter();
            binds.extend(endpoints.map(|endpoint| endpoint.address));
        }
        let number = port.number;
        let name = |bind: String| format!("{bind}_{number}");
        binds.into_iter().map(name).collect()
    }

    /// Everything that a service or the one that it is another name of appears in.
    pub(super) fn touched_by_service(&self, service: &Service) -> Impact {
        let mut impact = self.touched(service);
        let mut seen = BTreeSet::from([service.host.clone()]);
        let mut next = service.alias_for().map(str::to_owned);
        // Names may lead in a circle, which leads nowhere.
        while let Some(host) = next.take().filter(|host| seen.insert(host.clone())) {
            for concrete in self.services_of_host(&host) {
                impact.merge(self.touched(concrete));
                next = concrete.alias_for().map(str::to_owned);
            }
        }
        impact
    }

    /// Everything that a destination rule for a host has a say in.
    pub(super) fn touched_by_rule(&self, host: &str) -> Impact {
        if host.starts_with('*') {
            return Impact::of(Scope::All, ROUTING);
        }
        let mut impact = Impact::none();
        for service in self.services_of_host(host) {
            impact.merge(self.touched(service));
            impact.merge(Impact::endpoints(host));
        }
        // Rules for any host and port may lead to it, and hash as its rule says.
        if !impact.is_empty() {
            impact.merge(Impact::of(
                Scope::All,
                [ResourceType::Listener, ResourceType::Route],
            ));
        }
        impact
    }

    /// What moved endpoints of a service touch.
    pub(super) fn touched_by_slice(&self, owner: &Key) -> Impact {
        let Some(service) = self.services.get(owner) else {
            return Impact::none();
        };
        let mut impact = Impact::endpoints(&*service.host);
        if service.is_headless() {
            // Listeners of headless services name the addresses of the pods.
            impact.merge(self.touched(service));
        }
        impact
    }

    /// Whom configuration of a namespace concerns: its proxies; that of the root namespace concerns all.
    pub(super) fn scope_of(&self, namespace: &str) -> Scope {
        if namespace == self.mesh.root_namespace {
            Scope::All
        } else {
            Scope::Namespace(namespace.to_owned())
        }
    }

    /// Names of the clusters of a host, in both forms.
    pub(super) fn cluster_names_of(&self, host: &str) -> BTreeSet<String> {
        self.services_of_host(host)
            .flat_map(|service| self.cluster_names(service))
            .collect()
    }

    fn cluster_names(&self, service: &Service) -> BTreeSet<String> {
        let mut subsets: BTreeSet<&str> = BTreeSet::from([""]);
        let namespaces: BTreeSet<&str> = self
            .rule_hosts
            .keys()
            .map(|(namespace, _)| namespace.as_str())
            .collect();
        for namespace in namespaces {
            for rule in self.rules_for(namespace, &service.host) {
                subsets.extend(rule.spec.subsets.iter().map(|subset| subset.name.as_str()));
            }
        }
        let mut names = BTreeSet::new();
        for port in &service.ports {
            for subset in &subsets {
                let name = ClusterName::outbound(port.number, subset, &service.host);
                names.insert(name.to_string());
                names.insert(name.server_name());
            }
        }
        names
    }
}

/// The key of `key` or `key=value`.
fn label_key(priority: &str) -> String {
    priority.split('=').next().unwrap_or(priority).to_owned()
}
