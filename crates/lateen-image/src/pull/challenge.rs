//! What a registry asks for: the header `WWW-Authenticate` (RFC 9110, section 11.6.1).

use http::{HeaderMap, header::WWW_AUTHENTICATE};

/// A way to authenticate that is understood here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A token of a server (distribution's "Token Authentication Specification").
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
    /// User and password (RFC 7617).
    Basic,
}

/// The best challenge among the headers: tokens before passwords.
pub(super) fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let mut basic = None;
    for value in headers.get_all(WWW_AUTHENTICATE) {
        for (scheme, parameters) in parse(value.to_str().unwrap_or_default()) {
            let get = |name: &str| {
                let found = parameters
                    .iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case(name));
                found
                    .map(|(_, value)| value.clone())
                    .filter(|value| !value.is_empty())
            };
            if scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = get("realm")
            {
                return Some(Challenge::Bearer {
                    realm,
                    service: get("service"),
                    scope: get("scope"),
                });
            }
            if scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Challenge::Basic);
            }
        }
    }
    basic
}

/// The challenges of one header: schemes, each with its parameters.
fn parse(text: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut challenges: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return challenges;
        }
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let value = after.trim_start().strip_prefix('=');
        match (value, challenges.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let (value, after) = parameter(value.trim_start());
                parameters.push((word.to_owned(), value));
                rest = after;
            }
            // A value before any scheme: nothing that can be answered.
            (Some(_), None) => return challenges,
            (None, _) => {
                challenges.push((word.to_owned(), Vec::new()));
                rest = after;
            }
        }
    }
}

/// The value of a parameter, and what follows it.
fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[index + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[&'static str], expected: Option<Challenge>) {
        let mut map = HeaderMap::new();
        for header in headers {
            map.append(WWW_AUTHENTICATE, header.parse().unwrap());
        }
        assert_eq!(challenge(&map), expected, "{headers:?}");
    }

    #[test]
    fn challenges_are_read() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.to_owned(),
                service: service.map(str::to_owned),
                scope: scope.map(str::to_owned),
            })
        };
        let hub =
            r#"Bearer realm="https://a.b/token",service="a.b",scope="repository:x/y:pull,push""#;
        check(
            &[hub],
            bearer(
                "https://a.b/token",
                Some("a.b"),
                Some("repository:x/y:pull,push"),
            ),
        );
        check(&[r#"Basic realm="x""#], Some(Challenge::Basic));
        check(
            &[r#"Basic realm="x", Bearer realm="y""#],
            bearer("y", None, None),
        );
        check(
            &[r#"Basic realm="x""#, r#"bearer Realm = y , scope="""#],
            bearer("y", None, None),
        );
        check(
            &[r#"Bearer realm="a\"b\\c", service=s"#],
            bearer(r#"a"b\c"#, Some("s"), None),
        );
        check(&["Negotiate", "Basic"], Some(Challenge::Basic));
        for odd in [
            "",
            ",",
            "=",
            "Bearer",
            "Bearer realm=",
            r#"Bearer realm=""#,
            "realm=x",
            "Digest a=b",
        ] {
            check(&[odd], None);
        }
    }

    /// Fuzzed.
    #[test]
    fn any_header_is_read_or_passed_over() {
        bolero::check!(name = "challenges")
            .with_iterations(0)
            .for_each(|bytes: &[u8]| {
                let Ok(value) = bytes.try_into() else { return };
                let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, value)]);
                if let Some(Challenge::Bearer { realm, .. }) = challenge(&headers) {
                    assert!(!realm.is_empty() && realm.len() <= bytes.len());
                }
            });
    }
}
