//! Forwarding: finding the cluster, preparing the request, and the time limits around its attempts.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Response, header};
use lateen_route::balance::subset::Labels;
use lateen_route::hash::{Peer, hash_request};
use lateen_route::mutate::Mutations;
use lateen_route::retry::per_try_timeout;
use lateen_route::rewrite::HostRewrite;
use lateen_route::route::{Forward, WeightedCluster};
use lateen_route::{Route, VirtualHost};
use tokio::time::Instant;

use super::exchange::{Exchange, mutate_request};
use super::finish::{Deadline, UpstreamHold};
use super::found::target;
use super::incoming::Incoming;
use super::reply::LocalReply;
use super::request_body::{BodyFault, RequestSource};
use super::retry::attempts;
use super::upgrade::Upgrade;
use super::{hop, shadow};
use crate::balancing::Wish;
use crate::cluster::{Cluster, Priority};
use crate::http1::{Malformed, Refusal};
use crate::outlier::{Event, report};

const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) const EXPECTED_TIMEOUT: HeaderName =
    HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const UPSTREAM_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-ms");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The decision that is carried out.
pub(super) struct Plan<'p> {
    pub(super) route: &'p Route,
    pub(super) virtual_host: &'p VirtualHost,
    pub(super) action: &'p Forward,
    pub(super) chosen: Option<&'p WeightedCluster>,
    pub(super) levels: &'p [&'p Mutations],
}

/// An upstream's response.
pub(super) struct Forwarded {
    pub(super) response: Response<Incoming>,
    pub(super) hold: UpstreamHold,
    /// When the body must be complete.
    pub(super) deadline: Option<Deadline>,
}

/// Which limit ended a request.
#[derive(Debug, Clone, Copy)]
enum Expired {
    /// The time for the response.
    Response,
    /// That without progress.
    Idle,
    /// That of the whole stream.
    Stream,
}

/// Carries out the decision.
pub(super) async fn forward(
    exchange: &mut Exchange,
    plan: &Plan<'_>,
) -> Result<Forwarded, LocalReply> {
    let cluster = find_cluster(exchange, plan)?;
    exchange.record.cluster = Some(cluster.clone());
    if cluster.drops() {
        cluster.shared.stats.here().rq_drop_overload.inc();
        return Err(LocalReply::drop_overload(cluster.drop_percent >= 100.0));
    }
    if plan.action.high_priority {
        exchange.priority = Priority::High;
    }
    let (hash, cookies) = request_hash(exchange, plan, &cluster);
    let session = cluster.sticky.as_ref().and_then(|sticky| {
        let source = exchange.connection.info.remote.ip();
        // The head changes before the endpoint is chosen.
        let key = sticky.key.of(&exchange.head.view(), source)?;
        Some(key.into_owned())
    });
    let subset = subset(plan);
    prepare_head(exchange, plan);
    let manager = exchange.connection.manager.clone();
    let worker = &exchange.connection.worker;
    manager
        .peer_headers
        .on_forward(worker, &cluster, &mut exchange.head.headers);
    let timeout = timeout(exchange, plan);
    let per_try = per_try_timeout(&mut exchange.head.headers);
    let wish = Wish {
        hash,
        labels: subset.as_deref(),
        session: session.as_deref(),
        ..Wish::default()
    };
    if let Some(time) = timeout
        && !exchange.connection.manager.suppress_envoy_headers
    {
        // Nothing means for ever, so that the last moment has to be a moment.
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        exchange
            .head
            .headers
            .insert(EXPECTED_TIMEOUT, HeaderValue::from(millis));
    }
    // The time begins when the request is complete, which is never if it becomes a tunnel.
    let is_tunnel = exchange.upgrade.is_some();
    let (timeout, per_try) = if is_tunnel {
        (None, None)
    } else {
        (timeout, per_try)
    };
    // Copies see what the upstream sees, so they are made after every change of the head.
    if !is_tunnel {
        shadow::start(exchange, plan, timeout);
    }
    let idle = plan
        .action
        .idle_timeout
        .or(exchange.connection.manager.stream_idle_timeout);
    let idle = idle.filter(|time| !time.is_zero());
    exchange.idle = idle;
    let source = exchange.source.clone();
    let ends = stream_limit(exchange, plan).map(|limit| Deadline {
        at: Instant::from_std(exchange.record.started) + limit,
        of_stream: true,
    });
    let deadline = std::cell::Cell::new(None);
    let now = Instant::now();
    // The time for the response begins when the request is complete, which without a body is now.
    let at_once = timeout.filter(|_| source.is_none()).map(|time| now + time);
    deadline.set(at_once);
    let limits = [
        at_once.map(|at| (at, Expired::Response)),
        idle.map(|time| (now + time, Expired::Idle)),
        ends.map(|deadline| (deadline.at, Expired::Stream)),
    ];
    let first = limits.into_iter().flatten().min_by_key(|(at, _)| *at);
    let connection = exchange.connection.clone();
    let expired = async {
        let Some((mut at, mut limit)) = first else {
            return std::future::pending().await;
        };
        loop {
            connection.until(at).await;
            let progress = source.as_deref().and_then(RequestSource::progress);
            match (limit, idle, progress) {
                // The body goes on, and so does the time without progress; that of the stream may end before.
                (Expired::Idle, Some(time), Some(progress)) if progress + time > at => {
                    at = progress + time;
                    if let Some(ends) = ends.filter(|ends| ends.at < at) {
                        (at, limit) = (ends.at, Expired::Stream);
                    }
                }
                _ => return limit,
            }
        }
    };
    let late = async {
        let (Some(source), Some(time)) = (&source, timeout) else {
            return std::future::pending().await;
        };
        source.ended().await;
        let at = Instant::now() + time;
        deadline.set(Some(at));
        tokio::time::sleep_until(at).await;
        Expired::Response
    };
    let result = tokio::select! {
        biased;
        result = attempts(exchange, plan, &cluster, &wish, (timeout, per_try), now) => Ok(result),
        limit = expired => Err(limit),
        limit = late => Err(limit),
    };
    let mut forwarded = match result {
        // Whatever the endpoint made of it, it is the client's fault.
        Ok(Err(reply)) => {
            return Err(match source.as_deref().and_then(RequestSource::fault) {
                None => reply,
                Some(BodyFault::Malformed) => {
                    LocalReply::refusal(Refusal::Malformed(Malformed::Chunk))
                }
                Some(BodyFault::Left) => LocalReply::client_left(),
            });
        }
        Ok(Ok(forwarded)) => forwarded,
        Err(Expired::Response) => {
            cluster.shared.stats.here().rq_timeout.inc();
            if exchange.trying
                && let Some(host) = &exchange.record.upstream
            {
                let connected = exchange.record.upstream_local.is_some();
                let event = Event::LocalFailure {
                    status: 504,
                    connected,
                };
                report(&exchange.connection.worker, &cluster, host, event);
            }
            return Err(LocalReply::timeout("response_timeout"));
        }
        Err(Expired::Idle) => return Err(LocalReply::stream_idle(received(source.as_deref()))),
        Err(Expired::Stream) => {
            return Err(LocalReply::stream_too_long(received(source.as_deref())));
        }
    };
    let of_response = deadline.get().map(|at| Deadline {
        at,
        of_stream: false,
    });
    forwarded.deadline = [of_response, ends]
        .into_iter()
        .flatten()
        .min_by_key(|deadline| deadline.at);
    for cookie in cookies {
        let headers = forwarded.response.headers_mut();
        headers.append(header::SET_COOKIE, cookie);
    }
    Ok(forwarded)
}

