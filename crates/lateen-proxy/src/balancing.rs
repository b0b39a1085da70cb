//! The balancer of a cluster, rebuilt when endpoints are ejected or return.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use lateen_route::balance::subset::{Labels, SubsetSettings, SubsetState, Subsets};
use lateen_route::balance::{Balancer, Health, Member, Pick, Policy, Previous, Settings, State};
use parking_lot::Mutex;

use crate::cluster::Host;

/// A balancer that leaves out ejected endpoints.
#[derive(Debug)]
pub(crate) struct Balancing {
    current: ArcSwap<Balanced>,
    /// Choices depend on a hash of the request.
    hashes: bool,
    /// What it is rebuilt from; nothing for clusters that eject nobody.
    source: Option<Box<Mutex<Source>>>,
}

/// What balancers are built from. The lock around it makes sure that only one is built per epoch.
#[derive(Debug)]
struct Source {
    settings: Settings,
    subsets: Option<SubsetSettings>,
    members: Vec<Member>,
}

/// What a request says about its endpoint.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wish<'w> {
    /// Hash for consistent choices.
    pub(crate) hash: Option<u64>,
    /// How often an endpoint was chosen already, to move consistent choices on.
    pub(crate) attempt: u64,
    /// The subset that the route asks for.
    pub(crate) labels: Option<&'w Labels>,
    /// The session that the request belongs to.
    pub(crate) session: Option<&'w [u8]>,
    /// Priorities of earlier attempts, when retries avoid them.
    pub(crate) previous: Option<Previous<'w>>,
}

/// Positions of one worker in one state of a balancer.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    all: State,
    subsets: SubsetState,
}

#[derive(Debug)]
enum Chooser {
    All(Box<Balancer>),
    Subsets(Box<Subsets>),
}

/// One state of the balancer.
#[derive(Debug)]
pub(crate) struct Balanced {
    chooser: Chooser,
    /// Until then some endpoint is new enough to start slowly.
    slow_until: Option<Instant>,
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
        subsets: Option<SubsetSettings>,
        members: Vec<Member>,
        hosts: &[Arc<Host>],
        ejects: Option<u64>,
    ) -> Self {
        let hashes = matches!(
            settings.policy,
            Policy::RingHash { .. } | Policy::Maglev { .. }
        );
        let source = Source {
            settings,
            subsets,
            members,
        };
        match ejects {
            None => Self {
                current: ArcSwap::from_pointee(Balanced::build(&source, &source.members, hosts, 0)),
                hashes,
                source: None,
            },
            Some(epoch) => Self {
                current: ArcSwap::from_pointee(Balanced::without(&source, hosts, epoch)),
                hashes,
                source: Some(Box::new(Mutex::new(source))),
            },
        }
    }

    /// Whether the choice depends on a hash of the request.
    pub(crate) fn hashes(&self) -> bool {
        self.hashes
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
            let built = Balanced::without(&source, hosts, epoch);
            self.current.store(Arc::new(built));
        }
        self.current.load()
    }
}

impl Balanced {
    fn build(source: &Source, members: &[Member], hosts: &[Arc<Host>], epoch: u64) -> Self {
        static GENERATION: AtomicU64 = AtomicU64::new(1);
        let settings = &source.settings;
        let chooser = match &source.subsets {
            None => Chooser::All(Box::new(Balancer::build(settings, members))),
            Some(subsets) => {
                let labels: Vec<Labels> = hosts.iter().map(|host| host.labels.clone()).collect();
                let subsets = Subsets::build(subsets.clone(), settings, members, &labels);
                Chooser::Subsets(Box::new(subsets))
            }
        };
        let newest = hosts.iter().map(|host| host.shared.added).max();
        let slow_until = settings
            .slow_start
            .zip(newest)
            .and_then(|(slow, newest)| newest.checked_add(slow.window));
        Self {
            chooser,
            slow_until,
            generation: GENERATION.fetch_add(1, Ordering::Relaxed),
            epoch,
        }
    }

    /// Ejected endpoints are unhealthy members: the rules of priorities and of panic see them as such.
    fn without(source: &Source, hosts: &[Arc<Host>], epoch: u64) -> Self {
        let mut members = source.members.clone();
        for (member, host) in members.iter_mut().zip(hosts) {
            if host.shared.outlier.is_ejected() {
                member.health = Health::Unhealthy;
            }
        }
        Self::build(source, &members, hosts, epoch)
    }

    /// Chooses an endpoint.
    pub(crate) fn pick(
        &self,
        positions: &mut Positions,
        hosts: &[Arc<Host>],
        wish: &Wish<'_>,
    ) -> Option<usize> {
        let load = |host: usize| hosts[host].shared.active_requests.load(Ordering::Relaxed);
        let now = self.slow_until.map(|until| (Instant::now(), until));
        let now = now.filter(|(now, until)| now < until).map(|(now, _)| now);
        let age = |host: usize| {
            now.map_or(Duration::MAX, |now| {
                now.saturating_duration_since(hosts[host].shared.added)
            })
        };
        let mut random = || fastrand::u64(..);
        let mut pick = Pick {
            hash: wish.hash,
            random: &mut random,
            load: &load,
            age: now.is_some().then_some(&age),
            attempt: wish.attempt,
            previous: wish.previous,
        };
        match &self.chooser {
            Chooser::All(balancer) => balancer.pick(&mut positions.all, &mut pick),
            Chooser::Subsets(subsets) => {
                let none = Labels::new();
                let wanted = wish.labels.unwrap_or(&none);
                subsets.pick(&mut positions.subsets, wanted, &mut pick)
            }
        }
    }
}
