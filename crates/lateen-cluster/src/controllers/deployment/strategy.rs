//! How many replicas each ReplicaSet of a Deployment gets next. Pure: sizes in, sizes out.
//!
//! The rules are those of Kubernetes' deployment controller: during a rolling update there are at most
//! `replicas + maxSurge` pods and at least `replicas - maxUnavailable` available ones.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::revision::{DESIRED_ANNOTATION, MAX_ANNOTATION, annotated_number};

/// A Deployment's wish and its room for manoeuvre, in pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// `spec.replicas`.
    pub(super) replicas: i32,
    /// Pods that may exist beyond `replicas`; 0 unless the strategy is RollingUpdate.
    pub(super) surge: i32,
    /// Pods that may be missing from `replicas`; 0 unless the strategy is RollingUpdate.
    pub(super) unavailable: i32,
    /// Whether the strategy is RollingUpdate.
    pub(super) rolling: bool,
}

impl Bounds {
    /// Reads the bounds from the Deployment. Percentages of the surge are rounded up, of the missing pods down; when both
    /// come to nothing one pod may be missing, since otherwise nothing could ever move.
    pub(super) fn of(deployment: &Deployment) -> Self {
        let spec = deployment.spec.as_ref();
        let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1);
        let strategy = spec.and_then(|spec| spec.strategy.as_ref());
        let rolling = strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("Recreate");
        let mut bounds = Self {
            replicas,
            surge: 0,
            unavailable: 0,
            rolling,
        };
        if !rolling {
            return bounds;
        }
        let update = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let quarter = IntOrString::String("25%".to_owned());
        let surge = update.and_then(|update| update.max_surge.as_ref());
        let unavailable = update.and_then(|update| update.max_unavailable.as_ref());
        bounds.surge = scaled(surge.unwrap_or(&quarter), replicas, true);
        bounds.unavailable = scaled(unavailable.unwrap_or(&quarter), replicas, false);
        if bounds.surge == 0 && bounds.unavailable == 0 {
            bounds.unavailable = 1;
        }
        bounds.unavailable = bounds.unavailable.min(replicas);
        bounds
    }

    /// Most pods that may exist.
    pub(super) fn most(&self) -> i32 {
        self.replicas.saturating_add(self.surge)
    }

    /// Fewest pods that must be available.
    pub(super) fn fewest(&self) -> i32 {
        self.replicas - self.unavailable
    }
}

/// A number, or a percentage of `total`. What is neither counts as 0; the server refuses it.
fn scaled(value: &IntOrString, total: i32, up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => (*number).max(0),
        IntOrString::String(text) => {
            let percent: i64 = text
                .strip_suffix('%')
                .and_then(|digits| digits.parse().ok())
                .unwrap_or(0);
            let hundredfold = percent.clamp(0, 100_000) * i64::from(total);
            let whole = if up {
                (hundredfold + 99) / 100
            } else {
                hundredfold / 100
            };
            i32::try_from(whole).unwrap_or(i32::MAX)
        }
    }
}

/// What the decisions need to know of a ReplicaSet.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Size {
    /// Name of the ReplicaSet.
    pub(super) name: String,
    /// Creation time.
    pub(super) created: Option<Time>,
    /// `spec.replicas`.
    pub(super) wanted: i32,
    /// `status.availableReplicas`.
    pub(super) available: i32,
    /// The Deployment's replicas when the ReplicaSet was last scaled.
    pub(super) desired: Option<i32>,
    /// [`Bounds::most`] when the ReplicaSet was last scaled.
    pub(super) most: Option<i32>,
}

impl Size {
    pub(super) fn of(set: &ReplicaSet) -> Self {
        let status = set.status.as_ref();
        Self {
            name: set.metadata.name.clone().unwrap_or_default(),
            created: set.metadata.creation_timestamp.clone(),
            wanted: wanted(set),
            available: status
                .and_then(|status| status.available_replicas)
                .unwrap_or(0),
            desired: annotated_number(set, DESIRED_ANNOTATION),
            most: annotated_number(set, MAX_ANNOTATION),
        }
    }

    fn age_order(&self) -> (Option<&Time>, &str) {
        (self.created.as_ref(), &self.name)
    }
}

/// `spec.replicas` of a ReplicaSet.
pub(super) fn wanted(set: &ReplicaSet) -> i32 {
    set.spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1)
}

/// A ReplicaSet (by name) and the number of replicas it shall have.
pub(super) type Step = (String, i32);

/// How many replicas the ReplicaSet of the present template may have now. `all` includes it, unless it is yet to be made.
pub(super) fn new_size(bounds: &Bounds, all: &[Size], present: i32) -> i32 {
    if !bounds.rolling {
        return bounds.replicas;
    }
    if present > bounds.replicas {
        return bounds.replicas;
    }
    let total: i32 = all.iter().map(|size| size.wanted).sum();
    let room = bounds.most() - total;
    if room <= 0 {
        return present;
    }
    present + room.min(bounds.replicas - present)
}

