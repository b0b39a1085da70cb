//! Series of the metrics: each worker finds its own by a compact key, without a lock and without an allocation when it
//! has been there before. Scrapes add the workers up.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lateen_route::hash::xx64;
use parking_lot::Mutex;

use super::StatsFilter;
use super::facts::Facts;
use crate::histogram::{Histogram, HistogramSums};
use crate::stats::Stat;

/// Label sets that a worker keeps. What comes beyond them is counted together, in series whose labels say `overflow`.
const MOST_SERIES: usize = 8192;

macro_rules! metrics {
    ($($name:ident $text:literal;)*) => {
        /// The standard metrics.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Metric { $($name,)* }

        impl Metric {
            /// All, in the order of their discriminants.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Name without its `istio_`, as filter configurations have it.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

metrics! {
    Requests "requests_total";
    Duration "request_duration_milliseconds";
    RequestBytes "request_bytes";
    ResponseBytes "response_bytes";
    RequestMessages "request_messages_total";
    ResponseMessages "response_messages_total";
    TcpOpened "tcp_connections_opened_total";
    TcpClosed "tcp_connections_closed_total";
    TcpSent "tcp_sent_bytes_total";
    TcpReceived "tcp_received_bytes_total";
}

const COUNT: usize = Metric::ALL.len();

impl Metric {
    /// The metric of this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|metric| metric.name() == name)
    }

    /// Position among the histograms.
    fn histogram(self) -> Option<usize> {
        match self {
            Self::Duration => Some(0),
            Self::RequestBytes => Some(1),
            Self::ResponseBytes => Some(2),
            _ => None,
        }
    }
}

/// The numbers of one label set in one worker.
#[derive(Debug)]
pub(crate) struct Series {
    /// Labels of each metric; they differ only when overrides make them. Nothing: the metric is not reported.
    labels: [Option<Arc<str>>; COUNT],
    counters: [Stat; COUNT],
    /// Of requests; connections have none.
    histograms: Option<Box<[Histogram; 3]>>,
}

impl Series {
    fn new(facts: &Facts<'_>, overflow: bool) -> Self {
        let mut known: Vec<Arc<str>> = Vec::new();
        let mut shared = |text: String| -> Arc<str> {
            match known.iter().find(|other| ***other == *text) {
                Some(same) => same.clone(),
                None => {
                    known.push(text.into());
                    known[known.len() - 1].clone()
                }
            }
        };
        let labels = std::array::from_fn(|index| {
            let metric = Metric::ALL[index];
            facts
                .applies(metric)
                .then(|| facts.labels(metric, overflow))?
                .map(&mut shared)
        });
        Self {
            labels,
            counters: Default::default(),
            histograms: facts.is_request().then(Box::default),
        }
    }

    /// Adds to a counter.
    pub(crate) fn add(&self, metric: Metric, amount: u64) {
        self.counters[metric as usize].add(amount);
    }

    /// Adds a value to a histogram.
    pub(crate) fn observe(&self, metric: Metric, value: u64) {
        if let (Some(all), Some(index)) = (&self.histograms, metric.histogram()) {
            all[index].observe(value);
        }
    }
}

/// The series of one worker.
#[derive(Debug, Default)]
pub(crate) struct WorkerSeries {
    known: RefCell<HashMap<Box<[u8]>, Arc<Series>, Seeded>>,
    key: RefCell<Vec<u8>>,
}

impl WorkerSeries {
    /// The series for these facts.
    pub(crate) fn find(&self, facts: &Facts<'_>, registry: &Registry) -> Arc<Series> {
        let mut key = self.key.borrow_mut();
        key.clear();
        facts.write_key(&mut key);
        let mut known = self.known.borrow_mut();
        if let Some(series) = known.get(key.as_slice()) {
            return series.clone();
        }
        let overflow = known.len() >= MOST_SERIES;
        if overflow {
            registry.overflows.fetch_add(1, Ordering::Relaxed);
            key.clear();
            facts.write_overflow_key(&mut key);
            if let Some(series) = known.get(key.as_slice()) {
                return series.clone();
            }
        }
        let series = Arc::new(Series::new(facts, overflow));
        registry.all.lock().push(series.clone());
        known.insert(key.as_slice().into(), series.clone());
        series
    }
}

/// Hashes keys with a seed of its own, so that nobody outside can choose keys that collide.
#[derive(Debug, Clone)]
struct Seeded(u64);

impl Default for Seeded {
    fn default() -> Self {
        Self(fastrand::u64(..))
    }
}

impl BuildHasher for Seeded {
    type Hasher = XxHasher;

    fn build_hasher(&self) -> XxHasher {
        XxHasher(self.0)
    }
}

struct XxHasher(u64);

impl Hasher for XxHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xx64(bytes, self.0);
    }

    fn write_usize(&mut self, value: usize) {
        self.0 = self.0.rotate_left(5) ^ value as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// All series of the process, and the filters that make them.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    all: Mutex<Vec<Arc<Series>>>,
    filters: Mutex<HashMap<u64, Arc<StatsFilter>>>,
    /// A filter was configured, so that the proxy's version is reported.
    configured: AtomicBool,
    overflows: AtomicU64,
}

impl Registry {
    /// The filter with this configuration.
    pub(crate) fn filter(&self, filter: StatsFilter) -> Arc<StatsFilter> {
        self.configured.store(true, Ordering::Relaxed);
        let mut filters = self.filters.lock();
        filters
            .entry(filter.id)
            .or_insert_with(|| Arc::new(filter))
            .clone()
    }

    /// How often something was counted in the series for all that is too much.
    pub(crate) fn overflows(&self) -> u64 {
        self.overflows.load(Ordering::Relaxed)
    }

    /// Writes all metrics in the Prometheus text format. `version` is the proxy's.
    pub(crate) fn write(&self, version: &str, out: &mut String) {
        if !self.configured.load(Ordering::Relaxed) {
            return;
        }
        let version = if version.is_empty() {
            "unknown"
        } else {
            version
        };
        let _ = writeln!(out, "# TYPE istio_build gauge");
        let _ = writeln!(
            out,
            "istio_build{{component=\"proxy\",tag=\"{version}\"}} 1"
        );
        let all = self.all.lock();
        for metric in Metric::ALL {
            let name = metric.name();
            let index = *metric as usize;
            let of_metric = all
                .iter()
                .filter_map(|series| Some((series, series.labels[index].clone()?)));
            if let Some(histogram) = metric.histogram() {
                let mut sums: BTreeMap<Arc<str>, HistogramSums> = BTreeMap::new();
                for (series, labels) in of_metric {
                    if let Some(histograms) = &series.histograms {
                        histograms[histogram].merge_into(sums.entry(labels).or_default());
                    }
                }
                sums.retain(|_, sums| sums.count() > 0);
                if !sums.is_empty() {
                    let _ = writeln!(out, "# TYPE istio_{name} histogram");
                }
                for (labels, sums) in &sums {
                    sums.write(&format!("istio_{name}"), labels, out);
                }
                continue;
            }
            let mut sums: BTreeMap<Arc<str>, u64> = BTreeMap::new();
            for (series, labels) in of_metric {
                let sum = sums.entry(labels).or_default();
                *sum = sum.wrapping_add(series.counters[index].get());
            }
            if !sums.is_empty() {
                let _ = writeln!(out, "# TYPE istio_{name} counter");
            }
            for (labels, sum) in &sums {
                let _ = writeln!(out, "istio_{name}{{{labels}}} {sum}");
            }
        }
    }
}
