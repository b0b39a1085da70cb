//! Endpoints of clusters that reach whatever the client wanted: made on demand, forgotten when unused.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Host;

/// Most addresses that are remembered. Beyond it an endpoint lives only as long as its connection.
const MOST: usize = 65_536;

/// Endpoints by address.
#[derive(Debug, Default)]
pub(crate) struct Destinations(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    hosts: HashMap<SocketAddr, Entry>,
    /// When unused endpoints are looked for again.
    next_cleanup: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    host: Arc<Host>,
    last_wanted: Instant,
}

impl Destinations {
    /// The endpoint of an address, the same for everybody who wants it.
    pub(crate) fn host(&self, address: SocketAddr, cleanup: Duration) -> Arc<Host> {
        let now = Instant::now();
        let mut known = self.0.lock();
        if known.next_cleanup.is_none_or(|at| now >= at) {
            known.next_cleanup = now.checked_add(cleanup);
            known.hosts.retain(|_, entry| {
                // The map itself holds one.
                let used = Arc::strong_count(&entry.host) > 1;
                used || now.duration_since(entry.last_wanted) < cleanup
            });
        }
        if let Some(entry) = known.hosts.get_mut(&address) {
            entry.last_wanted = now;
            return entry.host.clone();
        }
        let host = Arc::new(Host::at(address));
        if known.hosts.len() < MOST {
            let entry = Entry {
                host: host.clone(),
                last_wanted: now,
            };
            known.hosts.insert(address, entry);
        }
        host
    }

    /// Endpoints that are known at present.
    pub(crate) fn hosts(&self) -> Vec<Arc<Host>> {
        let known = self.0.lock();
        known
            .hosts
            .values()
            .map(|entry| entry.host.clone())
            .collect()
    }
}
