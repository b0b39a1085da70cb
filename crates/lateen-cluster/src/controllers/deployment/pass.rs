//! One pass over one Deployment: a step towards its wish, and the status.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::Controller;
use super::revision::{self, REVISION_ANNOTATION, annotate_new, annotate_scale, revision};
use super::status::{self, PROGRESSING, condition, deadline, find, set};
use super::strategy::{self, Bounds, Size, Step, wanted};
use crate::controllers::error::Error;
use crate::controllers::events::Severity;
use crate::controllers::meta::{ObjectKey, controller_of, is_terminal};

/// One pass over one Deployment.
pub(super) struct Pass<'a> {
    controller: &'a Controller,
    key: &'a ObjectKey,
    deployment: Deployment,
    bounds: Bounds,
    /// ReplicaSet of the present template.
    new: Option<ReplicaSet>,
    /// The other ReplicaSets, the oldest first.
    old: Vec<ReplicaSet>,
    /// Conditions so far, to become those of the status.
    conditions: Vec<DeploymentCondition>,
    collisions: Option<i32>,
}

impl<'a> Pass<'a> {
    /// A pass over `deployment`, whose ReplicaSets are `sets`.
    pub(super) fn new(
        controller: &'a Controller,
        key: &'a ObjectKey,
        deployment: Deployment,
        sets: Vec<ReplicaSet>,
    ) -> Self {
        let (new, old) = revision::split(&deployment, sets);
        let status = deployment.status.clone().unwrap_or_default();
        Self {
            controller,
            key,
            bounds: Bounds::of(&deployment),
            deployment,
            new,
            old,
            conditions: status.conditions.unwrap_or_default(),
            collisions: status.collision_count,
        }
    }

    pub(super) async fn run(&mut self) -> Result<(), Error> {
        if self.deployment.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        status::note_pause(&self.deployment, &mut self.conditions);
        if status::is_paused(&self.deployment) || self.is_scaled() {
            self.find_new().await?;
            let old: Vec<Size> = self.old.iter().map(Size::of).collect();
            let new = self.new.as_ref().map(Size::of);
            let steps = strategy::spread(&self.bounds, new.as_ref(), &old);
            self.apply(&steps).await?;
            if status::is_paused(&self.deployment) {
                self.clean_up().await?;
            }
            return Ok(());
        }
        if self.bounds.rolling {
            self.roll().await
        } else {
            self.recreate().await
        }
    }

    /// Whether the number of replicas changed since the active ReplicaSets were last resized.
    fn is_scaled(&self) -> bool {
        self.new.iter().chain(&self.old).any(|set| {
            let size = Size::of(set);
            size.wanted > 0
                && size
                    .desired
                    .is_some_and(|desired| desired != self.bounds.replicas)
        })
    }

    async fn roll(&mut self) -> Result<(), Error> {
        self.find_or_make_new().await?;
        let all: Vec<Size> = self.new.iter().chain(&self.old).map(Size::of).collect();
        if let Some(new) = &self.new {
            let next = strategy::new_size(&self.bounds, &all, wanted(new));
            if next != wanted(new) {
                let step = (new.metadata.name.clone().unwrap_or_default(), next);
                return self.apply(&[step]).await;
            }
        }
        let old: Vec<Size> = self.old.iter().map(Size::of).collect();
        let new = self.new.as_ref().map(Size::of);
        let steps = strategy::shrink_old(&self.bounds, &old, new.as_ref());
        if !steps.is_empty() {
            return self.apply(&steps).await;
        }
        self.clean_up_when_complete().await
    }

    async fn recreate(&mut self) -> Result<(), Error> {
        self.find_new().await?;
        let steps: Vec<Step> = self
            .old
            .iter()
            .filter(|set| wanted(set) > 0)
            .map(|set| (set.metadata.name.clone().unwrap_or_default(), 0))
            .collect();
        if !steps.is_empty() {
            return self.apply(&steps).await;
        }
        if self.old_pods_run() {
            return Ok(());
        }
        self.find_or_make_new().await?;
        if let Some(new) = &self.new
            && wanted(new) != self.bounds.replicas
        {
            let step = (
                new.metadata.name.clone().unwrap_or_default(),
                self.bounds.replicas,
            );
            return self.apply(&[step]).await;
        }
        self.clean_up_when_complete().await
    }

