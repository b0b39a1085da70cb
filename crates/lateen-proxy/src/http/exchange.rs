//! One request: from its head to the response that is sent.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version, header};
use http_body::Body;
use lateen_route::filter::FilterLevels;
use lateen_route::mutate::Mutations;
use lateen_route::redirect::Redirect;
use lateen_route::route::Terminate;
use lateen_route::{Action, Decision, Route, RouteTable};

use super::body::{Content, ResponseBody};
use super::connection::HttpConnection;
use super::filter::alpn::UpstreamProtocols;
use super::filter::{ActiveFault, Passed, Wanted};
use super::finish::{Deadline, Lease, Tail, UpstreamHold};
use super::forward::{self, Forwarded};
use super::found::Found;
use super::head::Head;
use super::manager::{HttpManager, ServerHeader};
use super::reply::{LocalReply, grpc_status};
use super::request_body::RequestSource;
use super::throttle::Throttled;
use super::upgrade::{self, Side, Switched, Upgrade};
use super::{filter, forwarded, hop, redirect};
use crate::cluster::Priority;
use crate::record::Record;

const UPSTREAM_SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
pub(super) const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

/// A request on its way.
pub(super) struct Exchange {
    pub(super) connection: Rc<HttpConnection>,
    pub(super) record: Record,
    pub(super) head: Head,
    pub(super) source: Option<Rc<RequestSource>>,
    /// The client wants another protocol.
    pub(super) upgrade: Option<Upgrade>,
    /// The tunnel that the client wants ends here.
    pub(super) terminates: Option<Terminate>,
    /// Time without progress.
    pub(super) idle: Option<Duration>,
    /// An attempt waits for its endpoint, which is to blame when time runs out.
    pub(super) trying: bool,
    /// Whose circuit breakers and connections it uses.
    pub(super) priority: Priority,
    /// The endpoint of the request's session.
    pub(super) wanted: Option<Wanted>,
    /// Application protocols for TLS to the upstream, instead of the cluster's.
    pub(super) upstream_protocols: Option<Arc<UpstreamProtocols>>,
    /// A fault was injected.
    pub(super) fault: Option<ActiveFault>,
    /// Redirects of endpoints that were followed: names of the routes that they led from and to.
    pub(super) redirects: Vec<(String, String)>,
    /// Bytes per second of the response, when a fault limits them.
    pub(super) response_rate: Option<u64>,
    /// What came is no request, so that nothing is known of its head.
    pub(super) unknown: bool,
}

/// What is sent back.
pub(super) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    content: Content,
    hold: Option<UpstreamHold>,
    deadline: Option<Deadline>,
    close: bool,
    /// The other side of the tunnel that the client gets.
    side: Option<Side>,
}

impl Exchange {
    /// Begins to count a request.
    pub(super) fn new(connection: Rc<HttpConnection>, head: Head) -> Self {
        count_start(&connection);
        let mut record = Record::new(connection.info.clone());
        record.version = Some(head.version);
        Self {
            record,
            head,
            source: None,
            upgrade: None,
            terminates: None,
            idle: connection.manager.stream_idle_timeout,
            trying: false,
            priority: Priority::Default,
            wanted: None,
            upstream_protocols: None,
            fault: None,
            redirects: Vec::new(),
            response_rate: None,
            unknown: false,
            connection,
        }
    }

    /// The answer to the request, unless the client takes too long to send it.
    pub(super) async fn route_in_time(&mut self, limit: Option<Duration>) -> Answer {
        // Bodies that are complete with their heads cannot be late.
        let Some((limit, source)) = limit.zip(self.source.clone()) else {
            return self.route().await;
        };
        let late = async {
            tokio::select! {
                () = source.ended() => std::future::pending().await,
                () = tokio::time::sleep(limit) => {}
            }
        };
        let answer = tokio::select! {
            answer = self.route() => Some(answer),
            () = late => None,
        };
        answer.unwrap_or_else(|| {
            self.connection.manager.stats.here().rq_timeout.inc();
            self.local(LocalReply::request_timeout())
        })
    }

    /// Decides where the request goes, and gets the answer from there.
    async fn route(&mut self) -> Answer {
        let manager = self.connection.manager.clone();
        forwarded::apply(&mut self.head, &manager, &self.connection.info);
        let worker = &self.connection.worker;
        manager
            .peer_headers
            .on_request(worker, &mut self.record, &mut self.head.headers);
        if let Err(reply) = filter::body::copy_fields(self, &manager.body_fields).await {
            return self.local(reply);
        }
        loop {
            if let Some(answer) = self.pass(&manager).await {
                return answer;
            }
        }
    }

