//! One attempt: a connection to the chosen endpoint, the request as it is sent, and what its failure means.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, Uri, Version};
use hyper::upgrade::OnUpgrade;
use lateen_route::retry::Failure;
use lateen_route::route::Announcement;
use tokio::io::AsyncWriteExt as _;

use super::exchange::Exchange;
use super::filter::alpn::UpstreamProtocols;
use super::finish::{Lease, UpstreamHold};
use super::head::Head;
use super::incoming::Incoming;
use super::reply::{Reset, http_status};
use super::request_body::{RequestBody, RequestSource};
use super::upgrade::{self, Upgrade};
use crate::cluster::{ActiveRequest, Cluster, Host, Limited, Priority, UpstreamVersion};
use crate::http1::{self, Opens, OutgoingHead};
use crate::outlier::{Event, report};
use crate::pool::{Carrier, PoolError};
use crate::proxy_protocol::{self, Ends};
use crate::tls::client::AskedOfTls;
use crate::upstream::{Asked, ConnectError};
use crate::worker::Worker;

/// How often an attempt takes another connection because the one it took turned out to be closed.
const STALE_CONNECTIONS: u32 = 8;

/// Why an attempt has no response.
pub(crate) struct AttemptError {
    pub(super) failure: Failure,
    pub(super) reset: Reset,
    /// What the transport said, for the log.
    pub(crate) text: String,
}

/// Sends the request once. A connection that turns out to be closed before anything was sent is replaced silently.
pub(super) async fn one_attempt(
    exchange: &mut Exchange,
    cluster: &Arc<Cluster>,
    host: &Arc<Host>,
    limits: AttemptLimits,
) -> Result<(Response<Incoming>, UpstreamHold), AttemptError> {
    let priority = exchange.priority;
    let Some(permit) = cluster.permit(priority, Limited::Requests) else {
        cluster.shared.stats.here().rq_active_overflow.inc();
        return Err(AttemptError::from(PoolError::Overflow));
    };
    let active = ActiveRequest::start(host, &cluster.shared, permit);
    let version = cluster.protocol.version(exchange.connection.http2);
    let terminates = exchange.terminates;
    exchange.record.upstream_http2 = match version {
        _ if terminates.is_some() => None,
        UpstreamVersion::Http1 => Some(false),
        UpstreamVersion::Http2 => Some(true),
        // Seen when there is a connection.
        UpstreamVersion::Negotiated => None,
    };
    let worker = exchange.connection.worker.clone();
    let protocols = exchange.upstream_protocols.clone();
    let choice = Choice {
        priority,
        protocols: protocols.as_deref(),
        client: exchange.connection.client(cluster, host),
    };
    let (head, source) = (&exchange.head, &exchange.source);
    let opens = exchange
        .upgrade
        .as_ref()
        .map_or(Opens::Nothing, Upgrade::opens);
    // The log shows the connection of this attempt, not of one before.
    let local = &mut exchange.record.upstream_local;
    *local = None;
    exchange.trying = true;
    let ends = exchange.connection.info.ends();
    let sending = async {
        if let Some(terminate) = terminates {
            let announces = terminate.announces.map(|version| (version, ends));
            return open(&worker, cluster, host, choice, head, announces, local).await;
        }
        let body = source
            .as_ref()
            .map_or(RequestBody::Empty, |source| source.pass());
        let outgoing = Outgoing {
            head,
            body,
            version,
            opens,
        };
        send(&worker, cluster, host, choice, outgoing, local).await
    };
    let expired = tokio::select! {
        result = sending => Ok(result),
        () = sleep(limits.time) => Err("upstream_per_try_timeout"),
        () = stalled(limits.idle, source.as_deref()) => Err("upstream_per_try_idle_timeout"),
    };
    let result = expired.unwrap_or_else(|details| {
        cluster.shared.stats.here().rq_per_try_timeout.inc();
        let sent = local.is_some();
        Err(AttemptError {
            failure: Failure::AttemptTimeout { sent },
            reset: Reset::Remote,
            text: details.to_owned(),
        })
    });
    exchange.trying = false;
    report_attempt(exchange, cluster, host, &result);
    match result {
        Ok((response, lease)) => {
            exchange.record.response_start = Some(exchange.record.started.elapsed());
            exchange.record.upstream_tls = lease.tls();
            exchange.record.upstream_http2 = match lease {
                Lease::Http1(_) => Some(false),
                Lease::Http2(_) => Some(true),
                Lease::Tcp(_) => None,
            };
            if response.status().is_server_error() {
                host.shared.failed_requests.fetch_add(1, Ordering::Relaxed);
            }
            let hold = UpstreamHold {
                lease,
                cluster: cluster.clone(),
                worker,
                active,
            };
            Ok((response, hold))
        }
        Err(error) => {
            host.shared.failed_requests.fetch_add(1, Ordering::Relaxed);
            if matches!(error.reset, Reset::Remote | Reset::Refused)
                && !matches!(error.failure, Failure::AttemptTimeout { .. })
            {
                cluster.shared.stats.here().rq_rx_reset.inc();
            }
            Err(error)
        }
    }
}

