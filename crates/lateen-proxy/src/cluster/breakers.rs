//! Circuit breakers: how much of a cluster's resources may be in use at the same time, for the whole process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Cluster, ClusterShared, HostShared};

/// Circuit breaker thresholds of one priority.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Limits {
    pub(crate) connections: u32,
    pub(crate) pending: u32,
    pub(crate) requests: u32,
    pub(crate) retries: u32,
    /// Takes the place of `retries`.
    pub(crate) retry_budget: Option<RetryBudget>,
    /// Connections to one endpoint.
    pub(crate) connections_per_host: u32,
    /// Statistics say how much is left.
    pub(crate) track_remaining: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            pending: 1024,
            requests: 1024,
            retries: 3,
            retry_budget: None,
            connections_per_host: u32::MAX,
            track_remaining: false,
        }
    }
}

/// Retries as a share of what is going on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RetryBudget {
    /// Of the active and waiting requests.
    pub(crate) percent: f64,
    /// Retries that are always allowed.
    pub(crate) minimum: u32,
}

/// What a route says about the importance of its requests. Each has breakers and connections of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Priority {
    #[default]
    Default,
    High,
}

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limited {
    Connections,
    Pending,
    Requests,
    Retries,
}

/// How much is in use.
#[derive(Debug, Default)]
pub(crate) struct Breakers {
    pub(crate) connections: Usage,
    pub(crate) pending: Usage,
    pub(crate) requests: Usage,
    pub(crate) retries: Usage,
}

impl Breakers {
    fn usage(&self, limited: Limited) -> &Usage {
        match limited {
            Limited::Connections => &self.connections,
            Limited::Pending => &self.pending,
            Limited::Requests => &self.requests,
            Limited::Retries => &self.retries,
        }
    }
}

/// How much of a limited resource is in use.
#[derive(Debug, Default)]
pub(crate) struct Usage(AtomicU32);

impl Usage {
    pub(crate) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    fn try_add(&self, limit: u32) -> bool {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                (used < limit).then_some(used + 1)
            })
            .is_ok()
    }

    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn subtract(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A unit of a limited resource, given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    shared: Arc<ClusterShared>,
    priority: Priority,
    limited: Limited,
    host: Option<Arc<HostShared>>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let used = &self.shared.used[self.priority as usize];
        used.usage(self.limited).subtract();
        if let Some(host) = &self.host {
            host.connections[self.priority as usize].subtract();
        }
    }
}

impl Limits {
    /// Retries that may run at the same time.
    pub(crate) fn most_retries(&self, used: &Breakers) -> u32 {
        match self.retry_budget {
            None => self.retries,
            Some(budget) => {
                let going_on = used.requests.get().saturating_add(used.pending.get());
                let share = (budget.percent / 100.0 * f64::from(going_on)) as u32;
                share.max(budget.minimum)
            }
        }
    }
}

impl Cluster {
    /// Takes a unit of something, unless too much of it is in use.
    pub(crate) fn permit(&self, priority: Priority, limited: Limited) -> Option<Permit> {
        let limits = &self.limits[priority as usize];
        let used = &self.shared.used[priority as usize];
        let limit = match limited {
            Limited::Connections => limits.connections,
            Limited::Pending => limits.pending,
            Limited::Requests => limits.requests,
            Limited::Retries => limits.most_retries(used),
        };
        used.usage(limited)
            .try_add(limit)
            .then(|| self.unit(priority, limited, None))
    }

    /// Takes a connection to an endpoint. One that has none at all gets it in any case, as what waits for that endpoint
    /// could wait for ever otherwise; being beyond the limit is counted all the same.
    pub(crate) fn connection_permit(
        &self,
        priority: Priority,
        host: &Arc<HostShared>,
    ) -> Option<Permit> {
        let limits = &self.limits[priority as usize];
        let of_cluster = &self.shared.used[priority as usize].connections;
        let of_host = &host.connections[priority as usize];
        let within_host = of_host.try_add(limits.connections_per_host);
        let within = within_host && of_cluster.try_add(limits.connections);
        if !within {
            self.shared.stats.here().cx_overflow.inc();
            if !within_host {
                of_host.add();
            }
            if of_host.get() > 1 {
                of_host.subtract();
                return None;
            }
            of_cluster.add();
        }
        Some(self.unit(priority, Limited::Connections, Some(host.clone())))
    }

    fn unit(&self, priority: Priority, limited: Limited, host: Option<Arc<HostShared>>) -> Permit {
        Permit {
            shared: self.shared.clone(),
            priority,
            limited,
            host,
        }
    }
}
