//! What a StatefulSet does next about its pods. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{RollingUpdateStatefulSetStrategy, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::history::Target;
use super::identity::{lost_labels, new_pod, ordinal, ordinals, revision_of};
use super::status::{is_rolling, is_serving, min_ready_seconds};
use crate::controllers::meta::{Labels, is_available, is_terminal};

/// Most pods that one pass makes.
const BURST: usize = 500;

/// A step over one pod.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step<'a> {
    /// The pod is missing.
    Create(Box<Pod>),
    /// The pod ended, is one too many, or is of an old revision.
    Delete(&'a Pod),
    /// The pod lost labels that tell which one it is.
    Label(&'a Pod, Labels),
}

/// The steps that can be taken now. Those of one part may be taken all at once, those of the next only when all of them
/// succeeded.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Steps<'a> {
    /// Towards pods with all numbers.
    pub(super) replicas: Vec<Step<'a>>,
    /// Away with pods of other numbers.
    pub(super) surplus: Vec<Step<'a>>,
    /// Away with pods of old revisions.
    pub(super) update: Vec<Step<'a>>,
}

/// What is known when steps are chosen.
pub(super) struct Plan<'a> {
    set: &'a StatefulSet,
    /// The pods with numbers that the set is to have.
    replicas: BTreeMap<i64, &'a Pod>,
    /// The other pods, the highest number first.
    condemned: Vec<&'a Pod>,
    /// One pod after the other, and only when all before it are available.
    ordered: bool,
    current: &'a Target,
    update: &'a Target,
    /// Pods of the current revision.
    current_count: i64,
}

impl<'a> Plan<'a> {
    /// `current_count` of the pods are of the revision `current`.
    pub(super) fn new(
        set: &'a StatefulSet,
        pods: &'a [Pod],
        current: &'a Target,
        update: &'a Target,
        current_count: i32,
    ) -> Self {
        let wanted = ordinals(set);
        let mut replicas = BTreeMap::new();
        let mut condemned = Vec::new();
        for pod in pods {
            match ordinal(set, pod) {
                Some(number) if wanted.contains(&number) => drop(replicas.insert(number, pod)),
                Some(number) => condemned.push((Reverse(number), pod)),
                None => {}
            }
        }
        condemned.sort_by_key(|(number, _)| *number);
        let policy = set
            .spec
            .as_ref()
            .and_then(|spec| spec.pod_management_policy.as_deref());
        Self {
            set,
            replicas,
            condemned: condemned.into_iter().map(|(_, pod)| pod).collect(),
            ordered: policy != Some("Parallel"),
            current,
            update,
            current_count: i64::from(current_count),
        }
    }

