//! The head of a request, normalised once: routing, logs and the upstream see the same bytes.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header, request};
use lateen_route::RequestView;

use super::manager::{EscapedSlashes, HttpManager, StripPort, Underscores};
use super::normalise;
use super::reply::LocalReply;
use crate::http1::{Malformed, Refusal, RequestHead, is_authority};

/// A request without its body.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) scheme: &'static str,
    pub(crate) authority: String,
    /// Path with query; empty for `CONNECT`.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) version: Version,
}

impl Head {
    /// Takes the head of a request apart. The second value says what is wrong with it, if anything: even a bad head is
    /// logged.
    /// `port` is the one that the client connected to.
    pub(crate) fn new(
        request: RequestHead,
        manager: &HttpManager,
        port: u16,
    ) -> (Self, Option<LocalReply>) {
        let mut headers = request.headers;
        // Before any of them is dropped or joined with others.
        let is_too_large = headers.len() > manager.limits.headers
            || header_bytes(&headers) > manager.headers_kb as usize * 1024;
        if is_too_large {
            // Nobody looks at them any more, and the client decides how long the answer waits.
            headers = HeaderMap::new();
        }
        let mut problem = underscores(&mut headers, manager.limits.underscores).err();
        let hosts = headers.get_all(header::HOST);
        let mut hosts = hosts.iter().filter_map(|value| value.to_str().ok());
        let host = hosts.next().map(str::to_owned);
        // A second host, or one that differs from the request's target, could be read differently by the next hop.
        if hosts.next().is_some() {
            problem = Some(LocalReply::bad_request("http1.codec_error"));
        }
        let mut authority = match request.authority {
            Some(authority) => {
                let differs = host
                    .as_ref()
                    .is_some_and(|host| !host.eq_ignore_ascii_case(&authority));
                if differs && request.version == Version::HTTP_2 {
                    problem = Some(LocalReply::bad_request("http2.inconsistent_host"));
                }
                authority
            }
            None if host.is_none() && request.version == Version::HTTP_10 => {
                manager.default_host.clone().unwrap_or_default()
            }
            None => host.unwrap_or_default(),
        };
        headers.remove(header::HOST);
        if request.version == Version::HTTP_2
            && let Err(reply) = settle_http2(&mut headers, &authority)
        {
            problem = Some(reply);
        }
        if !is_authority(authority.as_bytes()) {
            problem = Some(LocalReply::refusal(Refusal::Malformed(Malformed::Head)));
        }
        if authority.is_empty() {
            problem = Some(LocalReply::bad_request("missing_host_header"));
        }
        if manager.strip_trailing_dot {
            strip_dot(&mut authority);
        }
        // That of a tunnel is where it leads.
        if request.method != Method::CONNECT {
            strip_port(&mut authority, manager.strip_port, port);
        }
        let mut path = request.path;
        // A fragment is the client's own matter. Nobody behind sees it, so that nobody takes it for a part of the path: what
        // Istio sets Envoy to do (`http_reject_path_with_fragment`), which refuses such a path by itself.
        if let Some(end) = path.find('#') {
            path.truncate(end);
        }
        let end = path.find('?').unwrap_or(path.len());
        let is_redirected = manager.escaped_slashes == EscapedSlashes::Redirect
            && normalise::has_escaped_slash(&path[..end]);
        // A tunnel has no path.
        if request.method != Method::CONNECT {
            if !path.starts_with('/') && path != "*" {
                path.insert(0, '/');
            }
            match normalised(&path, manager) {
                Ok(Some(changed)) => path = changed,
                Ok(None) => {}
                Err(reply) => problem = problem.or(Some(reply)),
            }
        }
        if is_too_large {
            problem = Some(LocalReply::refusal(Refusal::Malformed(Malformed::TooLarge)));
        }
        let head = Self {
            method: request.method,
            scheme: "http",
            authority,
            path,
            headers,
            version: request.version,
        };
        if is_redirected && problem.is_none() {
            // No client of gRPC follows redirects.
            problem = Some(match head.is_grpc() {
                true => LocalReply::bad_request("path_normalization_failed"),
                false => LocalReply::to_normal_path(&head.path),
            });
        }
        (head, problem)
    }

    /// Stands where no head could be read.
    pub(crate) fn unknown() -> Self {
        Self {
            method: Method::GET,
            scheme: "http",
            authority: String::new(),
            path: String::new(),
            headers: HeaderMap::new(),
            version: Version::HTTP_11,
        }
    }

    /// A copy whose values can be written into headers of the original.
    pub(crate) fn clone_for_values(&self) -> Self {
        Self {
            method: self.method.clone(),
            scheme: self.scheme,
            authority: self.authority.clone(),
            path: self.path.clone(),
            headers: self.headers.clone(),
            version: self.version,
        }
    }

    /// What routing looks at.
    pub(crate) fn view(&self) -> RequestView<'_> {
        RequestView {
            method: self.method.as_str(),
            scheme: self.scheme,
            authority: &self.authority,
            path: &self.path,
            headers: &self.headers,
        }
    }

    /// Whether the request is gRPC, whose errors are carried in trailers.
    pub(crate) fn is_grpc(&self) -> bool {
        self.headers.get(header::CONTENT_TYPE).is_some_and(|value| {
            let rest = value.as_bytes().strip_prefix(b"application/grpc");
            rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+')))
        })
    }
}

