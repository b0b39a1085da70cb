//! `/stats` in its formats.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use regex::Regex;
use serde_json::{Value, json};

use super::{Query, pretty};
use crate::histogram::{BUCKETS, HistogramSums};
use crate::outlier::ejected_hosts;
use crate::shared::Shared;
use crate::stats::{
    ClusterStats, Codes, HttpStats, Kind, ListenerStats, OutlierStats, ProxyProtocolStats,
    SslStats, TcpStats,
};

/// Counted beside the others of TLS, and shown among those of the socket's factory, as in Envoy.
const NOT_READY: &str = "secrets_not_ready";

/// Quantiles that histograms are shown by, in percent.
const QUANTILES: [f64; 10] = [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];

/// One statistic.
struct Sample {
    /// Envoy's full name.
    name: String,
    /// The same for Prometheus: name without the parts that become labels, and the labels.
    family: String,
    labels: Vec<(&'static str, String)>,
    number: Number,
}

/// What a statistic holds.
enum Number {
    Counter(u64),
    Gauge(u64),
    Histogram(Box<HistogramSums>),
}

impl Number {
    fn is_used(&self) -> bool {
        match self {
            Self::Counter(value) | Self::Gauge(value) => *value > 0,
            Self::Histogram(sums) => sums.count() > 0,
        }
    }

    /// The kind as the query's `type` names it.
    fn kind(&self) -> &'static str {
        match self {
            Self::Counter(_) => "Counters",
            Self::Gauge(_) => "Gauges",
            Self::Histogram(_) => "Histograms",
        }
    }
}

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
    let mut last = String::new();
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
        let labels: Vec<_> = sample
            .labels
            .iter()
            .map(|(name, value)| {
                let escaped = value
                    .replace('\\', "\\\\")
                    .replace('"', "\\\"")
                    .replace('\n', "\\n");
                format!("{name}=\"{escaped}\"")
            })
            .collect();
        let labels = labels.join(",");
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

fn collect(shared: &Shared) -> Vec<Sample> {
    let mut samples = Vec::new();
    clusters(shared, &mut samples);
    for (prefix, stats) in shared.names.http.lock().iter() {
        HttpStats::visit(stats, &mut |name, kind, value| {
            let label = Some(("envoy_http_conn_manager_prefix", prefix.clone()));
            push(&mut samples, "http", prefix, label, name, kind, value);
        });
        HttpStats::visit_histograms(stats, &mut |name, sums| {
            let label = Some(("envoy_http_conn_manager_prefix", prefix.clone()));
            push_histogram(&mut samples, "http", prefix, label, name, sums);
        });
    }
    for (prefix, stats) in shared.names.tcp.lock().iter() {
        TcpStats::visit(stats, &mut |name, kind, value| {
            let label = Some(("envoy_tcp_prefix", prefix.clone()));
            push(&mut samples, "tcp", prefix, label, name, kind, value);
        });
    }
    for (prefix, stats) in shared.names.proxy_protocol.lock().iter() {
        ProxyProtocolStats::visit(stats, &mut |name, kind, value| {
            let label =
                (!prefix.is_empty()).then(|| ("envoy_proxy_protocol_prefix", prefix.clone()));
            push(
                &mut samples,
                "proxy_proto",
                prefix,
                label,
                name,
                kind,
                value,
            );
        });
    }
    for (address, stats) in shared.names.listeners.lock().iter() {
        let address = address.replace(':', "_");
        ListenerStats::visit(stats, &mut |name, kind, value| {
            let label = Some(("envoy_listener_address", address.clone()));
            push(&mut samples, "listener", &address, label, name, kind, value);
        });
        ListenerStats::visit_histograms(stats, &mut |name, sums| {
            let label = Some(("envoy_listener_address", address.clone()));
            push_histogram(&mut samples, "listener", &address, label, name, sums);
        });
    }
    for (address, stats) in shared.names.listeners_ssl.lock().iter() {
        let address = address.replace(':', "_");
        SslStats::visit(stats, &mut |name, kind, value| {
            let label = Some(("envoy_listener_address", address.clone()));
            let name = match name {
                NOT_READY => {
                    "server_ssl_socket_factory.downstream_context_secrets_not_ready".to_owned()
                }
                name => format!("ssl.{name}"),
            };
            push(
                &mut samples,
                "listener",
                &address,
                label,
                &name,
                kind,
                value,
            );
        });
    }
    process(shared, &mut samples);
    samples
}

