//! Redirects of endpoints that the proxy follows itself, as routes allow.

use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use lateen_route::internal_redirect::InternalRedirects;
use lateen_route::{Decision, Route, RouteTable};

use super::exchange::Exchange;
use super::head::normalised;
use super::incoming::Incoming;
use super::request_body::RequestSource;
use crate::http1::is_authority;
use crate::stats::{HttpStats, Stat};

const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-envoy-original-url");

/// Where a redirect leads.
#[derive(Debug, PartialEq, Eq)]
struct Target<'l> {
    is_http: bool,
    authority: &'l str,
    /// Path with query, and without fragment.
    path: String,
}

/// Counts why a redirect is left to the client.
type Reason = fn(&HttpStats) -> &Stat;

/// Changes the request of `exchange` into the one that a redirect asks for, unless it is left to the client. Says whether
/// it was changed.
pub(super) fn follow(
    exchange: &mut Exchange,
    table: &RouteTable,
    route: &Route,
    policy: &InternalRedirects,
    response: &Response<Incoming>,
) -> bool {
    let before = exchange.head.clone_for_values();
    let changed = change(exchange, table, route, policy, response);
    let counts = exchange.record.cluster.as_ref();
    let counts = counts.map(|cluster| cluster.shared.stats.here());
    match changed {
        Ok(to) => {
            exchange.redirects.push((route.name.clone(), to));
            if let Some(counts) = counts {
                counts.redirects_followed.inc();
            }
            true
        }
        Err(reason) => {
            if let Some(counts) = counts {
                counts.redirects_left.inc();
            }
            exchange.head = before;
            if let Some(reason) = reason {
                reason(exchange.connection.manager.stats.here()).inc();
            }
            false
        }
    }
}

/// Changes the request. Gives the name of the route that it leads to now.
fn change(
    exchange: &mut Exchange,
    table: &RouteTable,
    route: &Route,
    policy: &InternalRedirects,
    response: &Response<Incoming>,
) -> Result<String, Option<Reason>> {
    // What was not received, or is not kept, cannot be sent again.
    let whole = |source: &RequestSource| source.is_complete() && source.can_replay();
    if !exchange.source.as_deref().is_none_or(whole) || exchange.upgrade.is_some() {
        return Err(None);
    }
    let location = response.headers().get(header::LOCATION).ok_or(None)?;
    let target = location.to_str().ok().and_then(target);
    let bad: Reason = |stats| &stats.redirect_bad_location;
    let target = target.ok_or(bad)?;
    let path = match normalised(&target.path, &exchange.connection.manager) {
        Ok(path) => path.unwrap_or(target.path),
        Err(_) => return Err(Some(bad)),
    };
    let from_http = exchange.head.scheme == "http" || exchange.connection.info.tls.is_none();
    if !policy.cross_scheme && from_http != target.is_http {
        return Err(Some(|stats| &stats.redirect_unsafe_scheme));
    }
    if exchange.redirects.len() >= policy.most as usize {
        return Err(Some(|stats| &stats.redirect_too_many));
    }
    let head = &mut exchange.head;
    let scheme = if from_http { "http" } else { "https" };
    let original = format!("{scheme}://{}{}", head.authority, head.path);
    for name in &policy.copied {
        head.headers.remove(name);
        for value in response.headers().get_all(name) {
            head.headers.append(name, value.clone());
        }
    }
    head.authority = target.authority.to_owned();
    head.path = path;
    let to = match table.decide(&head.view(), fastrand::u64(..)) {
        Decision::NotFound => return Err(Some(|stats| &stats.redirect_no_route)),
        Decision::RedirectToHttps(_) => "",
        Decision::Route { route, .. } => &route.name,
    };
    let https = (!from_http, !target.is_http);
    if !policy.agree(&route.name, to, &exchange.redirects, https) {
        return Err(Some(|stats| &stats.redirect_predicate));
    }
    let reads = matches!(head.method, Method::GET | Method::HEAD);
    if response.status() == StatusCode::SEE_OTHER && !reads {
        // RFC 9110 section 15.4.4.
        head.method = Method::GET;
        head.headers.remove(header::CONTENT_LENGTH);
        exchange.source = None;
    }
    if let Ok(value) = HeaderValue::from_str(&original) {
        head.headers.insert(ORIGINAL_URL, value);
    }
    Ok(to.to_owned())
}

/// Reads a location, which has to be an absolute URL.
fn target(location: &str) -> Option<Target<'_>> {
    let (scheme, rest) = location.split_once("://")?;
    let rest = rest.split('#').next()?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let is_host = !authority.is_empty() && !authority.contains('@');
    let is_path = path.bytes().all(|byte| matches!(byte, b'!'..=b'~'));
    if !is_host || !is_path || !is_authority(authority.as_bytes()) {
        return None;
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    Some(Target {
        is_http: scheme.eq_ignore_ascii_case("http"),
        authority,
        path: format!("{slash}{path}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(location: &str, expected: Option<(bool, &str, &str)>) {
        let expected = expected.map(|(is_http, authority, path)| Target {
            is_http,
            authority,
            path: path.to_owned(),
        });
        assert_eq!(target(location), expected, "{location}");
    }

    #[test]
    fn locations_are_absolute() {
        check("http://a.test/x?y#z", Some((true, "a.test", "/x?y")));
        check("HTTPS://a.test:1", Some((false, "a.test:1", "/")));
        check("http://a?b", Some((true, "a", "/?b")));
        for wrong in [
            "",
            "/x",
            "//a/x",
            "http:///x",
            "http://u@a/",
            "http://a b/",
            "http://a/\u{e9}",
        ] {
            check(wrong, None);
        }
    }
}
