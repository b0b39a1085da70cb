//! What is told: the shape of `hey` and fortio for people, and the same numbers as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::plan::Plan;
use super::worker::Outcome;

const PERCENTILES: [f64; 8] = [10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9];
/// Lines of the histogram, and columns of its longest bar.
const BARS: (u64, u64) = (10, 40);

/// The numbers of all workers.
pub(crate) struct Report {
    plan: Arc<Plan>,
    all: Outcome,
    took: Duration,
}

impl Report {
    pub(super) fn new(plan: Arc<Plan>) -> Self {
        Self {
            plan,
            all: Outcome::default(),
            took: Duration::ZERO,
        }
    }

    /// Adds what a worker has seen.
    pub(super) fn add(&mut self, outcome: Outcome) {
        // Both have the same bounds.
        let _ = self.all.times.add(&outcome.times);
        for (code, count) in outcome.codes {
            *self.all.codes.entry(code).or_default() += count;
        }
        for (error, count) in outcome.errors {
            *self.all.errors.entry(error).or_default() += count;
        }
        self.all.bytes += outcome.bytes;
        self.all.connections += outcome.connections;
    }

    pub(super) fn took(&mut self, time: Duration) {
        self.took = time;
    }

    /// Whether any request was answered.
    pub(super) fn has_answers(&self) -> bool {
        !self.all.times.is_empty()
    }

    fn per_second(&self) -> f64 {
        self.all.times.len() as f64 / self.took.as_secs_f64().max(1e-9)
    }

    /// For programs. Times are seconds.
    pub(super) fn json(&self) -> Value {
        let times = &self.all.times;
        let percentiles: BTreeMap<String, f64> = PERCENTILES
            .into_iter()
            .map(|percentile| {
                (
                    percentile.to_string(),
                    seconds(times.value_at_percentile(percentile)),
                )
            })
            .collect();
        let codes: BTreeMap<String, u64> = self
            .all
            .codes
            .iter()
            .map(|(code, count)| (code.to_string(), *count))
            .collect();
        let histogram: Vec<Value> = bars(times)
            .into_iter()
            .map(|(up_to, count)| json!({"upTo": seconds(up_to), "count": count}))
            .collect();
        json!({
            "url": self.plan.url.to_string(),
            "connections": self.plan.connections,
            "rate": self.plan.rate,
            "seconds": self.took.as_secs_f64(),
            "answers": times.len(),
            "answersPerSecond": self.per_second(),
            "bytes": self.all.bytes,
            "sockets": self.all.connections,
            "fastest": seconds(times.min()),
            "average": times.mean() / 1e6,
            "slowest": seconds(times.max()),
            "percentiles": percentiles,
            "histogram": histogram,
            "codes": codes,
            "errors": self.all.errors,
        })
    }

    /// For people. Writing to a text cannot fail.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        let times = &self.all.times;
        let answers = times.len();
        let failed: u64 = self.all.errors.values().sum();
        let _ = writeln!(out, "Summary:");
        let mut line = |name: &str, value: String| {
            let _ = writeln!(out, "  {name:<14}{value}");
        };
        line("Total:", format!("{:.4} secs", self.took.as_secs_f64()));
        if answers > 0 {
            line("Slowest:", format!("{:.4} secs", seconds(times.max())));
            line("Fastest:", format!("{:.4} secs", seconds(times.min())));
            line("Average:", format!("{:.4} secs", times.mean() / 1e6));
        }
        line("Requests/sec:", format!("{:.4}", self.per_second()));
        line("Total data:", format!("{} bytes", self.all.bytes));
        line(
            "Sockets used:",
            format!(
                "{} (for perfect keepalive, would be {})",
                self.all.connections, self.plan.connections
            ),
        );
        if answers > 0 {
            let _ = writeln!(out, "\nResponse time histogram:");
            let found = bars(times);
            let most = found
                .iter()
                .map(|(_, count)| *count)
                .max()
                .unwrap_or(1)
                .max(1);
            for (up_to, count) in found {
                let bar = "■".repeat((count * BARS.1).div_ceil(most) as usize);
                let _ = writeln!(out, "  {:.4} [{count}]\t|{bar}", seconds(up_to));
            }
            let _ = writeln!(out, "\nLatency distribution:");
            for percentile in PERCENTILES {
                let at = seconds(times.value_at_percentile(percentile));
                let _ = writeln!(out, "  {percentile}% in {at:.4} secs");
            }
            let _ = writeln!(out, "\nStatus code distribution:");
            for (code, count) in &self.all.codes {
                let share = *count as f64 * 100.0 / (answers + failed) as f64;
                let _ = writeln!(out, "  [{code}] {count} responses ({share:.1} %)");
            }
        }
        if failed > 0 {
            let _ = writeln!(out, "\nError distribution:");
            for (error, count) in &self.all.errors {
                let _ = writeln!(out, "  [{count}] {error}");
            }
        }
        out
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// Equal steps from the fastest to the slowest answer, each with its end and the answers within it.
fn bars(times: &Histogram<u64>) -> Vec<(u64, u64)> {
    if times.is_empty() {
        return Vec::new();
    }
    let (least, most) = (times.min(), times.max());
    let step = (most - least).div_ceil(BARS.0).max(1);
    let mut found = Vec::new();
    let mut from = 0;
    for number in 1..=BARS.0 {
        let to = (least + step * number).min(most);
        found.push((to, times.count_between(from, to)));
        if to >= most {
            break;
        }
        from = to + 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::worker::times;

    #[test]
    fn every_answer_is_in_one_bar() {
        let check = |micros: &[u64], bars_expected: usize| {
            let mut all = times();
            for time in micros {
                all.saturating_record(*time);
            }
            let found = bars(&all);
            assert_eq!(found.len(), bars_expected, "{micros:?}");
            let sum: u64 = found.iter().map(|(_, count)| count).sum();
            assert_eq!(sum, micros.len() as u64, "{found:?}");
        };
        check(&[], 0);
        check(&[700], 1);
        check(&[700, 700, 701], 1);
        check(&[100, 200, 300, 1100], 10);
    }
}