    /// Goes once through filters and route. Nothing when the request has to do so again, as a redirect was followed.
    async fn pass(&mut self, manager: &HttpManager) -> Option<Answer> {
        let Some(table) = manager.routes.load() else {
            return Some(self.local(LocalReply::not_found()));
        };
        let decision = table.decide(&self.head.view(), fastrand::u64(..));
        let found = Found::new(&decision);
        let told = manager.tracing.and_then(|side| {
            let operation = found
                .as_ref()
                .and_then(|found| found.route.operation.as_ref());
            side.on_request(&mut self.head.headers, operation)
        });
        let mut passed = Passed::default();
        let levels = found
            .as_ref()
            .map_or_else(FilterLevels::default, |found| found.filter_levels(&table));
        let cluster = found.as_ref().and_then(|found| found.cluster(&self.head));
        let cluster = cluster
            .map(str::to_owned)
            .filter(|_| !manager.filters.0.is_empty());
        let filtered = match found
            .as_ref()
            .map_or(Ok(()), |found| self.check_upgrade(found))
        {
            Ok(()) => {
                let cluster = cluster.as_deref();
                let filters = &manager.filters;
                filters.on_request(self, levels, cluster, &mut passed).await
            }
            refused => refused,
        };
        if filtered.is_ok() {
            // It has passed the filters, and reaches the router.
            manager.stats.here().forwarded.inc();
        }
        let mut answer = match (filtered, found) {
            // Header changes count for routes that forward, and for answers that are no part of CORS.
            (Err(reply), Some(found)) if found.route.forward().is_some() && !reply.plain => {
                self.local_with(reply, &found.mutation_levels(&table))
            }
            (Err(reply), _) => self.local(reply),
            (Ok(()), Some(found)) => self.act(&table, &found).await?,
            (Ok(()), None) if matches!(decision, Decision::RedirectToHttps(_)) => {
                self.redirect(&Redirect::to_https(), None, &[])
            }
            (Ok(()), None) => {
                manager.stats.here().no_route.inc();
                self.local(LocalReply::not_found())
            }
        };
        let headers = &mut answer.headers;
        manager
            .filters
            .on_response(self, levels, &mut passed, headers);
        if let Some(side) = manager.tracing {
            side.on_response(headers, told);
        }
        Some(answer)
    }

    /// Changes of protocol must be allowed by the route, or else by the listener.
    fn check_upgrade(&mut self, found: &Found<'_>) -> Result<(), LocalReply> {
        let Some(upgrade) = &mut self.upgrade else {
            return Ok(());
        };
        let manager = &self.connection.manager;
        let of_route = found.route.forward().and_then(|action| {
            let mut upgrades = action.upgrades.iter();
            upgrades.find(|other| other.name == upgrade.protocol)
        });
        let is_allowed = match of_route {
            Some(of_route) => of_route.enabled,
            None => manager.upgrades.contains(&upgrade.protocol),
        };
        if is_allowed {
            upgrade.count(&manager.stats);
            self.terminates = of_route.and_then(|of_route| of_route.terminates);
            return Ok(());
        }
        manager.stats.here().ws_on_non_ws_route.inc();
        self.record.route.clone_from(&found.route.name);
        let virtual_host = &found.virtual_host.name;
        self.record.virtual_host.clone_from(virtual_host);
        let clusters = self.connection.worker.shared.clusters.load();
        let cluster = found.cluster(&self.head);
        self.record.cluster = cluster.and_then(|name| clusters.get(name)).cloned();
        Err(LocalReply::upgrade_refused())
    }

    /// The request begins again, after what was a request of its own.
    fn begin_again(&mut self, status: StatusCode) {
        let mut next = Record::new(self.connection.info.clone());
        next.version = self.record.version;
        next.peer.clone_from(&self.record.peer);
        next.peer_asked = self.record.peer_asked;
        let mut tail = Tail {
            record: std::mem::replace(&mut self.record, next),
            connection: self.connection.clone(),
            source: self.source.clone(),
            upstream: None,
            deadline: None,
            idle: None,
            fault: self.fault.take(),
        };
        tail.record.status = status.as_u16();
        tail.record.head = Some(self.head.clone_for_values());
        tail.followed();
        count_start(&self.connection);
        self.priority = Priority::Default;
        (self.wanted, self.upstream_protocols, self.response_rate) = Default::default();
    }

