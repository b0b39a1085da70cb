//! Sticky sessions of a cluster: a key keeps its endpoint until it has been idle.
//!
//! ```text
//! mod         -> which endpoint a key has: the table in memory, and a ring for keys without a session
//! store       -> the same for several proxies, in a Redis server
//! connection  -> a worker's connection to it        resp -> its protocol
//! ```
//!
//! The table of sessions belongs to the cluster's name, so that it survives changes of configuration and of endpoints.
//! What is built anew with each state of the cluster is where its endpoints are, and a ring for keys without a session.

mod connection;
mod resp;
mod store;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lateen_route::balance::{Health, Member, Policy, Settings};
use lateen_route::hash::xx64;
use lateen_route::session::{SessionKey, SessionTable};
use parking_lot::Mutex;

pub(crate) use connection::Connection;
pub(crate) use store::{Store, StoreSettings};

use crate::balancing::{Balancing, Positions, Wish};
use crate::cluster::{Cluster, Host};
use crate::worker::Worker;

/// Envoy's bounds of a ring when none are configured.
const RING: (u64, u64) = (1024, 8 * 1024 * 1024);

/// How many choices of the ring are looked at for one that is wanted, before all endpoints are.
const CHOICES: u64 = 8;

/// What a cluster says about its sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StickySettings {
    pub(crate) key: SessionKey,
    pub(crate) idle_timeout: Duration,
    /// Most sessions in memory.
    pub(crate) most: u32,
    /// Where the sessions are shared with other proxies; nothing: they are not.
    pub(crate) store: Option<StoreSettings>,
}

/// The sessions of one state of a cluster.
#[derive(Debug)]
pub(crate) struct Sticky {
    pub(crate) key: SessionKey,
    pub(crate) table: Arc<SessionTable>,
    pub(crate) store: Option<Arc<Store>>,
    idle_timeout: Duration,
    positions: HashMap<SocketAddr, usize>,
    ring: Balancing,
}

/// The sessions of a cluster's name.
#[derive(Debug, Default)]
pub(crate) struct StickyTable(Mutex<Option<Kept>>);

/// What survives changes of a cluster.
#[derive(Debug)]
struct Kept {
    most: u32,
    table: Arc<SessionTable>,
    store: Option<Arc<Store>>,
}

impl StickyTable {
    /// The table and the store of a cluster for these settings.
    fn with(
        &self,
        settings: &StickySettings,
        cluster: &str,
    ) -> (Arc<SessionTable>, Option<Arc<Store>>) {
        let now = Instant::now();
        let mut kept = self.0.lock();
        let kept = kept.get_or_insert_with(|| Kept {
            most: settings.most,
            table: Arc::new(SessionTable::new(settings.idle_timeout, settings.most, now)),
            store: None,
        });
        if kept.most != settings.most {
            kept.table = Arc::new(kept.table.resized(settings.most, now));
            kept.most = settings.most;
        }
        kept.table.set_idle_timeout(settings.idle_timeout);
        let wanted = settings.store.as_ref();
        if kept.store.as_ref().map(|store| &store.settings) != wanted {
            kept.store = wanted.map(|wanted| Arc::new(Store::new(wanted.clone(), cluster)));
        }
        (kept.table.clone(), kept.store.clone())
    }

    /// Forgets the sessions, when the cluster has none any more.
    pub(crate) fn clear(&self) {
        self.0.lock().take();
    }
}

impl Sticky {
    /// The sessions of the cluster of this name with these endpoints, described by `members` in the same order. `ejects`
    /// as for [`Balancing::new`].
    pub(crate) fn new(
        settings: &StickySettings,
        (cluster, table): (&str, &StickyTable),
        members: Vec<Member>,
        hosts: &[Arc<Host>],
        ejects: Option<u64>,
    ) -> Self {
        let ring = Settings::new(Policy::RingHash {
            minimum: RING.0,
            maximum: RING.1,
            function: Default::default(),
        });
        let positions = hosts.iter().enumerate();
        let (table, store) = table.with(settings, cluster);
        Self {
            key: settings.key.clone(),
            table,
            store,
            idle_timeout: settings.idle_timeout,
            positions: positions
                .map(|(position, host)| (host.address, position))
                .collect(),
            ring: Balancing::new(ring, None, members, hosts, ejects),
        }
    }

