//! The HTTP filters of a connection manager before its router, run in order over requests, and in reverse order over
//! responses.
//!
//! What a filter remembers of a request until its response is in [`Passed`]. A filter that has nothing to do for a
//! request costs a look at the configuration of the route's levels.

pub(crate) mod alpn;
pub(super) mod body;
mod fault;
mod header_mutation;
mod session;

use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode};
use lateen_route::cors::{Cors, Outcome};
use lateen_route::fault::Fault;
use lateen_route::filter::{FilterConfig, FilterLevels};
use lateen_route::header_mutation::HeaderMutation;
use lateen_route::stateful_session::Session;

use alpn::UpstreamProtocols;
pub(crate) use fault::ActiveFault;
pub(super) use session::Wanted;

use super::exchange::Exchange;
use super::reply::LocalReply;
use crate::flags::Flags;

/// Filters in the order of the configuration.
#[derive(Debug, Default)]
pub(crate) struct HttpFilters(pub(crate) Vec<HttpFilter>);

/// One filter.
#[derive(Debug)]
pub(crate) struct HttpFilter {
    /// The name under which routes configure it.
    pub(crate) name: String,
    /// It only runs for routes that configure it.
    pub(crate) disabled: bool,
    pub(crate) kind: Kind,
}

/// What a filter does, with its own configuration.
#[derive(Debug)]
pub(crate) enum Kind {
    Alpn(Arc<UpstreamProtocols>),
    Cors,
    Fault(Box<Fault>),
    HeaderMutation(Box<HeaderMutation>),
    StatefulSession(Option<Box<Session>>),
}

/// What filters remember of a request.
#[derive(Debug, Default)]
pub(super) struct Passed<'t> {
    /// An answer that is opened for an origin.
    cors: Option<(Cors<'t>, HeaderValue)>,
    /// A session with the endpoint that the client named.
    session: Option<(&'t Session, Option<SocketAddr>)>,
}

impl HttpFilters {
    /// Runs the filters over a request that goes to `cluster`. An error is the answer of a filter.
    pub(super) async fn on_request<'t>(
        &'t self,
        exchange: &mut Exchange,
        levels: FilterLevels<'t>,
        cluster: Option<&str>,
        passed: &mut Passed<'t>,
    ) -> Result<(), LocalReply> {
        for filter in &self.0 {
            let name = filter.name.as_str();
            if levels.disabled(name).unwrap_or(filter.disabled) {
                continue;
            }
            match &filter.kind {
                Kind::Alpn(protocols) => {
                    exchange.upstream_protocols = Some(protocols.clone());
                }
                Kind::Cors => {
                    let policies = levels.configs(name).filter_map(|config| match config {
                        FilterConfig::Cors(policy) => Some(&**policy),
                        _ => None,
                    });
                    // Routes that answer by themselves have no policy, as in Envoy.
                    if cluster.is_some()
                        && let Some(cors) = Cors::new(policies)
                    {
                        passed.cors = cross_origin(exchange, cors)?;
                    }
                }
                Kind::Fault(own) => {
                    let of_route = levels.configs(name).find_map(|config| match config {
                        FilterConfig::Fault(fault) => Some(fault),
                        _ => None,
                    });
                    let fault = of_route.unwrap_or(own);
                    if !fault.is_empty() {
                        // In a box, so that requests without faults do not carry the room for it.
                        Box::pin(fault::inject(exchange, fault, cluster)).await?;
                    }
                }
                Kind::HeaderMutation(own) => {
                    header_mutation::of_request(exchange, own, levels, name);
                }
                Kind::StatefulSession(own) => {
                    let of_route = levels.configs(name).find_map(|config| match config {
                        FilterConfig::StatefulSession(session) => Some(session),
                        _ => None,
                    });
                    if let Some(session) = of_route.unwrap_or(own) {
                        passed.session = session::begin(exchange, session);
                    }
                }
            }
        }
        Ok(())
    }

    /// Runs the filters over the headers of a response.
    pub(super) fn on_response(
        &self,
        exchange: &mut Exchange,
        levels: FilterLevels<'_>,
        passed: &mut Passed<'_>,
        headers: &mut HeaderMap,
    ) {
        for filter in self.0.iter().rev() {
            match &filter.kind {
                Kind::Cors => {
                    if let Some((cors, origin)) = passed.cors.take() {
                        cors.open(origin, headers);
                    }
                }
                Kind::StatefulSession(_) => {
                    if let Some((session, named)) = passed.session.take() {
                        session::announce(exchange, session, named, headers);
                    }
                }
                Kind::HeaderMutation(own) => {
                    let name = filter.name.as_str();
                    // Answers of filters before it pass it, too.
                    if !levels.disabled(name).unwrap_or(filter.disabled) {
                        header_mutation::of_response(exchange, own, levels, name, headers);
                    }
                }
                Kind::Alpn(_) | Kind::Fault(_) => {}
            }
        }
    }
}

/// Judges a cross-origin request. Preflights are answered here.
fn cross_origin<'t>(
    exchange: &Exchange,
    cors: Cors<'t>,
) -> Result<Option<(Cors<'t>, HeaderValue)>, LocalReply> {
    let head = &exchange.head;
    let Some(judged) = cors.judge(&head.method, &head.headers, fastrand::u64(..)) else {
        return Ok(None);
    };
    let stats = exchange.connection.manager.stats.here();
    if judged.valid {
        stats.cors_origin_valid.inc();
    } else {
        stats.cors_origin_invalid.inc();
    }
    match judged.outcome {
        Outcome::Pass => Ok(None),
        Outcome::Open(origin) => Ok(Some((cors, origin))),
        Outcome::Answer(mut headers, origin) => {
            if let Some(origin) = origin {
                cors.open(origin, &mut headers);
            }
            let mut reply = LocalReply::new(StatusCode::OK, "", Flags::default(), "cors_response");
            reply.plain = true;
            reply.headers = headers
                .into_iter()
                .filter_map(|(name, value)| Some((name?, value)))
                .collect();
            Err(reply)
        }
    }
}
