//! Keeping the history of a StatefulSet: finding and making the revisions of its templates.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};

use super::identity::revision_of;
use super::revision::{is_equal, new_revision, sort, superfluous, template_in};
use crate::controllers::cache::Cache;
use crate::controllers::error::Error;
use crate::controllers::meta::ObjectKey;

/// How often in one pass another name is tried for a revision.
const ATTEMPTS: usize = 16;

/// The revisions of a set, sorted by number.
pub(super) struct History {
    all: Vec<ControllerRevision>,
    /// What pods have that are not to be updated.
    pub(super) current: Target,
    /// What the set wishes for.
    pub(super) update: Target,
}

/// A revision as pods are made from it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Target {
    /// Name of the ControllerRevision.
    pub(super) name: String,
    pub(super) template: PodTemplateSpec,
}

impl Target {
    fn of(revision: &ControllerRevision, set: &StatefulSet) -> Self {
        let own = || {
            let spec = set.spec.as_ref();
            spec.map(|spec| spec.template.clone()).unwrap_or_default()
        };
        Self {
            name: revision.metadata.name.clone().unwrap_or_default(),
            template: template_in(revision).unwrap_or_else(own),
        }
    }
}

impl History {
    /// Finds the revision of the set's present template among `all`, gives it the highest number, or makes it. `collisions`
    /// counts the names that were taken.
    pub(super) async fn of(
        cache: &Cache<ControllerRevision>,
        set: &StatefulSet,
        mut all: Vec<ControllerRevision>,
        collisions: &mut i32,
    ) -> Result<Self, Error> {
        sort(&mut all);
        let next = all.last().map_or(0, |last| last.revision) + 1;
        let wanted = new_revision(set, next, *collisions);
        let equal = all.iter().rposition(|known| is_equal(known, &wanted));
        let update = match equal.and_then(|position| all.get_mut(position)) {
            // It is the latest already.
            Some(known) if known.revision + 1 == next => known.clone(),
            // The set goes back to it.
            Some(known) => {
                let mut again = known.clone();
                again.revision = next;
                *known = cache.replace(&again).await?;
                known.clone()
            }
            None => create(cache, set, wanted, collisions).await?,
        };
        let told = set.status.as_ref();
        let told = told.and_then(|status| status.current_revision.as_ref());
        let current = all
            .iter()
            .find(|known| told.is_some() && known.metadata.name.as_ref() == told)
            .unwrap_or(&update);
        Ok(Self {
            current: Target::of(current, set),
            update: Target::of(&update, set),
            all,
        })
    }

    /// Deletes old revisions beyond the limit of the set's history.
    pub(super) async fn truncate(
        &self,
        cache: &Cache<ControllerRevision>,
        set: &StatefulSet,
        pods: &[Pod],
    ) -> Result<(), Error> {
        let ends = [self.current.name.as_str(), self.update.name.as_str()];
        let used: BTreeSet<&str> = pods.iter().map(revision_of).chain(ends).collect();
        for old in superfluous(set, &self.all, &used) {
            cache.delete(old).await?;
        }
        Ok(())
    }
}

async fn create(
    cache: &Cache<ControllerRevision>,
    set: &StatefulSet,
    mut wanted: ControllerRevision,
    collisions: &mut i32,
) -> Result<ControllerRevision, Error> {
    let mut tries = 0;
    loop {
        let error = match cache.create(&wanted).await {
            Ok(made) => return Ok(made),
            Err(error) => error,
        };
        tries += 1;
        if !error.is_already_exists() || tries == ATTEMPTS {
            return Err(error);
        }
        let present = cache.get_live(&ObjectKey::of(&wanted.metadata)).await?;
        if let Some(present) = present.filter(|present| is_equal(present, &wanted)) {
            return Ok(present);
        }
        *collisions += 1;
        wanted = new_revision(set, wanted.revision, *collisions);
    }
}
