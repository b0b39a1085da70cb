//! Attempts: choosing an endpoint, sending the request, and trying again where the route allows it.

use std::sync::Arc;

use http::HeaderValue;
use lateen_route::retry::{Failure, RetryPolicy};
use lateen_route::rewrite::HostRewrite;

use super::attempt::one_attempt;
use super::exchange::{ATTEMPT_COUNT, Exchange};
use super::forward::{Forwarded, Plan};
use super::reply::LocalReply;
use crate::cluster::{Cluster, Discovery, Host, Permit};
use crate::flags::Flags;

/// Tries until there is a response to pass on, or no attempt is left.
pub(super) async fn attempts(
    exchange: &mut Exchange,
    plan: &Plan<'_>,
    cluster: &Arc<Cluster>,
    hash: Option<u64>,
) -> Result<Forwarded, LocalReply> {
    let policy = plan
        .action
        .retry
        .as_ref()
        .filter(|policy| policy.retries > 0);
    if policy.is_none()
        && let Some(source) = &exchange.source
    {
        source.forget();
    }
    let mut left = policy.map_or(0, |policy| policy.retries);
    let mut tried: Vec<Arc<Host>> = Vec::new();
    let mut retry_permit: Option<Permit> = None;
    loop {
        exchange.record.attempts += 1;
        if plan.virtual_host.attempt_count_in_request {
            let count = HeaderValue::from(exchange.record.attempts);
            exchange.head.headers.insert(ATTEMPT_COUNT, count);
        }
        let Some(host) = choose_host(exchange, cluster, hash, policy, &tried) else {
            cluster.shared.stats.here().cx_none_healthy.inc();
            return Err(LocalReply::no_healthy_upstream());
        };
        exchange.record.upstream = Some(host.clone());
        if matches!(plan.action.host_rewrite, Some(HostRewrite::Endpoint))
            && !host.hostname.is_empty()
        {
            exchange.head.authority.clone_from(&host.hostname);
        }
        let result = one_attempt(exchange, cluster, &host, policy).await;
        let wanted = match (&result, policy) {
            (_, None) => false,
            (Ok((response, _)), Some(policy)) => {
                policy.retries_response(response.status(), response.headers())
            }
            (Err(error), Some(policy)) => policy.retries_failure(error.failure),
        };
        let replayable = exchange
            .source
            .as_ref()
            .is_none_or(|source| source.can_replay());
        let mut may_retry = wanted && replayable && exchange.upgrade.is_none();
        if may_retry && left == 0 {
            may_retry = false;
            cluster.shared.stats.here().rq_retry_limit_exceeded.inc();
            exchange
                .record
                .flags
                .set(Flags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
        }
        if may_retry && retry_permit.is_none() {
            retry_permit = Permit::take(
                &cluster.shared,
                |shared| &shared.retries,
                cluster.limits.retries,
            );
            if retry_permit.is_none() {
                cluster.shared.stats.here().rq_retry_overflow.inc();
                exchange.record.flags.set(Flags::UPSTREAM_OVERFLOW);
                may_retry = false;
            }
        }
        if let Some(policy) = policy.filter(|_| may_retry) {
            left -= 1;
            cluster.shared.stats.here().rq_retry.inc();
            tried.push(host);
            drop(result);
            let number = policy.retries - left;
            tokio::time::sleep(policy.pause(number, fastrand::u64(..))).await;
            continue;
        }
        return match result {
            Ok((response, hold)) => {
                if exchange.record.attempts > 1 && !wanted {
                    cluster.shared.stats.here().rq_retry_success.inc();
                }
                if let Some(source) = &exchange.source {
                    source.forget();
                }
                Ok(Forwarded {
                    response,
                    hold,
                    deadline: None,
                })
            }
            Err(error) if error.failure == Failure::AttemptTimeout => {
                Err(LocalReply::timeout("upstream_per_try_timeout"))
            }
            Err(error) => {
                let retried = exchange.record.attempts > 1;
                exchange.record.upstream_failure.clone_from(&error.text);
                Err(LocalReply::reset(&error.reset, retried, &error.text))
            }
        };
    }
}

/// Chooses an endpoint, avoiding those that were tried where the policy says so.
fn choose_host(
    exchange: &Exchange,
    cluster: &Cluster,
    hash: Option<u64>,
    policy: Option<&RetryPolicy>,
    tried: &[Arc<Host>],
) -> Option<Arc<Host>> {
    let connection = &exchange.connection;
    if cluster.discovery == Discovery::OriginalDestination {
        let make = || Cluster::original_destination(connection.info.local);
        return Some(connection.original.get_or_init(make).clone());
    }
    let avoid = policy.is_some_and(|policy| policy.avoid_previous_hosts) && !tried.is_empty();
    let choices = if avoid {
        policy.map_or(1, |policy| policy.host_attempts)
    } else {
        1
    };
    let mut chosen = None;
    for choice in 0..choices {
        let host = connection.worker.pick(cluster, hash, u64::from(choice))?;
        let fresh = tried.iter().all(|other| other.address != host.address);
        chosen = Some(host);
        if fresh {
            break;
        }
    }
    chosen
}
