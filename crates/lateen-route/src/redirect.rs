//! Redirect actions.

use http::StatusCode;
use lateen_xds::pb::envoy::config::route::v3 as pb;
use lateen_xds::pb::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};

use crate::constraint::one_line;
use crate::rewrite::PathRewrite;
use crate::{Invalid, RequestView, Route, Within, refuse_rest};

/// A compiled redirect.
#[derive(Debug)]
pub struct Redirect {
    /// Status of the answer.
    pub status: StatusCode,
    scheme: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    path: Option<RedirectPath>,
    strip_query: bool,
}

#[derive(Debug)]
enum RedirectPath {
    /// Replaces path and query when it has a query itself.
    Full(String),
    Rewrite(PathRewrite),
}

impl Redirect {
    /// Compiles the protobuf form.
    pub fn compile(mut action: pb::RedirectAction) -> Result<Self, Invalid> {
        let status = match RedirectResponseCode::try_from(std::mem::take(&mut action.response_code))
        {
            Ok(RedirectResponseCode::MovedPermanently) => StatusCode::MOVED_PERMANENTLY,
            Ok(RedirectResponseCode::Found) => StatusCode::FOUND,
            Ok(RedirectResponseCode::SeeOther) => StatusCode::SEE_OTHER,
            Ok(RedirectResponseCode::TemporaryRedirect) => StatusCode::TEMPORARY_REDIRECT,
            Ok(RedirectResponseCode::PermanentRedirect) => StatusCode::PERMANENT_REDIRECT,
            Err(_) => return Err(Invalid::new("response_code", "is not a known code")),
        };
        let scheme = match action.scheme_rewrite_specifier.take() {
            Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".to_owned()),
            Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => Some(scheme),
            Some(SchemeRewriteSpecifier::HttpsRedirect(false)) | None => None,
        };
        one_line("host_redirect", &action.host_redirect)?;
        let host = Some(std::mem::take(&mut action.host_redirect)).filter(|host| !host.is_empty());
        let port = match std::mem::take(&mut action.port_redirect) {
            0 => None,
            port => Some(
                u16::try_from(port)
                    .map_err(|_| Invalid::new("port_redirect", "must be at most 65535"))?,
            ),
        };
        let path = match action.path_rewrite_specifier.take() {
            Some(PathRewriteSpecifier::PathRedirect(path)) => {
                one_line("path_redirect", &path)?;
                Some(RedirectPath::Full(path))
            }
            Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => {
                one_line("prefix_rewrite", &prefix)?;
                Some(RedirectPath::Rewrite(PathRewrite::Prefix(prefix)))
            }
            Some(PathRewriteSpecifier::RegexRewrite(rewrite)) => Some(RedirectPath::Rewrite(
                PathRewrite::regex(rewrite).within("regex_rewrite")?,
            )),
            Some(PathRewriteSpecifier::PathRewrite(_)) => {
                return Err(Invalid::unsupported("path_rewrite"));
            }
            None => None,
        };
        let strip_query = std::mem::take(&mut action.strip_query);
        refuse_rest(&action)?;
        Ok(Self {
            status,
            scheme,
            host,
            port,
            path,
            strip_query,
        })
    }

    /// The redirect to `https` that a virtual host with `require_tls` answers with.
    pub fn to_https() -> Self {
        Self {
            scheme: Some("https".to_owned()),
            ..Self::to_same(StatusCode::MOVED_PERMANENTLY)
        }
    }

    /// The redirect to where the request went: the `location` of direct responses whose status asks for one.
    pub fn to_same(status: StatusCode) -> Self {
        Self {
            status,
            scheme: None,
            host: None,
            port: None,
            path: None,
            strip_query: false,
        }
    }

    /// The `location` for a request.
    pub fn location(&self, route: Option<&Route>, request: &RequestView<'_>) -> String {
        let scheme = self.scheme.as_deref().unwrap_or(request.scheme);
        let host = match &self.host {
            Some(host) => host,
            None => self.request_host(scheme, request),
        };
        let mut location = format!("{scheme}://{host}");
        // As in Envoy, a configured port is written even when it is the scheme's default.
        if let Some(port) = self.port {
            location.push(':');
            location.push_str(&port.to_string());
        }
        let path = if self.strip_query {
            request.path_only()
        } else {
            request.path
        };
        match &self.path {
            None => location.push_str(path),
            Some(RedirectPath::Full(full)) => {
                location.push_str(full);
                if !full.contains('?') {
                    // With its question mark, also when nothing follows it.
                    location.push_str(&path[request.path_only().len()..]);
                }
            }
            Some(RedirectPath::Rewrite(rewrite)) => {
                let changed = route.and_then(|route| rewrite.apply(route, path));
                location.push_str(changed.as_deref().unwrap_or(path));
            }
        }
        location
    }

    /// The request's host. It loses its port to a configured one, and the old scheme's default port under a new scheme.
    fn request_host<'r>(&self, scheme: &str, request: &RequestView<'r>) -> &'r str {
        let (host, port) = match request.authority.rsplit_once(':') {
            Some((host, port)) if !host.starts_with('[') || host.ends_with(']') => (host, port),
            _ => return request.authority,
        };
        let default = matches!((request.scheme, port), ("http", "80") | ("https", "443"));
        if self.port.is_some() || (scheme != request.scheme && default) {
            host
        } else {
            request.authority
        }
    }
}

/// Splits `host:port`; an IPv6 host keeps its brackets.
pub(crate) fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port))
            if !port.is_empty()
                && port.bytes().all(|b| b.is_ascii_digit())
                && (!host.contains(':') || host.ends_with(']')) =>
        {
            (host, Some(port))
        }
        _ => (authority, None),
    }
}