impl From<request::Parts> for RequestHead {
    fn from(parts: request::Parts) -> Self {
        let path = parts.uri.path_and_query();
        Self {
            authority: parts.uri.authority().map(|it| it.as_str().to_owned()),
            path: path.map_or_else(String::new, |path| path.as_str().to_owned()),
            method: parts.method,
            version: parts.version,
            headers: parts.headers,
        }
    }
}

/// Puts crumbs of cookies together, as whoever speaks HTTP/1.1 knows one field alone (RFC 9113, 8.2.3), and refuses what its
/// section 8 calls malformed and the codec lets pass: a user in the authority, a length that is given twice, and names that
/// are no tokens.
fn settle_http2(headers: &mut HeaderMap, authority: &str) -> Result<(), LocalReply> {
    let lengths = headers.get_all(header::CONTENT_LENGTH).iter().count();
    // The one character that the codec takes for a part of names, and RFC 9110 does not (section 5.6.2).
    let is_quoted = |name: &HeaderName| name.as_str().contains('"');
    if lengths > 1 || authority.contains('@') || headers.keys().any(is_quoted) {
        return Err(LocalReply::bad_request("http2.violation.of.messaging.rule"));
    }
    let crumbs: Vec<&[u8]> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if crumbs.len() > 1
        && let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, cookie);
    }
    Ok(())
}

/// Applies the rule for names with underscores.
fn underscores(headers: &mut HeaderMap, rule: Underscores) -> Result<(), LocalReply> {
    if rule == Underscores::Allow {
        return Ok(());
    }
    let has_one = |name: &&HeaderName| name.as_str().contains('_');
    let found: Vec<HeaderName> = headers.keys().filter(has_one).cloned().collect();
    if !found.is_empty() && rule == Underscores::Reject {
        let mut reply = LocalReply::bad_request("http1.unexpected_underscore");
        reply.body = "Bad Request".into();
        return Err(reply);
    }
    for name in found {
        headers.remove(name);
    }
    Ok(())
}

/// The path in its normal form, if that differs.
pub(super) fn normalised(path: &str, manager: &HttpManager) -> Result<Option<String>, LocalReply> {
    let mut changed: Option<String> = None;
    let end = path.find('?').unwrap_or(path.len());
    match manager.escaped_slashes {
        EscapedSlashes::Keep => {}
        EscapedSlashes::Reject if normalise::has_escaped_slash(&path[..end]) => {
            return Err(LocalReply::bad_request("path_normalization_failed"));
        }
        EscapedSlashes::Reject => {}
        EscapedSlashes::Unescape | EscapedSlashes::Redirect => {
            changed = normalise::unescape_slashes(path)
        }
    }
    if manager.normalize_path {
        let current = changed.as_deref().unwrap_or(path);
        match normalise::path(current) {
            Ok(Some(normal)) => changed = Some(normal),
            Ok(None) => {}
            Err(()) => return Err(LocalReply::bad_request("path_normalization_failed")),
        }
    }
    if manager.merge_slashes
        && let Some(merged) = normalise::merge_slashes(changed.as_deref().unwrap_or(path))
    {
        changed = Some(merged);
    }
    Ok(changed)
}

/// Removes the dot of an absolute name, which means the same host.
fn strip_dot(authority: &mut String) {
    let host_end = authority.rfind(':').unwrap_or(authority.len());
    if authority[..host_end].ends_with('.') {
        authority.remove(host_end - 1);
    }
}

/// Removes the port, if it is one that is not wanted.
fn strip_port(authority: &mut String, rule: StripPort, own: u16) {
    let Some((host, port)) = authority.rsplit_once(':') else {
        return;
    };
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_host = !host.contains(':') || host.ends_with(']');
    let is_unwanted = match rule {
        StripPort::None => false,
        StripPort::Any => port.parse::<u32>().is_ok(),
        StripPort::Own => port.parse() == Ok(u32::from(own)),
    };
    if is_number && is_host && is_unwanted {
        authority.truncate(host.len());
    }
}

fn header_bytes(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fields: &[(&'static str, &str)], authority: &str, cookies: Option<&[&str]>) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let settled = settle_http2(&mut headers, authority).is_ok();
        let left = headers.get_all(header::COOKIE).iter();
        let left: Vec<_> = left.map(|value| value.to_str().unwrap()).collect();
        assert_eq!(
            settled.then_some(left.as_slice()),
            cookies,
            "{fields:?} {authority}"
        );
    }

    #[test]
    fn requests_of_http2_are_settled_for_older_versions() {
        check(&[], "a.test", Some(&[]));
        check(&[("cookie", "a=1")], "a.test", Some(&["a=1"]));
        let crumbs = [("cookie", "a=1"), ("x", "y"), ("cookie", "b=2; c=3")];
        check(&crumbs, "a.test:80", Some(&["a=1; b=2; c=3"]));
        check(&[("content-length", "3")], "a.test", Some(&[]));
        let twice = [("content-length", "3"), ("content-length", "3")];
        check(&twice, "a.test", None);
        check(&[], "user@a.test", None);
        check(&[("x-a!#$%&'*+.^_`|~", "b")], "a.test", Some(&[]));
    }
}
