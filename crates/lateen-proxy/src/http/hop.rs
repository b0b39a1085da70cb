//! Hop-by-hop headers: they concern one connection and are not passed on.

use http::{HeaderMap, HeaderName, HeaderValue, header};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Those that always are, whatever `connection` names.
static HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    KEEP_ALIVE,
    PROXY_CONNECTION,
];

/// Removes them, and the headers that `connection` names. In an `upgrade`, the two headers of that stay as they are.
pub(super) fn strip(headers: &mut HeaderMap, upgrade: bool) {
    // Most messages have none of them or one, and a look at the names is cheaper than a search for each.
    let mut present = [false; HOP_BY_HOP.len()];
    for name in headers.keys() {
        if let Some(index) = HOP_BY_HOP.iter().position(|hop| hop == name) {
            present[index] = true;
        }
    }
    if present == [false; HOP_BY_HOP.len()] {
        return;
    }
    let named: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
        // It is one of those that go anyway.
        .filter(|token| *token != "keep-alive")
        .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
        .collect();
    let trailers = tokens(headers, &header::TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    let kept = [header::CONNECTION, header::UPGRADE].map(|name| {
        let value = headers.get(&name).cloned();
        value.filter(|_| upgrade).map(|value| (name, value))
    });
    for name in named {
        headers.remove(name);
    }
    for (name, _) in HOP_BY_HOP.iter().zip(present).filter(|(_, there)| *there) {
        headers.remove(name);
    }
    // gRPC needs to know that trailers are understood.
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    for (name, value) in kept.into_iter().flatten() {
        headers.insert(name, value);
    }
}

/// What the values of a field list.
fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let values = headers.get_all(name).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fields: &str, upgrade: bool, expected: &str) {
        let mut headers = HeaderMap::new();
        for field in fields.split_terminator('|') {
            let (name, value) = field.split_once(": ").unwrap();
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        strip(&mut headers, upgrade);
        let mut left: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        left.sort();
        assert_eq!(left.join("|"), expected, "{fields}");
    }

    #[test]
    fn what_concerns_one_connection_is_not_passed_on() {
        for (fields, expected) in [
            ("", ""),
            ("a: 1|b: 2", "a: 1|b: 2"),
            ("a: 1|connection: keep-alive", "a: 1"),
            ("connection: Keep-Alive|keep-alive: timeout=5|a: 1", "a: 1"),
            ("keep-alive: timeout=5", ""),
            ("connection: a, close|a: 1|b: 2|close: 3", "b: 2"),
            ("connection: a|connection: b|a: 1|b: 2|c: 3", "c: 3"),
            (
                "transfer-encoding: chunked|proxy-connection: x|upgrade: h2c",
                "",
            ),
            ("te: gzip", ""),
            ("te: gzip|te: deflate, Trailers", "te: trailers"),
            ("connection: te|te: trailers", "te: trailers"),
        ] {
            check(fields, false, expected);
        }
        check(
            "connection: upgrade|upgrade: websocket|a: 1",
            true,
            "a: 1|connection: upgrade|upgrade: websocket",
        );
    }
}
