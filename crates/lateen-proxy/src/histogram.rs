//! Histograms with Envoy's buckets, counted by one thread and added up when asked for.

use std::fmt::Write;
use std::sync::OnceLock;

use crate::stats::Stat;

/// Upper bounds of the histograms' buckets, as Envoy has them, for milliseconds and bytes alike.
pub(crate) const BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10000.0,
    30000.0,
    60000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Counts of values by size. The counts are of each bucket alone; scrapes add them up.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [Stat; BUCKETS.len() + 1],
    sum: Stat,
}

impl Histogram {
    /// Counts a value.
    pub(crate) fn observe(&self, value: u64) {
        let number = value as f64;
        let bucket = BUCKETS.partition_point(|bound| *bound < number);
        self.buckets[bucket].inc();
        self.sum.add(value);
    }

    /// Adds the counts to those of others.
    pub(crate) fn merge_into(&self, sums: &mut HistogramSums) {
        for (sum, bucket) in sums.buckets.iter_mut().zip(&self.buckets) {
            *sum = sum.wrapping_add(bucket.get());
        }
        sums.sum = sums.sum.wrapping_add(self.sum.get());
    }
}

/// A histogram added up over workers.
#[derive(Debug, Clone, Default)]
pub(crate) struct HistogramSums {
    pub(crate) buckets: [u64; BUCKETS.len() + 1],
    pub(crate) sum: u64,
}

impl HistogramSums {
    /// The value that a share of the values does not exceed, as far as buckets tell: evenly spread within its bucket.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let wanted = self.count() as f64 * share;
        let (mut below, mut lower) = (0.0, 0.0);
        for (count, upper) in self.buckets.iter().zip(BUCKETS) {
            let count = *count as f64;
            if count > 0.0 && below + count >= wanted {
                return lower + (upper - lower) * ((wanted - below) / count).clamp(0.0, 1.0);
            }
            below += count;
            lower = upper;
        }
        lower
    }

    /// Number of values.
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Writes it in the Prometheus text format. `labels` is without braces and may be empty.
    pub(crate) fn write(&self, name: &str, labels: &str, out: &mut String) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut total = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            total += count;
            let _ = match BUCKETS.get(index) {
                Some(bound) => {
                    writeln!(
                        out,
                        "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {total}"
                    )
                }
                None => writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {total}"),
            };
        }
        let _ = writeln!(out, "{name}_sum{{{labels}}} {}", self.sum);
        let _ = writeln!(out, "{name}_count{{{labels}}} {total}");
    }
}

/// A histogram that takes room with its first value: most clusters of a mesh are never used.
#[derive(Debug, Default)]
pub(crate) struct LazyHistogram(OnceLock<Box<Histogram>>);

impl LazyHistogram {
    /// Counts a value.
    pub(crate) fn observe(&self, value: u64) {
        self.0.get_or_init(Box::default).observe(value);
    }

    /// Adds the counts to those of others.
    pub(crate) fn merge_into(&self, sums: &mut HistogramSums) {
        if let Some(histogram) = self.0.get() {
            histogram.merge_into(sums);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_in_the_bucket_of_their_value() {
        let histogram = LazyHistogram::default();
        for value in 0..100 {
            histogram.observe(value);
        }
        let mut sums = HistogramSums::default();
        histogram.merge_into(&mut sums);
        assert_eq!((sums.count(), sums.sum), (100, 4950));
        for (share, low, high) in [
            (0.0, 0.0, 0.5),
            (0.5, 40.0, 60.0),
            (0.99, 90.0, 100.0),
            (1.0, 99.0, 100.0),
        ] {
            let value = sums.quantile(share);
            assert!((low..=high).contains(&value), "{share}: {value}");
        }
        assert_eq!(HistogramSums::default().quantile(0.5), 3_600_000.0);
    }
}
