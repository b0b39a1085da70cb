//! From what the metrics ask for to what is done: limits, stabilization and the rates of `behavior`. Pure.

use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// Longest period of a policy, see the API's validation.
const LONGEST_PERIOD: SignedDuration = SignedDuration::from_secs(1800);

/// What was recommended and done for one autoscaler. It does not survive a restart, as in Kubernetes.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Replicas that metrics asked for.
    recommendations: Vec<(Timestamp, i32)>,
    /// Replicas that were added.
    additions: Vec<(Timestamp, i32)>,
    /// Replicas that were removed.
    removals: Vec<(Timestamp, i32)>,
}

/// What limits a recommendation.
pub(super) struct Limits<'l> {
    pub(super) current: i32,
    pub(super) least: i32,
    pub(super) most: i32,
    pub(super) behavior: Option<&'l HorizontalPodAutoscalerBehavior>,
    /// How long a higher recommendation keeps replicas where `behavior` says nothing.
    pub(super) downscale_stabilization: Duration,
    pub(super) now: Timestamp,
}

/// A reason with its text, for a condition.
pub(super) type Note = (&'static str, &'static str);

/// What is to be done, and why it differs from what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Recommendation {
    pub(super) replicas: i32,
    /// Reason of the condition `AbleToScale`.
    pub(super) able: Note,
    /// Reason of the condition `ScalingLimited`, and whether it is.
    pub(super) limit: Note,
    pub(super) limited: bool,
}

const READY: Note = ("ReadyForNewScale", "recommended size matches current size");
const DOWN_STABILIZED: Note = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const UP_STABILIZED: Note = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const TOO_FEW: Note = (
    "TooFewReplicas",
    "the desired replica count is less than the minimum replica count",
);
const TOO_MANY: Note = (
    "TooManyReplicas",
    "the desired replica count is more than the maximum replica count",
);
const UP_LIMIT: Note = (
    "ScaleUpLimit",
    "the desired replica count is increasing faster than the maximum scale rate",
);
const DOWN_LIMIT: Note = (
    "ScaleDownLimit",
    "the desired replica count is decreasing faster than the maximum scale rate",
);
const IN_RANGE: Note = (
    "DesiredWithinRange",
    "the desired count is within the acceptable range",
);

impl History {
    /// Takes in the replicas that are there at the first look. A controller that has just begun must not take any away
    /// that others had a reason for.
    pub(super) fn begin(&mut self, current: i32, now: Timestamp) {
        if self.recommendations.is_empty() {
            self.recommendations.push((now, current));
        }
    }

    /// Takes in what metrics ask for and says what is to be done.
    pub(super) fn recommend(&mut self, asked: i32, limits: &Limits<'_>) -> Recommendation {
        let stabilized = match limits.behavior {
            None => self.highest_recent(asked, limits),
            Some(behavior) => self.stabilized(asked, behavior, limits),
        };
        self.remember(asked, limits);
        let able = if stabilized == asked {
            READY
        } else if limits.behavior.is_some() && asked >= limits.current {
            UP_STABILIZED
        } else {
            DOWN_STABILIZED
        };
        let (replicas, limit) = match limits.behavior {
            None => within_default_rate(stabilized, limits),
            Some(behavior) => self.within_rate(stabilized, behavior, limits),
        };
        Recommendation {
            replicas,
            able,
            limit,
            limited: replicas != stabilized,
        }
    }

    /// Takes in that replicas were added or removed.
    pub(super) fn scaled(&mut self, from: i32, to: i32, now: Timestamp) {
        let events = if to > from {
            &mut self.additions
        } else {
            &mut self.removals
        };
        events.retain(|(at, _)| now.duration_since(*at) <= LONGEST_PERIOD);
        events.push((now, (to - from).abs()));
    }

    fn highest_recent(&self, asked: i32, limits: &Limits<'_>) -> i32 {
        let recent = self.since(limits.now, limits.downscale_stabilization);
        recent.fold(asked, i32::max)
    }

    /// The recommendation that the windows of both directions allow: up to the lowest of the one, down to the
    /// highest of the other.
    fn stabilized(
        &self,
        asked: i32,
        behavior: &HorizontalPodAutoscalerBehavior,
        limits: &Limits<'_>,
    ) -> i32 {
        let lowest = self
            .since(
                limits.now,
                window(behavior.scale_up.as_ref(), Duration::ZERO),
            )
            .fold(asked, i32::min);
        let highest = self
            .since(limits.now, down_window(behavior, limits))
            .fold(asked, i32::max);
        // A minimum above the maximum cannot be: `asked` is between the two.
        limits.current.max(lowest).min(highest)
    }

    fn since(&self, now: Timestamp, window: Duration) -> impl Iterator<Item = i32> {
        self.recommendations
            .iter()
            .filter(move |(at, _)| is_within(*at, now, window))
            .map(|(_, replicas)| *replicas)
    }

