//! Attempts: choosing an endpoint, sending the request, and trying again where the route allows it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue};
use lateen_route::balance::{Health, Previous};
use lateen_route::retry::{Failure, HostPredicate, RetryPolicy};
use lateen_route::rewrite::HostRewrite;
use tokio::time::Instant;

use super::attempt::{AttemptLimits, one_attempt};
use super::exchange::{ATTEMPT_COUNT, Exchange};
use super::forward::{EXPECTED_TIMEOUT, Forwarded, Plan, rewrite_host};
use super::reply::LocalReply;
use crate::balancing::Wish;
use crate::cluster::{Cluster, Discovery, Host, Limited, Permit};
use crate::flags::Flags;

/// Tries until there is a response to pass on, or no attempt is left. `times` are the limits of the whole request, which
/// counts since it `started`, and of one attempt that its headers asked for.
pub(super) async fn attempts(
    exchange: &mut Exchange,
    plan: &Plan<'_>,
    cluster: &Arc<Cluster>,
    wish: &Wish<'_>,
    times: (Option<Duration>, Option<Duration>),
    started: Instant,
) -> Result<Forwarded, LocalReply> {
    let policy = RetryPolicy::for_request(plan.action.retry.as_ref(), &mut exchange.head.headers);
    let limits = match exchange.upgrade {
        None => attempt_limits(policy.as_deref(), times),
        // They begin when the request is complete.
        Some(_) => AttemptLimits::default(),
    };
    let policy = policy.filter(|policy| policy.applies(&exchange.head.view()));
    let policy = policy.as_deref();
    if policy.is_none()
        && plan.action.internal_redirects.is_none()
        && let Some(source) = &exchange.source
    {
        source.expect_last_pass();
    }
    let mut left = policy.map_or(0, |policy| policy.retries);
    let mut tried: Vec<Arc<Host>> = Vec::new();
    // The last endpoint that did not take the request. One that answers keeps its sessions, whatever it answers.
    let mut failed: Option<SocketAddr> = None;
    let mut retry_permit: Option<Permit> = None;
    loop {
        exchange.record.attempts += 1;
        if plan.virtual_host.attempt_count_in_request {
            let count = HeaderValue::from(exchange.record.attempts);
            exchange.head.headers.insert(ATTEMPT_COUNT, count);
        }
        let chosen = match wanted_host(exchange, cluster) {
            Some(Err(lost)) => return Err(lost),
            Some(Ok(host)) if tried.is_empty() => Some(host),
            _ => {
                // A retry because of an answer goes where its policy says, and moves no session.
                let avoids = policy.is_some_and(|policy| !policy.avoid.is_empty());
                let of_session = if tried.is_empty() || failed.is_some() || !avoids {
                    session_host(exchange, cluster, wish, failed).await
                } else {
                    None
                };
                of_session.or_else(|| choose_host(exchange, cluster, wish, policy, &tried))
            }
        };
        let Some(host) = chosen else {
            cluster.shared.stats.here().cx_none_healthy.inc();
            return Err(LocalReply::no_healthy_upstream());
        };
        exchange.record.upstream = Some(host.clone());
        if matches!(plan.action.host_rewrite, Some(HostRewrite::Endpoint))
            && !host.hostname.is_empty()
            && host.hostname != exchange.head.authority
        {
            rewrite_host(exchange, plan, host.hostname.clone());
        }
        // At first the head says it, unless something was waited for since.
        if limits.time.is_some() || exchange.record.attempts > 1 || cluster.sticky.is_some() {
            expected_time(exchange, times.0, limits.time, started);
        }
        let result = one_attempt(exchange, cluster, &host, limits).await;
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
            retry_permit = cluster.permit(exchange.priority, Limited::Retries);
            if retry_permit.is_none() {
                cluster.shared.stats.here().rq_retry_overflow.inc();
                exchange.record.flags.set(Flags::UPSTREAM_OVERFLOW);
                may_retry = false;
            }
        }
        let redirects = plan.action.internal_redirects.as_ref();
        if let Ok((response, _)) = &result {
            let status = response.status();
            // Whoever looks at a redirect counts it, if it is not followed.
            let looked_at = redirects.is_some_and(|policy| policy.statuses.contains(&status));
            // Those that are tried again are nobody's answer.
            if !may_retry && !looked_at {
                cluster.count_response(status.as_u16());
            }
        }
        if let Some(policy) = policy.filter(|_| may_retry) {
            left -= 1;
            cluster.shared.stats.here().rq_retry.inc();
            failed = match &result {
                Err(error) if moves_session(error.failure) => Some(host.address),
                _ => None,
            };
            tried.push(host);
            let answered = result.as_ref().ok().map(|(response, _)| response.headers());
            let pause = pause(policy, policy.retries - left, answered, cluster);
            drop(result);
            tokio::time::sleep(pause).await;
            continue;
        }
        return match result {
            Ok((response, hold)) => {
                if exchange.record.attempts > 1 && !wanted {
                    cluster.shared.stats.here().rq_retry_success.inc();
                }
                if let Some(source) = exchange.source.as_ref().filter(|_| redirects.is_none()) {
                    source.forget();
                }
                Ok(Forwarded {
                    response,
                    hold,
                    deadline: None,
                })
            }
            Err(error) if matches!(error.failure, Failure::AttemptTimeout { .. }) => {
                Err(LocalReply::timeout(error.text))
            }
            Err(error) => {
                if moves_session(error.failure) {
                    // The next request of the session does not go where this one failed.
                    session_host(exchange, cluster, wish, Some(host.address)).await;
                }
                let retried = exchange.record.attempts > 1;
                exchange.record.upstream_failure.clone_from(&error.text);
                Err(LocalReply::reset(&error.reset, retried, &error.text))
            }
        };
    }
}

