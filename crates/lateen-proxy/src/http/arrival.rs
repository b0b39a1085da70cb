//! Requests as they arrive, and those that nobody waits for any more.

use std::convert::Infallible;
use std::rc::Rc;

use http::{Request, Response};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;

use super::body::ResponseBody;
use super::connection::HttpConnection;
use super::exchange::Exchange;
use super::head::Head;
use super::incoming::Incoming;
use super::reply::LocalReply;
use super::request_body::RequestSource;
use super::upgrade::{self, Upgrade};
use crate::http1::{Refusal, RequestHead};

/// Serves one request of an HTTP/2 connection.
pub(super) async fn handle_http2(
    connection: Rc<HttpConnection>,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let (mut parts, body) = request.into_parts();
    let stream = parts.extensions.remove::<OnUpgrade>();
    let protocol = parts.extensions.remove::<Protocol>();
    let mut head: RequestHead = parts.into();
    if let Some(protocol) = protocol {
        upgrade::from_http2(&mut head, &protocol);
    }
    Ok(handle(connection, head, Incoming::Http2(body), stream).await)
}

/// Serves one request of either version. `stream` becomes that of a client who speaks HTTP/2 and wants another protocol.
pub(super) async fn handle(
    connection: Rc<HttpConnection>,
    request: RequestHead,
    body: Incoming,
    stream: Option<OnUpgrade>,
) -> Response<ResponseBody> {
    let (head, problem) = Head::new(request, &connection.manager, connection.info.local.port());
    let mut exchange = Exchange::new(connection, head);
    exchange.source = RequestSource::new(body, &exchange.connection.worker);
    exchange.upgrade = Upgrade::of(&exchange.head.method, &exchange.head.headers, stream);
    let limit = exchange.connection.manager.limits.request;
    let answer = match problem {
        Some(reply) => exchange.local(reply),
        None => {
            let mut waited = Waited {
                exchange: &mut exchange,
                is_answered: false,
            };
            let answer = waited.exchange.route_in_time(limit).await;
            waited.is_answered = true;
            drop(waited);
            answer
        }
    };
    exchange.finish(answer)
}

/// A request that somebody waits for. When it is dropped without an answer, the client has left.
struct Waited<'e> {
    exchange: &'e mut Exchange,
    is_answered: bool,
}

impl Drop for Waited<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.exchange.abandon();
        }
    }
}

/// Answers what is no request.
pub(super) fn refuse(connection: Rc<HttpConnection>, refusal: Refusal) -> Response<ResponseBody> {
    if refusal == Refusal::Late {
        connection.manager.stats.here().rq_header_timeout.inc();
    }
    let mut exchange = Exchange::new(connection, Head::unknown());
    exchange.unknown = true;
    let answer = exchange.local(LocalReply::refusal(refusal));
    exchange.finish(answer)
}
