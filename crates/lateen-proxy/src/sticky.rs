//! Sticky sessions of a cluster: a key keeps its endpoint until it has been idle.
//!
//! The table of sessions belongs to the cluster's name, so that it survives changes of configuration and of endpoints.
//! What is built anew with each state of the cluster is where its endpoints are, and a ring for keys without a session.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lateen_route::balance::{Health, Member, Policy, Settings};
use lateen_route::hash::xx64;
use lateen_route::session::{SessionKey, SessionTable};
use parking_lot::Mutex;

use crate::balancing::{Balancing, Positions, Wish};
use crate::cluster::{Cluster, Host};

/// Envoy's bounds of a ring when none are configured.
const RING: (u64, u64) = (1024, 8 * 1024 * 1024);

/// How many choices of the ring are looked at for one that has not just failed.
const CHOICES: u64 = 8;

/// What a cluster says about its sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StickySettings {
    pub(crate) key: SessionKey,
    pub(crate) idle_timeout: Duration,
    /// Most sessions.
    pub(crate) most: u32,
}

/// The sessions of one state of a cluster.
#[derive(Debug)]
pub(crate) struct Sticky {
    pub(crate) key: SessionKey,
    pub(crate) table: Arc<SessionTable>,
    positions: HashMap<SocketAddr, usize>,
    ring: Balancing,
}

/// The table of a cluster's name, with its size.
#[derive(Debug, Default)]
pub(crate) struct StickyTable(Mutex<Option<(u32, Arc<SessionTable>)>>);

impl StickyTable {
    /// The table for these settings. Sessions are kept unless the table has to have another size.
    fn with(&self, settings: &StickySettings) -> Arc<SessionTable> {
        let mut current = self.0.lock();
        if let Some((most, table)) = &*current
            && *most == settings.most
        {
            table.set_idle_timeout(settings.idle_timeout);
            return table.clone();
        }
        let table = SessionTable::new(settings.idle_timeout, settings.most, Instant::now());
        let table = Arc::new(table);
        *current = Some((settings.most, table.clone()));
        table
    }

    /// Forgets the sessions, when the cluster has none any more.
    pub(crate) fn clear(&self) {
        self.0.lock().take();
    }
}

impl Sticky {
    /// The sessions of a cluster with these endpoints, described by `members` in the same order. `ejects` as for
    /// [`Balancing::new`].
    pub(crate) fn new(
        settings: &StickySettings,
        table: &StickyTable,
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
        Self {
            key: settings.key.clone(),
            table: table.with(settings),
            positions: positions
                .map(|(position, host)| (host.address, position))
                .collect(),
            ring: Balancing::new(ring, None, members, hosts, ejects),
        }
    }

    /// The endpoint of a key. A live session keeps its own while that takes requests, and has not just `failed`; a new
    /// one begins where the ring says.
    pub(crate) fn choose(
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

    fn first_choice(
        &self,
        cluster: &Cluster,
        key: &[u8],
        wish: &Wish<'_>,
        failed: Option<SocketAddr>,
    ) -> Option<Arc<Host>> {
        let epoch = || cluster.shared.outliers.epoch();
        let ring = self.ring.current(&cluster.hosts, epoch);
        let hash = Some(xx64(key, 0));
        let mut last = None;
        for attempt in 0..CHOICES {
            let on_ring = Wish {
                hash,
                attempt,
                ..Wish::default()
            };
            // A ring has no positions to remember.
            let position = ring.pick(&mut Positions::default(), &cluster.hosts, &on_ring)?;
            let host = &cluster.hosts[position];
            if fits(host, wish) {
                last = Some(host.clone());
                if Some(host.address) != failed {
                    break;
                }
            }
        }
        last
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
