//! The book store: four services, of which reviews comes in three versions that a visitor tells apart by the stars.
//!
//! `productpage` calls `details` and `reviews`; `reviews` v2 and v3 call `ratings`. Timeouts and the one retry are fixed in
//! the programs on purpose: lessons on fault injection are about how they play together.

pub(super) mod details;
mod page;
pub(super) mod productpage;
pub(super) mod ratings;
pub(super) mod reviews;
mod session;

#[cfg(test)]
mod tests;

use std::future::Future;

use http::HeaderMap;

use crate::Error;
use crate::client::Upstream;
use crate::identity::variable;
use crate::respond::FullResponse;
use crate::server::{self, FullRequest};

/// The port of all four.
const PORT: u16 = 9080;

/// Headers that a service hands on to those it calls, so that what belongs together can be told: request ids, the contexts
/// of the usual tracers, and who asks.
const FORWARDED: &[&str] = &[
    "x-request-id",
    "x-ot-span-context",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "traceparent",
    "tracestate",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "sw8",
    "user-agent",
    "cookie",
    "authorization",
    "jwt",
];

/// The header that names the user to services further down.
const END_USER: &str = "end-user";

/// The headers of a request that are handed on.
fn forwarded(from: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in FORWARDED {
        for value in from.get_all(*name) {
            headers.append(*name, value.clone());
        }
    }
    headers
}

/// Another service of the store. `NAME_HOSTNAME`, `NAME_SERVICE_PORT` and `SERVICES_DOMAIN` move it.
fn service(name: &str) -> Upstream {
    let host = match variable("SERVICES_DOMAIN") {
        Some(domain) => format!("{name}.{domain}"),
        None => name.to_owned(),
    };
    let prefix = name.to_uppercase();
    Upstream::from_variables(
        (&format!("{prefix}_HOSTNAME"), host),
        (&format!("{prefix}_SERVICE_PORT"), PORT),
    )
}

/// Serves on the port that `PORT` or the rule of the store says, with a line of log per request.
async fn serve<H, F>(name: &str, handler: H) -> Result<(), Error>
where
    H: Fn(FullRequest) -> F + Send + Sync + 'static,
    F: Future<Output = FullResponse> + Send + 'static,
{
    let port = match variable("PORT") {
        None => PORT,
        Some(given) => given.parse().map_err(|_| Error::Arguments {
            name: name.to_owned(),
            why: format!("PORT is {given:?}; give a number from 1 to 65535"),
        })?,
    };
    server::serve(name, port, move |request| {
        server::log(&format!("{} {}", request.method(), request.uri()));
        handler(request)
    })
    .await
}

/// The version of a workload among those it knows.
fn version<'a>(name: &str, given: Option<&'a String>, known: &[&str]) -> Result<&'a str, Error> {
    given
        .map(String::as_str)
        .filter(|version| known.contains(version))
        .ok_or_else(|| Error::Arguments {
            name: name.to_owned(),
            why: format!(
                "say which version, one of {}{}",
                known.join(", "),
                given.map_or_else(String::new, |given| format!("; {given:?} is none"))
            ),
        })
}
