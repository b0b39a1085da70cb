//! Collects the statistics of a cluster.

use std::sync::atomic::Ordering;

use lateen_route::balance::Health;

use super::collect::NOT_READY;
use super::sample::Group;
use crate::cluster::{Cluster, Host};
use crate::outlier::ejected_hosts;
use crate::stats::{ClusterStats, Codes, Kind, OutlierStats, SslStats};

/// Adds all statistics of a cluster to its group.
pub(super) fn collect(cluster: &Cluster, group: &mut Group<'_>) {
    traffic(cluster, group);
    membership(cluster, group);
    outliers(cluster, group);
    sticky_sessions(cluster, group);
    circuit_breakers(cluster, group);
}

fn traffic(cluster: &Cluster, group: &mut Group<'_>) {
    ClusterStats::visit(&cluster.shared.stats, &mut |name, kind, value| {
        // As in Envoy, classes of codes appear with their first response.
        if value > 0 || !name.ends_with("xx") {
            group.add(name, kind, value);
        }
    });
    ClusterStats::visit_histograms(&cluster.shared.stats, &mut |name, sums| {
        group.histogram(name, sums);
    });
    Codes::visit(&cluster.shared.codes, &mut |status, count| {
        group.counter(&format!("upstream_rq_{status}"), count);
    });
    SslStats::visit(&cluster.shared.ssl, &mut |name, kind, value| {
        // Clusters without TLS have none of them.
        if value > 0 && name == NOT_READY {
            let name = "client_ssl_socket_factory.upstream_context_secrets_not_ready";
            group.add(name, kind, value);
        } else if value > 0 {
            group.add(&format!("ssl.{name}"), kind, value);
        }
    });
}

fn membership(cluster: &Cluster, group: &mut Group<'_>) {
    let healthy = |host: &Host| host.health == Health::Healthy && !cluster.is_ejected(host);
    let count = cluster.hosts.iter().filter(|host| healthy(host)).count();
    group.gauge("membership_total", cluster.hosts.len() as u64);
    group.gauge("membership_healthy", count as u64);
}

fn outliers(cluster: &Cluster, group: &mut Group<'_>) {
    if cluster.outlier.is_none() {
        return;
    }
    // Counted when asked: endpoints take their marks with them when they leave.
    let active = ejected_hosts(cluster) as u64;
    group.gauge("outlier_detection.ejections_active", active);
    OutlierStats::visit(&cluster.shared.outliers.stats, &mut |name, kind, value| {
        group.add(&format!("outlier_detection.{name}"), kind, value);
    });
}

fn sticky_sessions(cluster: &Cluster, group: &mut Group<'_>) {
    let Some(sticky) = &cluster.sticky else {
        return;
    };
    let mut add =
        |name: &str, kind, value| group.add(&format!("sticky_session.{name}"), kind, value);
    let counts = sticky.table.counts();
    for (name, count) in [
        ("created", &counts.created),
        ("moved", &counts.moved),
        ("expired", &counts.expired),
        ("evicted", &counts.evicted),
    ] {
        add(name, Kind::Counter, count.load(Ordering::Relaxed));
    }
    add("active", Kind::Gauge, sticky.table.len() as u64);
    let Some(store) = &sticky.store else {
        return;
    };
    let counts = &store.counts;
    for (name, kind, count) in [
        ("store_connected", Kind::Gauge, &counts.connected),
        ("store_errors", Kind::Counter, &counts.errors),
        ("store_timeouts", Kind::Counter, &counts.timeouts),
        ("store_adopted", Kind::Counter, &counts.adopted),
    ] {
        add(name, kind, count.load(Ordering::Relaxed));
    }
}

fn circuit_breakers(cluster: &Cluster, group: &mut Group<'_>) {
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
            let name = |stat: &str| format!("circuit_breakers.{priority}.{stat}");
            let left = u64::from(limit.saturating_sub(used.get()));
            group.gauge(&name(open), u64::from(left == 0));
            if limits.track_remaining {
                group.gauge(&name(remaining), left);
            }
        }
    }
}
