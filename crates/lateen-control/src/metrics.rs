//! Metrics of the control plane under the names of Istio's.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lateen_xds::ResourceType;

use crate::ISTIO_VERSION;

/// Upper bounds of the convergence histogram in seconds: Istio's, and finer ones below, where a laptop's mesh is.
const BOUNDS: [f64; 12] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0,
];

/// A count that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations in buckets.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// One per bound, and one beyond all.
    counts: [Counter; BOUNDS.len() + 1],
    microseconds: Counter,
}

impl Histogram {
    pub(crate) fn observe(&self, value: Duration) {
        let seconds = value.as_secs_f64();
        let bucket = BOUNDS
            .iter()
            .position(|bound| seconds <= *bound)
            .unwrap_or(BOUNDS.len());
        self.counts[bucket].add(1);
        self.microseconds
            .add(u64::try_from(value.as_micros()).unwrap_or(u64::MAX));
    }

    fn write(&self, name: &str, out: &mut String) {
        let mut total = 0;
        for (position, count) in self.counts.iter().enumerate() {
            total += count.get();
            let bound = BOUNDS
                .get(position)
                .map_or_else(|| "+Inf".to_owned(), f64::to_string);
            line(out, &format!("{name}_bucket{{le=\"{bound}\"}}"), total);
        }
        let _ = writeln!(
            out,
            "{name}_sum {}",
            Duration::from_micros(self.microseconds.get()).as_secs_f64()
        );
        line(out, &format!("{name}_count"), total);
    }
}

/// Everything that is counted.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Changes of Kubernetes objects that were applied.
    pub(crate) events: Counter,
    /// From a change to the first response that a concerned proxy is sent for it.
    pub(crate) convergence: Histogram,
    /// Updates that were sent although the proxy had not acknowledged what they build on.
    pub(crate) overdue: Counter,
    pub(crate) injected: Counter,
    pub(crate) injection_skipped: Counter,
    pub(crate) injection_failed: Counter,
    pub(crate) validation_passed: Counter,
    pub(crate) validation_failed: Counter,
    pushes: [Counter; ResourceType::ALL.len()],
    pushed_bytes: [Counter; ResourceType::ALL.len()],
    rejects: [Counter; ResourceType::ALL.len()],
}

impl Metrics {
    pub(crate) fn pushed(&self, kind: ResourceType, bytes: usize) {
        self.pushes[kind as usize].add(1);
        self.pushed_bytes[kind as usize].add(bytes as u64);
    }

    pub(crate) fn rejected(&self, kind: ResourceType) {
        self.rejects[kind as usize].add(1);
    }

    /// The text form of Prometheus, with the number of connected proxies.
    pub(crate) fn text(&self, connected: usize) -> String {
        let mut out = String::new();
        header(
            &mut out,
            "istio_build",
            "gauge",
            "Istio component build info",
        );
        line(
            &mut out,
            &format!("istio_build{{component=\"pilot\",tag=\"{ISTIO_VERSION}\"}}"),
            1,
        );
        header(
            &mut out,
            "pilot_xds",
            "gauge",
            "Number of endpoints connected to this pilot using XDS.",
        );
        line(
            &mut out,
            &format!("pilot_xds{{version=\"{ISTIO_VERSION}\"}}"),
            connected as u64,
        );
        self.by_type(
            &mut out,
            "pilot_xds_pushes",
            "Pilot build and send for each type.",
            &self.pushes,
        );
        self.by_type(
            &mut out,
            "pilot_xds_config_size_bytes_total",
            "Bytes of resources sent.",
            &self.pushed_bytes,
        );
        self.by_type(
            &mut out,
            "pilot_total_xds_rejects",
            "Responses that proxies rejected.",
            &self.rejects,
        );
        let name = "pilot_proxy_convergence_time";
        header(
            &mut out,
            name,
            "histogram",
            "Delay in seconds between config change and a proxy receiving all required configuration.",
        );
        self.convergence.write(name, &mut out);
        header(
            &mut out,
            "pilot_k8s_events_total",
            "counter",
            "Changes of Kubernetes objects that were applied.",
        );
        line(&mut out, "pilot_k8s_events_total", self.events.get());
        let name = "lateen_xds_order_timeouts_total";
        header(
            &mut out,
            name,
            "counter",
            "Updates sent although the proxy had not acknowledged the clusters or routes before them in time.",
        );
        line(&mut out, name, self.overdue.get());
        let injections = [
            (
                "requests_total",
                self.injected.get() + self.injection_skipped.get() + self.injection_failed.get(),
            ),
            ("success_total", self.injected.get()),
            ("skip_total", self.injection_skipped.get()),
            ("failure_total", self.injection_failed.get()),
        ];
        for (suffix, count) in injections {
            let name = format!("sidecar_injection_{suffix}");
            header(&mut out, &name, "counter", "Sidecar injection requests.");
            line(&mut out, &name, count);
        }
        let validations = [
            ("passed", self.validation_passed.get()),
            ("failed", self.validation_failed.get()),
        ];
        for (result, count) in validations {
            let name = format!("galley_validation_{result}");
            header(&mut out, &name, "counter", "Objects that were validated.");
            line(&mut out, &name, count);
        }
        out
    }

    fn by_type(&self, out: &mut String, name: &str, help: &str, counters: &[Counter]) {
        header(out, name, "counter", help);
        for kind in ResourceType::ALL {
            let label = short_name(kind);
            line(
                out,
                &format!("{name}{{type=\"{label}\"}}"),
                counters[kind as usize].get(),
            );
        }
    }
}

/// Istio's short name of a type.
pub(crate) fn short_name(kind: ResourceType) -> &'static str {
    match kind {
        ResourceType::Cluster => "cds",
        ResourceType::Endpoint => "eds",
        ResourceType::Listener => "lds",
        ResourceType::Route => "rds",
        ResourceType::Secret => "sds",
    }
}

// Writing to a string cannot fail.
fn header(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, value: u64) {
    let _ = writeln!(out, "{name} {value}");
}
