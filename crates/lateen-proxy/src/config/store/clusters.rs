//! Clusters and their endpoints: a cluster takes effect when its endpoints, its names and its secrets are known.

use std::sync::Arc;

use lateen_route::Invalid;
use lateen_xds::client::{Rejection, Update};
use lateen_xds::pb::envoy::config::cluster::v3::Cluster as ClusterMessage;
use lateen_xds::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use lateen_xds::{Resource, ResourceType};

use super::{Store, apply_each};
use crate::cluster::ClusterShared;
use crate::config::cluster::ClusterSpec;
use crate::config::context::Context;
use crate::config::{decode, endpoint};
use crate::dns::{self, Addresses};
use crate::shared::{Clusters, find_or_make};
use crate::worker;

impl Store {
    pub(super) fn apply_clusters(&mut self, update: &Update) -> Vec<Rejection> {
        let mut clusters = (**self.shared.clusters.load()).clone();
        let rejections = apply_each(update, |resource| self.cluster(resource, &mut clusters));
        if !update.removed.is_empty() {
            // A worker may be about to look for a cluster that the route named which it chose a moment ago.
            self.shared.wait_for_workers();
        }
        for name in &update.removed {
            self.remove_cluster(name, &mut clusters);
        }
        self.swap_clusters(clusters);
        self.forget_unused_assignments();
        rejections
    }

    pub(super) fn apply_assignments(&mut self, update: &Update) -> Vec<Rejection> {
        let mut clusters = (**self.shared.clusters.load()).clone();
        let rejections = apply_each(update, |resource| self.assignment(resource, &mut clusters));
        for name in &update.removed {
            self.missing_assignment(name, &mut clusters);
        }
        self.swap_clusters(clusters);
        rejections
    }

    fn cluster(&mut self, resource: &Resource, clusters: &mut Clusters) -> Result<(), Invalid> {
        let message = decode::<ClusterMessage>(&resource.body)?;
        let spec = ClusterSpec::compile(message, &Context::new(&self.shared))?;
        let name = resource.name.clone();
        if let (Some(_), Some(inline)) = (&spec.dns, &spec.inline) {
            // What can be wrong beside the names is wrong with any address.
            endpoint::compile(dns::expand(inline, &Addresses::new(), false), &[])?;
        }
        self.forget_user(&name);
        let resolved = self.resolve(&name, &spec)?;
        let known = spec.assignment_name.as_ref().is_none_or(|assignment| {
            self.users
                .entry(assignment.clone())
                .or_default()
                .insert(name.clone());
            self.assignments.contains_key(assignment)
        });
        if known && resolved && spec.transports.is_settled() {
            self.activate_cluster(&name, spec, clusters)?;
        } else {
            self.warming_clusters.insert(name, spec);
        }
        Ok(())
    }

    fn remove_cluster(&mut self, name: &str, clusters: &mut Clusters) {
        self.resolutions.remove(name);
        self.forget_user(name);
        self.clusters.remove(name);
        self.warming_clusters.remove(name);
        clusters.remove(name);
        self.shared.names.clusters.lock().remove(name);
    }

    /// Forgets which assignment a cluster used.
    fn forget_user(&mut self, name: &str) {
        let spec = self.newest_spec(name);
        let Some(assignment) = spec.and_then(|spec| spec.assignment_name.clone()) else {
            return;
        };
        if let Some(users) = self.users.get_mut(&assignment) {
            users.remove(name);
        }
    }

    /// Forgets assignments that no cluster uses any more, so that they are fetched anew when wanted again. Only an update
    /// may do so: the client unsubscribes after it, and what it is subscribed to is not sent again.
    fn forget_unused_assignments(&mut self) {
        if self.users.values().all(|users| !users.is_empty()) {
            return;
        }
        // The state before of a cluster that waits is still in effect, and its assignment subscribed to.
        let wanted = self.wanted(ResourceType::Endpoint);
        self.users.retain(|name, _| wanted.contains(name));
        self.assignments.retain(|name, _| wanted.contains(name));
        let mut dump = self.shared.dump.lock();
        dump.retain(ResourceType::Endpoint, |name| wanted.contains(name));
    }