    /// The steps that can be taken now.
    pub(super) fn steps(&self) -> Steps<'a> {
        let mut steps = Steps::default();
        if !self.fill(&mut steps.replicas) || !self.shrink(&mut steps.surplus) {
            return steps;
        }
        if is_rolling(self.set) {
            self.roll(&mut steps.update);
        }
        steps
    }

    /// Pods of all numbers. Returns whether other steps may follow.
    fn fill(&self, steps: &mut Vec<Step<'a>>) -> bool {
        for number in ordinals(self.set) {
            let Some(&pod) = self.replicas.get(&number) else {
                steps.push(Step::Create(Box::new(self.pod(number))));
                if self.ordered {
                    return false;
                }
                if steps.len() >= BURST {
                    return true;
                }
                continue;
            };
            if is_terminal(pod) {
                // The next one has the same name: it is made when this one is gone.
                if pod.metadata.deletion_timestamp.is_none() {
                    steps.push(Step::Delete(pod));
                }
                if self.ordered {
                    return false;
                }
                continue;
            }
            if self.ordered && (is_leaving(pod) || !self.is_up(pod)) {
                return false;
            }
            if let Some(labels) = lost_labels(pod, number) {
                steps.push(Step::Label(pod, labels));
            }
        }
        true
    }

    /// The pod that is missing at a number: updates go from the highest number down, so low ones may be of the current
    /// revision still.
    fn pod(&self, number: i64) -> Pod {
        let index = number - ordinals(self.set).start;
        let kept = match self.rolling_update() {
            Some(rolling) => i64::from(rolling.partition.unwrap_or(0)),
            None if is_rolling(self.set) => self.current_count,
            None => 0,
        };
        let target = if index < kept {
            self.current
        } else {
            self.update
        };
        new_pod(self.set, number, &target.name, &target.template)
    }

    /// No pods of other numbers. Returns whether other steps may follow.
    fn shrink(&self, steps: &mut Vec<Step<'a>>) -> bool {
        // Of several that are down, the lowest may go although it is: nobody waits for it to come up.
        let first_down = self
            .condemned
            .iter()
            .rev()
            .find(|pod| is_leaving(pod) || !self.is_available(pod));
        for pod in &self.condemned {
            if is_leaving(pod) {
                if self.ordered {
                    return false;
                }
                continue;
            }
            let is_first = first_down.is_some_and(|down| std::ptr::eq(*down, *pod));
            if !self.ordered || self.is_up(pod) || is_first {
                steps.push(Step::Delete(pod));
            }
            if self.ordered {
                return false;
            }
        }
        true
    }

    /// Pods of old revisions go, from the highest number down to the partition. `maxUnavailable` is heeded wherever it is
    /// given; Kubernetes 1.36 has it behind a feature gate, `MaxUnavailableStatefulSet`.
    fn roll(&self, steps: &mut Vec<Step<'a>>) {
        let rolling = self.rolling_update();
        let partition = rolling.and_then(|rolling| rolling.partition).unwrap_or(0);
        let wanted = ordinals(self.set);
        let first = wanted.start + i64::from(partition);
        let is_old = |pod: &Pod| revision_of(pod) != self.update.name && !is_leaving(pod);
        let Some(most) = rolling.and_then(|rolling| rolling.max_unavailable.as_ref()) else {
            // One by one: what was replaced has to be available before the next.
            for number in (first..wanted.end).rev() {
                match self.replicas.get(&number) {
                    Some(&pod) if is_old(pod) => return steps.push(Step::Delete(pod)),
                    Some(&pod) if !is_leaving(pod) && self.is_available(pod) => {}
                    _ => return,
                }
            }
            return;
        };
        let replicas = usize::try_from(wanted.end - wanted.start).unwrap_or(0);
        let up = |pod: &&&Pod| !is_leaving(pod) && self.is_available(pod);
        let down = replicas - self.replicas.values().filter(up).count();
        let free = amount(most, replicas).saturating_sub(down);
        let old = self.replicas.range(first.min(wanted.end)..).rev();
        let old = old.map(|(_, &pod)| pod).filter(|pod| is_old(pod));
        steps.extend(old.take(free).map(Step::Delete));
    }

    fn rolling_update(&self) -> Option<&'a RollingUpdateStatefulSetStrategy> {
        let spec = self.set.spec.as_ref()?;
        spec.update_strategy.as_ref()?.rolling_update.as_ref()
    }

    fn is_available(&self, pod: &Pod) -> bool {
        is_available(pod, min_ready_seconds(self.set))
    }

    fn is_up(&self, pod: &Pod) -> bool {
        is_serving(pod) && self.is_available(pod)
    }
}

fn is_leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// How many of `replicas` may be down: at least one. A percentage is rounded down.
fn amount(most: &IntOrString, replicas: usize) -> usize {
    let number = match most {
        IntOrString::Int(number) => usize::try_from(*number).unwrap_or(0),
        IntOrString::String(text) => {
            let percent: usize = text.trim_end_matches('%').parse().unwrap_or(0);
            replicas.saturating_mul(percent) / 100
        }
    };
    number.max(1)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
