//! Ejection by what happened in an interval: endpoints that do much worse than the others, and those that fail too
//! large a share of their requests.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Kind, OutlierConfig, eject};
use crate::cluster::{Cluster, Host};

/// When an interval is judged, and how.
#[derive(Debug, Clone)]
pub(crate) struct Statistics {
    pub(crate) success_rate: Comparison,
    /// How many standard deviations below the mean success rate an endpoint may be.
    pub(crate) deviations: f64,
    pub(crate) failures: Comparison,
    /// Percent of failures from which on an endpoint is ejected.
    pub(crate) failure_percent: f64,
}

/// What one of the judgements needs.
#[derive(Debug, Clone)]
pub(crate) struct Comparison {
    /// Fewest endpoints with enough requests.
    pub(crate) hosts: usize,
    /// Fewest requests of an endpoint.
    pub(crate) requests: u64,
    /// Percent of the times that an ejection follows: for responses, and for failures of local origin.
    pub(crate) enforced: [u32; 2],
}

impl Statistics {
    /// Whether a cluster of so many endpoints can be judged at all.
    pub(super) fn wanted(&self, hosts: usize) -> bool {
        [&self.success_rate, &self.failures]
            .iter()
            .any(|comparison| comparison.hosts <= hosts)
    }
}

/// Requests of an endpoint in the current interval.
#[derive(Debug, Default)]
pub(super) struct Tally {
    total: AtomicU64,
    succeeded: AtomicU64,
}

impl Tally {
    pub(super) fn count(&self, success: bool) {
        self.total.fetch_add(1, Ordering::Relaxed);
        if success {
            self.succeeded.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Requests and successes since the last time.
    fn take(&self) -> (u64, u64) {
        // In this order a success that is counted in between belongs to the next interval, like its request.
        let succeeded = self.succeeded.swap(0, Ordering::Relaxed);
        let total = self.total.swap(0, Ordering::Relaxed);
        (total.max(succeeded), succeeded)
    }
}

/// Judges the interval that ends. Says whether there were requests in it, so that the next one has to be judged, too.
/// The caller holds the lock on ejections.
pub(super) fn compare(cluster: &Cluster, config: &OutlierConfig) -> bool {
    let statistics = &config.statistics;
    let mut busy = false;
    let origins = [
        (Kind::SuccessRate, Kind::FailurePercentage),
        (Kind::LocalSuccessRate, Kind::LocalFailurePercentage),
    ];
    for (origin, kinds) in origins.into_iter().enumerate() {
        let tallied: Vec<(&Host, u64, f64)> = cluster
            .hosts
            .iter()
            .filter_map(|host| {
                let (total, succeeded) = host.shared.outlier.tallies[origin].take();
                busy |= total > 0;
                let counts = total > 0 && !host.shared.outlier.is_ejected();
                let rate = succeeded as f64 * 100.0 / total.max(1) as f64;
                counts.then_some((&**host, total, rate))
            })
            .collect();
        let enough = |comparison: &Comparison| -> Vec<(&Host, f64)> {
            let valid: Vec<_> = tallied
                .iter()
                .filter(|(_, total, _)| *total >= comparison.requests)
                .map(|(host, _, rate)| (*host, *rate))
                .collect();
            if valid.len() >= comparison.hosts {
                valid
            } else {
                Vec::new()
            }
        };
        let valid = enough(&statistics.success_rate);
        if let Some(limit) = lowest_rate(&valid, statistics.deviations) {
            let enforced = statistics.success_rate.enforced[origin];
            for (host, _) in valid.iter().filter(|(_, rate)| *rate < limit) {
                eject(cluster, config, host, kinds.0, enforced);
            }
        }
        for (host, rate) in enough(&statistics.failures) {
            if 100.0 - rate >= statistics.failure_percent {
                let enforced = statistics.failures.enforced[origin];
                eject(cluster, config, host, kinds.1, enforced);
            }
        }
    }
    busy && statistics.wanted(cluster.hosts.len())
}

/// The success rate below which an endpoint stands out.
fn lowest_rate(hosts: &[(&Host, f64)], deviations: f64) -> Option<f64> {
    if hosts.is_empty() {
        return None;
    }
    let count = hosts.len() as f64;
    let mean = hosts.iter().map(|(_, rate)| rate).sum::<f64>() / count;
    let variance = hosts
        .iter()
        .map(|(_, rate)| (rate - mean).powi(2))
        .sum::<f64>()
        / count;
    Some(mean - deviations * variance.sqrt())
}