/// The labels of the subset that the route and the drawn cluster ask for; nothing when they ask for none.
fn subset<'p>(plan: &Plan<'p>) -> Option<Cow<'p, Labels>> {
    let of_route = &plan.action.subset;
    let of_cluster = plan.chosen.map(|cluster| &cluster.subset);
    match of_cluster.filter(|labels| !labels.is_empty()) {
        None => (!of_route.is_empty()).then_some(Cow::Borrowed(of_route)),
        Some(labels) if of_route.is_empty() => Some(Cow::Borrowed(labels)),
        Some(labels) => {
            let mut all = of_route.clone();
            all.extend(labels.clone());
            Some(Cow::Owned(all))
        }
    }
}

fn find_cluster(exchange: &Exchange, plan: &Plan<'_>) -> Result<Arc<Cluster>, LocalReply> {
    let name = target(plan.action, plan.chosen, &exchange.head);
    let clusters = exchange.connection.worker.shared.clusters.load();
    name.and_then(|name| clusters.get(name))
        .cloned()
        .ok_or_else(|| {
            exchange.connection.manager.stats.here().no_cluster.inc();
            LocalReply::no_cluster(plan.action.cluster_not_found)
        })
}

/// The hash for consistent balancing, and the cookies that the response sets for it.
fn request_hash(
    exchange: &Exchange,
    plan: &Plan<'_>,
    cluster: &Cluster,
) -> (Option<u64>, Vec<HeaderValue>) {
    // Others do not ask, so that no cookie is made for them.
    if plan.action.hash.is_empty() || !cluster.balancing.hashes() {
        return (None, Vec::new());
    }
    let info = &exchange.connection.info;
    let (ip, remote, local) = (
        info.remote.ip().to_string(),
        info.remote.to_string(),
        info.local.to_string(),
    );
    let peer = Peer {
        remote_ip: &ip,
        remote: &remote,
        local: &local,
    };
    let (hash, cookies) = hash_request(&plan.action.hash, &exchange.head.view(), &peer);
    let cookies = cookies
        .into_iter()
        .filter_map(|(cookie, value)| HeaderValue::try_from(cookie.set(&value)).ok())
        .collect();
    (hash, cookies)
}

