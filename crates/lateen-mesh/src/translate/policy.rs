//! The traffic policy of one port and subset, after Istio's inheritance.

use lateen_api::networking::{
    destination_rule::Subset,
    traffic_policy::{
        ClientTlsSettings, ConnectionPool, ConsistentHash, LoadBalancer, OutlierDetection,
        ProxyProtocol, RetryBudget, TrafficPolicy,
    },
};

use crate::index::MergedRule;

/// The settings that apply to one port of a service, or of a subset of it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Policy<'a> {
    pub(super) load_balancer: Option<&'a LoadBalancer>,
    pub(super) connection_pool: Option<&'a ConnectionPool>,
    pub(super) outlier_detection: Option<&'a OutlierDetection>,
    pub(super) tls: Option<&'a ClientTlsSettings>,
    pub(super) proxy_protocol: Option<&'a ProxyProtocol>,
    pub(super) retry_budget: Option<&'a RetryBudget>,
}

impl<'a> Policy<'a> {
    /// Settings of a port: a subset's replace those of the whole, block by block; within each, those of the port
    /// replace the others as a whole.
    pub(super) fn of(rule: Option<&MergedRule<'a>>, subset: Option<&'a Subset>, port: u32) -> Self {
        let whole = rule
            .and_then(|rule| rule.policy)
            .map(|policy| Self::at_port(policy, port))
            .unwrap_or_default();
        match subset.and_then(|subset| subset.traffic_policy.as_ref()) {
            Some(policy) => whole.overridden_by(Self::at_port(policy, port)),
            None => whole,
        }
    }

    fn at_port(policy: &'a TrafficPolicy, port: u32) -> Self {
        let of_port = policy.port_level_settings.iter().find(|level| {
            level
                .port
                .as_ref()
                .is_some_and(|selector| selector.number == port)
        });
        match of_port {
            Some(level) => Self {
                load_balancer: level.load_balancer.as_ref(),
                connection_pool: level.connection_pool.as_ref(),
                outlier_detection: level.outlier_detection.as_ref(),
                tls: level.tls.as_ref(),
                // Ports cannot say anything about these.
                proxy_protocol: policy.proxy_protocol.as_ref(),
                retry_budget: policy.retry_budget.as_ref(),
            },
            None => Self {
                load_balancer: policy.load_balancer.as_ref(),
                connection_pool: policy.connection_pool.as_ref(),
                outlier_detection: policy.outlier_detection.as_ref(),
                tls: policy.tls.as_ref(),
                proxy_protocol: policy.proxy_protocol.as_ref(),
                retry_budget: policy.retry_budget.as_ref(),
            },
        }
    }

    fn overridden_by(self, other: Self) -> Self {
        Self {
            load_balancer: other.load_balancer.or(self.load_balancer),
            connection_pool: other.connection_pool.or(self.connection_pool),
            outlier_detection: other.outlier_detection.or(self.outlier_detection),
            tls: other.tls.or(self.tls),
            proxy_protocol: other.proxy_protocol.or(self.proxy_protocol),
            retry_budget: other.retry_budget.or(self.retry_budget),
        }
    }

    /// What endpoints are chosen by, when they are chosen by something in the request.
    pub(super) fn consistent_hash(&self) -> Option<&'a ConsistentHash> {
        self.load_balancer
            .and_then(|balancer| balancer.consistent_hash.as_ref())
    }
}
