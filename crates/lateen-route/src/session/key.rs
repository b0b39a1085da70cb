//! What tells clients apart.

use std::borrow::Cow;
use std::net::IpAddr;

use http::HeaderName;

use crate::RequestView;

/// Where the key of a session is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionKey {
    /// The value of a header; several lines are one list, joined by commas.
    Header(HeaderName),
    /// The value of a cookie.
    Cookie(String),
    /// The value of a query parameter, as it was sent.
    Query(String),
    /// The client's address.
    Source,
}

impl SessionKey {
    /// The key of a request; nothing when it has none, or an empty one.
    pub fn of<'r>(&self, request: &RequestView<'r>, source: IpAddr) -> Option<Cow<'r, [u8]>> {
        let key = match self {
            Self::Header(name) => {
                let mut lines = request.headers.get_all(name).iter();
                let first = Cow::Borrowed(lines.next()?.as_bytes());
                lines.fold(first, |mut all, line| {
                    let joined = all.to_mut();
                    joined.push(b',');
                    joined.extend(line.as_bytes());
                    all
                })
            }
            Self::Cookie(name) => Cow::Borrowed(request.cookie(name)?.as_bytes()),
            Self::Query(name) => Cow::Borrowed(request.query_parameter(name)?.as_bytes()),
            Self::Source => return self.of_source(source),
        };
        Some(key).filter(|key| !key.is_empty())
    }

    /// The key of a connection, of which only the client's address is known.
    pub fn of_source<'r>(&self, source: IpAddr) -> Option<Cow<'r, [u8]>> {
        (*self == Self::Source).then(|| Cow::Owned(source.to_string().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    #[test]
    fn finds_the_key_where_it_is_said_to_be() {
        let mut headers = HeaderMap::new();
        headers.append("x-user", HeaderValue::from_static("ann"));
        headers.append("x-user", HeaderValue::from_static("bob"));
        headers.append("x-empty", HeaderValue::from_static(""));
        headers.append("cookie", HeaderValue::from_static("a=1; id=\"xyz\""));
        let request = RequestView {
            method: "GET",
            scheme: "http",
            authority: "a",
            path: "/x?user=carl&empty=",
            headers: &headers,
        };
        let check = |key: SessionKey, expected: Option<&str>| {
            let found = key.of(&request, IpAddr::from([10, 0, 0, 1]));
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{key:?}");
        };
        let header = |name| SessionKey::Header(HeaderName::from_static(name));
        check(header("x-user"), Some("ann,bob"));
        check(header("x-empty"), None);
        check(header("x-none"), None);
        check(SessionKey::Cookie("id".to_owned()), Some("xyz"));
        check(SessionKey::Cookie("none".to_owned()), None);
        check(SessionKey::Query("user".to_owned()), Some("carl"));
        check(SessionKey::Query("empty".to_owned()), None);
        check(SessionKey::Source, Some("10.0.0.1"));
    }
}
