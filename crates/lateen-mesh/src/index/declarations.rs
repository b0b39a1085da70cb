//! Which services are declared for a host, which of them a namespace means by it, and whom a change of one concerns.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lateen_api::{ServiceEntry, gateway_api::ParentKind};

use super::{
    Index, Service,
    update::{put, remove_from},
};
use crate::{Impact, Key, Proxy};

/// Who declares a host; Kubernetes comes before service entries, older before younger.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Declaration {
    entry: bool,
    created: i64,
    key: Key,
}

impl Declaration {
    fn of(service: &Service) -> Self {
        Self {
            entry: !service.kubernetes,
            created: service.created,
            key: service.key(),
        }
    }
}

impl Index {
    /// The service of a host as a namespace sees it: its own one first, else the first that is exported to it.
    pub fn service_seen_from(&self, host: &str, namespace: &str) -> Option<&Service> {
        let seen = |service: &&Service| exported(&service.export_to, &service.namespace, namespace);
        self.services_of_host(host)
            .find(|service| service.namespace == namespace && seen(service))
            .or_else(|| self.services_of_host(host).find(seen))
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
        self.services_of_host(host)
            .find(|service| {
                service.namespace == namespace
                    && exported(&service.export_to, &service.namespace, &proxy.namespace)
            })
            .or_else(|| self.service_seen_from(host, &proxy.namespace))
    }

    /// The services that are declared for a host: those of Kubernetes first, older before younger.
    pub(super) fn services_of_host(&self, host: &str) -> impl Iterator<Item = &Service> {
        let declarations = self.hosts.get(host).into_iter().flatten();
        declarations.filter_map(move |declaration| {
            if declaration.entry {
                self.entries
                    .get(&declaration.key)?
                    .iter()
                    .find(|service| service.host == host)
                    .map(AsRef::as_ref)
            } else {
                self.services.get(&declaration.key).map(AsRef::as_ref)
            }
        })
    }

    /// Sets or removes a service of Kubernetes.
    pub(super) fn set_service(&mut self, key: Key, service: Option<Service>) -> Impact {
        let service = service.map(Arc::new);
        if self.services.get(&key) == service.as_ref() {
            return Impact::none();
        }
        let mut impact = Impact::none();
        let parent = key.clone();
        if let Some(old) = self.services.remove(&key) {
            impact.merge(self.touched_by_service(&old));
            self.undeclare(&old);
        }
        if let Some(service) = service {
            self.declare(&service);
            self.services.insert(key, Arc::clone(&service));
            self.refresh_identities(&service.host);
            impact.merge(self.touched_by_service(&service));
        }
        impact.merge(self.parent_changed(ParentKind::Service, &parent));
        impact
    }

    /// Sets or removes a service entry, which declares a service for each of its hosts.
    pub(super) fn set_service_entry(&mut self, key: Key, entry: Option<ServiceEntry>) -> Impact {
        let services = entry.as_ref().map_or_else(Vec::new, Service::of_entry);
        let services: Vec<_> = services.into_iter().map(Arc::new).collect();
        put(&mut self.service_entries, key.clone(), entry.map(Arc::new));
        if self.entries.get(&key) == Some(&services) {
            return Impact::none();
        }
        let mut impact = Impact::none();
        let parent = key.clone();
        for old in self.entries.remove(&key).into_iter().flatten() {
            impact.merge(self.touched(&old));
            self.undeclare(&old);
        }
        for service in &services {
            self.declare(service);
        }
        if !services.is_empty() {
            self.entries.insert(key, services.clone());
        }
        for service in services {
            self.refresh_identities(&service.host);
            impact.merge(self.touched(&service));
        }
        impact.merge(self.parent_changed(ParentKind::ServiceEntry, &parent));
        impact
    }

    /// Looks the identities behind a host up again; says whether they differ from what clusters were told.
    pub(super) fn refresh_identities(&mut self, host: &str) -> bool {
        let found: BTreeSet<String> = self
            .services_of_host(host)
            .flat_map(|service| self.identities(service))
            .collect();
        let old = self.identities.get(host);
        if old.map_or(found.is_empty(), |old| *old == found) {
            return false;
        }
        if found.is_empty() {
            self.identities.remove(host);
        } else {
            self.identities.insert(host.to_owned(), found);
        }
        true
    }

    fn declare(&mut self, service: &Service) {
        if let Some(host) = service.alias_for() {
            let names = self.aliases.entry(host.to_owned()).or_default();
            names.insert(service.host.clone());
        }
        self.hosts
            .entry(service.host.clone())
            .or_default()
            .insert(Declaration::of(service));
    }

    fn undeclare(&mut self, service: &Service) {
        if let Some(host) = service.alias_for() {
            remove_from(&mut self.aliases, host, &service.host);
        }
        remove_from(&mut self.hosts, &service.host, &Declaration::of(service));
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

#[cfg(test)]
mod tests {
    use super::*;

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
