//! Clients that try to get a header past its body, and bodies that proxies and applications might read differently.

use serde_json::json;

use super::JSON;
use super::wire::{chunked, head, plain, post, send};

#[test]
fn no_spelling_of_a_header_gets_past_the_body() {
    let (_proxy, upstream, address) = plain(json!({}));
    let check = |lines: &[&str]| {
        let lines: Vec<&str> = [JSON].iter().chain(lines).copied().collect();
        let body = br#"{"user": "ann"}"#;
        for request in [
            post(&lines, body),
            chunked(&lines, &[r#"{"user":"#, r#" "ann"}"#]),
        ] {
            assert_eq!(send(address, &request).status, 200, "{lines:?}");
            let seen = upstream.next();
            assert_eq!(seen.header("x-user"), Some("ann"), "{lines:?}");
        }
    };
    check(&[]);
    check(&["x-user: eve"]);
    check(&["X-USER: eve"]);
    check(&["x-user: eve", "X-User: eve"]);
    check(&["x_user: eve"]);
    check(&["X_USER: eve", "x-user: eve", "x_User: eve"]);
    check(&["x-user: eve", "connection: x-user"]);
    check(&["connection: keep-alive, X-User , x_user"]);
    check(&["connection: x-user", "connection: x-user"]);
    check(&["x-user:"]);
    check(&["expect: something-else", "x-user: eve"]);
}

#[test]
fn broken_heads_are_refused_before_any_body_is_looked_at() {
    let (_proxy, upstream, address) = plain(json!({}));
    for line in [
        "x-user : eve",
        "a: b\r\n x-user: eve",
        "x-user\r\n",
        "x-user: a\0b",
        "content-length: 3",
        "transfer-encoding: chunked, chunked",
        "transfer-encoding: gzip",
    ] {
        let answer = send(address, &post(&[JSON, line], br#"{"user": "ann"}"#));
        assert!((400..=501).contains(&answer.status), "{line:?}: {answer:?}");
    }
    assert!(upstream.is_quiet());
}

#[test]
fn trailers_do_not_stand_beside_the_header() {
    let (_proxy, upstream, address) = plain(json!({}));
    let check = |body: &str, expected: &str| {
        let lines = head(&[
            JSON,
            "te: trailers",
            "trailer: x-user, x_user, x-sum",
            "transfer-encoding: chunked",
        ]);
        let chunk = format!("{:x}\r\n{body}\r\n0\r\n", body.len());
        let trailers = "x-user: eve\r\nx_user: eve\r\nx-sum: 1\r\n\r\n";
        let request = [&lines, chunk.as_bytes(), trailers.as_bytes()].concat();
        assert_eq!(send(address, &request).status, 200, "{body}");
        let rest = upstream.next().rest();
        let trailers = rest.rsplit_once("0\r\n").unwrap().1;
        let mut lines: Vec<&str> = trailers.split_terminator("\r\n").collect();
        lines.retain(|line| !line.is_empty());
        lines.sort_unstable();
        assert_eq!(lines.join(" "), expected, "{body}");
    };
    check(r#"{"user": "ann"}"#, "x-sum: 1");
    // What the body does not give is left alone.
    check("{}", "x-sum: 1 x-user: eve x_user: eve");
    check("{", "x-sum: 1 x-user: eve x_user: eve");
}

#[test]
fn bodies_that_readers_could_disagree_about_are_not_read() {
    let (_passing, passed, to_passing) = plain(json!({ "max_bytes": 2000 }));
    let (_rejecting, rejected, to_rejecting) = plain(json!({ "reject": true, "max_bytes": 2000 }));
    let check = |lines: &[&str], body: &[u8], status: u16| {
        let shown = String::from_utf8_lossy(body).into_owned();
        let request = post(lines, body);
        assert_eq!(send(to_passing, &request).status, 200, "{lines:?} {shown}");
        let seen = passed.next();
        assert_eq!(seen.header("x-user"), None, "{lines:?} {shown}");
        assert_eq!(seen.rest, body, "byte for byte");
        let answer = send(to_rejecting, &request);
        assert_eq!(answer.status, status, "{lines:?} {shown}");
        assert!(rejected.is_quiet(), "{lines:?} {shown}");
    };
    let utf16 = |order: fn(u16) -> [u8; 2]| -> Vec<u8> {
        let units = r#"{"user": "ann"}"#.encode_utf16();
        units.flat_map(order).collect()
    };
    let text = br#"{"user": "ann"}"#;
    check(&[JSON], br#"{"user": "ann", "user": "eve"}"#, 400);
    check(&[JSON], br#"{"user": "ann", "\u0075ser": "eve"}"#, 400);
    check(&[JSON], br#"{"user": "ann", "User": "eve"}"#, 400);
    check(&[JSON], &utf16(u16::to_le_bytes), 400);
    check(&[JSON], &utf16(u16::to_be_bytes), 400);
    check(&[JSON], &[b"\xef\xbb\xbf".as_slice(), text].concat(), 400);
    check(&[JSON], b"{\"user\": \"ann\xff\"}", 400);
    check(&[JSON], b"{\"user\": \"ann\", \"b\": \"\xc3\"}", 400);
    check(&[JSON], b"{\"user\": \"ann\xed\xa0\x80\"}", 400);
    check(&[JSON], b"{\"user\": \"a\0\"}", 400);
    check(&[JSON], br#"{"user": "a\u0000"}"#, 400);
    check(&[JSON], br#"{"user": "a\r\nx-user: eve"}"#, 400);
    check(&[JSON], br#"{"user": "a\n"}"#, 400);
    check(&[JSON], br#"{"user": " ann"}"#, 400);
    check(&[JSON], br#"{"user": "ann"}{"user": "eve"}"#, 400);
    check(&[JSON], b"\"", 400);
    let deep = format!(
        r#"{{"user": "ann", "b": {}{}}}"#,
        "[".repeat(500),
        "]".repeat(500)
    );
    check(&[JSON], deep.as_bytes(), 400);
    check(&[JSON, "content-encoding: gzip"], text, 415);
    check(
        &[JSON, "content-encoding: identity", "content-encoding: br"],
        text,
        415,
    );
    check(&[JSON, JSON], text, 415);
    check(&[JSON, "Content-Type: text/plain"], text, 415);
    check(&["content-type: application/json, text/plain"], text, 415);
    check(
        &["content-type: application/json; charset=utf-16"],
        text,
        415,
    );
    check(
        &["content-type: application/json; charset = utf-16"],
        text,
        415,
    );
    check(&["content-type: application/problem+json"], text, 415);
    check(&["content-type:"], text, 415);
    check(&[], text, 415);
}

#[test]
fn values_and_types_are_taken_as_documented() {
    let fields = json!([
        { "pointer": "/user", "header": "x-user" }, { "pointer": "/a~1b/c~0d/1", "header": "x-deep" },
    ]);
    let types = json!(["application/json", "application/x-www-form-urlencoded"]);
    let (_proxy, upstream, address) = plain(
        json!({ "fields": fields, "content_types": types, "max_bytes": 20_000, "reject": true }),
    );
    let check = |line: &str, body: &str, status: u16, user: Option<&str>, deep: Option<&str>| {
        let answer = send(address, &post(&[line], body.as_bytes()));
        assert_eq!(answer.status, status, "{line} {body}");
        if status == 200 {
            let seen = upstream.next();
            assert_eq!(seen.header("x-user"), user, "{line} {body}");
            assert_eq!(seen.header("x-deep"), deep, "{line} {body}");
        }
    };
    let json = |body: &str, user: Option<&str>| check(JSON, body, 200, user, None);
    json(r#"{"user": 1.50}"#, Some("1.50"));
    json(r#"{"user": -0}"#, Some("-0"));
    json(r#"{"user": false}"#, Some("false"));
    json(r#"{"user": ""}"#, Some(""));
    json(r#"{"user": "\u00e9"}"#, Some("\u{e9}"));
    json(r#"{"user": null}"#, None);
    json(r#"{"user": {"a": 1}}"#, None);
    json(r#"{"user": ["a"]}"#, None);
    json(r#"["user"]"#, None);
    json("null", None);
    let deep = r#"{"a/b": {"c~d": ["0", "1"]}, "a~1b": {"c~0d": ["2", "3"]}}"#;
    check(JSON, deep, 200, None, Some("1"));
    let long = |length: usize| format!(r#"{{"user": "{}"}}"#, "x".repeat(length));
    json(&long(8 << 10), Some(&"x".repeat(8 << 10)));
    check(JSON, &long((8 << 10) + 1), 400, None, None);
    for line in [
        "Content-Type: APPLICATION/JSON",
        "content-type: application/json;charset=utf-8",
        "content-type: application/json ; Charset=\"UTF-8\"; a=b",
    ] {
        check(line, r#"{"user": "ann"}"#, 200, Some("ann"), None);
    }
    let form = "content-type: application/x-www-form-urlencoded";
    check(form, "b=1&user=an%6e+b", 200, Some("ann b"), None);
    check(form, "user=ann&user=eve", 400, None, None);
    check(form, "user=a%0d%0ab", 400, None, None);
    check(form, "a=b;user=eve&user=ann", 400, None, None);
}