/// Times that one attempt may take.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct AttemptLimits {
    /// From its beginning to the head of the response.
    pub(super) time: Option<Duration>,
    /// Without progress.
    pub(super) idle: Option<Duration>,
}

async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// Ends when for some time nothing of the request's body came.
async fn stalled(idle: Option<Duration>, source: Option<&RequestSource>) {
    let received = || source.map_or(0, RequestSource::received);
    let mut before = received();
    loop {
        sleep(idle).await;
        let now = received();
        if now == before {
            return;
        }
        before = now;
    }
}

/// Tells outlier detection how an attempt ended.
fn report_attempt(
    exchange: &Exchange,
    cluster: &Cluster,
    host: &Host,
    result: &Result<(Response<Incoming>, Lease), AttemptError>,
) {
    let event = match result {
        Ok((response, _)) => Some(Event::Response(outlier_status(&exchange.head, response))),
        // An endpoint is not to blame for a request that broke off.
        Err(_)
            if exchange
                .source
                .as_ref()
                .is_some_and(|source| source.fault().is_some()) =>
        {
            None
        }
        Err(error) => error.event(exchange.record.upstream_local.is_some()),
    };
    if let Some(event) = event {
        report(&exchange.connection.worker, cluster, host, event);
    }
}

/// The status that counts for outlier detection: a gRPC call that failed without a message says why in its headers.
pub(super) fn outlier_status(head: &Head, response: &Response<Incoming>) -> u16 {
    let grpc = head
        .is_grpc()
        .then(|| response.headers().get("grpc-status"));
    let code = grpc
        .flatten()
        .and_then(|value| value.to_str().ok()?.parse().ok());
    code.map_or_else(|| response.status().as_u16(), http_status)
}

/// Which connections of a pool a request may use.
#[derive(Clone, Copy)]
pub(super) struct Choice<'a> {
    pub(super) priority: Priority,
    /// Application protocols that a filter chose for TLS.
    pub(super) protocols: Option<&'a UpstreamProtocols>,
    /// The client, for endpoints that are told.
    pub(super) client: Option<Ends>,
}

/// A request on its way to an endpoint.
pub(super) struct Outgoing<'h> {
    pub(super) head: &'h Head,
    pub(super) body: RequestBody,
    pub(super) version: UpstreamVersion,
    pub(super) opens: Opens,
}

