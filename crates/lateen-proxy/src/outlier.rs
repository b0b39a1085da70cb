//! Outlier detection: endpoints that keep failing get no requests for a while.
//!
//! Failures are counted for the process, as all workers see the same endpoint fail. An ejection marks the endpoint and
//! raises the cluster's epoch; each balancer is rebuilt when it sees a new epoch. Times are looked at once per interval,
//! by a task that lives only as long as something is ejected or has to be forgiven, so that healthy clusters cost
//! nothing. Source of the rules: Envoy's outlier detection, `xds.md` 3.10.

mod statistics;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub(crate) use statistics::{Comparison, Statistics};
use statistics::{Tally, compare};

use crate::cluster::{Cluster, Host};
use crate::shared::Shared;
use crate::stats::{OutlierStats, PerWorker, Stat};
use crate::worker::Worker;

/// What a cluster says about ejecting endpoints.
#[derive(Debug, Clone)]
pub(crate) struct OutlierConfig {
    /// Responses of 500 to 599.
    pub(crate) five_xx: Consecutive,
    /// Responses of 502, 503 and 504.
    pub(crate) gateway: Consecutive,
    /// Failures to connect or to answer in time, when they are told apart from responses.
    pub(crate) local: Consecutive,
    /// Failures of local origin count by themselves, not as 503 and 504.
    pub(crate) split: bool,
    /// How often ejections are looked over.
    pub(crate) interval: Duration,
    /// Time of the first ejection; each further one in a row lasts this much longer.
    pub(crate) base: Duration,
    /// Longest time, unless `base` is longer.
    pub(crate) longest: Duration,
    /// Most random time that is added, so that endpoints do not return all at once.
    pub(crate) jitter: Duration,
    /// Percent of the endpoints that may be ejected at the same time.
    pub(crate) most_percent: u32,
    /// One may always be ejected, whatever the percentage.
    pub(crate) always_one: bool,
    /// Ejection by what happened in the last interval.
    pub(crate) statistics: Statistics,
}

/// Ejection after this many failures in a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Consecutive {
    /// 0 is never reached.
    pub(crate) failures: u32,
    /// Percent of the times that an ejection follows.
    pub(crate) enforced: u32,
}

/// What happened to a request, or to a connection, of an endpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    /// A response with this status.
    Response(u16),
    /// A connection that carries something else than HTTP.
    Connected,
    /// No response. What was refused on this side, as by a circuit breaker, says nothing about the endpoint and must
    /// not be reported.
    LocalFailure {
        /// The status that it counts as where it is not told apart: 503, or 504 when time ran out.
        status: u16,
        /// There was a connection, though.
        connected: bool,
    },
}

/// The state of an endpoint.
#[derive(Debug, Default)]
pub(crate) struct HostOutlier {
    five_xx: AtomicU32,
    gateway: AtomicU32,
    local: AtomicU32,
    /// What happened in this interval: responses, and failures of local origin when they are told apart.
    tallies: [Tally; 2],
    ejected: AtomicBool,
    history: Mutex<History>,
}

#[derive(Debug, Default)]
struct History {
    /// Ejections in a row, less the intervals without one: what the base time is multiplied with.
    multiplier: u32,
    /// The last ejection and the random time that is added to it.
    since: Option<(Instant, Duration)>,
}

/// The state of a cluster.
#[derive(Debug)]
pub(crate) struct Outliers {
    pub(crate) stats: PerWorker<OutlierStats>,
    /// Raised with every ejection and every return.
    epoch: AtomicU64,
    /// A task looks ejections over. Held while anything is ejected or returns.
    watched: Mutex<bool>,
    /// A copy for requests, which have to know it without a lock.
    looked_after: AtomicBool,
}

impl Outliers {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            stats: PerWorker::new(workers),
            epoch: AtomicU64::new(0),
            watched: Mutex::new(false),
            looked_after: AtomicBool::new(false),
        }
    }

    /// Changes whenever an endpoint is ejected or returns.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }
}

impl HostOutlier {
    pub(crate) fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Acquire)
    }

    fn forgive(&self) {
        reset(&self.five_xx);
        reset(&self.gateway);
        reset(&self.local);
    }
}

