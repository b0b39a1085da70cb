//! `/stats` in its formats.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use regex::Regex;
use serde_json::json;

use super::{Query, pretty};
use crate::outlier::ejected_hosts;
use crate::shared::Shared;
use crate::stats::{ClusterStats, HttpStats, Kind, ListenerStats, OutlierStats, TcpStats};

/// One number.
struct Sample {
    /// Envoy's full name.
    name: String,
    /// The same for Prometheus: name without the part that becomes a label, and the label.
    family: String,
    label: Option<(&'static str, String)>,
    kind: Kind,
    value: u64,
}

/// `name: value` lines.
pub(super) fn text(shared: &Shared, query: &Query<'_>) -> String {
    let mut out = String::new();
    for sample in selected(shared, query) {
        let _ = writeln!(out, "{}: {}", sample.name, sample.value);
    }
    out
}

/// A JSON list.
pub(super) fn json(shared: &Shared, query: &Query<'_>) -> String {
    let stats: Vec<_> = selected(shared, query)
        .into_iter()
        .map(|sample| json!({ "name": sample.name, "value": sample.value }))
        .collect();
    pretty(&json!({ "stats": stats }))
}

/// The Prometheus text format.
pub(super) fn prometheus(shared: &Shared, query: &Query<'_>) -> String {
    let mut samples = selected(shared, query);
    samples.sort_by(|left, right| left.family.cmp(&right.family));
    let mut out = String::new();
    let mut last = String::new();
    for sample in samples {
        if sample.family != last {
            let kind = match sample.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            let _ = writeln!(out, "# TYPE {} {kind}", sample.family);
            last.clone_from(&sample.family);
        }
        let labels = sample.label.map_or_else(String::new, |(name, value)| {
            let escaped = value
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            format!("{name}=\"{escaped}\"")
        });
        let _ = writeln!(out, "{}{{{labels}}} {}", sample.family, sample.value);
    }
    if !query.has("filter") {
        shared
            .names
            .telemetry
            .write(&shared.identity.version, &mut out);
    }
    out
}

/// All samples that the query asks for, by name.
fn selected(shared: &Shared, query: &Query<'_>) -> Vec<Sample> {
    let filter = query
        .decoded("filter")
        .and_then(|filter| Regex::new(&filter).ok());
    let used_only = query.has("usedonly");
    let mut samples = collect(shared);
    samples.retain(|sample| {
        (!used_only || sample.value > 0)
            && filter
                .as_ref()
                .is_none_or(|filter| filter.is_match(&sample.name))
    });
    samples.sort_by(|left, right| left.name.cmp(&right.name));
    samples
}

fn collect(shared: &Shared) -> Vec<Sample> {
    let mut samples = Vec::new();
    clusters(shared, &mut samples);
    for (prefix, stats) in shared.names.http.lock().iter() {
        HttpStats::visit(stats, &mut |name, kind, value| {
            let label = Some(("envoy_http_conn_manager_prefix", prefix.clone()));
            push(&mut samples, "http", prefix, label, name, kind, value);
        });
    }
    for (prefix, stats) in shared.names.tcp.lock().iter() {
        TcpStats::visit(stats, &mut |name, kind, value| {
            let label = Some(("envoy_tcp_prefix", prefix.clone()));
            push(&mut samples, "tcp", prefix, label, name, kind, value);
        });
    }
    for (address, stats) in shared.names.listeners.lock().iter() {
        let address = address.replace(':', "_");
        ListenerStats::visit(stats, &mut |name, kind, value| {
            let label = Some(("envoy_listener_address", address.clone()));
            push(&mut samples, "listener", &address, label, name, kind, value);
        });
    }
    process(shared, &mut samples);
    samples
}

fn clusters(shared: &Shared, samples: &mut Vec<Sample>) {
    for (name, cluster) in shared.clusters.load().iter() {
        let mut add = |stat: &str, kind, value| {
            let label = Some(("cluster_name", name.clone()));
            push(samples, "cluster", name, label, stat, kind, value);
        };
        ClusterStats::visit(&cluster.shared.stats, &mut |stat, kind, value| {
            add(stat, kind, value)
        });
        let healthy = |host: &&std::sync::Arc<crate::cluster::Host>| {
            host.health == lateen_route::balance::Health::Healthy && !cluster.is_ejected(host)
        };
        add("membership_total", Kind::Gauge, cluster.hosts.len() as u64);
        add(
            "membership_healthy",
            Kind::Gauge,
            cluster.hosts.iter().filter(healthy).count() as u64,
        );
        if cluster.outlier.is_some() {
            // Counted when asked: endpoints take their marks with them when they leave.
            let active = ejected_hosts(cluster) as u64;
            add("outlier_detection.ejections_active", Kind::Gauge, active);
            OutlierStats::visit(&cluster.shared.outliers.stats, &mut |stat, kind, value| {
                add(&format!("outlier_detection.{stat}"), kind, value);
            });
        }
        let of_priorities = cluster.limits.iter().zip(&cluster.shared.used);
        for (priority, (limits, used)) in ["default", "high"].iter().zip(of_priorities) {
            for (open, remaining, used, limit) in [
                (
                    "cx_open",
                    "remaining_cx",
                    &used.connections,
                    limits.connections,
                ),
                (
                    "rq_pending_open",
                    "remaining_pending",
                    &used.pending,
                    limits.pending,
                ),
                ("rq_open", "remaining_rq", &used.requests, limits.requests),
                (
                    "rq_retry_open",
                    "remaining_retries",
                    &used.retries,
                    limits.most_retries(used),
                ),
            ] {
                let group = format!("circuit_breakers.{priority}");
                let left = u64::from(limit.saturating_sub(used.get()));
                add(
                    &format!("{group}.{open}"),
                    Kind::Gauge,
                    u64::from(left == 0),
                );
                if limits.track_remaining {
                    add(&format!("{group}.{remaining}"), Kind::Gauge, left);
                }
            }
        }
    }
}

fn process(shared: &Shared, samples: &mut Vec<Sample>) {
    let updates = &shared.updates;
    let load = |value: &std::sync::atomic::AtomicU64| value.load(Ordering::Relaxed);
    let mut add = |group: &str, name: &str, kind, value| {
        push(samples, group, "", None, name, kind, value);
    };
    for (group, counts) in [
        ("cluster_manager.cds", &updates.cluster),
        ("cluster_manager.eds", &updates.endpoint),
        ("listener_manager.lds", &updates.listener),
        ("listener_manager.rds", &updates.route),
    ] {
        let (success, rejected) = (load(&counts.success), load(&counts.rejected));
        add(group, "update_success", Kind::Counter, success);
        add(group, "update_rejected", Kind::Counter, rejected);
        add(group, "update_attempt", Kind::Counter, success + rejected);
    }
    let warming = updates.clusters_warming.load(Ordering::Relaxed) as u64;
    add("cluster_manager", "warming_clusters", Kind::Gauge, warming);
    add(
        "cluster_manager",
        "active_clusters",
        Kind::Gauge,
        shared.clusters.load().len() as u64,
    );
    let warming = updates.listeners_warming.load(Ordering::Relaxed) as u64;
    add(
        "listener_manager",
        "total_listeners_warming",
        Kind::Gauge,
        warming,
    );
    let active = shared.listeners.load().by_name.len() as u64;
    add(
        "listener_manager",
        "total_listeners_active",
        Kind::Gauge,
        active,
    );
    add("listener_manager", "workers_started", Kind::Gauge, 1);
    let connected = u64::from(updates.connected.load(Ordering::Relaxed));
    add("control_plane", "connected_state", Kind::Gauge, connected);
    let live = shared.is_live() && !shared.is_draining();
    add("server", "live", Kind::Gauge, u64::from(live));
    // Envoy's numbers: 0 live, 1 draining, 2 before initialisation.
    let state = if shared.is_draining() {
        1
    } else if shared.is_live() {
        0
    } else {
        2
    };
    add("server", "state", Kind::Gauge, state);
    add(
        "server",
        "concurrency",
        Kind::Gauge,
        shared.workers.len() as u64,
    );
    add(
        "server",
        "uptime",
        Kind::Gauge,
        shared.started.elapsed().as_secs(),
    );
    let overflows = shared.names.telemetry.overflows();
    add("istio_stats", "series_overflow", Kind::Counter, overflows);
    let connections = shared.connections.load(Ordering::Relaxed) as u64;
    add("server", "total_connections", Kind::Gauge, connections);
    add(
        "access_log",
        "lines_dropped",
        Kind::Counter,
        shared.names.logs.dropped(),
    );
}

fn push(
    samples: &mut Vec<Sample>,
    group: &str,
    instance: &str,
    label: Option<(&'static str, String)>,
    name: &str,
    kind: Kind,
    value: u64,
) {
    let full = if instance.is_empty() {
        format!("{group}.{name}")
    } else {
        format!("{group}.{instance}.{name}")
    };
    let family = format!("envoy_{group}_{name}").replace(['.', '-', ';'], "_");
    samples.push(Sample {
        name: full,
        family,
        label,
        kind,
        value,
    });
}
