//! Keeps web pages out: a browser names itself by its headers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use http::Request;
use http::header::{HOST, ORIGIN};

use crate::status::{Result, Status};

/// Checks `Host` and `Origin`. Requests need a token as well; this stops a page that was given a name of ours (DNS
/// rebinding) before anything looks at the token.
pub(crate) struct Guard {
    names: BTreeSet<String>,
}

impl Guard {
    /// `names` are those in the certificate. Addresses are always accepted: a page cannot be rebound to one.
    pub(crate) fn new(names: &[String]) -> Self {
        let names = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { names }
    }

    pub(crate) fn check<B>(&self, request: &Request<B>) -> Result<()> {
        if request.headers().contains_key(ORIGIN) {
            return Err(Status::forbidden(
                "requests of web pages (with an Origin header) are not served",
            ));
        }
        let header = request
            .headers()
            .get(HOST)
            .and_then(|value| value.to_str().ok());
        let authority = request.uri().authority().map(http::uri::Authority::as_str);
        // HTTP/1.0 clients may leave it out, browsers never do.
        let Some(host) = authority.or(header) else {
            return Ok(());
        };
        let name = without_port(host).to_ascii_lowercase();
        let address = name.trim_start_matches('[').trim_end_matches(']');
        if address.parse::<IpAddr>().is_ok() || self.names.contains(&name) {
            return Ok(());
        }
        Err(Status::forbidden(format!(
            "the server is not called {name:?}; use one of the names in its certificate or its address"
        )))
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // A colon within brackets belongs to an IPv6 address.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_names_and_addresses_are_served() {
        let guard = Guard::new(&["localhost".into(), "kubernetes.default.svc".into()]);
        let check = |host: &str, expected: bool| {
            let request = Request::builder().uri("/api").header(HOST, host);
            let answer = guard.check(&request.body(()).unwrap());
            assert_eq!(answer.is_ok(), expected, "{host}");
        };
        check("localhost:6443", true);
        check("LOCALHOST", true);
        check("127.0.0.1:6443", true);
        check("[::1]:6443", true);
        check("kubernetes.default.svc", true);
        check("evil.example:6443", false);
        check("localhost.evil.example", false);
    }

    #[test]
    fn requests_of_web_pages_are_refused() {
        let request = Request::builder()
            .uri("/api")
            .header(HOST, "localhost")
            .header(ORIGIN, "http://localhost");
        let answer = Guard::new(&["localhost".into()]).check(&request.body(()).unwrap());
        assert_eq!(answer.unwrap_err().code, 403);
    }
}