/// Which old ReplicaSets shrink now, and to what. First pods that aren't available anyway, then as many as may be missing.
pub(super) fn shrink_old(bounds: &Bounds, old: &[Size], new: Option<&Size>) -> Vec<Step> {
    let mut old: Vec<Size> = old.to_vec();
    let old_total: i32 = old.iter().map(|size| size.wanted).sum();
    if old_total == 0 {
        return Vec::new();
    }
    let (new_wanted, new_available) = new.map_or((0, 0), |size| (size.wanted, size.available));
    let missing_new = new_wanted - new_available;
    let removable = old_total + new_wanted - bounds.fewest() - missing_new;
    if removable <= 0 {
        return Vec::new();
    }
    old.sort_by(|a, b| a.age_order().cmp(&b.age_order()));
    let before: Vec<i32> = old.iter().map(|size| size.wanted).collect();
    let mut left = removable;
    for size in &mut old {
        let unhealthy = (size.wanted - size.available).clamp(0, left.max(0));
        size.wanted -= unhealthy;
        left -= unhealthy;
    }
    let available: i32 = old.iter().map(|size| size.available).sum::<i32>() + new_available;
    let mut left = available - bounds.fewest();
    for size in &mut old {
        let step = size.wanted.min(left.max(0));
        size.wanted -= step;
        left -= step;
    }
    old.into_iter()
        .zip(before)
        .filter(|(size, before)| size.wanted != *before)
        .map(|(size, _)| (size.name, size.wanted))
        .collect()
}

/// Spreads a changed number of replicas over the ReplicaSets. With one active ReplicaSet that one is resized; once the
/// new one is complete the old ones go to 0; in the midst of a rolling update each gets its share.
pub(super) fn spread(bounds: &Bounds, new: Option<&Size>, old: &[Size]) -> Vec<Step> {
    let active: Vec<&Size> = new
        .into_iter()
        .chain(old)
        .filter(|size| size.wanted > 0)
        .collect();
    let latest = || {
        let newest_old = old.iter().max_by(|a, b| a.age_order().cmp(&b.age_order()));
        new.or(newest_old)
    };
    let only = match active.as_slice() {
        [] => latest(),
        [one] => Some(*one),
        _ => None,
    };
    if let Some(only) = only {
        let stale = only.desired != Some(bounds.replicas) || only.most != Some(bounds.most());
        return if only.wanted != bounds.replicas || stale {
            vec![(only.name.clone(), bounds.replicas)]
        } else {
            Vec::new()
        };
    }
    let saturated = new.is_some_and(|new| {
        new.wanted == bounds.replicas
            && new.desired == Some(bounds.replicas)
            && new.available == bounds.replicas
    });
    if saturated {
        return old
            .iter()
            .filter(|size| size.wanted > 0)
            .map(|size| (size.name.clone(), 0))
            .collect();
    }
    if bounds.rolling {
        proportional(bounds, active)
    } else {
        Vec::new()
    }
}

fn proportional(bounds: &Bounds, mut active: Vec<&Size>) -> Vec<Step> {
    let total: i32 = active.iter().map(|size| size.wanted).sum();
    let allowed = if bounds.replicas > 0 {
        bounds.most()
    } else {
        0
    };
    let change = allowed - total;
    // The largest first; of equals the newer one grows and the older one shrinks first.
    active.sort_by(|a, b| {
        let by_age = a.age_order().cmp(&b.age_order());
        let by_age = if change > 0 { by_age.reverse() } else { by_age };
        b.wanted.cmp(&a.wanted).then(by_age)
    });
    let mut done = 0;
    let mut steps: Vec<Step> = Vec::new();
    for size in &active {
        let share = share(bounds, size, change, done, total);
        done += share;
        steps.push((size.name.clone(), size.wanted + share));
    }
    if let Some(first) = steps.first_mut() {
        first.1 = (first.1 + change - done).max(0);
    }
    steps
}

/// The part of `change` that falls to one ReplicaSet, `done` being given out already.
fn share(bounds: &Bounds, size: &Size, change: i32, done: i32, total: i32) -> i32 {
    if change == 0 || change == done {
        return 0;
    }
    let left = change - done;
    let fraction = if bounds.replicas == 0 {
        -size.wanted
    } else {
        let before = size.most.filter(|most| *most > 0).unwrap_or(total).max(1);
        let scaled = f64::from(size.wanted) * f64::from(bounds.most()) / f64::from(before);
        // Both factors are replica counts, so the quotient fits.
        scaled.round() as i32 - size.wanted
    };
    if change > 0 {
        fraction.min(left)
    } else {
        fraction.max(left)
    }
}

#[cfg(test)]
#[path = "strategy_tests.rs"]
mod tests;