/// Header changes, rewrites, and the removal of what concerns the client's connection only.
fn prepare_head(exchange: &mut Exchange, plan: &Plan<'_>) {
    mutate_request(exchange, plan.levels);
    let suppress = exchange.connection.manager.suppress_envoy_headers;
    let upgrade = exchange.upgrade.as_ref().map(Upgrade::is_connect);
    let head = &mut exchange.head;
    hop::strip(&mut head.headers, upgrade == Some(false));
    if upgrade == Some(true) {
        // There is no body that it could be the length of.
        head.headers.remove(header::CONTENT_LENGTH);
    }
    // Answered by the codec when the upstream begins to take the body.
    let awaited = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if head.headers.get(header::EXPECT).is_some_and(awaited) {
        head.headers.remove(header::EXPECT);
    }
    // What the path was before it is changed decides.
    let of_path = match &plan.action.host_rewrite {
        Some(HostRewrite::Path(rewrite)) => {
            let host = rewrite.replace(head.view().path_only().as_bytes());
            String::from_utf8(host.into_owned()).ok()
        }
        _ => None,
    };
    if let Some(rewrite) = &plan.action.path_rewrite
        && let Some(path) = rewrite.apply(plan.route, &head.path)
    {
        let original = std::mem::replace(&mut head.path, path);
        if let Ok(value) = HeaderValue::from_str(&original)
            && !suppress
        {
            head.headers.insert(ORIGINAL_PATH, value);
        }
    }
    // The cluster's comes first, and the route's has the last word.
    if let Some(host) = plan.chosen.and_then(|cluster| cluster.host_rewrite.clone()) {
        head.authority = host;
    }
    let of_route = match &plan.action.host_rewrite {
        Some(HostRewrite::Literal(host)) => Some(host.clone()),
        Some(HostRewrite::Header(name)) => head
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .filter(|value| !value.is_empty())
            .map(str::to_owned),
        // Known when the endpoint is chosen.
        Some(HostRewrite::Path(_)) => of_path,
        Some(HostRewrite::Endpoint) | None => None,
    };
    if let Some(host) = of_route {
        set_host(head, host, plan.action.append_forwarded_host, suppress);
    }
}

/// Replaces the host by the one of the endpoint.
pub(super) fn rewrite_host(exchange: &mut Exchange, plan: &Plan<'_>, host: String) {
    let suppress = exchange.connection.manager.suppress_envoy_headers;
    set_host(
        &mut exchange.head,
        host,
        plan.action.append_forwarded_host,
        suppress,
    );
}

fn set_host(head: &mut super::head::Head, host: String, append: bool, suppress: bool) {
    let original = std::mem::replace(&mut head.authority, host);
    if let Ok(value) = HeaderValue::from_str(&original) {
        if append {
            head.headers.append(FORWARDED_HOST, value.clone());
        }
        if !suppress {
            head.headers.insert(ORIGINAL_HOST, value);
        }
    }
}

/// The time for the whole response: the route's, the client's header, or the gRPC deadline.
fn timeout(exchange: &mut Exchange, plan: &Plan<'_>) -> Option<Duration> {
    let mut timeout = plan.action.timeout;
    let asked = grpc_limit(exchange, plan, plan.action.grpc_timeout_max);
    timeout = asked.or(timeout);
    let headers = &mut exchange.head.headers;
    let given = headers.remove(UPSTREAM_TIMEOUT);
    let given = given.and_then(|value| value.to_str().ok()?.parse().ok());
    given
        .map(Duration::from_millis)
        .or(timeout)
        .filter(|time| !time.is_zero())
}

/// The time for the whole stream: the gRPC deadline, where it counts, or the route's.
fn stream_limit(exchange: &Exchange, plan: &Plan<'_>) -> Option<Duration> {
    grpc_limit(exchange, plan, plan.action.grpc_stream_max).or(plan.action.stream_limit)
}

/// What `grpc-timeout` asks for, at most `most` unless that is zero.
fn grpc_limit(exchange: &Exchange, plan: &Plan<'_>, most: Option<Duration>) -> Option<Duration> {
    let most = most?;
    let header = exchange.head.headers.get(GRPC_TIMEOUT);
    let asked = header.and_then(grpc_timeout)?;
    let offset = plan.action.grpc_timeout_offset;
    let asked = if offset < asked {
        asked - offset
    } else {
        asked
    };
    Some(if most.is_zero() {
        asked
    } else {
        asked.min(most)
    })
}

/// Whether the whole request has come.
fn received(source: Option<&RequestSource>) -> bool {
    source.is_none_or(RequestSource::is_complete)
}

/// Reads `grpc-timeout`: up to eight digits and a unit.
fn grpc_timeout(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}
