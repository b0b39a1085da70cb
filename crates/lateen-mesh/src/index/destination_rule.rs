//! Destination rules: which ones a client follows for a service, and whom a change of one concerns.

use std::{collections::BTreeSet, sync::Arc};

use lateen_api::{
    DestinationRule, VirtualService,
    common::labels_match,
    networking::{destination_rule::Subset, traffic_policy::TrafficPolicy},
};

use super::{
    Index, Service,
    declarations::exported,
    host::host_matches,
    update::{differ, put, remove_from},
};
use crate::{Impact, Key, Proxy};

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

    /// Whether a virtual service leads to a subset that no destination rule defines, whoever follows the rule.
    pub fn lacks_subset_of(&self, service: &VirtualService) -> bool {
        let spec = &service.spec;
        let http = spec.http.iter().flat_map(|route| {
            let routes = route.route.iter().map(|to| &to.destination);
            let mirrors = route.mirrors.iter().map(|to| &to.destination);
            routes.chain(mirrors).chain(&route.mirror)
        });
        let tcp = spec.tcp.iter().flat_map(|route| &route.route);
        let tls = spec.tls.iter().flat_map(|route| &route.route);
        http.chain(tcp.chain(tls).map(|to| &to.destination))
            .filter(|to| !to.subset.is_empty())
            .any(|to| {
                let host = self.resolve(&to.host, service.namespace());
                let covers =
                    |((_, pattern), _): &(&(String, String), _)| host_matches(pattern, &host);
                let rules = self.rule_hosts.iter().filter(covers);
                !rules
                    .flat_map(|(_, keys)| keys)
                    .filter_map(|key| self.destination_rules.get(key))
                    .flat_map(|rule| &rule.spec.subsets)
                    .any(|subset| subset.name == to.subset)
            })
    }

    /// Sets or removes a rule: it concerns whatever the services of its host appear in.
    pub(super) fn set_destination_rule(
        &mut self,
        key: Key,
        rule: Option<DestinationRule>,
    ) -> Impact {
        let old = self.destination_rules.get(&key).cloned();
        let changed = differ(old.as_deref(), rule.as_ref());
        let mut impact = Impact::none();
        if let Some(old) = &old {
            let host = self.resolve(&old.spec.host, old.namespace());
            if changed {
                // Names of the old subsets are found while the old rule is still there.
                impact.merge(self.touched_by_rule(&host));
            }
            let place = (key.namespace.clone(), host);
            remove_from(&mut self.rule_hosts, &place, &key);
        }
        let host = rule
            .as_ref()
            .map(|rule| self.resolve(&rule.spec.host, rule.namespace()));
        put(&mut self.destination_rules, key.clone(), rule.map(Arc::new));
        if let Some(host) = host {
            let place = (key.namespace.clone(), host.clone());
            self.rule_hosts.entry(place).or_default().insert(key);
            if changed {
                impact.merge(self.touched_by_rule(&host));
            }
        }
        if changed {
            self.asked_labels.take();
        }
        impact
    }
}
