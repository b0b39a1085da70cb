//! The balancer of a cluster, rebuilt when endpoints are ejected or return.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use lateen_route::balance::{Balancer, Health, Member, Settings};
use parking_lot::Mutex;

use crate::cluster::Host;

/// A balancer that leaves out ejected endpoints.
#[derive(Debug)]
pub(crate) struct Balancing {
    current: ArcSwap<Balanced>,
    /// What it is rebuilt from; nothing for clusters that eject nobody.
    source: Option<Box<Mutex<Source>>>,
}

/// What balancers are built from. The lock around it makes sure that only one is built per epoch.
#[derive(Debug)]
struct Source {
    settings: Settings,
    members: Vec<Member>,
}

/// One state of the balancer.
#[derive(Debug)]
pub(crate) struct Balanced {
    pub(crate) balancer: Balancer,
    /// Distinguishes all states of all balancers, as workers keep positions for each.
    pub(crate) generation: u64,
    /// The epoch of ejections that it was built in.
    epoch: u64,
}

impl Balancing {
    /// Builds the balancer of `hosts`, described by `members` in the same order. With `ejects` it follows the epoch of
    /// ejections, which must have been read before.
    pub(crate) fn new(
        settings: Settings,
        members: Vec<Member>,
        hosts: &[Arc<Host>],
        ejects: Option<u64>,
    ) -> Self {
        match ejects {
            None => Self {
                current: ArcSwap::from_pointee(Balanced::build(&settings, &members, 0)),
                source: None,
            },
            Some(epoch) => Self {
                current: ArcSwap::from_pointee(Balanced::without(
                    &settings, &members, hosts, epoch,
                )),
                source: Some(Box::new(Mutex::new(Source { settings, members }))),
            },
        }
    }

    /// The balancer as of `epoch`. The first who sees a new epoch rebuilds it for all workers.
    pub(crate) fn current(
        &self,
        hosts: &[Arc<Host>],
        epoch: impl Fn() -> u64,
    ) -> Guard<Arc<Balanced>> {
        let current = self.current.load();
        let Some(source) = &self.source else {
            return current;
        };
        if current.epoch == epoch() {
            return current;
        }
        let source = source.lock();
        // Read before the marks of the endpoints: an ejection in between is seen again, not missed.
        let epoch = epoch();
        if self.current.load().epoch != epoch {
            let built = Balanced::without(&source.settings, &source.members, hosts, epoch);
            self.current.store(Arc::new(built));
        }
        self.current.load()
    }
}

impl Balanced {
    fn build(settings: &Settings, members: &[Member], epoch: u64) -> Self {
        static GENERATION: AtomicU64 = AtomicU64::new(1);
        Self {
            balancer: Balancer::build(settings, members),
            generation: GENERATION.fetch_add(1, Ordering::Relaxed),
            epoch,
        }
    }

    /// Ejected endpoints are unhealthy members: the rules of priorities and of panic see them as such.
    fn without(settings: &Settings, members: &[Member], hosts: &[Arc<Host>], epoch: u64) -> Self {
        let mut members = members.to_vec();
        for (member, host) in members.iter_mut().zip(hosts) {
            if host.shared.outlier.is_ejected() {
                member.health = Health::Unhealthy;
            }
        }
        Self::build(settings, &members, epoch)
    }
}