/// Which detection has struck.
#[derive(Debug, Clone, Copy)]
enum Kind {
    FiveXx,
    Gateway,
    Local,
    SuccessRate,
    FailurePercentage,
    LocalSuccessRate,
    LocalFailurePercentage,
}

impl Kind {
    fn counters(self, stats: &OutlierStats) -> (&Stat, &Stat) {
        match self {
            Self::FiveXx => (&stats.detected_5xx, &stats.enforced_5xx),
            Self::Gateway => (&stats.detected_gateway, &stats.enforced_gateway),
            Self::Local => (&stats.detected_local, &stats.enforced_local),
            Self::SuccessRate => (&stats.detected_success_rate, &stats.enforced_success_rate),
            Self::FailurePercentage => (
                &stats.detected_failure_percentage,
                &stats.enforced_failure_percentage,
            ),
            Self::LocalSuccessRate => (
                &stats.detected_local_success_rate,
                &stats.enforced_local_success_rate,
            ),
            Self::LocalFailurePercentage => (
                &stats.detected_local_failure_percentage,
                &stats.enforced_local_failure_percentage,
            ),
        }
    }
}

/// Counts an event of an endpoint, and ejects it when it has failed too often.
pub(crate) fn report(worker: &Rc<Worker>, cluster: &Cluster, host: &Host, event: Event) {
    let Some(config) = &cluster.outlier else {
        return;
    };
    let state = &host.shared.outlier;
    if !cluster.shared.outliers.looked_after.load(Ordering::Relaxed)
        && config.statistics.wanted(cluster.hosts.len())
    {
        let mut watched = cluster.shared.outliers.watched.lock();
        watch_over(worker, cluster, config, &mut watched);
    }
    let status = match (event, config.split) {
        (Event::Response(status), split) => {
            if split {
                state.tallies[1].count(true);
                reset(&state.local);
            }
            status
        }
        (Event::Connected, true) => {
            state.tallies[1].count(true);
            return reset(&state.local);
        }
        (Event::Connected, false) => 200,
        (Event::LocalFailure { connected, .. }, true) => {
            if connected {
                state.tallies[1].count(true);
                reset(&state.local);
            }
            state.tallies[1].count(false);
            if reached(&state.local, config.local) {
                detected(worker, cluster, host, Kind::Local, config.local);
            }
            return;
        }
        (Event::LocalFailure { status, .. }, false) => status,
    };
    state.tallies[0].count(status < 500);
    if status < 500 {
        reset(&state.five_xx);
        reset(&state.gateway);
        return;
    }
    if !matches!(status, 502..=504) {
        reset(&state.gateway);
    } else if reached(&state.gateway, config.gateway) {
        detected(worker, cluster, host, Kind::Gateway, config.gateway);
    }
    if reached(&state.five_xx, config.five_xx) {
        detected(worker, cluster, host, Kind::FiveXx, config.five_xx);
    }
}

/// Reading first keeps the cache line shared among workers as long as all is well.
fn reset(counter: &AtomicU32) {
    if counter.load(Ordering::Relaxed) != 0 {
        counter.store(0, Ordering::Relaxed);
    }
}

/// Counts a failure. Exactly one of the workers that count at the same time sees the limit reached.
fn reached(counter: &AtomicU32, limit: Consecutive) -> bool {
    let count = counter.fetch_add(1, Ordering::Relaxed).saturating_add(1);
    let reached = count == limit.failures;
    if reached {
        counter.store(0, Ordering::Relaxed);
    }
    reached
}

/// Ejects an endpoint because of what just happened.
fn detected(worker: &Rc<Worker>, cluster: &Cluster, host: &Host, kind: Kind, limit: Consecutive) {
    let Some(config) = &cluster.outlier else {
        return;
    };
    // Ejections of a cluster happen one after the other, or two workers could exceed the percentage together.
    let mut watched = cluster.shared.outliers.watched.lock();
    if eject(cluster, config, host, kind, limit.enforced) {
        watch_over(worker, cluster, config, &mut watched);
    }
}

