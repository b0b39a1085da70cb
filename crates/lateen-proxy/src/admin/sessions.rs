//! `/sticky_sessions`: which key belongs to which endpoint.

use std::fmt::Write as _;
use std::time::Instant;

use lateen_route::session::Session;
use serde_json::json;

use crate::shared::Shared;

/// Most sessions of a cluster that are shown.
const SHOWN: usize = 1000;

/// Clusters that keep sessions, by name, with their number of sessions and some of them, the latest used first.
fn all(shared: &Shared) -> Vec<(String, usize, Vec<Session>)> {
    let now = Instant::now();
    let clusters = shared.clusters.load();
    let sticky = clusters.values().filter_map(|cluster| {
        let table = &cluster.sticky.as_ref()?.table;
        let mut sessions = table.sessions(now, SHOWN);
        sessions.sort_by_key(|session| session.idle);
        Some((cluster.name.clone(), table.len(), sessions))
    });
    let mut all: Vec<_> = sticky.collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

/// A line for each session: `cluster::key::endpoint::idle`.
pub(super) fn text(shared: &Shared) -> String {
    let mut text = String::new();
    for (cluster, count, sessions) in all(shared) {
        let _ = writeln!(text, "{cluster}::sessions::{count}");
        for session in sessions {
            let (key, endpoint) = (session.key.escape_debug(), session.endpoint);
            let idle = session.idle.as_secs_f64();
            let _ = writeln!(text, "{cluster}::{key}::{endpoint}::{idle:.1}s");
        }
    }
    text
}

/// The same as JSON.
pub(super) fn json(shared: &Shared) -> String {
    let clusters: Vec<_> = all(shared)
        .into_iter()
        .map(|(cluster, count, sessions)| {
            let sessions: Vec<_> = sessions
                .iter()
                .map(|session| {
                    json!({
                        "key": session.key,
                        "endpoint": session.endpoint.to_string(),
                        "idle_seconds": session.idle.as_secs_f64(),
                    })
                })
                .collect();
            json!({"cluster": cluster, "count": count, "sessions": sessions})
        })
        .collect();
    json!({"clusters": clusters}).to_string()
}