    /// Does what a route says. Nothing when that is to begin again.
    async fn act(&mut self, table: &RouteTable, found: &Found<'_>) -> Option<Answer> {
        let Found {
            virtual_host,
            route,
            chosen,
        } = *found;
        let manager = self.connection.manager.clone();
        self.record.route.clone_from(&route.name);
        self.record.virtual_host.clone_from(&virtual_host.name);
        let levels = found.mutation_levels(table);
        Some(match &route.action {
            Action::Direct { status, body } => {
                manager.stats.here().direct.inc();
                let body = bytes::Bytes::copy_from_slice(body);
                let mut reply =
                    LocalReply::new(*status, body, Default::default(), "direct_response");
                if *status == StatusCode::CREATED || status.is_redirection() {
                    reply.locate(&Redirect::to_same(*status).location(None, &self.head.view()));
                }
                self.local_with(reply, &levels)
            }
            Action::Redirect(redirect) => self.redirect(redirect, Some(route), &levels),
            Action::Forward(action) => {
                let plan = forward::Plan {
                    route,
                    virtual_host,
                    action,
                    chosen,
                    levels: &levels,
                };
                match forward::forward(self, &plan).await {
                    Err(mut reply) => {
                        // What the proxy answers for a cluster counts as an answer of the cluster.
                        if let Some(cluster) = &self.record.cluster {
                            cluster.count_response(reply.status.as_u16());
                        }
                        if virtual_host.attempt_count_in_response && self.record.attempts > 0 {
                            let count = HeaderValue::from(self.record.attempts);
                            reply.headers.push((ATTEMPT_COUNT, count));
                        }
                        self.local_with(reply, &levels)
                    }
                    Ok(forwarded) => {
                        if let Some(policy) = &action.internal_redirects {
                            let (response, hold) = (&forwarded.response, &forwarded.hold);
                            let status = response.status();
                            let looked_at = policy.statuses.contains(&status);
                            if looked_at && redirect::follow(self, table, route, policy, response) {
                                if response.body().is_end_stream() {
                                    forwarded.hold.release();
                                }
                                self.begin_again(status);
                                return None;
                            }
                            if looked_at {
                                hold.cluster.count_response(status.as_u16());
                            }
                            if let Some(source) = &self.source {
                                source.forget();
                            }
                        }
                        let mut answer = self.answer_of_upstream(forwarded).await;
                        if virtual_host.attempt_count_in_response {
                            let count = HeaderValue::from(self.record.attempts);
                            answer.headers.insert(ATTEMPT_COUNT, count);
                        }
                        self.record.status = answer.status.as_u16();
                        self.mutate_response(&mut answer.headers, &levels);
                        answer
                    }
                }
            }
        })
    }

    fn redirect(
        &mut self,
        redirect: &Redirect,
        route: Option<&Route>,
        levels: &[&Mutations],
    ) -> Answer {
        // As in Envoy, redirects of routes count as direct responses.
        let stats = self.connection.manager.stats.here();
        match route {
            Some(_) => stats.direct.inc(),
            None => stats.redirect.inc(),
        }
        let location = redirect.location(route, &self.head.view());
        let flags = Default::default();
        let mut reply = LocalReply::new(redirect.status, "", flags, "direct_response");
        reply.locate(&location);
        self.local_with(reply, levels)
    }

