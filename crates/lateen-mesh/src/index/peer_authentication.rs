//! What workloads accept: mutual TLS, plain text or both.

use std::collections::{BTreeMap, BTreeSet};

use lateen_api::{
    PeerAuthentication,
    common::labels_match,
    security::{MutualTls, MutualTlsMode},
};
use lateen_xds::ResourceType;

use super::{Index, impact::ROUTING, of_namespace, oldest_first, update::put_object};
use crate::{Impact, Key, Scope};

impl Index {
    /// Ports of a workload for which its own policy says what is accepted.
    pub fn ports_with_own_mode(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> BTreeSet<u32> {
        of_namespace(&self.peer_authentications, namespace)
            .filter(|(_, policy)| selects(policy, labels))
            .flat_map(|(_, policy)| policy.spec.port_levels())
            .filter_map(|(port, _)| port.parse().ok())
            .collect()
    }

    /// What a workload accepts on one of its own ports.
    pub fn mutual_tls_mode(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
        port: u32,
    ) -> MutualTlsMode {
        let own = oldest_first(&self.peer_authentications, namespace);
        let selecting = own.iter().find(|policy| selects(policy, labels));
        let port_level = selecting
            .and_then(|policy| policy.spec.port_level_mtls.as_ref()?.get(&port.to_string()))
            .and_then(set_mode);
        port_level
            .or_else(|| selecting.and_then(|policy| mode(policy)))
            .or_else(|| general_mode(&own))
            .or_else(|| {
                let root = &self.mesh.root_namespace;
                general_mode(&oldest_first(&self.peer_authentications, root))
            })
            .unwrap_or(MutualTlsMode::Permissive)
    }

    /// What the workloads of a namespace accept, policies of single workloads aside.
    pub fn mutual_tls_mode_of_namespace(&self, namespace: &str) -> MutualTlsMode {
        self.mutual_tls_mode(namespace, &BTreeMap::new(), 0)
    }

    /// Sets or removes a policy: it concerns the proxies of its namespace, and clients of the services there, which
    /// choose by what is accepted.
    pub(super) fn set_peer_authentication(
        &mut self,
        key: Key,
        policy: Option<PeerAuthentication>,
    ) -> Impact {
        let namespace = key.namespace.clone();
        let before = self.mutual_tls_mode_of_namespace(&namespace);
        if !put_object(&mut self.peer_authentications, key, policy) {
            return Impact::none();
        }
        let mut impact = Impact::of(self.scope_of(&namespace), ROUTING);
        let root = namespace == self.mesh.root_namespace;
        if root || before != self.mutual_tls_mode_of_namespace(&namespace) {
            impact.merge(Impact::of(Scope::All, [ResourceType::Cluster]));
        }
        impact
    }
}

/// Whether a policy is for single workloads, and those with these labels are among them.
fn selects(policy: &PeerAuthentication, labels: &BTreeMap<String, String>) -> bool {
    policy.spec.selector.as_ref().is_some_and(|selector| {
        !selector.match_labels.is_empty() && labels_match(&selector.match_labels, labels)
    })
}

/// What the first policy says that is for all workloads.
fn general_mode(policies: &[&PeerAuthentication]) -> Option<MutualTlsMode> {
    let mut general = policies.iter().filter(|policy| {
        let selector = policy.spec.selector.as_ref();
        selector.is_none_or(|selector| selector.match_labels.is_empty())
    });
    mode(general.next()?)
}

fn mode(policy: &PeerAuthentication) -> Option<MutualTlsMode> {
    policy.spec.mtls.as_ref().and_then(set_mode)
}

/// The mode, unless it is said to be unset.
fn set_mode(mtls: &MutualTls) -> Option<MutualTlsMode> {
    Some(mtls.mode).filter(|mode| *mode != MutualTlsMode::Unset)
}