/// Sends a request on a connection of the pool. The address of the connection's near end goes to `local` before the
/// answer is waited for.
pub(super) async fn send(
    worker: &Worker,
    cluster: &Arc<Cluster>,
    host: &Arc<Host>,
    choice: Choice<'_>,
    request: Outgoing<'_>,
    local: &mut Option<SocketAddr>,
) -> Result<(Response<Incoming>, Lease), AttemptError> {
    let Outgoing {
        head,
        mut body,
        version,
        opens,
    } = request;
    let mut asked = Asked {
        tls: asked_of_tls(cluster, head),
        client: choice.client,
    };
    if let Some(protocols) = choice.protocols {
        let http2 = version == UpstreamVersion::Http2;
        protocols.apply(cluster, http2, &mut asked.tls);
    }
    let (pools, priority) = (&worker.pools, choice.priority);
    let mut stale = 0;
    loop {
        let lease = match version {
            UpstreamVersion::Http1 => {
                Carrier::Http1(pools.http1(worker, cluster, host, &asked, priority).await?)
            }
            UpstreamVersion::Http2 => {
                Carrier::Http2(pools.http2(worker, cluster, host, &asked, priority).await?)
            }
            UpstreamVersion::Negotiated => {
                let negotiated = pools.negotiated(worker, cluster, host, &asked, priority);
                // In a box, so that requests to other clusters do not carry the room for it.
                Box::pin(negotiated).await?
            }
        };
        if stale == 0 {
            host.count_request(&cluster.shared);
        }
        let (error, unsent) = match lease {
            Carrier::Http2(mut stream) => {
                let request = build(head, body, opens)?;
                *local = stream.connection.local;
                match stream.sender.try_send_request(request).await {
                    Ok(response) => {
                        let mut response = response.map(Incoming::Http2);
                        if opens == Opens::Protocol
                            && response.extensions().get::<OnUpgrade>().is_some()
                        {
                            // What says so in HTTP/1.1.
                            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                        }
                        return Ok((response, Lease::Http2(stream)));
                    }
                    Err(mut error) => {
                        let unsent = error.take_message().map(Request::into_body);
                        (classify_http2(&error.into_error()), unsent)
                    }
                }
            }
            Carrier::Http1(mut connection) => {
                connection.served += 1;
                *local = connection.local;
                let outgoing = OutgoingHead {
                    method: &head.method,
                    path: &head.path,
                    authority: &head.authority,
                    headers: &head.headers,
                    opens,
                };
                match connection.codec.send(outgoing, body).await {
                    Ok(response) => {
                        let response = response.map(Incoming::Http1Response);
                        return Ok((response, Lease::Http1(connection)));
                    }
                    Err(failed) => (classify_http1(&failed.error), failed.unsent),
                }
            }
        };
        let is_unsent = unsent.is_some();
        match unsent {
            Some(unsent) if stale < STALE_CONNECTIONS => {
                stale += 1;
                body = unsent;
            }
            _ => return Err(error.unless_sent(is_unsent)),
        }
    }
}

/// What the request says about the TLS server name of its connection.
fn asked_of_tls(cluster: &Cluster, head: &Head) -> AskedOfTls {
    let rules = &cluster.server_name;
    if !rules.of_request && !rules.check {
        return AskedOfTls::default();
    }
    let given = rules.header.as_deref().and_then(|name| {
        let value = head.headers.get(name)?.to_str().ok()?;
        Some(value).filter(|value| !value.is_empty())
    });
    let authority = given.unwrap_or(&head.authority);
    let host = Some(without_port(authority).to_owned()).filter(|host| !host.is_empty());
    // An address is no server name, and is not sent.
    let is_name = |host: &String| host.parse::<std::net::IpAddr>().is_err();
    AskedOfTls {
        server_name: host
            .clone()
            .filter(|host| rules.of_request && is_name(host)),
        certificate_name: host.filter(|_| rules.check),
        protocols: None,
    }
}

/// The host of an authority.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            host.trim_start_matches('[').trim_end_matches(']')
        }
        _ => authority,
    }
}