/// Ejects an endpoint, unless too many are ejected already or the ejection is not enforced. The caller holds the lock.
fn eject(
    cluster: &Cluster,
    config: &OutlierConfig,
    host: &Host,
    kind: Kind,
    enforced_percent: u32,
) -> bool {
    let outliers = &cluster.shared.outliers;
    let stats = outliers.stats.here();
    let (detected, enforced) = kind.counters(stats);
    let state = &host.shared.outlier;
    if state.is_ejected() {
        return false;
    }
    detected.inc();
    let ejected = ejected_hosts(cluster);
    let percent = (ejected + 1) * 100 / cluster.hosts.len().max(1);
    let allowed = percent <= config.most_percent as usize || (ejected == 0 && config.always_one);
    if !allowed {
        stats.overflow.inc();
        return false;
    }
    if fastrand::u32(0..100) >= enforced_percent {
        return false;
    }
    let mut history = state.history.lock();
    // Beyond the longest time a higher multiplier would only take longer to be forgiven.
    if config.base.saturating_mul(history.multiplier) < config.longest.saturating_add(config.base) {
        history.multiplier += 1;
    }
    history.since = Some((Instant::now(), config.jitter.mul_f64(fastrand::f64())));
    state.ejected.store(true, Ordering::Release);
    outliers.epoch.fetch_add(1, Ordering::AcqRel);
    stats.enforced_total.inc();
    enforced.inc();
    tracing::info!(
        cluster = cluster.name,
        host = host.text,
        ?kind,
        "endpoint ejected"
    );
    true
}

/// Starts the task that looks the cluster over, unless there is one.
fn watch_over(worker: &Rc<Worker>, cluster: &Cluster, config: &OutlierConfig, watched: &mut bool) {
    if std::mem::replace(watched, true) {
        return;
    }
    let outliers = &cluster.shared.outliers;
    outliers.looked_after.store(true, Ordering::Relaxed);
    let watching = watch(
        worker.shared.clone(),
        cluster.name.clone(),
        cluster.shared.id,
        config.interval,
    );
    tokio::task::spawn_local(watching);
}

/// Endpoints that are ejected at present.
pub(crate) fn ejected_hosts(cluster: &Cluster) -> usize {
    let hosts = cluster.hosts.iter();
    hosts.filter(|host| cluster.is_ejected(host)).count()
}

/// Looks the ejections of a cluster over until nothing is left to do.
async fn watch(shared: Arc<Shared>, name: String, id: u64, mut interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        // The cluster may have changed, and its detection with it. One that is gone took its endpoints with it, even
        // when another has its name by now.
        let cluster = shared.clusters.load().get(&name).cloned();
        let Some(cluster) = cluster.filter(|cluster| cluster.shared.id == id) else {
            return;
        };
        let mut watched = cluster.shared.outliers.watched.lock();
        let mut busy = look_over(&cluster, Instant::now());
        if let Some(config) = &cluster.outlier {
            busy |= compare(&cluster, config);
        }
        *watched = busy;
        cluster
            .shared
            .outliers
            .looked_after
            .store(busy, Ordering::Relaxed);
        if !busy {
            return;
        }
        if let Some(config) = &cluster.outlier {
            interval = config.interval;
        }
    }
}

/// Lets endpoints return whose time is over, and forgives those that have not failed since. Says whether there is more
/// to do.
fn look_over(cluster: &Cluster, now: Instant) -> bool {
    let (mut busy, mut changed) = (false, false);
    for host in &cluster.hosts {
        let state = &host.shared.outlier;
        let mut history = state.history.lock();
        let Some(config) = &cluster.outlier else {
            // Detection was switched off: nothing is held against anyone.
            *history = History::default();
            state.forgive();
            changed |= state.ejected.swap(false, Ordering::AcqRel);
            continue;
        };
        if !state.is_ejected() {
            history.multiplier = history.multiplier.saturating_sub(1);
            busy |= history.multiplier > 0;
            continue;
        }
        busy = true;
        let longest = config.base.max(config.longest);
        let time = config.base.saturating_mul(history.multiplier).min(longest);
        let over = history.since.is_none_or(|(since, jitter)| {
            now.saturating_duration_since(since) >= time.saturating_add(jitter)
        });
        if over {
            state.forgive();
            state.ejected.store(false, Ordering::Release);
            changed = true;
            tracing::info!(cluster = cluster.name, host = host.text, "endpoint returns");
        }
    }
    if changed {
        cluster.shared.outliers.epoch.fetch_add(1, Ordering::AcqRel);
    }
    busy
}
