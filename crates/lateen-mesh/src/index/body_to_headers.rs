//! Policies that copy fields of bodies into headers: which connection managers follow which.

use std::sync::Arc;

use lateen_api::common::labels_match;
use lateen_api::{BodyToHeaders, Gateway};
use lateen_xds::ResourceType;

use super::Index;
use super::update::put;
use crate::change::Scope;
use crate::{Impact, Key, Proxy};

impl Index {
    /// The policies for servers of these gateways, the oldest first.
    pub(crate) fn body_policies_of_gateways<'g>(
        &self,
        gateways: impl Iterator<Item = &'g Gateway> + Clone,
    ) -> Vec<&BodyToHeaders> {
        self.body_policies(|policy| {
            let targets = policy.spec.target_refs.iter();
            let mut targets = targets.filter(|target| target.is_gateway());
            targets.any(|target| {
                gateways.clone().any(|gateway| {
                    gateway.namespace() == policy.namespace() && gateway.name() == target.name
                })
            })
        })
    }

    /// The policies for requests that come to a workload, the oldest first.
    pub(crate) fn body_policies_of_workload(&self, proxy: &Proxy) -> Vec<&BodyToHeaders> {
        self.body_policies(|policy| {
            let selector = policy.spec.selector.as_ref();
            policy.namespace() == proxy.namespace
                && selector
                    .is_some_and(|selector| labels_match(&selector.match_labels, &proxy.labels))
        })
    }

    fn body_policies(&self, applies: impl Fn(&BodyToHeaders) -> bool) -> Vec<&BodyToHeaders> {
        let all = self.body_to_headers.values().map(Arc::as_ref);
        let mut fitting: Vec<_> = all.filter(|policy| applies(policy)).collect();
        // The keys are in the order of namespace and name, which decides between those of one second.
        fitting.sort_by_key(|policy| policy.created());
        fitting
    }

    /// Sets or removes a policy: it concerns the listeners of its gateways or workloads.
    pub(super) fn set_body_to_headers(
        &mut self,
        key: Key,
        policy: Option<BodyToHeaders>,
    ) -> Impact {
        let namespace = key.namespace.clone();
        let policy = policy.map(Arc::new);
        let old = put(&mut self.body_to_headers, key, policy.clone());
        let spec =
            |policy: &Option<Arc<BodyToHeaders>>| policy.as_ref().map(|policy| policy.spec.clone());
        if spec(&old) == spec(&policy) {
            return Impact::none();
        }
        let mut impact = Impact::none();
        for policy in [old, policy].into_iter().flatten() {
            let selector = policy.spec.selector.iter();
            let workloads = selector
                .map(|selector| Scope::Selected(namespace.clone(), selector.match_labels.clone()));
            let targets = policy.spec.target_refs.iter();
            let gateways = targets.filter_map(|target| {
                let gateway = self.gateways.get(&Key::new(&*namespace, &*target.name))?;
                Some(Scope::Gateways(gateway.spec.selector.clone()))
            });
            for scope in workloads.chain(gateways) {
                impact.merge(Impact::of(scope, [ResourceType::Listener]));
            }
        }
        impact
    }
}