    fn assignment(&mut self, resource: &Resource, clusters: &mut Clusters) -> Result<(), Invalid> {
        let message: ClusterLoadAssignment = decode(&resource.body)?;
        // Checked before it replaces the one before.
        endpoint::compile(message.clone(), &[])?;
        self.assignments.insert(resource.name.clone(), message);
        self.assignment_changed(&resource.name, clusters)
    }

    fn assignment_changed(&mut self, name: &str, clusters: &mut Clusters) -> Result<(), Invalid> {
        for user in self.users.get(name).cloned().unwrap_or_default() {
            if let Some(spec) = self.newest_spec(&user).cloned()
                && spec.transports.is_settled()
            {
                self.activate_cluster(&user, spec, clusters)?;
            }
        }
        Ok(())
    }

    /// The server says that there is no such assignment: clusters that wait for it go on without endpoints; others
    /// keep what they have.
    fn missing_assignment(&mut self, name: &str, clusters: &mut Clusters) {
        if !self.assignments.contains_key(name) {
            self.assignments
                .insert(name.to_owned(), ClusterLoadAssignment::default());
            // An empty assignment is always valid.
            let _ = self.assignment_changed(name, clusters);
        }
    }

    /// Puts clusters into effect whose endpoints and secrets are known.
    pub(super) fn activate_clusters(&mut self) {
        let known = |spec: &ClusterSpec| {
            let assignment = spec.assignment_name.as_ref();
            assignment.is_none_or(|name| self.assignments.contains_key(name))
        };
        let ready: Vec<_> = self
            .warming_clusters
            .iter()
            .filter(|(name, spec)| {
                known(spec) && spec.transports.is_settled() && self.is_resolved(name)
            })
            .map(|(name, spec)| (name.clone(), spec.clone()))
            .collect();
        if !ready.is_empty() {
            self.put_into_effect(ready);
        }
    }

    /// Puts clusters into effect, all at once.
    pub(super) fn put_into_effect(&mut self, ready: Vec<(String, ClusterSpec)>) {
        let mut clusters = (**self.shared.clusters.load()).clone();
        for (name, spec) in ready {
            if let Err(error) = self.activate_cluster(&name, spec, &mut clusters) {
                tracing::error!(name, %error, "cluster cannot take effect");
            }
        }
        self.swap_clusters(clusters);
    }

    fn activate_cluster(
        &mut self,
        name: &str,
        spec: ClusterSpec,
        clusters: &mut Clusters,
    ) -> Result<(), Invalid> {
        let message = match &spec.assignment_name {
            Some(assignment) => self.assignments.get(assignment).cloned(),
            None => spec.inline.clone(),
        };
        let message = match (message, &spec.dns, self.resolutions.get(name)) {
            (Some(message), Some(settings), Some(resolution)) => Some(dns::expand(
                &message,
                &resolution.addresses,
                settings.logical,
            )),
            (message, _, _) => message,
        };
        let previous = clusters
            .get(name)
            .map(|cluster| cluster.hosts.as_slice())
            .unwrap_or_default();
        let assignment = endpoint::compile(message.unwrap_or_default(), previous)?;
        let names = &self.shared.names;
        let shared = find_or_make(&names.clusters, name, || ClusterShared::new(names.workers));
        clusters.insert(name.to_owned(), Arc::new(spec.build(assignment, shared)));
        self.warming_clusters.remove(name);
        self.clusters.insert(name.to_owned(), spec);
        Ok(())
    }

    fn swap_clusters(&self, clusters: Clusters) {
        self.shared.clusters.store(Arc::new(clusters));
        self.shared.tell_workers(|| worker::Command::Prune);
    }

    /// The newest accepted state of a cluster: the one that waits, else the one in effect.
    pub(super) fn newest_spec(&self, name: &str) -> Option<&ClusterSpec> {
        self.warming_clusters
            .get(name)
            .or_else(|| self.clusters.get(name))
    }
}