    /// The endpoint of a key, on which all proxies agree where they share their sessions.
    pub(crate) async fn choose(
        &self,
        worker: &Rc<Worker>,
        cluster: &Cluster,
        key: &[u8],
        wish: &Wish<'_>,
        failed: Option<SocketAddr>,
    ) -> Option<Arc<Host>> {
        let host = self.choose_here(cluster, key, wish, failed)?;
        match &self.store {
            None => Some(host),
            // Most clusters have none, and do not pay for what it takes to ask one.
            Some(store) => {
                let agreed = self.agree(worker, cluster, store, key, wish, (failed, host));
                Some(Box::pin(agreed).await)
            }
        }
    }

    /// Where the key belongs according to the store, when this proxy would send it to `host`.
    async fn agree(
        &self,
        worker: &Rc<Worker>,
        cluster: &Cluster,
        store: &Arc<Store>,
        key: &[u8],
        wish: &Wish<'_>,
        (failed, host): (Option<SocketAddr>, Arc<Host>),
    ) -> Arc<Host> {
        let (own, idle) = (host.address, self.idle_timeout);
        let mut agreed = match failed {
            Some(failed) => store.replace(worker, key, (failed, own), idle).await,
            None => store.agree(worker, key, own, idle).await,
        };
        // The endpoint that the store knows may be gone or fail from here: then the key moves, once.
        for _ in 0..2 {
            let Some(address) = agreed.filter(|address| *address != own) else {
                return host;
            };
            let usable = self.usable(cluster, address, wish);
            if let Some(other) = usable.filter(|_| Some(address) != failed) {
                store.counts.adopted.fetch_add(1, Ordering::Relaxed);
                self.table.put(key, address, Instant::now());
                return other.clone();
            }
            agreed = store.replace(worker, key, (address, own), idle).await;
        }
        host
    }

    /// The endpoint of a key, as far as this proxy knows. A live session keeps its own while that takes requests, and has not just `failed`; a new
    /// one begins where the ring says.
    fn choose_here(
        &self,
        cluster: &Cluster,
        key: &[u8],
        wish: &Wish<'_>,
        failed: Option<SocketAddr>,
    ) -> Option<Arc<Host>> {
        let now = Instant::now();
        let current = self.table.renew(key, now);
        if let Some(host) = current.and_then(|address| self.usable(cluster, address, wish))
            && Some(host.address) != failed
        {
            return Some(host.clone());
        }
        let chosen = self.first_choice(cluster, key, wish, failed)?;
        let claimed = self.table.claim(key, chosen.address, current, now);
        if claimed == chosen.address {
            return Some(chosen);
        }
        // Another request of the key was faster.
        let other = self.usable(cluster, claimed, wish);
        other.cloned().or(Some(chosen))
    }

    fn usable<'c>(
        &self,
        cluster: &'c Cluster,
        address: SocketAddr,
        wish: &Wish<'_>,
    ) -> Option<&'c Arc<Host>> {
        let host = cluster.hosts.get(*self.positions.get(&address)?)?;
        let takes = host.health != Health::Unhealthy && !cluster.is_ejected(host);
        (takes && fits(host, wish)).then_some(host)
    }

    /// Where the ring sends a key that has no session: to the first of its choices that fits and has not just `failed`.
    fn first_choice(
        &self,
        cluster: &Cluster,
        key: &[u8],
        wish: &Wish<'_>,
        failed: Option<SocketAddr>,
    ) -> Option<Arc<Host>> {
        let epoch = || cluster.shared.outliers.epoch();
        let ring = self.ring.current(&cluster.hosts, epoch);
        let hash = xx64(key, 0);
        let mut unwanted = None;
        for attempt in 0..CHOICES {
            let on_ring = Wish {
                hash: Some(hash),
                attempt,
                ..Wish::default()
            };
            // A ring has no positions to remember.
            let position = ring.pick(&mut Positions::default(), &cluster.hosts, &on_ring)?;
            let host = &cluster.hosts[position];
            if fits(host, wish) {
                if Some(host.address) != failed {
                    return Some(host.clone());
                }
                unwanted = Some(host.clone());
            }
        }
        // Neighbours on the ring are often the same endpoint, and those of a subset may be far apart.
        let others = cluster.hosts.iter().filter(|host| {
            let takes = host.health != Health::Unhealthy && !cluster.is_ejected(host);
            takes && fits(host, wish) && Some(host.address) != failed
        });
        let count = others.clone().count().max(1);
        others
            .clone()
            .nth(hash as usize % count)
            .cloned()
            .or(unwanted)
    }
}

/// Whether the endpoint is in the subset that the route asks for.
fn fits(host: &Host, wish: &Wish<'_>) -> bool {
    wish.labels.is_none_or(|labels| {
        labels
            .iter()
            .all(|(key, value)| host.labels.get(key) == Some(value))
    })
}