    async fn answer_of_upstream(&mut self, forwarded: Forwarded) -> Answer {
        let Forwarded {
            mut response,
            mut hold,
            deadline,
        } = forwarded;
        let side = match &self.upgrade {
            None => None,
            Some(upgrade) => upgrade::agreed(upgrade.opens(), &mut response, &mut hold.lease).await,
        };
        let (mut parts, body) = response.into_parts();
        let wants_protocol = self.upgrade.as_ref().is_some_and(|it| !it.is_connect());
        if side.is_some()
            && wants_protocol
            && matches!(hold.lease, Lease::Http2(_))
            && let Some(protocol) = self.head.headers.get(header::UPGRADE)
        {
            upgrade::set_fields(&mut parts.headers, protocol.clone());
        }
        hop::strip(&mut parts.headers, side.is_some() && wants_protocol);
        if side.is_none() && self.upgrade.is_some() {
            // The stream was left open for what does not come.
            hold.count_reset();
        }
        let (manager, worker) = (&self.connection.manager, &self.connection.worker);
        manager
            .peer_headers
            .on_response(worker, &mut self.record, &mut parts.headers);
        // It counts from the end of the request, which may not have come.
        let is_received = self
            .source
            .as_deref()
            .is_none_or(RequestSource::is_complete);
        let is_timed = is_received && self.upgrade.is_none();
        if !self.connection.manager.suppress_envoy_headers && is_timed {
            let millis = self
                .record
                .response_start
                .map_or(0, |time| time.as_millis() as u64);
            parts
                .headers
                .insert(UPSTREAM_SERVICE_TIME, small_number(millis));
        }
        self.record.details = "via_upstream".into();
        let mut answer = Answer {
            status: parts.status,
            headers: parts.headers,
            content: Content::Done,
            hold: Some(hold),
            deadline,
            close: false,
            side,
        };
        if answer.side.is_some() {
            // It is in use until the tunnel ends.
        } else if body.is_end_stream() {
            if let Some(hold) = answer.hold.take() {
                hold.release();
            }
        } else {
            answer.content = match self.response_rate {
                None => Content::Upstream(body),
                Some(rate) => Content::Slow(Box::new(Throttled::new(body, rate))),
            };
        }
        answer
    }

    /// An answer of the proxy itself.
    pub(super) fn local(&mut self, reply: LocalReply) -> Answer {
        self.local_with(reply, &[])
    }

