//! Collects the statistics of everything but clusters.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::cluster;
use super::sample::{Group, Sample};
use crate::shared::Shared;
use crate::stats::{HttpStats, ListenerStats, ProxyProtocolStats, SslStats, TcpStats};

/// Counted beside the others of TLS, and shown among those of the socket's factory, as in Envoy.
pub(super) const NOT_READY: &str = "secrets_not_ready";

/// All statistics, in no order.
pub(super) fn collect(shared: &Shared) -> Vec<Sample> {
    let mut samples = Vec::new();
    for (name, cluster) in shared.clusters.load().iter() {
        let label = Some("cluster_name");
        cluster::collect(
            cluster,
            &mut Group::new(&mut samples, "cluster", name, label),
        );
    }
    network_filters(shared, &mut samples);
    listeners(shared, &mut samples);
    updates(shared, &mut samples);
    server(shared, &mut samples);
    samples
}

fn network_filters(shared: &Shared, samples: &mut Vec<Sample>) {
    for (prefix, stats) in shared.names.http.lock().iter() {
        let label = Some("envoy_http_conn_manager_prefix");
        let mut group = Group::new(samples, "http", prefix, label);
        HttpStats::visit(stats, &mut |name, kind, value| group.add(name, kind, value));
        HttpStats::visit_histograms(stats, &mut |name, sums| group.histogram(name, sums));
    }
    for (prefix, stats) in shared.names.tcp.lock().iter() {
        let mut group = Group::new(samples, "tcp", prefix, Some("envoy_tcp_prefix"));
        TcpStats::visit(stats, &mut |name, kind, value| group.add(name, kind, value));
    }
}

fn listeners(shared: &Shared, samples: &mut Vec<Sample>) {
    let label = Some("envoy_listener_address");
    for (address, stats) in shared.names.listeners.lock().iter() {
        let address = address.replace(':', "_");
        let mut group = Group::new(samples, "listener", &address, label);
        ListenerStats::visit(stats, &mut |name, kind, value| group.add(name, kind, value));
        ListenerStats::visit_histograms(stats, &mut |name, sums| group.histogram(name, sums));
    }
    for (address, stats) in shared.names.listeners_ssl.lock().iter() {
        let address = address.replace(':', "_");
        let mut group = Group::new(samples, "listener", &address, label);
        SslStats::visit(stats, &mut |name, kind, value| match name {
            NOT_READY => {
                let name = "server_ssl_socket_factory.downstream_context_secrets_not_ready";
                group.add(name, kind, value);
            }
            name => group.add(&format!("ssl.{name}"), kind, value),
        });
    }
    for (prefix, stats) in shared.names.proxy_protocol.lock().iter() {
        let label = (!prefix.is_empty()).then_some("envoy_proxy_protocol_prefix");
        let mut group = Group::new(samples, "proxy_proto", prefix, label);
        ProxyProtocolStats::visit(stats, &mut |name, kind, value| group.add(name, kind, value));
    }
}

/// What became of configuration.
fn updates(shared: &Shared, samples: &mut Vec<Sample>) {
    let updates = &shared.updates;
    for (kind, counts) in [
        ("cluster_manager.cds", &updates.cluster),
        ("cluster_manager.eds", &updates.endpoint),
        ("listener_manager.lds", &updates.listener),
        ("listener_manager.rds", &updates.route),
    ] {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (success, rejected) = (load(&counts.success), load(&counts.rejected));
        let mut group = Group::new(samples, kind, "", None);
        group.counter("update_success", success);
        group.counter("update_rejected", rejected);
        group.counter("update_attempt", success + rejected);
    }
    let load = |count: &AtomicUsize| count.load(Ordering::Relaxed) as u64;
    let mut group = Group::new(samples, "cluster_manager", "", None);
    group.gauge("warming_clusters", load(&updates.clusters_warming));
    group.gauge("active_clusters", shared.clusters.load().len() as u64);
    let mut group = Group::new(samples, "listener_manager", "", None);
    group.gauge("total_listeners_warming", load(&updates.listeners_warming));
    let active = shared.listeners.load().by_name.len() as u64;
    group.gauge("total_listeners_active", active);
    group.gauge("workers_started", 1);
    let connected = u64::from(updates.connected.load(Ordering::Relaxed));
    Group::new(samples, "control_plane", "", None).gauge("connected_state", connected);
}

fn server(shared: &Shared, samples: &mut Vec<Sample>) {
    // Envoy's numbers: 0 live, 1 draining, 2 before initialisation.
    let state = if shared.is_draining() || shared.is_failing() {
        1
    } else if shared.is_live() {
        0
    } else {
        2
    };
    let connections = shared.connections.load(Ordering::Relaxed) as u64;
    let mut group = Group::new(samples, "server", "", None);
    group.gauge("live", u64::from(shared.is_ready()));
    group.gauge("state", state);
    group.gauge("concurrency", shared.workers.len() as u64);
    group.gauge("uptime", shared.started.elapsed().as_secs());
    group.gauge("total_connections", connections);
    let overflows = shared.names.telemetry.overflows();
    Group::new(samples, "istio_stats", "", None).counter("series_overflow", overflows);
    let dropped = shared.names.logs.dropped();
    Group::new(samples, "access_log", "", None).counter("lines_dropped", dropped);
}