/// Tells the upstream how long this attempt may take.
fn expected_time(
    exchange: &mut Exchange,
    all: Option<Duration>,
    one: Option<Duration>,
    started: Instant,
) {
    if exchange.connection.manager.suppress_envoy_headers {
        return;
    }
    // Nothing means for ever, so that the last moment has to be a moment.
    let shortest = Duration::from_millis(1);
    // In whole milliseconds, so that a first attempt has all of it.
    let elapsed = Duration::from_millis(started.elapsed().as_millis() as u64);
    let left = all.map(|all| all.saturating_sub(elapsed).max(shortest));
    let Some(time) = one.into_iter().chain(left).min() else {
        return;
    };
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let headers = &mut exchange.head.headers;
    headers.insert(EXPECTED_TIMEOUT, HeaderValue::from(millis));
}

/// The limits of each attempt. Time for one attempt that is not shorter than that for all has no meaning.
fn attempt_limits(
    policy: Option<&RetryPolicy>,
    (all, asked): (Option<Duration>, Option<Duration>),
) -> AttemptLimits {
    let of_route = policy.and_then(|policy| policy.per_try_timeout);
    let time = asked.or(of_route).filter(|time| !time.is_zero());
    AttemptLimits {
        time: time.filter(|time| all.is_none_or(|all| *time < all)),
        idle: policy.and_then(|policy| policy.per_try_idle_timeout),
    }
}

/// How long to wait before retry number `number`.
fn pause(
    policy: &RetryPolicy,
    number: u32,
    answered: Option<&HeaderMap>,
    cluster: &Cluster,
) -> Duration {
    let stats = cluster.shared.stats.here();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let asked = answered.and_then(|headers| {
        policy.pause_of_response(headers, now.unwrap_or_default(), fastrand::u64(..))
    });
    match asked {
        Some(pause) => {
            stats.rq_retry_backoff_ratelimited.inc();
            pause
        }
        None => {
            stats.rq_retry_backoff_exponential.inc();
            policy.pause(number, fastrand::u64(..))
        }
    }
}

/// The endpoint that the request's session belongs to, if it takes requests; an error when only that one will do.
fn wanted_host(exchange: &Exchange, cluster: &Cluster) -> Option<Result<Arc<Host>, LocalReply>> {
    let wanted = exchange.wanted?;
    let found = cluster.hosts.iter().find(|host| {
        host.address == wanted.endpoint
            && host.health != Health::Unhealthy
            && !cluster.is_ejected(host)
    });
    match (found, wanted.strict) {
        (Some(host), _) => Some(Ok(host.clone())),
        (None, None) => None,
        (None, Some(status)) => {
            let mut reply = LocalReply::no_healthy_upstream();
            reply.status = status;
            Some(Err(reply))
        }
    }
}

/// The endpoint of the request's session, unless it has none. One that `failed` is left for another.
async fn session_host(
    exchange: &Exchange,
    cluster: &Cluster,
    wish: &Wish<'_>,
    failed: Option<SocketAddr>,
) -> Option<Arc<Host>> {
    let sticky = cluster.sticky.as_ref()?;
    let worker = &exchange.connection.worker;
    sticky
        .choose(worker, cluster, wish.session?, wish, failed)
        .await
}

/// Whether a failure says that the endpoint does not take requests.
fn moves_session(failure: Failure) -> bool {
    matches!(
        failure,
        Failure::Connect | Failure::ResetBeforeRequest | Failure::RefusedStream
    )
}

/// Chooses an endpoint, in a retry avoiding those that the policy says. When every choice is one of them, the last is
/// taken all the same.
fn choose_host(
    exchange: &Exchange,
    cluster: &Cluster,
    wish: &Wish<'_>,
    policy: Option<&RetryPolicy>,
    tried: &[Arc<Host>],
) -> Option<Arc<Host>> {
    let connection = &exchange.connection;
    if let Discovery::OriginalDestination(settings) = &cluster.discovery {
        // All requests of a connection want the same, unless a header says otherwise.
        let cached = connection.original.borrow().clone();
        let same = |(id, _): &(u64, _)| *id == cluster.shared.id && settings.header.is_none();
        if let Some((_, host)) = cached.filter(same) {
            return Some(host);
        }
        let restored = connection.info.restored.then_some(connection.info.local);
        let host = cluster.original_destination(settings, restored, Some(&exchange.head.headers));
        if settings.header.is_none() {
            let found = host.clone().map(|host| (cluster.shared.id, host));
            connection.original.replace(found);
        }
        return host;
    }
    let Some(policy) = policy.filter(|_| !tried.is_empty()) else {
        return connection.worker.pick(cluster, wish);
    };
    let priorities: Vec<u32> = tried.iter().map(|host| host.priority).collect();
    let previous = policy.previous_priorities.map(|frequency| Previous {
        tried: &priorities,
        frequency,
    });
    let avoided = |host: &Host| {
        policy.avoid.iter().any(|predicate| match predicate {
            HostPredicate::Previous => tried.iter().any(|other| other.address == host.address),
            HostPredicate::Canary => host.canary,
            HostPredicate::Labels(labels) => labels
                .iter()
                .all(|(key, value)| host.labels.get(key) == Some(value)),
        })
    };
    let choices = if policy.avoid.is_empty() {
        1
    } else {
        policy.host_attempts.saturating_add(1)
    };
    let mut chosen = None;
    for attempt in 0..u64::from(choices) {
        let wish = Wish {
            attempt,
            previous,
            ..*wish
        };
        let host = connection.worker.pick(cluster, &wish)?;
        let fresh = !avoided(&host);
        chosen = Some(host);
        if fresh {
            break;
        }
    }
    chosen
}