fn clusters(shared: &Shared, samples: &mut Vec<Sample>) {
    let mut histograms = Vec::new();
    for (name, cluster) in shared.clusters.load().iter() {
        let mut add = |stat: &str, kind, value| {
            let label = Some(("cluster_name", name.clone()));
            push(samples, "cluster", name, label, stat, kind, value);
        };
        ClusterStats::visit(&cluster.shared.stats, &mut |stat, kind, value| {
            // As in Envoy, classes of codes appear with their first response.
            if value > 0 || !stat.ends_with("xx") {
                add(stat, kind, value);
            }
        });
        Codes::visit(&cluster.shared.codes, &mut |status, count| {
            add(&format!("upstream_rq_{status}"), Kind::Counter, count);
        });
        SslStats::visit(&cluster.shared.ssl, &mut |stat, kind, value| {
            // Clusters without TLS have none of them.
            if value > 0 && stat == NOT_READY {
                let stat = "client_ssl_socket_factory.upstream_context_secrets_not_ready";
                add(stat, kind, value);
            } else if value > 0 {
                add(&format!("ssl.{stat}"), kind, value);
            }
        });
        ClusterStats::visit_histograms(&cluster.shared.stats, &mut |stat, sums| {
            let label = Some(("cluster_name", name.clone()));
            histograms.push((label, name.clone(), stat, sums));
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
        if let Some(sticky) = &cluster.sticky {
            let counts = sticky.table.counts();
            for (stat, count) in [
                ("created", &counts.created),
                ("moved", &counts.moved),
                ("expired", &counts.expired),
                ("evicted", &counts.evicted),
            ] {
                let count = count.load(Ordering::Relaxed);
                add(&format!("sticky_session.{stat}"), Kind::Counter, count);
            }
            let active = sticky.table.len() as u64;
            add("sticky_session.active", Kind::Gauge, active);
            if let Some(store) = &sticky.store {
                let counts = &store.counts;
                for (stat, kind, count) in [
                    ("store_connected", Kind::Gauge, &counts.connected),
                    ("store_errors", Kind::Counter, &counts.errors),
                    ("store_timeouts", Kind::Counter, &counts.timeouts),
                    ("store_adopted", Kind::Counter, &counts.adopted),
                ] {
                    let count = count.load(Ordering::Relaxed);
                    add(&format!("sticky_session.{stat}"), kind, count);
                }
            }
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
    for (label, name, stat, sums) in histograms {
        push_histogram(samples, "cluster", &name, label, stat, sums);
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
    let live = shared.is_ready();
    add("server", "live", Kind::Gauge, u64::from(live));
    // Envoy's numbers: 0 live, 1 draining, 2 before initialisation.
    let state = if shared.is_draining() || shared.is_failing() {
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
    let number = match kind {
        Kind::Counter => Number::Counter(value),
        Kind::Gauge => Number::Gauge(value),
    };
    samples.push(sample(group, instance, label, name, number));
}

fn push_histogram(
    samples: &mut Vec<Sample>,
    group: &str,
    instance: &str,
    label: Option<(&'static str, String)>,
    name: &str,
    sums: HistogramSums,
) {
    let number = Number::Histogram(Box::new(sums));
    samples.push(sample(group, instance, label, name, number));
}

/// Names a statistic. As in Envoy, the class or the number of a response code becomes a label, too.
fn sample(
    group: &str,
    instance: &str,
    label: Option<(&'static str, String)>,
    name: &str,
    number: Number,
) -> Sample {
    let full = if instance.is_empty() {
        format!("{group}.{name}")
    } else {
        format!("{group}.{instance}.{name}")
    };
    let mut labels: Vec<_> = label.into_iter().collect();
    let (stem, last) = name.rsplit_once('_').unwrap_or((name, ""));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let family = match last.strip_suffix("xx") {
        Some(class) if stem.ends_with("_rq") && digits(class) => {
            labels.insert(0, ("envoy_response_code_class", class.to_owned()));
            format!("{stem}_xx")
        }
        None if stem.ends_with("_rq") && last.len() == 3 && digits(last) => {
            labels.insert(0, ("envoy_response_code", last.to_owned()));
            stem.to_owned()
        }
        _ => name.to_owned(),
    };
    Sample {
        name: full,
        family: format!("envoy_{group}_{family}").replace(['.', '-', ';'], "_"),
        labels,
        number,
    }
}