/// Opens a connection for the bytes of a tunnel that ends here, which is all that there is to do. They begin with a
/// header that says whose they are, if that is wanted.
async fn open(
    worker: &Worker,
    cluster: &Arc<Cluster>,
    host: &Arc<Host>,
    choice: Choice<'_>,
    head: &Head,
    announces: Option<(Announcement, Ends)>,
    local: &mut Option<SocketAddr>,
) -> Result<(Response<Incoming>, Lease), AttemptError> {
    let asked = Asked {
        tls: asked_of_tls(cluster, head),
        client: choice.client,
    };
    let pools = &worker.pools;
    let mut connection = pools
        .tcp(worker, cluster, host, &asked, choice.priority)
        .await?;
    *local = connection.local;
    host.count_request(&cluster.shared);
    if let (Some((announcement, ends)), Some(stream)) = (announces, &mut connection.stream) {
        let version = match announcement {
            Announcement::V1 => proxy_protocol::Version::V1,
            Announcement::V2 => proxy_protocol::Version::V2,
        };
        let header = proxy_protocol::header(version, Some(ends), ends);
        stream.write_all(&header).await.map_err(|_| AttemptError {
            failure: Failure::Reset,
            reset: Reset::ConnectionTermination,
            text: String::new(),
        })?;
    }
    Ok((Response::new(Incoming::Nothing), Lease::Tcp(connection)))
}

/// The request as it is sent over HTTP/2.
fn build(
    head: &Head,
    body: RequestBody,
    opens: Opens,
) -> Result<Request<RequestBody>, AttemptError> {
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.headers_mut() = head.headers.clone();
    *request.version_mut() = Version::HTTP_2;
    let mut builder = Uri::builder().authority(head.authority.as_str());
    if opens == Opens::Protocol
        && let Some(protocol) = upgrade::to_http2(request.headers_mut())
    {
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(protocol);
    }
    if !head.path.is_empty() {
        let path = head.path.as_str();
        builder = builder.scheme(head.scheme).path_and_query(path);
    }
    *request.uri_mut() = builder
        .build()
        .map_err(|error| AttemptError::unsendable(error.to_string()))?;
    Ok(request)
}

/// What an error of the HTTP/1 codec means.
fn classify_http1(error: &http1::Error) -> AttemptError {
    let (failure, reset) = match error {
        http1::Error::Head | http1::Error::BodyLength => {
            return AttemptError::unsendable(error.to_string());
        }
        http1::Error::Malformed(_) => (Failure::Reset, Reset::Protocol),
        _ => (Failure::Reset, Reset::ConnectionTermination),
    };
    AttemptError {
        failure,
        reset,
        text: String::new(),
    }
}

/// What an error of the HTTP/2 codec means.
fn classify_http2(error: &hyper::Error) -> AttemptError {
    let h2 = error
        .source()
        .and_then(|source| source.downcast_ref::<h2::Error>());
    let (failure, reset) = match h2 {
        Some(error) if error.reason() == Some(h2::Reason::REFUSED_STREAM) => {
            (Failure::RefusedStream, Reset::Refused)
        }
        Some(error) if error.is_reset() => (Failure::Reset, Reset::Remote),
        _ => (Failure::Reset, Reset::ConnectionTermination),
    };
    AttemptError {
        failure,
        reset,
        text: String::new(),
    }
}

impl AttemptError {
    /// The request cannot be written, whoever it goes to.
    fn unsendable(text: String) -> Self {
        Self {
            failure: Failure::Overflow,
            reset: Reset::ConnectionTermination,
            text,
        }
    }

    /// Says so if nothing of the request was sent.
    fn unless_sent(mut self, is_unsent: bool) -> Self {
        if is_unsent && self.reset == Reset::ConnectionTermination {
            self.failure = Failure::ResetBeforeRequest;
        }
        self
    }

    /// What the failure says about the endpoint. An overflow says nothing: it was refused on this side, and ejecting
    /// endpoints because of it would leave even fewer to carry the load.
    pub(super) fn event(&self, connected: bool) -> Option<Event> {
        let status = match self.failure {
            Failure::Overflow => return None,
            Failure::AttemptTimeout { .. } => 504,
            _ => 503,
        };
        Some(Event::LocalFailure { status, connected })
    }
}

impl From<PoolError> for AttemptError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Overflow => Self {
                failure: Failure::Overflow,
                reset: Reset::Overflow,
                text: String::new(),
            },
            PoolError::Connect(error) => Self {
                failure: Failure::Connect,
                reset: match error {
                    ConnectError::Timeout => Reset::ConnectionTimeout,
                    _ => Reset::ConnectionFailure,
                },
                text: error.reason(),
            },
        }
    }
}
