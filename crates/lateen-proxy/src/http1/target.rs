//! Request targets (RFC 9112 section 3.2).

use http::Method;

use super::error::Malformed;

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// That of an absolute target, or of `CONNECT`.
    pub(crate) authority: Option<String>,
    /// Path with query; empty for `CONNECT`, `*` for a server as a whole.
    pub(crate) path: String,
}

impl Target {
    /// Reads a target. Envoy takes more characters in paths than RFC 3986, and so do we: they do no harm, and clients
    /// send them.
    pub(crate) fn parse(method: &Method, text: &str) -> Result<Self, Malformed> {
        if method == Method::CONNECT {
            return Ok(Self {
                authority: Some(host_and_port(text)?),
                path: String::new(),
            });
        }
        if !text.bytes().all(|byte| matches!(byte, b'!'..=b'~')) {
            return Err(Malformed::Head);
        }
        if text.starts_with('/') || text == "*" {
            return Ok(Self {
                authority: None,
                path: text.to_owned(),
            });
        }
        let rest = strip_scheme(text).ok_or(Malformed::Head)?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        let mut path = path.to_owned();
        if !path.starts_with('/') {
            path.insert(0, '/');
        }
        Ok(Self {
            authority: Some(authority(host)?),
            path,
        })
    }
}

/// What follows `http://` or `https://`.
fn strip_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once("://")?;
    let known = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    known.then_some(rest)
}

/// What a tunnel leads to: a host and a port (RFC 9112 section 3.2.3), and no user.
fn host_and_port(text: &str) -> Result<String, Malformed> {
    let (host, port) = text.rsplit_once(':').ok_or(Malformed::Target)?;
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let is_host = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
    if host.is_empty() || !is_port || !is_host || host.contains('@') {
        return Err(Malformed::Target);
    }
    authority(text).map_err(|_| Malformed::Target)
}

fn authority(text: &str) -> Result<String, Malformed> {
    if text.is_empty() || !is_authority(text.as_bytes()) {
        return Err(Malformed::Head);
    }
    Ok(text.to_owned())
}

/// Whether this consists of what may stand in an authority (RFC 3986 section 3.2). What hosts are called is not checked.
pub(crate) fn is_authority(text: &[u8]) -> bool {
    text.iter()
        .all(|byte| byte.is_ascii_alphanumeric() || b"!$%&'()*+,-.:;=@[]_~".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(method: Method, text: &str, expected: Option<(Option<&str>, &str)>) {
        let found = Target::parse(&method, text).ok();
        let expected = expected.map(|(authority, path)| Target {
            authority: authority.map(str::to_owned),
            path: path.to_owned(),
        });
        assert_eq!(found, expected, "{method} {text}");
    }

    #[test]
    fn targets_are_paths_or_absolute() {
        check(Method::GET, "/", Some((None, "/")));
        check(Method::GET, "/a?b=\"{}|^`", Some((None, "/a?b=\"{}|^`")));
        check(Method::OPTIONS, "*", Some((None, "*")));
        check(
            Method::GET,
            "http://a.b:1/x?y",
            Some((Some("a.b:1"), "/x?y")),
        );
        check(Method::GET, "HTTPS://a", Some((Some("a"), "/")));
        check(Method::GET, "http://a?b", Some((Some("a"), "/?b")));
        check(Method::CONNECT, "a:80", Some((Some("a:80"), "")));
        for wrong in [
            "",
            "a/b",
            "ftp://a/",
            "http://",
            "http:///x",
            "http://a\\b/",
            "/é",
            "**",
        ] {
            check(Method::GET, wrong, None);
        }
        check(Method::CONNECT, "[::1]:80", Some((Some("[::1]:80"), "")));
        for wrong in [
            "/", "a", "a:", "a:b", "a:65536", ":80", "u@a:80", "a:80/", "::1:80",
        ] {
            check(Method::CONNECT, wrong, None);
        }
    }
}
