//! The stateful session filter: requests of a session go to the endpoint that the client was told.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, StatusCode};
use lateen_route::stateful_session::Session;

use super::super::exchange::Exchange;

/// The endpoint that a session belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) endpoint: SocketAddr,
    /// The status when no other endpoint may take its place.
    pub(crate) strict: Option<StatusCode>,
}

/// Looks for the session of a request.
pub(super) fn begin<'t>(
    exchange: &mut Exchange,
    session: &'t Session,
) -> Option<(&'t Session, Option<SocketAddr>)> {
    let view = exchange.head.view();
    if !session.applies(&view) {
        return None;
    }
    let named = session.endpoint(&view, seconds(exchange.record.started_at()));
    exchange.wanted = named.map(|endpoint| Wanted {
        endpoint,
        strict: session.strict.then_some(session.lost),
    });
    Some((session, named))
}

/// Tells the client its endpoint, unless that is what it said itself.
pub(super) fn announce(
    exchange: &Exchange,
    session: &Session,
    named: Option<SocketAddr>,
    headers: &mut HeaderMap,
) {
    let Some(host) = &exchange.record.upstream else {
        return;
    };
    if named == Some(host.address) {
        return;
    }
    let now = seconds(exchange.record.started_at());
    if let Some((name, value)) = session.announce(host.address, now) {
        if session.replaces() {
            headers.insert(name, value);
        } else {
            headers.append(name, value);
        }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
