//! Sidecars: which one applies to a proxy, and which hosts it lets the proxy see.

use lateen_api::{
    Sidecar,
    common::{Port, labels_match},
    networking::sidecar::{EgressListener, OutboundMode},
};
use lateen_xds::ResourceType;

use super::{
    Index, Service, host::host_matches, impact::ROUTING, oldest_first, update::put_object,
};
use crate::{
    Impact, Key, Proxy, ProxyKind, mesh_config::OutboundMode as MeshOutboundMode,
    names::ClusterName,
};

impl Index {
    /// The Sidecar that applies to a proxy: one that selects it, else that of its namespace, else of the root namespace.
    pub fn sidecar(&self, proxy: &Proxy) -> Option<&Sidecar> {
        if proxy.kind != ProxyKind::Sidecar {
            return None;
        }
        let own = oldest_first(&self.sidecars, &proxy.namespace);
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
                let root = &self.mesh.root_namespace;
                oldest_first(&self.sidecars, root).into_iter().find(general)
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

    /// What a proxy's listeners are for, in the order of its Sidecar: those of one port first. Without a Sidecar there is
    /// one entry for everything.
    pub(crate) fn egress<'a>(&'a self, proxy: &Proxy) -> Vec<Egress<'a>> {
        let sidecar = self.sidecar(proxy);
        let listed = sidecar.map_or(&[][..], |sidecar| &sidecar.spec.egress);
        if listed.is_empty() {
            return vec![Egress {
                listener: None,
                hosts: EgressHosts::ALL,
            }];
        }
        let of = |listener: &'a EgressListener| Egress {
            listener: Some(listener),
            hosts: EgressHosts::of([listener], &proxy.namespace),
        };
        listed.iter().map(of).collect()
    }

    /// Hosts that a proxy sees.
    pub(super) fn egress_hosts(&self, proxy: &Proxy) -> EgressHosts {
        match self.sidecar(proxy) {
            Some(sidecar) if !sidecar.spec.egress.is_empty() => {
                EgressHosts::of(&sidecar.spec.egress, &proxy.namespace)
            }
            _ => EgressHosts::ALL,
        }
    }

    /// Sets or removes a Sidecar.
    pub(super) fn set_sidecar(&mut self, key: Key, sidecar: Option<Sidecar>) -> Impact {
        self.asked_labels.take();
        let namespace = key.namespace.clone();
        if put_object(&mut self.sidecars, key, sidecar) {
            Impact::of(self.scope_of(&namespace), ROUTING)
        } else {
            Impact::none()
        }
    }

    /// The clusters of proxies whose Sidecar lists what they see: rules may lead further.
    pub(super) fn beyond_sidecars(&self) -> Impact {
        let mut impact = Impact::none();
        for (key, sidecar) in &self.sidecars {
            if sidecar.spec.egress.is_empty() {
                continue;
            }
            let scope = self.scope_of(&key.namespace);
            impact.merge(Impact::of(scope, [ResourceType::Cluster]));
        }
        impact
    }
}

/// What the listeners of one entry of a Sidecar are for.
pub(crate) struct Egress<'a> {
    /// The entry; none without a Sidecar.
    listener: Option<&'a EgressListener>,
    hosts: EgressHosts,
}

impl<'a> Egress<'a> {
    /// The entry of the Sidecar, when it is for one port.
    pub(crate) fn of_port(&self) -> Option<(&'a EgressListener, &'a Port)> {
        let listener = self.listener?;
        Some((listener, listener.port.as_ref()?))
    }

    /// Whether a service is among its hosts.
    pub(crate) fn imports(&self, service: &Service) -> bool {
        self.hosts.contain(service)
    }
}

/// Hosts that a Sidecar lists; all when there is no list.
pub(super) struct EgressHosts(Option<Vec<EgressHost>>);

impl EgressHosts {
    const ALL: Self = Self(None);

    fn of<'l>(listeners: impl IntoIterator<Item = &'l EgressListener>, own: &str) -> Self {
        let hosts = listeners.into_iter().flat_map(|listener| &listener.hosts);
        let parsed = hosts.filter_map(|host| EgressHost::parse(host, own));
        Self(Some(parsed.collect()))
    }

    /// Whether there is a list.
    pub(super) fn are_limited(&self) -> bool {
        self.0.is_some()
    }

    /// Whether a service is among them.
    pub(super) fn contain(&self, service: &Service) -> bool {
        self.admit(|host| host.imports(service))
    }

    /// Whether rules of a namespace for a host are for one of them.
    pub(super) fn overlap(&self, host: &str, namespace: &str) -> bool {
        self.admit(|one| one.overlaps(host, namespace))
    }

    /// Whether the list lets something in.
    fn admit(&self, found: impl Fn(&EgressHost) -> bool) -> bool {
        let Some(hosts) = &self.0 else {
            return true;
        };
        let of = |excludes: bool| hosts.iter().filter(move |host| host.excludes == excludes);
        of(false).any(&found) && !of(true).any(&found)
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
