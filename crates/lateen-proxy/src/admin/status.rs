//! The agent's port, 15020 in Istio: what others than the proxy's own admin ask for.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;

use super::paths::readiness;
use super::query::Query;
use super::reply::{TEXT, reply};
use super::{Control, metrics};
use crate::agent::probe::Probes;

/// Answers a request; `peer` is who sends it.
pub(super) async fn answer(
    control: &Control,
    peer: SocketAddr,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    match path {
        "/healthz/ready" => readiness(control),
        "/stats/prometheus" | "/metrics" => merged(control, request).await,
        "/quitquitquit" | "/drain" => end(control, peer, request),
        _ if Probes::serves(path) => {
            let (status, body) = control.agent.probes.answer(path, request.headers()).await;
            let mut response = reply(status, TEXT, String::new());
            *response.body_mut() = Full::new(body);
            response
        }
        _ => reply(StatusCode::NOT_FOUND, TEXT, "not found\n".to_owned()),
    }
}

/// The proxy's metrics, then those of the application.
async fn merged(control: &Control, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let query = Query(request.uri().query().unwrap_or_default());
    let mut text = metrics::prometheus(&control.shared, &query).unwrap_or_else(str::to_owned);
    let mut kind = None;
    if let Some(scrape) = &control.agent.scrape {
        kind = scrape.merge(request.headers(), &mut text).await;
    }
    let mut response = reply(StatusCode::OK, TEXT, text);
    if let Some(kind) = kind.and_then(|kind| HeaderValue::from_str(&kind).ok()) {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    response
}

/// `/quitquitquit` ends the process at once, `/drain` only stops taking on work; both are the pod's own affair.
fn end(control: &Control, peer: SocketAddr, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if !peer.ip().to_canonical().is_loopback() {
        let text = "Only requests from localhost are allowed\n";
        return reply(StatusCode::FORBIDDEN, TEXT, text.to_owned());
    }
    if request.method() != Method::POST {
        let text = "Method Not Allowed\n";
        return reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, text.to_owned());
    }
    if request.uri().path() == "/drain" {
        control.shared.draining.send_replace(true);
    } else {
        control.exit.notify_one();
    }
    reply(StatusCode::OK, TEXT, "OK".to_owned())
}
