//! Addresses of registries, and which of them may be asked.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use http::Uri;

/// An address on the web.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    /// With TLS?
    pub(super) secure: bool,
    /// Name or address; IPv6 without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Path and query.
    pub(super) path: String,
}

impl Url {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|error| format!("{text:?}: {error}"))?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(format!("{text:?} is neither http nor https")),
        };
        let authority = uri
            .authority()
            .filter(|authority| !authority.as_str().contains('@'))
            .ok_or_else(|| format!("{text:?} has no host, or a user in it"))?;
        let host = authority.host();
        Ok(Self {
            secure,
            host: host
                .strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'))
                .unwrap_or(host)
                .to_ascii_lowercase(),
            port: authority
                .port_u16()
                .unwrap_or(if secure { 443 } else { 80 }),
            path: uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
        })
    }

    /// The address that a header `Location` means (RFC 9110, section 10.2.2).
    pub(super) fn join(&self, location: &str) -> Result<Self, String> {
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("{}://{rest}", self.scheme()));
        }
        let scheme = location.split(['/', '?', '#']).next().unwrap_or_default();
        if scheme.contains(':') {
            return Self::parse(location);
        }
        let path = if location.starts_with('/') {
            location.to_owned()
        } else {
            let folder = self.path.split('?').next().unwrap_or_default();
            let folder = &folder[..folder.rfind('/').map_or(0, |slash| slash + 1)];
            format!("{folder}{location}")
        };
        Self::parse(&format!("{}://{}{path}", self.scheme(), self.authority()))
    }

    /// Is it the same server, as far as secrets are concerned (RFC 6454)?
    pub(super) fn same_origin(&self, other: &Self) -> bool {
        (self.secure, &self.host, self.port) == (other.secure, &other.host, other.port)
    }

    /// What the header `Host` holds.
    pub(super) fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        if self.port == if self.secure { 443 } else { 80 } {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }

    fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }
}

impl fmt::Display for Url {
    /// Without the query, in which storage services put signatures.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.split('?').next().unwrap_or_default();
        write!(formatter, "{}://{}{path}", self.scheme(), self.authority())
    }
}

/// May this host be asked without TLS? Only this machine, and those that the user lists as `host` or `host:port`.
pub(super) fn plain_allowed(host: &str, port: u16, insecure: &BTreeSet<String>) -> bool {
    let loopback = host
        .parse::<IpAddr>()
        .map_or(host == "localhost", |address| address.is_loopback());
    let shown = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let with_port = format!("{shown}:{port}");
    loopback
        || insecure.iter().any(|listed| {
            [&shown, &with_port]
                .into_iter()
                .any(|own| own.eq_ignore_ascii_case(listed))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_joined() {
        let base = Url::parse("https://a.b:5000/v2/x/blobs/1?q=/y").unwrap();
        for (location, expected) in [
            ("/z?k=v", Ok("https://a.b:5000/z?k=v")),
            ("2", Ok("https://a.b:5000/v2/x/blobs/2")),
            ("//c.d/z", Ok("https://c.d/z")),
            ("http://[::1]:80/z", Ok("http://[::1]/z")),
            ("https://C.d:443", Ok("https://c.d/")),
            ("ftp://c.d/z", Err("neither http")),
            ("https://u:p@c.d/z", Err("a user in it")),
            ("https://c.d/ z", Err("invalid")),
            ("https://", Err("")),
        ] {
            match (base.join(location), expected) {
                (Ok(url), Ok(text)) => {
                    let full = format!("{}://{}{}", url.scheme(), url.authority(), url.path);
                    assert_eq!(full, text, "{location}");
                }
                (Err(error), Err(part)) if error.contains(part) => {}
                (found, expected) => panic!("{location}: {found:?} instead of {expected:?}"),
            }
        }
    }

    #[test]
    fn only_this_machine_and_listed_hosts_are_asked_in_plain_text() {
        let insecure = BTreeSet::from([
            "a.b:5000".to_owned(),
            "C.d".to_owned(),
            "[fd00::1]".to_owned(),
        ]);
        for (host, port, expected) in [
            ("localhost", 5000, true),
            ("127.0.0.1", 80, true),
            ("127.1.2.3", 80, true),
            ("::1", 80, true),
            ("a.b", 5000, true),
            ("a.b", 80, false),
            ("c.d", 1234, true),
            ("fd00::1", 80, true),
            ("localhost.evil.example", 80, false),
            ("10.0.0.1", 80, false),
        ] {
            assert_eq!(
                plain_allowed(host, port, &insecure),
                expected,
                "{host}:{port}"
            );
        }
    }
}
