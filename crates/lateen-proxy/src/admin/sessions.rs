//! `/sticky_sessions`: which key belongs to which endpoint.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::Instant;

use lateen_route::session::Session;
use serde_json::json;

use crate::shared::Shared;

/// Sessions of a cluster that are shown when `limit` says nothing.
const SHOWN: usize = 1000;

/// Most sessions of a cluster that are shown, so that a page has an end.
const MOST_SHOWN: usize = 100_000;

/// What is asked for.
pub(super) struct Selection<'q> {
    cluster: Option<&'q str>,
    limit: usize,
}

impl<'q> Selection<'q> {
    /// Reads `cluster` (a name, or nothing for all) and `limit` (sessions of each cluster).
    pub(super) fn of(cluster: Option<&'q str>, limit: Option<&str>) -> Result<Self, String> {
        let limit = match limit {
            None => SHOWN,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| *limit <= MOST_SHOWN)
                .ok_or_else(|| format!("limit: `{text}` is not a number up to {MOST_SHOWN}\n"))?,
        };
        Ok(Self { cluster, limit })
    }
}

/// The sessions of a cluster.
struct Shown {
    cluster: String,
    count: usize,
    /// The latest used first.
    sessions: Vec<Session>,
    /// Where they are shared, and whether any worker is connected to it.
    store: Option<(String, bool)>,
}

/// Clusters that keep sessions, by name.
fn all(shared: &Shared, selection: &Selection<'_>) -> Vec<Shown> {
    let now = Instant::now();
    let clusters = shared.clusters.load();
    let wanted = clusters.values().filter(|cluster| {
        let wanted = selection.cluster;
        wanted.is_none_or(|wanted| cluster.name == wanted)
    });
    let sticky = wanted.filter_map(|cluster| {
        let sticky = cluster.sticky.as_ref()?;
        let store = sticky.store.as_ref().map(|store| {
            let is_connected = store.counts.connected.load(Ordering::Relaxed) > 0;
            (store.settings.server.clone(), is_connected)
        });
        Some(Shown {
            cluster: cluster.name.clone(),
            count: sticky.table.len(),
            sessions: sticky.table.sessions(now, selection.limit),
            store,
        })
    });
    let mut all: Vec<_> = sticky.collect();
    all.sort_by(|one, other| one.cluster.cmp(&other.cluster));
    all
}

/// A line for each session: `cluster::key::endpoint::idle`, after one with their number and one with the store.
pub(super) fn text(shared: &Shared, selection: &Selection<'_>) -> String {
    let mut text = String::new();
    for shown in all(shared, selection) {
        let cluster = shown.cluster;
        let _ = writeln!(text, "{cluster}::sessions::{}", shown.count);
        if let Some((server, is_connected)) = shown.store {
            let state = if is_connected { "connected" } else { "away" };
            let _ = writeln!(text, "{cluster}::store::redis {server}::{state}");
        }
        for session in shown.sessions {
            let (key, endpoint) = (session.key.escape_debug(), session.endpoint);
            let idle = session.idle.as_secs_f64();
            let _ = writeln!(text, "{cluster}::{key}::{endpoint}::{idle:.1}s");
        }
    }
    text
}

/// The same as JSON.
pub(super) fn json(shared: &Shared, selection: &Selection<'_>) -> String {
    let clusters = all(shared, selection).into_iter().map(|shown| {
        let sessions = shown.sessions.iter().map(|session| {
            json!({
                "key": session.key,
                "endpoint": session.endpoint.to_string(),
                "idle_seconds": session.idle.as_secs_f64(),
            })
        });
        let sessions: Vec<_> = sessions.collect();
        let mut cluster =
            json!({"cluster": shown.cluster, "count": shown.count, "sessions": sessions});
        if let Some((server, is_connected)) = shown.store {
            cluster["store"] = json!({"redis": server, "connected": is_connected});
        }
        cluster
    });
    let clusters: Vec<_> = clusters.collect();
    json!({"clusters": clusters}).to_string()
}