    /// An answer of the proxy itself, with header changes. They cannot touch the body's type and length.
    fn local_with(&mut self, reply: LocalReply, levels: &[&Mutations]) -> Answer {
        self.record.flags.set(reply.flags);
        self.record.details = reply.details;
        let mut headers = HeaderMap::new();
        headers.extend(
            reply
                .headers
                .into_iter()
                .map(|(name, value)| (Some(name), value)),
        );
        self.record.status = reply.status.as_u16();
        self.mutate_response(&mut headers, levels);
        let (mut status, mut body) = (reply.status, reply.body);
        let manager = &self.connection.manager;
        if let Some(replies) = manager.local_replies.as_ref().filter(|_| !reply.plain) {
            let head = (!self.unknown).then(|| self.head.clone_for_values());
            self.record.head = head;
            replies.rewrite(&mut self.record, &mut headers, &mut status, &mut body);
        }
        if self.head.is_grpc() && !reply.plain {
            let grpc = reply
                .grpc_status
                .unwrap_or_else(|| grpc_status(status).into());
            // The status and the text travel as trailers, which for an empty response are its headers.
            headers.insert("grpc-status", HeaderValue::from(grpc));
            let is_json = |value: &HeaderValue| value.as_bytes() == b"application/json";
            if headers.get(header::CONTENT_TYPE).is_some_and(is_json) && body.ends_with(b"\n") {
                // The end of the line is for readers of bodies.
                body.truncate(body.len() - 1);
            }
            if let Ok(message) = HeaderValue::try_from(percent_encoded(&body))
                && !body.is_empty()
            {
                headers.insert("grpc-message", message);
            }
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/grpc"),
            );
            (status, body) = (StatusCode::OK, bytes::Bytes::new());
        } else if !body.is_empty() {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
            headers
                .entry(header::CONTENT_TYPE)
                .or_insert_with(|| HeaderValue::from_static("text/plain"));
        } else {
            headers.remove(header::CONTENT_TYPE);
        }
        let content = Content::Full(body);
        Answer {
            status,
            headers,
            content,
            hold: None,
            deadline: None,
            close: reply.close,
            side: None,
        }
    }

    fn mutate_response(&mut self, headers: &mut HeaderMap, levels: &[&Mutations]) {
        if levels.iter().all(|level| level.response.is_empty()) {
            return;
        }
        self.record.head = Some(self.head.clone_for_values());
        for level in levels.iter().filter(|level| !level.response.is_empty()) {
            level.response.remove(headers);
            self.record.response_headers = headers.clone();
            level.response.add(headers, &self.record);
        }
    }

    /// Ends the request without a response, which nobody would see.
    pub(super) fn abandon(&mut self) {
        let unused = Record::new(self.connection.info.clone());
        let mut tail = Tail {
            record: std::mem::replace(&mut self.record, unused),
            connection: self.connection.clone(),
            source: self.source.take(),
            upstream: None,
            deadline: None,
            idle: None,
            fault: self.fault.take(),
        };
        tail.record.status = 0;
        tail.record.head = Some(std::mem::replace(&mut self.head, Head::unknown()));
        let lived = tail.record.started.elapsed();
        tail.finish(true);
        tail.connection.given_up(lived);
    }

    /// The response with everything that holds on to it.
    pub(super) fn finish(mut self, answer: Answer) -> Response<ResponseBody> {
        let manager = &self.connection.manager;
        let mut headers = answer.headers;
        manager
            .peer_headers
            .on_answer(&self.connection.worker, &self.record, &mut headers);
        match manager.server_header {
            ServerHeader::Overwrite => {
                headers.insert(header::SERVER, manager.server_name.clone());
            }
            ServerHeader::AppendIfAbsent => {
                headers
                    .entry(header::SERVER)
                    .or_insert_with(|| manager.server_name.clone());
            }
            ServerHeader::PassThrough => {}
        }
        if let Some(via) = &manager.via {
            forwarded::append_via(&mut headers, via);
        }
        if manager.request_id_in_response
            && let Some(id) = self.head.headers.get(forwarded::X_REQUEST_ID)
        {
            headers.insert(forwarded::X_REQUEST_ID, id.clone());
        }
        // Clients are sent away from a proxy whose health checks were told to fail.
        let leaving = self.connection.closing.get() || self.connection.worker.shared.is_failing();
        // The client may speak the other protocol already.
        let refused = self.upgrade.is_some() && answer.side.is_none();
        let is_http2 = self.head.version == Version::HTTP_2;
        if (leaving || answer.close || refused) && !is_http2 && answer.side.is_none() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        self.record.status = answer.status.as_u16();
        if !manager.access_log.is_empty() || !manager.telemetry.is_empty() {
            self.record.response_headers = headers.clone();
        }
        self.record.head = Some(self.head).filter(|_| !self.unknown);
        let idle = match &answer.content {
            Content::Upstream(_) | Content::Slow(_) => self.idle,
            _ => self.idle.filter(|_| answer.side.is_some()),
        };
        let connection = self.connection.clone();
        let mut tail = Some(Box::new(Tail {
            record: self.record,
            connection: self.connection,
            source: self.source,
            upstream: answer.hold,
            deadline: answer.deadline.map(|deadline| (deadline, None)),
            idle: idle.map(|limit| (limit, None)),
            fault: self.fault,
        }));
        let mut status = answer.status;
        if let (Some(side), Some(upgrade)) = (answer.side, self.upgrade)
            && let Some(tail) = tail.take()
        {
            let switched = Switched::new(side, upgrade, tail);
            if is_http2 {
                status = StatusCode::OK;
                headers.remove(header::CONNECTION);
                headers.remove(header::UPGRADE);
                switched.relay_http2();
            } else {
                connection.switched.replace(Some(switched));
            }
        }
        let mut response = Response::new(ResponseBody {
            content: answer.content,
            tail,
        });
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

/// Counts a request that begins.
fn count_start(connection: &HttpConnection) {
    connection.request_started();
    let stats = connection.manager.stats.here();
    stats.rq_total.inc();
    stats.rq_active.inc();
    if connection.http2 {
        stats.rq_http2.inc()
    } else {
        stats.rq_http1.inc()
    }
}

/// A text as `grpc-message` has it, according to the protocol of gRPC over HTTP/2.
fn percent_encoded(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text {
        match byte {
            b'%' | ..b' ' | 0x7f.. => out.push_str(&format!("%{byte:02X}")),
            plain => out.push(char::from(*plain)),
        }
    }
    out
}

/// Applies the request changes of all levels.
pub(super) fn mutate_request(exchange: &mut Exchange, levels: &[&Mutations]) {
    for level in levels.iter().filter(|level| !level.request.is_empty()) {
        // A level sees what the one before it left.
        level.request.remove(&mut exchange.head.headers);
        exchange.record.head = Some(exchange.head.clone_for_values());
        level
            .request
            .add(&mut exchange.head.headers, &exchange.record);
    }
}

/// The value of a field that is a number, most often of one digit.
fn small_number(number: u64) -> HeaderValue {
    const DIGITS: &str = "0123456789";
    let digit = usize::try_from(number).ok().filter(|digit| *digit < 10);
    digit.map_or_else(
        || HeaderValue::from(number),
        |digit| HeaderValue::from_static(&DIGITS[digit..=digit]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_digits() {
        for number in [0, 1, 9, 10, 15_000, u64::MAX] {
            assert_eq!(small_number(number), number.to_string());
        }
    }
}
