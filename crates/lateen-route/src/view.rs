//! What a decision may look at.

use http::HeaderMap;

/// A request as routing sees it: after normalisation, before any change of its headers.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// Method, upper case as sent.
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Host with an optional port, as sent.
    pub authority: &'a str,
    /// Path with its query; empty for `CONNECT`.
    pub path: &'a str,
    /// Header fields without pseudo headers.
    pub headers: &'a HeaderMap,
}

impl<'a> RequestView<'a> {
    /// The path without query and fragment, which is what path matchers see.
    pub fn path_only(&self) -> &'a str {
        let end = self.path.find(['?', '#']).unwrap_or(self.path.len());
        &self.path[..end]
    }

    /// The query without its question mark.
    pub fn query(&self) -> &'a str {
        self.path
            .split_once('?')
            .map_or("", |(_, query)| query.split('#').next().unwrap_or(query))
    }

    /// The value of a pseudo header such as `:method`.
    pub fn pseudo_header(&self, name: &str) -> Option<&'a str> {
        match name {
            ":method" => Some(self.method),
            ":authority" | "host" => Some(self.authority),
            ":path" => Some(self.path),
            ":scheme" => Some(self.scheme),
            _ => None,
        }
    }

    /// The first value of a query parameter, not percent-decoded (as Envoy compares and hashes it).
    pub fn query_parameter(&self, name: &str) -> Option<&'a str> {
        self.query().split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then_some(value)
        })
    }

    /// The value of a cookie, without surrounding quotes.
    pub fn cookie(&self, name: &str) -> Option<&'a str> {
        self.headers
            .get_all(http::header::COOKIE)
            .into_iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(';'))
            .find_map(|pair| {
                let (key, value) = pair.trim().split_once('=')?;
                (key == name).then(|| {
                    value
                        .strip_prefix('"')
                        .and_then(|v| v.strip_suffix('"'))
                        .unwrap_or(value)
                })
            })
    }
}
