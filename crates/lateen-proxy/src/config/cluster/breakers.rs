//! Circuit breakers of a cluster.

use lateen_route::{Invalid, Within, refuse_rest};
use lateen_xds::pb::envoy::config::cluster::v3::CircuitBreakers;
use lateen_xds::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use lateen_xds::pb::envoy::config::core::v3::RoutingPriority;
use lateen_xds::pb::google::protobuf::UInt32Value;

use crate::cluster::{Limits, RetryBudget};

/// Compiles the thresholds: for default priority, then for high. Of several for one priority the first counts.
pub(super) fn compile(mut breakers: CircuitBreakers) -> Result<[Limits; 2], Invalid> {
    let mut limits = [Limits::default(); 2];
    let mut seen = [false; 2];
    for (index, item) in std::mem::take(&mut breakers.thresholds)
        .into_iter()
        .enumerate()
    {
        let (priority, compiled) = thresholds(item).within_item("thresholds", index)?;
        if !std::mem::replace(&mut seen[priority], true) {
            limits[priority] = Limits {
                connections_per_host: limits[priority].connections_per_host,
                ..compiled
            };
        }
    }
    let mut seen = [false; 2];
    for (index, mut item) in std::mem::take(&mut breakers.per_host_thresholds)
        .into_iter()
        .enumerate()
    {
        let connections = item.max_connections.take().map(|value| value.value);
        let priority = priority(&mut item).within_item("per_host_thresholds", index)?;
        refuse_rest(&item).within_item("per_host_thresholds", index)?;
        if !std::mem::replace(&mut seen[priority], true) {
            limits[priority].connections_per_host = connections.unwrap_or(u32::MAX);
        }
    }
    refuse_rest(&breakers)?;
    Ok(limits)
}

fn thresholds(mut item: Thresholds) -> Result<(usize, Limits), Invalid> {
    let priority = priority(&mut item)?;
    let default = Limits::default();
    let value = |value: Option<UInt32Value>, default| value.map_or(default, |value| value.value);
    let limits = Limits {
        connections: value(item.max_connections.take(), default.connections),
        pending: value(item.max_pending_requests.take(), default.pending),
        requests: value(item.max_requests.take(), default.requests),
        retries: value(item.max_retries.take(), default.retries),
        track_remaining: std::mem::take(&mut item.track_remaining),
        retry_budget: match item.retry_budget.take() {
            None => None,
            Some(mut budget) => {
                let percent = budget
                    .budget_percent
                    .take()
                    .map_or(20.0, |value| value.value);
                if !(0.0..=100.0).contains(&percent) {
                    return Err(Invalid::new(
                        "retry_budget.budget_percent",
                        "must be 0 to 100",
                    ));
                }
                let minimum = value(budget.min_retry_concurrency.take(), 3);
                refuse_rest(&budget).within("retry_budget")?;
                Some(RetryBudget { percent, minimum })
            }
        },
        ..default
    };
    refuse_rest(&item)?;
    Ok((priority, limits))
}

/// Position of the priority's limits.
fn priority(item: &mut Thresholds) -> Result<usize, Invalid> {
    match RoutingPriority::try_from(std::mem::take(&mut item.priority)) {
        Ok(RoutingPriority::Default) => Ok(0),
        Ok(RoutingPriority::High) => Ok(1),
        Err(_) => Err(Invalid::new("priority", "is not a known priority")),
    }
}
