//! `/clusters` and `/listeners`.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use lateen_route::balance::Health;
use serde_json::{Value, json};

use super::reply::pretty;
use crate::cluster::{Cluster, Host};
use crate::shared::Shared;

/// Names and values of an endpoint's numbers, with their kinds.
fn numbers(host: &Host) -> [(&'static str, u64, &'static str); 6] {
    let live = &host.shared;
    let total = live.total_requests.load(Ordering::Relaxed);
    let failed = live.failed_requests.load(Ordering::Relaxed);
    [
        (
            "cx_active",
            u64::from(live.active_connections.load(Ordering::Relaxed)),
            "GAUGE",
        ),
        (
            "cx_connect_fail",
            live.failed_connections.load(Ordering::Relaxed),
            "COUNTER",
        ),
        (
            "cx_total",
            live.total_connections.load(Ordering::Relaxed),
            "COUNTER",
        ),
        (
            "rq_active",
            u64::from(live.active_requests.load(Ordering::Relaxed)),
            "GAUGE",
        ),
        ("rq_error", failed, "COUNTER"),
        ("rq_total", total, "COUNTER"),
    ]
}

/// Lines of `cluster::endpoint::name::value`.
pub(super) fn text(shared: &Shared) -> String {
    let mut out = String::new();
    for (name, cluster) in sorted(shared) {
        let _ = writeln!(out, "{name}::observability_name::{name}");
        for (priority, limits) in ["default", "high"].iter().zip(&cluster.limits) {
            for (limit, value) in [
                ("max_connections", limits.connections),
                ("max_pending_requests", limits.pending),
                ("max_requests", limits.requests),
                ("max_retries", limits.retries),
            ] {
                let _ = writeln!(out, "{name}::{priority}_priority::{limit}::{value}");
            }
        }
        let _ = writeln!(out, "{name}::added_via_api::true");
        for host in &cluster.known_hosts() {
            for (stat, value, _) in numbers(host) {
                let _ = writeln!(out, "{name}::{}::{stat}::{value}", host.text);
            }
            let health = health_flags(&cluster, host);
            let _ = writeln!(out, "{name}::{}::hostname::{}", host.text, host.hostname);
            let _ = writeln!(out, "{name}::{}::health_flags::{health}", host.text);
            let _ = writeln!(out, "{name}::{}::weight::{}", host.text, host.weight);
            for (part, value) in ["region", "zone", "sub_zone"].iter().zip(&host.locality) {
                let _ = writeln!(out, "{name}::{}::{part}::{value}", host.text);
            }
            let _ = writeln!(out, "{name}::{}::canary::{}", host.text, host.canary);
            let _ = writeln!(out, "{name}::{}::priority::{}", host.text, host.priority);
        }
    }
    out
}

/// What is wrong with an endpoint, in Envoy's order.
fn health_flags(cluster: &Cluster, host: &Host) -> String {
    let ejected = if cluster.is_ejected(host) {
        "/failed_outlier_check"
    } else {
        ""
    };
    let discovered = match host.health {
        Health::Healthy if ejected.is_empty() => "healthy",
        Health::Healthy => "",
        Health::Degraded => "/degraded",
        Health::Unhealthy => "/failed_eds_health",
    };
    format!("{ejected}{discovered}")
}

/// The same as the `envoy.admin.v3.Clusters` message.
pub(super) fn json(shared: &Shared) -> String {
    let statuses: Vec<_> = sorted(shared)
        .into_iter()
        .map(|(name, cluster)| {
            let hosts: Vec<_> = cluster
                .known_hosts()
                .iter()
                .map(|host| host_status(&cluster, host))
                .collect();
            let thresholds: Vec<_> = ["DEFAULT", "HIGH"]
                .iter()
                .zip(&cluster.limits)
                .map(|(priority, limits)| {
                    let mut all = json!({
                        "max_connections": limits.connections,
                        "max_pending_requests": limits.pending,
                        "max_requests": limits.requests,
                        "max_retries": limits.retries,
                    });
                    if *priority != "DEFAULT" {
                        all["priority"] = json!(priority);
                    }
                    all
                })
                .collect();
            json!({
                "name": name,
                "added_via_api": true,
                "host_statuses": hosts,
                "circuit_breakers": { "thresholds": thresholds },
                "observability_name": name,
            })
        })
        .collect();
    pretty(&json!({ "cluster_statuses": statuses }))
}

fn host_status(cluster: &Cluster, host: &Host) -> Value {
    let stats: Vec<_> = numbers(host)
        .into_iter()
        .map(|(name, value, kind)| match value {
            // As in protobuf JSON: zero is left out, 64-bit numbers are text, and counters are the default kind.
            0 if kind == "COUNTER" => json!({ "name": name }),
            0 => json!({ "name": name, "type": kind }),
            value if kind == "COUNTER" => json!({ "name": name, "value": value.to_string() }),
            value => json!({ "name": name, "value": value.to_string(), "type": kind }),
        })
        .collect();
    let health = match host.health {
        Health::Healthy => "HEALTHY",
        Health::Degraded => "DEGRADED",
        Health::Unhealthy => "UNHEALTHY",
    };
    let mut status = json!({
        "address": { "socket_address": {
            "address": host.address.ip().to_string(),
            "port_value": host.address.port(),
        }},
        "stats": stats,
        "health_status": { "eds_health_status": health },
        "weight": host.weight,
        "locality": {},
    });
    if cluster.is_ejected(host) {
        status["health_status"]["failed_outlier_check"] = json!(true);
    }
    for (part, value) in ["region", "zone", "sub_zone"].iter().zip(&host.locality) {
        if !value.is_empty() {
            status["locality"][*part] = json!(value);
        }
    }
    if host.priority > 0 {
        status["priority"] = json!(host.priority);
    }
    if !host.hostname.is_empty() {
        status["hostname"] = json!(host.hostname);
    }
    status
}

fn sorted(shared: &Shared) -> Vec<(String, std::sync::Arc<Cluster>)> {
    let clusters = shared.clusters.load();
    let mut all: Vec<_> = clusters
        .iter()
        .map(|(name, cluster)| (name.clone(), cluster.clone()))
        .collect();
    all.sort_by(|left, right| left.0.cmp(&right.0));
    all
}

/// Lines of `name::address`.
pub(super) fn listeners_text(shared: &Shared) -> String {
    listeners(shared)
        .into_iter()
        .map(|(name, address)| format!("{name}::{address}\n"))
        .collect()
}

/// The same as the `envoy.admin.v3.Listeners` message.
pub(super) fn listeners_json(shared: &Shared) -> String {
    let statuses: Vec<_> = listeners(shared)
        .into_iter()
        .map(|(name, address)| {
            json!({
                "name": name,
                "local_address": { "socket_address": {
                    "address": address.ip().to_string(),
                    "port_value": address.port(),
                }},
            })
        })
        .collect();
    pretty(&json!({ "listener_statuses": statuses }))
}

fn listeners(shared: &Shared) -> Vec<(String, std::net::SocketAddr)> {
    let set = shared.listeners.load();
    let mut all: Vec<_> = set
        .by_name
        .iter()
        .filter_map(|(name, slot)| Some((name.clone(), slot.load()?.address)))
        .collect();
    all.sort();
    all
}
