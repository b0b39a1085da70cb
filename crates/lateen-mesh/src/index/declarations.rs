//! Which services are declared for a host, and which of them a namespace means by it.

use std::collections::BTreeMap;

use super::{Index, Service};
use crate::Proxy;

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
