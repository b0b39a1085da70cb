//! Changes of the Gateway API's objects, and of what routes depend on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lateen_api::{
    VirtualService,
    gateway_api::{Gateway, GatewayClass, ParentKind, ReferenceGrant},
};
use lateen_xds::ResourceType;

use super::{ParentId, Route, RouteId, listeners};
use crate::{
    Impact, Index, Key, Scope,
    index::update::{put, remove_from},
    protocol::Protocol,
};

impl Index {
    /// Sets or removes a route.
    pub(in crate::index) fn set_route(&mut self, id: RouteId, route: Option<Route>) -> Impact {
        let state = &mut self.gateway_api;
        let wanted = |route: &Route| -> BTreeSet<ParentId> {
            let references = route.parents().iter();
            references
                .filter_map(|reference| {
                    let namespace = reference.namespace_for(&id.1.namespace);
                    let key = Key::new(namespace, &*reference.name);
                    Some((reference.parent_kind()?, key))
                })
                .collect()
        };
        let old = state.routes.remove(&id);
        for parent in old.iter().flat_map(wanted) {
            remove_from(&mut state.attached, &parent, &id);
        }
        if let Some(route) = route {
            for parent in wanted(&route) {
                state.attached.entry(parent).or_default().insert(id.clone());
            }
            state.routes.insert(id.clone(), route);
        }
        self.convert_routes([id])
    }

    /// Sets or removes a gateway.
    pub(in crate::index) fn set_kubernetes_gateway(
        &mut self,
        key: Key,
        gateway: Option<Gateway>,
    ) -> Impact {
        let gateways = &mut self.gateway_api.gateways;
        put(gateways, key.clone(), gateway.map(Arc::new));
        self.convert_gateways([key])
    }

    /// Sets or removes a class.
    pub(in crate::index) fn set_gateway_class(
        &mut self,
        name: String,
        class: Option<GatewayClass>,
    ) -> Impact {
        let classes = &mut self.gateway_api.classes;
        put(classes, name.clone(), class.map(Arc::new));
        let gateways = self.gateway_api.gateways.iter();
        let of_class: Vec<Key> = gateways
            .filter(|(_, gateway)| gateway.spec.gateway_class_name == name)
            .map(|(key, _)| key.clone())
            .collect();
        self.convert_gateways(of_class)
    }

    /// Sets or removes a grant: it concerns what is in the namespaces that it names.
    pub(in crate::index) fn set_reference_grant(
        &mut self,
        key: Key,
        grant: Option<ReferenceGrant>,
    ) -> Impact {
        let grant = grant.map(Arc::new);
        let old = put(&mut self.gateway_api.grants, key, grant.clone());
        let namespaces: BTreeSet<String> = [old, grant]
            .iter()
            .flatten()
            .flat_map(|grant| &grant.spec.from)
            .map(|from| from.namespace.clone())
            .collect();
        let of = |key: &&Key| namespaces.contains(&key.namespace);
        let gateways = self.gateway_api.gateways.keys();
        let gateways: Vec<Key> = gateways.filter(of).cloned().collect();
        let routes = self.gateway_api.routes.keys();
        let routes: Vec<RouteId> = routes.filter(|id| of(&&id.1)).cloned().collect();
        let mut impact = self.convert_gateways(gateways);
        impact.merge(self.convert_routes(routes));
        impact
    }

    /// Converts what depends on labels of namespaces again.
    pub(in crate::index) fn namespace_changed(&mut self) -> Impact {
        let selects = |gateway: &Gateway| {
            let listeners = gateway.spec.listeners.iter();
            let mut allowed = listeners.filter_map(|listener| listener.allowed_routes.as_ref());
            allowed.any(|allowed| {
                let namespaces = allowed.namespaces.as_ref();
                namespaces.is_some_and(|namespaces| namespaces.selector.is_some())
            })
        };
        let gateways = self.gateway_api.gateways.iter();
        let selecting: Vec<Key> = gateways
            .filter(|(_, gateway)| selects(gateway))
            .map(|(key, _)| key.clone())
            .collect();
        self.convert_gateways(selecting)
    }

    /// Converts the routes of a parent again, whose object changed.
    pub(in crate::index) fn parent_changed(&mut self, kind: ParentKind, key: &Key) -> Impact {
        let attached = self.gateway_api.attached.get(&(kind, key.clone()));
        let routes: Vec<RouteId> = attached.into_iter().flatten().cloned().collect();
        self.convert_routes(routes)
    }

    /// Converts gateways again, and the routes that are attached to them.
    fn convert_gateways(&mut self, keys: impl IntoIterator<Item = Key>) -> Impact {
        let mut impact = Impact::none();
        for key in keys {
            let gateway = self.gateway_api.gateways.get(&key);
            let made: BTreeMap<Key, _> = gateway
                .map(|gateway| self.made_gateways(gateway))
                .unwrap_or_default()
                .into_iter()
                .map(|one| (Key::of(&one), Arc::new(one)))
                .collect();
            let names: BTreeSet<Key> = made.keys().cloned().collect();
            let old = if names.is_empty() {
                self.gateway_api.made.remove(&key)
            } else {
                self.gateway_api.made.insert(key.clone(), names)
            };
            for gone in old.iter().flatten().filter(|old| !made.contains_key(old)) {
                if let Some(gone) = self.gateways.remove(gone) {
                    impact.merge(self.gateway_impact(&gone));
                }
            }
            for (name, gateway) in made {
                if self.gateways.get(&name) == Some(&gateway) {
                    continue;
                }
                impact.merge(self.gateway_impact(&gateway));
                if let Some(old) = self.gateways.insert(name, gateway) {
                    impact.merge(self.gateway_impact(&old));
                }
            }
            impact.merge(self.parent_changed(ParentKind::Gateway, &key));
        }
        impact
    }

