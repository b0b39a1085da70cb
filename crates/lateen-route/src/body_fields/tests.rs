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
    check("/a", r#"{"a": ""}"#, Ok(Some("")));
    check("/", r#"{"": "x"}"#, Ok(Some("x")));
    check("/a/0", r#"{"a": {"0": "x"}}"#, Ok(Some("x")));
    check("/a/-", r#"{"a": [1]}"#, Ok(None));
    check("/a/+0", r#"{"a": [1]}"#, Ok(None));
    check(
        "/a",
        r#"{"a": 123456789012345678901234567890}"#,
        Ok(Some("123456789012345678901234567890")),
    );
    check("/a", r#"{"a": 1e999}"#, Ok(Some("1e999")));
    check("/a~01", r#"{"a~1": "x"}"#, Ok(Some("x")));
    check("/\u{e9}", "{\"\\u00e9\": \"x\"}", Ok(Some("x")));
    check("/\u{1f600}", r#"{"\ud83d\ude00": "x"}"#, Ok(Some("x")));
    check("/a", r#"{"a": "\ud83d\ude00"}"#, Ok(Some("\u{1f600}")));
    check(
        "/a",
        r#"{"\u0061\u0061\u0061": 1, "a": "x"}"#,
        Ok(Some("x")),
    );
    // Names that some readers take for the same.
    check("/a", r#"{"A": "x"}"#, Ok(None));
    check("/a", r#"{"a": "x", "A": "y"}"#, malformed);
    check("/a", r#"{"A": "y", "B": 1, "a": "x"}"#, malformed);
    check("/a/b", r#"{"A": 1, "a": {"b": 1}}"#, malformed);
    check("/k", "{\"\u{212a}\": 1, \"k\": 2}", malformed);
    check("/s", "{\"s\": 1, \"\u{17f}\": 2}", malformed);
    // Only UTF-8 without a mark is JSON that everybody reads alike.
    check("/a", "\u{feff}{\"a\": \"x\"}", malformed);
    // What no header can carry.
    check("/a", r#"{"a": "x\u0000y"}"#, malformed);
    check("/a", r#"{"a": "x\r\ny: z"}"#, malformed);
    check("/a", r#"{"a": "x\u007f"}"#, malformed);
    check("/a", r#"{"a": "x "}"#, malformed);
    check("/a", r#"{"a": "\ud83d"}"#, malformed);
    check("/a", "{\"a\": \"x\u{0}\"}", malformed);
    for comment in [
        "{\"a\": 1} // b",
        "/* */ {\"a\": 1}",
        "{'a': 1}",
        "{a: 1}",
        "{\"a\": NaN}",
    ] {
        check("/a", comment, malformed);
    }
    let nested = |depth: usize| {
        format!(
            "{{\"a\": 1, \"b\": {}1{}}}",
            "[".repeat(depth),
            "]".repeat(depth)
        )
    };
    check("/a", &nested(127), Ok(Some("1")));
    check("/a", &nested(128), malformed);
    check(
        "/a",
        &format!(r#"{{"a": "{}"}}"#, "[{".repeat(200)),
        Ok(Some(&"[{".repeat(200))),
    );
    check(
        "/a",
        &format!(r#"{{"a": "\"{}"}}"#, "[".repeat(200)),
        Ok(Some(&format!("\"{}", "[".repeat(200)))),
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
                .map(|(_, value)| String::from_utf8_lossy(value.as_bytes()).into_owned())
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
    check("/a", "b=%ff&a=1", Ok(Some("1")));
    check("/a", "b=%zz&a=1", Err(Unreadable::Malformed));
    check("/a", "a=%c3%a9", Ok(Some("\u{e9}")));
    check("/a~1b", "a%2Fb=x", Ok(Some("x")));
    check("/a b", "a+b=x", Ok(Some("x")));
    check("/a", "a", Ok(Some("")));
    check("/a", "&&a=1=2&&", Ok(Some("1=2")));
    check("/", "=x", Ok(Some("x")));
    check("/a", "a=x%0d%0ahost:%20y", Err(Unreadable::Malformed));
    check("/a", "a=x%00", Err(Unreadable::Malformed));
    check("/a", "a=+x", Err(Unreadable::Malformed));
    // What some readers split or take for the same name.
    check("/a", "b=1;a=2&a=3", Err(Unreadable::Malformed));
    check("/a", "A=1", Ok(None));
    check("/a", "a=1&A=2", Err(Unreadable::Malformed));
    check("/a", "a[]=1", Ok(None));
    check("/a", "a[]=1&a=2", Err(Unreadable::Malformed));
    check("/a", "a=1&a%5Bx%5D=2", Err(Unreadable::Malformed));
    check("/a", "ab[]=1&a=2", Ok(Some("2")));
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
    for foreign in [
        "application/json; charset = utf-16",
        "application/json; charset*=utf-16''",
        "application/json; charset=utf-8; charset=utf-16",
        "application/json; charset=",
        "application/json, application/json",
        "application/jsonp",
    ] {
        check(&[("content-type", foreign)], other);
    }
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
        policy.apply(values, &mut headers, &mut Vec::new());
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

#[test]
fn one_walk_finds_all_fields() {
    let fields = policy(&[
        ("/a", "x-a"),
        ("/a/b", "x-b"),
        ("/a/b", "x-b2"),
        ("/a/c/1", "x-c"),
        ("/d", "x-d"),
        ("/e", "x-e"),
    ]);
    let body = br#"{"d": "d", "a": {"c": ["0", "1"], "b": "b"}, "e": null}"#;
    let found = fields.extract(Format::Json, body).unwrap();
    let found: Vec<(&str, &str)> = found
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    assert_eq!(
        found,
        [("x-b", "b"), ("x-b2", "b"), ("x-c", "1"), ("x-d", "d")]
    );
}

#[test]
fn values_have_a_longest_length() {
    let check = |format: Format, lengths: [usize; 3], unit: &str, readable: bool| {
        let fields = BodyFields {
            most_bytes: 1 << 20,
            ..policy(&[("/a", "x-a"), ("/b", "x-b"), ("/c", "x-c")])
        };
        let [a, b, c] = lengths.map(|length| unit.repeat(length));
        let body = match format {
            Format::Json => format!(r#"{{"a": "{a}", "b": "{b}", "c": "{c}"}}"#),
            Format::Form => format!("a={a}&b={b}&c={c}"),
        };
        let found = fields.extract(format, body.as_bytes());
        assert_eq!(found.is_ok(), readable, "{format:?} {lengths:?} {unit}");
    };
    for (format, unit) in [
        (Format::Json, "x"),
        (Format::Json, r"\u0061"),
        (Format::Form, "x"),
        (Format::Form, "%61"),
    ] {
        check(format, [8 << 10, 8 << 10, 0], unit, true);
        check(format, [(8 << 10) + 1, 0, 0], unit, false);
        check(format, [8 << 10, 8 << 10, 1], unit, false);
    }
}

#[test]
fn pointers_are_read_as_rfc_6901_has_them() {
    let check = |text: &str, expected: Option<&[&str]>| {
        let names = Pointer::parse(text).map(|pointer| pointer.0);
        let expected = expected.map(|names| names.iter().map(ToString::to_string).collect());
        assert_eq!(names, expected, "{text}");
    };
    check("/a/b", Some(&["a", "b"]));
    check("/a~1b/~0c", Some(&["a/b", "~c"]));
    check("/~01", Some(&["~1"]));
    check("/", Some(&[""]));
    check("", None);
    check("a", None);
    check("/~", None);
    check("/~2", None);
    check("/~~01", None);
    assert!(Pointer::parse(&"/a".repeat(32)).is_some());
    assert!(Pointer::parse(&"/a".repeat(33)).is_none());
}
