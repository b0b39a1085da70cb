//! Path matchers of a route.

use regex::bytes::Regex;

/// How a route matches the path (always without query).
#[derive(Debug, Clone)]
pub(crate) enum PathMatch {
    /// The whole path.
    Exact(String),
    /// Plain bytes at the beginning.
    Prefix(String),
    /// The path itself, or followed by a slash.
    SeparatedPrefix(String),
    /// The whole path by an expression.
    Regex(Regex),
    /// `CONNECT`, which has no path.
    Connect,
}

impl PathMatch {
    pub(crate) fn matches(&self, path: &str, case_sensitive: bool) -> bool {
        // Only `CONNECT` has none, and no other matcher is meant for it.
        if path.is_empty() {
            return matches!(self, Self::Connect);
        }
        match self {
            Self::Exact(text) if case_sensitive => path == text,
            Self::Exact(text) => path.eq_ignore_ascii_case(text),
            Self::Prefix(text) => starts_with(path, text, case_sensitive),
            Self::SeparatedPrefix(text) => {
                starts_with(path, text, case_sensitive)
                    && matches!(path.as_bytes().get(text.len()), None | Some(b'/'))
            }
            Self::Regex(regex) => regex.is_match(path.as_bytes()),
            Self::Connect => false,
        }
    }

    /// How many bytes of a matching path a prefix rewrite replaces.
    pub(crate) fn matched_length(&self, path: &str) -> usize {
        match self {
            Self::Prefix(text) | Self::SeparatedPrefix(text) => text.len().min(path.len()),
            Self::Exact(_) | Self::Regex(_) | Self::Connect => path.len(),
        }
    }
}

fn starts_with(path: &str, prefix: &str, case_sensitive: bool) -> bool {
    let (path, prefix) = (path.as_bytes(), prefix.as_bytes());
    if case_sensitive {
        path.starts_with(prefix)
    } else {
        path.len() >= prefix.len() && path[..prefix.len()].eq_ignore_ascii_case(prefix)
    }
}
