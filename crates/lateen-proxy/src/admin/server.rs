//! The process itself: its state, its memory, and what it waits for.

use lateen_xds::json::{self, FieldNames};
use serde_json::json;

use super::Control;
use super::reply::pretty;
use crate::shared::Shared;

/// The state in Envoy's words.
pub(super) fn state(shared: &Shared) -> &'static str {
    if shared.is_draining() || shared.is_failing() {
        "DRAINING"
    } else if shared.is_live() {
        "LIVE"
    } else {
        "PRE_INITIALIZING"
    }
}

/// `/server_info`.
pub(super) fn server_info(control: &Control) -> String {
    let uptime = format!("{}s", control.shared.started.elapsed().as_secs());
    let node = json::from_message(&*control.node, FieldNames::Proto).unwrap_or_default();
    let info = json!({
        "version": format!("lateen/{}", env!("CARGO_PKG_VERSION")),
        "state": state(&control.shared),
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "command_line_options": { "concurrency": control.shared.workers.len() },
        "node": node,
    });
    pretty(&info)
}

/// Memory of the process, from the system.
pub(super) fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        (kilobytes.unwrap_or(0) * 1024).to_string()
    };
    pretty(&json!({
        "allocated": bytes("RssAnon:"),
        "heap_size": bytes("VmData:"),
        "pageheap_unmapped": "0",
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": bytes("VmRSS:"),
    }))
}

/// What the first configuration still waits for.
pub(super) fn init_dump(shared: &Shared) -> String {
    let dump = shared.dump.lock();
    let mut waiting = Vec::new();
    for (kind, entries) in &dump.kinds {
        let names: Vec<_> = entries
            .iter()
            .filter(|(_, entry)| entry.warming)
            .map(|(name, _)| name)
            .collect();
        if !names.is_empty() {
            waiting.push(json!({ "name": kind.type_url(), "target_names": names }));
        }
    }
    if waiting.is_empty() {
        return pretty(&json!({}));
    }
    pretty(&json!({ "unready_targets_dumps": waiting }))
}
