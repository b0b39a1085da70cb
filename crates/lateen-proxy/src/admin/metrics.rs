//! `/stats` in its formats.

mod cluster;
mod collect;
mod sample;

use std::fmt::Write;

use regex::Regex;
use serde_json::{Value, json};

use collect::collect;
use sample::{Number, Sample};

use super::query::Query;
use super::reply::pretty;
use crate::histogram::{BUCKETS, HistogramSums};
use crate::prometheus::write_label;
use crate::shared::Shared;

/// Quantiles that histograms are shown by, in percent.
const QUANTILES: [f64; 10] = [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];

/// What a query asks for that cannot be answered, as the text of the answer.
pub(super) type Refused = &'static str;

/// `name: value` lines.
pub(super) fn text(shared: &Shared, query: &Query<'_>) -> Result<String, Refused> {
    let buckets = query.get("histogram_buckets");
    if !matches!(
        buckets,
        None | Some("" | "summary" | "cumulative" | "disjoint")
    ) {
        return Err("usage: /stats?histogram_buckets=(summary|cumulative|disjoint)\n");
    }
    let (mut out, mut histograms) = (String::new(), String::new());
    for sample in selected(shared, query)? {
        let name = sample.name;
        match sample.number {
            Number::Counter(value) | Number::Gauge(value) => {
                let _ = writeln!(out, "{name}: {value}");
            }
            Number::Histogram(sums) => {
                let _ = writeln!(histograms, "{name}: {}", histogram(&sums, buckets));
            }
        }
    }
    Ok(out + &histograms)
}

/// A histogram in a line: interval and total of each quantile or bucket. Intervals are not kept.
fn histogram(sums: &HistogramSums, buckets: Option<&str>) -> String {
    if sums.count() == 0 {
        return "No recorded values".to_owned();
    }
    let mut parts = Vec::new();
    match buckets {
        None | Some("" | "summary") => {
            for percent in QUANTILES {
                let value = sums.quantile(percent / 100.0);
                parts.push(format!("P{percent}(nan,{})", rounded(value)));
            }
        }
        Some(mode) => {
            let mut total = 0;
            for (bound, count) in BUCKETS.iter().zip(&sums.buckets) {
                total += count;
                let shown = if mode == "disjoint" { *count } else { total };
                parts.push(format!("B{bound}(0,{shown})"));
            }
        }
    }
    parts.join(" ")
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// A JSON list.
pub(super) fn json(shared: &Shared, query: &Query<'_>) -> Result<String, Refused> {
    let (mut stats, mut computed): (Vec<Value>, Vec<Value>) = Default::default();
    for sample in selected(shared, query)? {
        match sample.number {
            Number::Counter(value) | Number::Gauge(value) => {
                stats.push(json!({ "name": sample.name, "value": value }));
            }
            Number::Histogram(sums) => {
                let value = |percent: f64| match sums.count() {
                    0 => json!({ "interval": null, "cumulative": null }),
                    _ => json!({
                        "interval": null,
                        "cumulative": rounded(sums.quantile(percent / 100.0)),
                    }),
                };
                let values: Vec<_> = QUANTILES.into_iter().map(value).collect();
                computed.push(json!({ "name": sample.name, "values": values }));
            }
        }
    }
    if !computed.is_empty() {
        stats.push(json!({ "histograms": {
            "supported_quantiles": QUANTILES,
            "computed_quantiles": computed,
        }}));
    }
    Ok(pretty(&json!({ "stats": stats })))
}

/// The Prometheus text format.
pub(super) fn prometheus(shared: &Shared, query: &Query<'_>) -> Result<String, Refused> {
    let mut samples = selected(shared, query)?;
    samples.sort_by(|left, right| left.family.cmp(&right.family));
    let mut out = String::new();
    let (mut last, mut labels) = (String::new(), String::new());
    for sample in samples {
        if sample.family != last {
            let kind = match sample.number {
                Number::Counter(_) => "counter",
                Number::Gauge(_) => "gauge",
                Number::Histogram(_) => "histogram",
            };
            let _ = writeln!(out, "# TYPE {} {kind}", sample.family);
            last.clone_from(&sample.family);
        }
        labels.clear();
        for (name, value) in &sample.labels {
            write_label(name, value, &mut labels);
        }
        match sample.number {
            Number::Counter(value) | Number::Gauge(value) => {
                let _ = writeln!(out, "{}{{{labels}}} {value}", sample.family);
            }
            Number::Histogram(sums) => sums.write(&sample.family, &labels, &mut out),
        }
    }
    if !query.has("filter") {
        let version = &shared.identity.version;
        shared.names.telemetry.write(version, &mut out);
    }
    Ok(out)
}

/// Remembers the counters, so that they are shown from zero. They themselves go on: only their workers write them.
pub(super) fn reset_counters(shared: &Shared) {
    let mut base = shared.names.counter_base.lock();
    base.clear();
    for sample in collect(shared) {
        if let Number::Counter(value) = sample.number {
            base.insert(sample.name, value);
        }
    }
}

/// All samples that the query asks for, by name.
fn selected(shared: &Shared, query: &Query<'_>) -> Result<Vec<Sample>, Refused> {
    let filter = query.decoded("filter").filter(|filter| !filter.is_empty());
    let filter = filter.map(|filter| Regex::new(&filter)).transpose();
    let filter = filter.map_err(|_| "Invalid re2 regex\n")?;
    let inverted = query.has("invert_filter");
    let kind = query
        .get("type")
        .filter(|kind| !matches!(*kind, "" | "All"));
    if !matches!(
        kind,
        None | Some("Counters" | "Gauges" | "Histograms" | "TextReadouts")
    ) {
        return Err("usage: /stats?type=(All|Counters|Histograms|Gauges|TextReadouts)\n");
    }
    let used_only = query.has("usedonly");
    let mut samples = collect(shared);
    {
        let base = shared.names.counter_base.lock();
        for sample in &mut samples {
            if let Number::Counter(value) = &mut sample.number {
                *value = value.wrapping_sub(base.get(&sample.name).copied().unwrap_or(0));
            }
        }
    }
    samples.retain(|sample| {
        (!used_only || sample.number.is_used())
            && kind.is_none_or(|kind| kind == sample.number.kind())
            && filter
                .as_ref()
                .is_none_or(|filter| filter.is_match(&sample.name) != inverted)
    });
    samples.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(samples)
}
