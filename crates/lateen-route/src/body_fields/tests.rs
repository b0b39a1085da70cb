//! Bodies, and the headers that they become.

use super::*;

fn policy(fields: &[(&str, &str)]) -> BodyFields {
    let field = |(pointer, header): &(&str, &str)| BodyField {
        pointer: Pointer::parse(pointer).unwrap(),
        header: header.parse().unwrap(),
    };
    BodyFields {
        fields: fields.iter().map(field).collect(),
        content_types: vec![
            "application/json".to_owned(),
            "application/x-www-form-urlencoded".to_owned(),
        ],
        most_bytes: 1000,
        overwrite: true,
        reject: false,
    }
}

#[test]
fn takes_values_out_of_json() {
    let check = |pointer: &str, body: &str, expected: Result<Option<&str>, Unreadable>| {
        let found = policy(&[(pointer, "x-a")]).extract(Format::Json, body.as_bytes());
        let value = found.map(|found| {
            found
                .first()
                .map(|(_, value)| String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        assert_eq!(
            value,
            expected.map(|value| value.map(str::to_owned)),
            "{pointer} {body}"
        );
    };
    let malformed = Err(Unreadable::Malformed);
    check("/a", r#"{"a": "one"}"#, Ok(Some("one")));
    check("/a", r#" {"b": 1, "a" : "t\u0077o"} "#, Ok(Some("two")));
    check("/a", r#"{"a": 1.50}"#, Ok(Some("1.50")));
    check("/a", r#"{"a": -3e2}"#, Ok(Some("-3e2")));
    check("/a", r#"{"a": true}"#, Ok(Some("true")));
    check("/a", r#"{"a": null}"#, Ok(None));
    check("/a", r#"{"a": {"b": 1}}"#, Ok(None));
    check("/a/b", r#"{"a": {"b": 1}}"#, Ok(Some("1")));
    check("/a/1/b", r#"{"a": [0, {"b": "x"}]}"#, Ok(Some("x")));
    check("/a/01", r#"{"a": [0, 1]}"#, Ok(None));
    check("/a/5", r#"{"a": [0]}"#, Ok(None));
    check("/a~1b/c~0d", r#"{"a/b": {"c~d": "x"}}"#, Ok(Some("x")));
    check("/0", r#"["x"]"#, Ok(Some("x")));
    check("/a", r#""text""#, Ok(None));
    check("/a", "", malformed);
    check("/a", "{", malformed);
    check("/a", r#"{"a": "x"} {}"#, malformed);
    check("/a", r#"{"a": "x",}"#, malformed);
    check("/a", r#"{"a": "x", "a": "y"}"#, malformed);
    check("/a", r#"{"a": "x", "\u0061": "y"}"#, malformed);
    check("/a/b", r#"{"a": {"b": 1}, "a": {"b": 2}}"#, malformed);
    check("/a", r#"{"b": 1, "b": 2, "a": "x"}"#, Ok(Some("x")));
    check("/a", "{\"a\": \"x\\r\\nhost: y\"}", malformed);
    check("/a", r#"{"a": " x"}"#, malformed);
    check("/a", "{\"a\": \"\u{e9}\"}", Ok(Some("\u{e9}")));
    check(
        "/a",
        &format!("{}1{}", "[".repeat(200), "]".repeat(200)),
        Ok(None),
    );
    check(
        "/a",
        &format!(r#"{{"a": "{}"}}"#, "x".repeat(1000)),
        Err(Unreadable::TooLarge),
    );
}

#[test]
fn takes_values_out_of_forms() {
    let check = |pointer: &str, body: &str, expected: Result<Option<&str>, Unreadable>| {
        let found = policy(&[(pointer, "x-a")]).extract(Format::Form, body.as_bytes());
        let value = found.map(|found| {
            found
                .first()
                .map(|(_, value)| value.to_str().unwrap().to_owned())
        });
        assert_eq!(
            value,
            expected.map(|value| value.map(str::to_owned)),
            "{pointer} {body}"
        );
    };
    check("/a", "a=one&b=2", Ok(Some("one")));
    check("/b", "a=one&b=%32+3", Ok(Some("2 3")));
    check("/c", "a=one", Ok(None));
    check("/a/b", "a=one", Ok(None));
    check("/a", "a=1&a=2", Err(Unreadable::Malformed));
    check("/a", "a=1&%61=2", Err(Unreadable::Malformed));
    check("/a", "a=%4", Err(Unreadable::Malformed));
    check("/a", "a=%+4", Err(Unreadable::Malformed));
    check("/a", "a=%ff", Err(Unreadable::Malformed));
}

#[test]
fn looks_at_bodies_of_known_types_only() {
    let check = |headers: &[(&str, &str)], expected: Result<Format, Unreadable>| {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            map.append(name, value.parse().unwrap());
        }
        assert_eq!(policy(&[]).format(&map), expected, "{headers:?}");
    };
    let other = Err(Unreadable::Type);
    check(&[("content-type", "application/json")], Ok(Format::Json));
    check(
        &[("content-type", "Application/JSON; Charset=\"UTF-8\"")],
        Ok(Format::Json),
    );
    check(
        &[("content-type", "application/x-www-form-urlencoded")],
        Ok(Format::Form),
    );
    check(
        &[("content-type", "application/json; charset=utf-16")],
        other,
    );
    check(&[("content-type", "text/plain")], other);
    check(&[], other);
    let json = ("content-type", "application/json");
    check(&[json, ("content-type", "text/plain")], other);
    check(&[json, ("content-encoding", "gzip")], other);
    check(&[json, ("content-encoding", "identity")], Ok(Format::Json));
}

#[test]
fn the_body_wins_or_the_client_does() {
    let check = |overwrite: bool, sent: &[(&str, &str)], expected: &[(&str, &str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, value.parse().unwrap());
        }
        let policy = BodyFields {
            overwrite,
            ..policy(&[("/a", "x-user")])
        };
        let values = policy.extract(Format::Json, br#"{"a": "body"}"#).unwrap();
        policy.apply(values, &mut headers);
        let mut left: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        left.sort_unstable();
        assert_eq!(left, expected, "{overwrite} {sent:?}");
    };
    check(true, &[], &[("x-user", "body")]);
    check(
        true,
        &[("x-user", "a"), ("x-user", "b")],
        &[("x-user", "body")],
    );
    check(true, &[("x_user", "a")], &[("x-user", "body")]);
    check(
        true,
        &[("connection", "close, X-User")],
        &[("connection", "close"), ("x-user", "body")],
    );
    check(true, &[("connection", "x-user")], &[("x-user", "body")]);
    check(false, &[("x-user", "a")], &[("x-user", "a")]);
    check(false, &[("x_user", "a")], &[("x_user", "a")]);
    check(
        false,
        &[("other", "a")],
        &[("other", "a"), ("x-user", "body")],
    );
}