    fn old_pods_run(&self) -> bool {
        let pods = &self.controller.shared.pods;
        self.old.iter().any(|set| {
            let uid = set.metadata.uid.as_deref().unwrap_or_default();
            let runs = |pod: &Arc<Pod>| !is_terminal(pod);
            set.status
                .as_ref()
                .is_some_and(|status| status.replicas > 0)
                || pods.indexed(uid).iter().any(runs)
        })
    }

    /// Revision that the present template has when it isn't the highest yet.
    fn next_revision(&self) -> i64 {
        self.old.iter().map(revision).max().unwrap_or(0) + 1
    }

    /// Brings the ReplicaSet of the present template, if there is one, and the Deployment's revision up to date.
    async fn find_new(&mut self) -> Result<(), Error> {
        let next = self.next_revision();
        let Some(new) = &mut self.new else {
            return Ok(());
        };
        let mut changed = annotate_new(new, &self.deployment, next);
        let ready_seconds = self
            .deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.min_ready_seconds);
        if let Some(spec) = &mut new.spec
            && spec.min_ready_seconds.unwrap_or(0) != ready_seconds.unwrap_or(0)
        {
            spec.min_ready_seconds = ready_seconds;
            changed = true;
        }
        if changed {
            *new = self.controller.shared.replica_sets.replace(new).await?;
        }
        let (number, name) = (revision(new), new.metadata.name.clone());
        if deadline(&self.deployment).is_some() && find(&self.conditions, PROGRESSING).is_none() {
            let message = format!("Found new replica set {:?}", name.unwrap_or_default());
            let found = condition(PROGRESSING, "True", "FoundNewReplicaSet", message);
            set(&mut self.conditions, found);
        }
        self.set_revision(number).await
    }

    async fn find_or_make_new(&mut self) -> Result<(), Error> {
        if self.new.is_some() {
            return self.find_new().await;
        }
        let mut new = revision::new_replica_set(&self.deployment, self.collisions.unwrap_or(0));
        let mut all: Vec<Size> = self.old.iter().map(Size::of).collect();
        all.push(Size::of(&new));
        let size = strategy::new_size(&self.bounds, &all, 0);
        if let Some(spec) = &mut new.spec {
            spec.replicas = Some(size);
        }
        let next = self.next_revision();
        annotate_new(&mut new, &self.deployment, next);
        annotate_scale(&mut new, &self.bounds);
        let made = match self.controller.shared.replica_sets.create(&new).await {
            Ok(made) => made,
            Err(error) => return self.not_made(&new, error).await,
        };
        let name = made.metadata.name.clone().unwrap_or_default();
        self.new = Some(made);
        if size > 0 {
            self.tell(format!("Scaled up replica set {name} from 0 to {size}"));
        }
        if deadline(&self.deployment).is_some() {
            let message = format!("Created new replica set {name:?}");
            let made = condition(PROGRESSING, "True", "NewReplicaSetCreated", message);
            set(&mut self.conditions, made);
        }
        self.set_revision(next).await
    }

    /// The new ReplicaSet could not be created: it is there already, another one has its name, or the server refuses.
    async fn not_made(&mut self, new: &ReplicaSet, error: Error) -> Result<(), Error> {
        if error.is_namespace_terminating() {
            return Ok(());
        }
        let name = new.metadata.name.clone().unwrap_or_default();
        if error.is_already_exists() {
            let key = ObjectKey::of(&new.metadata);
            let present = self.controller.shared.replica_sets.get_live(&key).await?;
            let ours = present.filter(|set| {
                let owner = controller_of(&set.metadata).map(|owner| &owner.uid);
                let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
                owner == self.deployment.metadata.uid.as_ref()
                    && template.is_some_and(|template| {
                        revision::same_template(template, &revision::template_of(&self.deployment))
                    })
            });
            if let Some(ours) = ours {
                self.new = Some(ours);
                return self.find_new().await;
            }
            self.collisions = Some(self.collisions.unwrap_or(0) + 1);
            return Err(Error::Collision {
                key: self.key.clone(),
                name,
            });
        }
        let message = format!(
            "Failed to create new replica set {name:?}: {}",
            error.server_message()
        );
        if deadline(&self.deployment).is_some() {
            let reason = "ReplicaSetCreateError";
            let failed = condition(PROGRESSING, "False", reason, message.clone());
            set(&mut self.conditions, failed);
        }
        self.controller.recorder.record(
            &self.deployment,
            Severity::Warning,
            "ReplicaSetCreateError",
            message,
        );
        Err(error)
    }

    /// Notes the revision on the Deployment. Only the annotation is written, so a change of the wish is not overwritten;
    /// and by way of the status, as a changed annotation of the Deployment itself would raise its generation.
    async fn set_revision(&mut self, number: i64) -> Result<(), Error> {
        let text = number.to_string();
        let annotations = self.deployment.metadata.annotations.as_ref();
        if annotations.and_then(|all| all.get(REVISION_ANNOTATION)) == Some(&text) {
            return Ok(());
        }
        let patch = json!({"metadata": {"annotations": {(REVISION_ANNOTATION): text}}});
        let cache = &self.controller.shared.deployments;
        let changed = cache.merge_status(self.key, &patch).await?;
        // If the wish changed in between, this pass goes on with the old one and the next one sees the new.
        self.deployment.metadata.annotations = changed.metadata.annotations;
        if changed.metadata.generation == self.deployment.metadata.generation {
            self.deployment.metadata.resource_version = changed.metadata.resource_version;
        }
        Ok(())
    }

    /// Resizes ReplicaSets.
    async fn apply(&mut self, steps: &[Step]) -> Result<(), Error> {
        for (name, size) in steps {
            let set = self
                .new
                .iter_mut()
                .chain(&mut self.old)
                .find(|set| set.metadata.name.as_ref() == Some(name));
            let Some(set) = set else { continue };
            let before = wanted(set);
            let annotated = annotate_scale(set, &self.bounds);
            if before == *size && !annotated {
                continue;
            }
            if let Some(spec) = &mut set.spec {
                spec.replicas = Some(*size);
            }
            *set = self.controller.shared.replica_sets.replace(set).await?;
            if before != *size {
                let direction = if before < *size { "up" } else { "down" };
                self.tell(format!(
                    "Scaled {direction} replica set {name} from {before} to {size}"
                ));
            }
        }
        Ok(())
    }

    async fn clean_up_when_complete(&self) -> Result<(), Error> {
        let status = self.deployment.status.clone().unwrap_or_default();
        if status::is_complete(&self.deployment, &status) {
            self.clean_up().await?;
        }
        Ok(())
    }

    /// Deletes old ReplicaSets beyond the revision history limit.
    async fn clean_up(&self) -> Result<(), Error> {
        for set in revision::superfluous(&self.deployment, self.old.clone()) {
            self.controller.shared.replica_sets.delete(&set).await?;
        }
        Ok(())
    }

    /// Writes the status, if it has changed.
    pub(super) async fn write_status(&mut self) -> Result<(), Error> {
        // The latest sizes: resizing answered with them.
        let all: Vec<&ReplicaSet> = self.old.iter().chain(&self.new).collect();
        let new = self.new.as_ref();
        let before = self.deployment.status.clone().unwrap_or_default();
        let conditions = std::mem::take(&mut self.conditions);
        let mut status = status::count(&self.deployment, &all, new, conditions, self.collisions);
        let deleting = self.deployment.metadata.deletion_timestamp.is_some();
        if !status::is_paused(&self.deployment) && !deleting {
            status::judge_progress(&self.deployment, &all, new, &before, &mut status);
        }
        let conditions = status.conditions.as_deref().unwrap_or_default();
        let deadline = status::seconds_to_deadline(&self.deployment, &status, conditions);
        if let Some(seconds) = deadline {
            // A second more, as times are stored in whole seconds.
            let wait = Duration::from_secs_f64(seconds.max(0.0) + 1.0);
            self.controller.queue.add_after(self.key.clone(), wait);
        }
        if status == before {
            return Ok(());
        }
        self.deployment.status = Some(status);
        let cache = &self.controller.shared.deployments;
        match cache.replace_status(&self.deployment).await {
            // The change that caused the conflict brings the next pass; deleted meanwhile is fine too.
            Err(error) if !error.is_conflict() && !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    fn tell(&self, message: String) {
        self.controller.recorder.record(
            &self.deployment,
            Severity::Normal,
            "ScalingReplicaSet",
            message,
        );
    }
}