    fn remember(&mut self, asked: i32, limits: &Limits<'_>) {
        let longest = match limits.behavior {
            None => limits.downscale_stabilization,
            Some(behavior) => down_window(behavior, limits)
                .max(window(behavior.scale_up.as_ref(), Duration::ZERO)),
        };
        self.recommendations
            .retain(|(at, _)| is_within(*at, limits.now, longest));
        self.recommendations.push((limits.now, asked));
    }

    /// As far towards `wished` as the policies of its direction and the range allow.
    fn within_rate(
        &self,
        wished: i32,
        behavior: &HorizontalPodAutoscalerBehavior,
        limits: &Limits<'_>,
    ) -> (i32, Note) {
        let current = limits.current;
        if wished > current {
            // What was just removed by hand may make the limit lower than what is there.
            let rate = self
                .rate_limit(behavior.scale_up.as_ref(), Direction::Up, limits)
                .max(current);
            let (most, note) = if limits.most > rate {
                (rate, UP_LIMIT)
            } else {
                (limits.most, TOO_MANY)
            };
            if wished > most {
                return (most, note);
            }
        } else if wished < current {
            let rate = self
                .rate_limit(behavior.scale_down.as_ref(), Direction::Down, limits)
                .min(current);
            let (least, note) = if limits.least < rate {
                (rate, DOWN_LIMIT)
            } else {
                (limits.least, TOO_FEW)
            };
            if wished < least {
                return (least, note);
            }
        }
        (wished, IN_RANGE)
    }

    /// The furthest number of replicas that the policies allow.
    fn rate_limit(
        &self,
        rules: Option<&HPAScalingRules>,
        direction: Direction,
        limits: &Limits<'_>,
    ) -> i32 {
        let select = rules.and_then(|rules| rules.select_policy.as_deref());
        if select == Some("Disabled") {
            return limits.current;
        }
        let policies = rules.and_then(|rules| rules.policies.as_deref());
        let proposals = policies.unwrap_or_default().iter().map(|policy| {
            let period = Duration::from_secs(u64::try_from(policy.period_seconds).unwrap_or(0));
            let begin =
                limits.current - self.added(limits.now, period) + self.removed(limits.now, period);
            // In the order in which Kubernetes rounds: 100 and 10 % more are 111.
            let share = f64::from(policy.value) / 100.0;
            match (direction, policy.type_.as_str()) {
                (Direction::Up, "Pods") => begin.saturating_add(policy.value),
                (Direction::Up, _) => (f64::from(begin) * (1.0 + share)).ceil() as i32,
                (Direction::Down, "Pods") => begin.saturating_sub(policy.value),
                (Direction::Down, _) => (f64::from(begin) * (1.0 - share)) as i32,
            }
        });
        // `Min` is the policy that changes least.
        let furthest_up = (direction == Direction::Up) == (select != Some("Min"));
        let chosen = if furthest_up {
            proposals.max()
        } else {
            proposals.min()
        };
        chosen.unwrap_or(limits.current)
    }

    fn added(&self, now: Timestamp, period: Duration) -> i32 {
        sum_within(&self.additions, now, period)
    }

    fn removed(&self, now: Timestamp, period: Duration) -> i32 {
        sum_within(&self.removals, now, period)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// Without `behavior`: at most doubled, or up to four, at once; down to the minimum at once.
fn within_default_rate(wished: i32, limits: &Limits<'_>) -> (i32, Note) {
    let rate = limits.current.saturating_mul(2).max(4);
    let (most, note) = if limits.most > rate {
        (rate, UP_LIMIT)
    } else {
        (limits.most, TOO_MANY)
    };
    if wished < limits.least {
        (limits.least, TOO_FEW)
    } else if wished > most {
        (most, note)
    } else {
        (wished, IN_RANGE)
    }
}

fn window(rules: Option<&HPAScalingRules>, default: Duration) -> Duration {
    let seconds = rules.and_then(|rules| rules.stabilization_window_seconds);
    seconds.map_or(default, |seconds| {
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    })
}

fn down_window(behavior: &HorizontalPodAutoscalerBehavior, limits: &Limits<'_>) -> Duration {
    window(behavior.scale_down.as_ref(), limits.downscale_stabilization)
}

fn sum_within(events: &[(Timestamp, i32)], now: Timestamp, period: Duration) -> i32 {
    events
        .iter()
        .filter(|(at, _)| is_within(*at, now, period))
        .map(|(_, change)| change)
        .sum()
}

fn is_within(at: Timestamp, now: Timestamp, window: Duration) -> bool {
    let window = SignedDuration::try_from(window).unwrap_or(SignedDuration::MAX);
    now.duration_since(at) < window
}

#[cfg(test)]
#[path = "recommend_tests.rs"]
mod tests;