    /// Converts routes again; only virtual services that differ then concern anybody.
    fn convert_routes(&mut self, ids: impl IntoIterator<Item = RouteId>) -> Impact {
        let mut touched: BTreeSet<String> = BTreeSet::new();
        for id in ids {
            let route = self.gateway_api.routes.get(&id);
            let parts = route.map_or_else(Vec::new, |route| self.parts_of(&id, route));
            let state = &mut self.gateway_api;
            let old = if parts.is_empty() {
                state.parts.remove(&id)
            } else {
                state.parts.insert(id.clone(), parts)
            };
            for part in old.iter().flatten() {
                touched.insert(part.name.clone());
                if let Some(merged) = state.merged.get_mut(&part.name) {
                    merged.routes.remove(&id);
                }
            }
            for part in state.parts.get(&id).into_iter().flatten() {
                touched.insert(part.name.clone());
                let merged = state.merged.entry(part.name.clone()).or_default();
                merged.routes.insert(id.clone());
            }
        }
        let mut impact = Impact::none();
        for name in touched {
            impact.merge(self.merge_routes(&name));
        }
        impact
    }

    /// Puts the virtual service of a name together again.
    fn merge_routes(&mut self, name: &str) -> Impact {
        let service = self.merged_service(name).map(Arc::new);
        let key = service.as_deref().map(Key::of);
        let merged = &mut self.gateway_api.merged;
        let old = match &key {
            Some(key) => {
                let entry = merged.entry(name.to_owned()).or_default();
                entry.key.replace(key.clone())
            }
            None => merged.remove(name).and_then(|merged| merged.key),
        };
        let old = old.and_then(|key| self.virtual_services.remove(&key));
        let same = old == service;
        if let (Some(key), Some(service)) = (key, &service) {
            self.virtual_services.insert(key, Arc::clone(service));
        }
        if same {
            return Impact::none();
        }
        let mut impact = Impact::none();
        for service in [old, service].into_iter().flatten() {
            impact.merge(self.merged_impact(&service));
        }
        impact
    }

    /// Whom a virtual service that was made from routes concerns.
    fn merged_impact(&self, rules: &VirtualService) -> Impact {
        let mut impact = Impact::none();
        for gateway in &rules.spec.gateways {
            match gateway.split_once('/') {
                None => impact.merge(self.mesh_impact(rules)),
                Some((namespace, name)) => {
                    if let Some(gateway) = self.gateways.get(&Key::new(namespace, name)) {
                        impact.merge(self.gateway_impact(gateway));
                    }
                }
            }
        }
        impact
    }

    /// Clients have rules for requests in the route configurations of the host's ports, and those for connections in their
    /// listeners.
    fn mesh_impact(&self, rules: &VirtualService) -> Impact {
        let requests = !rules.spec.http.is_empty();
        let kind = if requests {
            ResourceType::Route
        } else {
            ResourceType::Listener
        };
        let mut impact = Impact::none();
        for host in &rules.spec.hosts {
            for service in self.services_of_host(host) {
                if service.namespace != rules.namespace() {
                    // Rules of clients are for their own namespace.
                    let scope = Scope::Namespace(rules.namespace().to_owned());
                    impact.merge(Impact::of(scope, [kind]));
                    continue;
                }
                let names = service.ports.iter().flat_map(|port| {
                    let number = port.number;
                    let routed = port.protocol.is_http() || port.protocol == Protocol::Auto;
                    match (requests, routed) {
                        (true, true) => vec![number.to_string(), format!("{host}:{number}")],
                        (true, false) => Vec::new(),
                        (false, _) => self.listener_names(service, port),
                    }
                });
                impact.merge(Impact::of_named(names.map(|name| (kind, name))));
            }
        }
        impact.merge(self.beyond_sidecars());
        impact
    }

    /// The gateways behind the services that a gateway names.
    fn gateway_impact(&self, gateway: &lateen_api::Gateway) -> Impact {
        let mut impact = Impact::none();
        let annotations = gateway.metadata.annotations.as_ref();
        let named = annotations.and_then(|all| all.get(crate::index::SERVICE_ANNOTATION));
        for host in named.iter().flat_map(|hosts| hosts.split(',')) {
            for service in self.services_of_host(host) {
                if let Some(selector) = &service.selector {
                    let scope = Scope::Selected(service.namespace.clone(), selector.clone());
                    let kinds = [ResourceType::Listener, ResourceType::Route];
                    impact.merge(Impact::of(scope, kinds));
                }
            }
        }
        impact
    }
}

/// The name of the Service and the Deployment that a gateway without addresses gets.
pub fn deployment_of(gateway: &Gateway) -> Option<String> {
    gateway
        .spec
        .addresses
        .is_empty()
        .then(|| listeners::deployed_name(gateway))
}
