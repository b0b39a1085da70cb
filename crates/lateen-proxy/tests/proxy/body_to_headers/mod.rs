//! Fields of bodies that become headers before the route is chosen.

mod attacks;
mod http2;
mod transfer;
mod wire;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use lateen_xds::ResourceType;

use crate::support::{Client, Proxy, Upstream, free_address, http_listener, merge, to};

const JSON: &str = "content-type: application/json";

/// A filter that copies `/target` and `/user`, changed by `more`.
fn filter(more: Value) -> Value {
    let mut value = json!({
        "fields": [
            { "pointer": "/target", "header": "target" }, { "pointer": "/user", "header": "x-user" },
        ],
        "content_types": ["application/json"],
        "max_bytes": 200,
    });
    merge(&mut value, more);
    json!({ "name": "lateen.body_to_headers", "typedConfig": {
        "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
        "typeUrl": "type.googleapis.com/lateen.body_to_headers.v1.BodyToHeaders",
        "value": value,
    }})
}

/// Two upstreams, chosen by the header `target`; everything else has no route.
fn start(more: Value) -> (Proxy, Vec<Upstream>, SocketAddr) {
    let upstreams: Vec<Upstream> = ["a", "b"].into_iter().map(Upstream::start).collect();
    let mut proxy = Proxy::start(1);
    let mut routes = Vec::new();
    for upstream in &upstreams {
        let name = if routes.is_empty() { "a" } else { "b" };
        proxy.cluster(name, &[upstream.address], json!({}));
        let mut route = to(name, json!({}));
        route["match"] = json!({ "prefix": "/", "headers": [
            { "name": "target", "stringMatch": { "exact": name } },
        ]});
        routes.push(route);
    }
    let address = proxy.http(json!(routes), with_router(&[filter(more)]));
    (proxy, upstreams, address)
}

/// These filters before the router.
fn with_router(filters: &[Value]) -> Value {
    let router = json!({ "name": "envoy.filters.http.router", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
    }});
    let filters: Vec<Value> = filters.iter().cloned().chain([router]).collect();
    json!({ "httpFilters": filters })
}

fn request(headers: &[&str], body: &str) -> String {
    let mut text = format!(
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n",
        body.len()
    );
    for header in headers {
        text.push_str(&format!("{header}\r\n"));
    }
    text + "\r\n" + body
}

#[test]
fn requests_are_routed_by_their_body() {
    let (_proxy, _upstreams, address) = start(json!({}));
    let mut client = Client::connect(address);
    let mut check = |headers: &[&str], body: &str, status: u16, name: &str, user: Option<&str>| {
        let answer = client.send(&request(headers, body)).unwrap();
        assert_eq!(answer.status, status, "{headers:?} {body}");
        if status == 200 {
            let seen = answer.seen();
            assert_eq!(answer.name(), name, "{headers:?} {body}");
            assert_eq!(seen["text"], body, "byte for byte");
            assert_eq!(seen["headers"]["x-user"].as_str(), user, "{seen}");
        }
    };
    check(
        &[JSON],
        r#"{"target": "b", "user": "ann"}"#,
        200,
        "b",
        Some("ann"),
    );
    check(&[JSON, "target: a"], r#"{"target": "b"}"#, 200, "b", None);
    check(
        &[JSON, "x_user: eve", "x-user: eve", "target: a"],
        r#"{"user": 7}"#,
        200,
        "a",
        Some("7"),
    );
    check(
        &[JSON, "connection: x-user"],
        r#"{"target": "a", "user": "ann"}"#,
        200,
        "a",
        Some("ann"),
    );
    // What cannot be read passes, routed by its own headers.
    check(&[JSON, "target: a"], "{", 200, "a", None);
    check(
        &[JSON, "target: a"],
        r#"{"target": "b", "target": "a"}"#,
        200,
        "a",
        None,
    );
    check(
        &["content-type: text/plain", "target: a"],
        r#"{"target": "b"}"#,
        200,
        "a",
        None,
    );
    check(
        &[JSON, "target: a"],
        &format!(r#"{{"target": "b", "more": "{}"}}"#, "x".repeat(300)),
        200,
        "a",
        None,
    );
    check(&[JSON], "{}", 404, "", None);
}

#[test]
fn a_client_can_win_and_unreadable_bodies_can_be_refused() {
    let (_proxy, _upstreams, address) = start(json!({ "overwrite": false, "reject": true }));
    let check = |headers: &[&str], body: &str, status: u16| {
        let answer = Client::connect(address)
            .send(&request(headers, body))
            .unwrap();
        assert_eq!(answer.status, status, "{headers:?} {body}: {}", answer.body);
        answer
    };
    assert_eq!(
        check(&[JSON, "target: a"], r#"{"target": "b"}"#, 200).name(),
        "a"
    );
    assert_eq!(check(&[JSON], r#"{"target": "b"}"#, 200).name(), "b");
    check(&[JSON, "target: a"], "{", 400);
    check(&["content-type: text/plain", "target: a"], "{}", 415);
    check(
        &[JSON, "target: a"],
        &format!(r#"{{"a": "{}"}}"#, "x".repeat(300)),
        413,
    );
    // There is nothing to read in a request without a body.
    let answer = Client::connect(address).get("/", &["target: a"]).unwrap();
    assert_eq!(answer.status, 200);
}

#[test]
fn bodies_may_come_in_pieces_and_are_asked_for() {
    let (_proxy, _upstreams, address) = start(json!({}));
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: x\r\n{JSON}\r\nexpect: 100-continue\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut first = [0; 25];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
    for piece in [r#"{"tar"#, r#"get": "#, r#""b"}"#] {
        let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
        stream.write_all(chunk.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains(r#"{\"target\": \"b\"}"#), "{answer}");
}

#[test]
fn a_body_that_breaks_off_reaches_nobody() {
    let (_proxy, upstreams, address) = start(json!({}));
    let mut stream = TcpStream::connect(address).unwrap();
    let half = format!(
        "POST / HTTP/1.1\r\nhost: x\r\n{JSON}\r\ntarget: a\r\ncontent-length: 50\r\n\r\n{{"
    );
    stream.write_all(half.as_bytes()).unwrap();
    drop(stream);
    // The proxy goes on with others.
    let answer = Client::connect(address).get("/", &["target: a"]).unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(upstreams[0].count(), 1);
}

#[test]
fn what_cannot_be_done_safely_is_refused_by_its_path() {
    let mut proxy = Proxy::start(1);
    let mut check = |more: Value, expected: &str| {
        let listener = http_listener("l", free_address(), with_router(&[filter(more.clone())]));
        let rejected = proxy.send(ResourceType::Listener, &[listener]);
        let reason = rejected.first().map(|rejection| rejection.reason.as_str());
        assert!(
            reason.is_some_and(|reason| reason.contains(expected)),
            "{more}: {reason:?} instead of {expected}"
        );
    };
    for header in [
        "content-length",
        "content_length",
        "Transfer_Encoding",
        "connection",
        "host",
        "te",
        "upgrade",
        "content-type",
        "x-forwarded-for",
        "x_forwarded_client_cert",
        "x-envoy-original-dst-host",
    ] {
        let fields = json!([
            { "pointer": "/user", "header": "x-user" }, { "pointer": "/a", "header": header },
        ]);
        let expected = "http_filters[0].typed_config.fields[1].header: `";
        check(json!({ "fields": fields }), expected);
    }
    let named = |pointer: &str, header: &str| {
        json!({ "fields": [
            { "pointer": "/user", "header": "x-user" }, { "pointer": pointer, "header": header },
        ]})
    };
    check(
        named("/a", ":path"),
        "fields[1].header: `:path` is not a name",
    );
    check(
        named("/a", "x_user"),
        "fields[1].header: `x_user` is set by two",
    );
    check(
        named("a", "x-a"),
        "fields[1].pointer: `a` is not a JSON pointer",
    );
    check(named("/~2", "x-a"), "fields[1].pointer: `/~2` is not");
    check(json!({ "fields": [] }), "fields: must not be empty");
    let field = |index: usize| json!({ "pointer": "/a", "header": format!("x-{index}") });
    let many: Vec<Value> = (0..33).map(field).collect();
    check(json!({ "fields": many }), "fields: at most 32");
    check(json!({ "max_bytes": 0 }), "max_bytes: must be 1 to");
    check(
        json!({ "max_bytes": 17_000_000 }),
        "max_bytes: must be 1 to",
    );
    check(
        json!({ "content_types": ["application/json", "text/plain"] }),
        "content_types[1]: bodies of the type",
    );
    check(json!({ "other": 1 }), "typed_config.other");
}

#[test]
fn the_first_policy_that_finds_a_value_has_the_header() {
    let fields = |user: &str, header: &str| {
        json!({ "fields": [
            { "pointer": user, "header": header }, { "pointer": "/target", "header": "target" },
        ]})
    };
    let json_first = filter(fields("/user", "x-user"));
    let mut form = fields("/login", "x_user");
    form["content_types"] = json!(["application/x-www-form-urlencoded", "application/json"]);
    form["max_bytes"] = json!(100);
    form["reject"] = json!(true);
    let upstream = Upstream::start("a");
    let mut proxy = Proxy::start(1);
    proxy.cluster("a", &[upstream.address], json!({}));
    let filters = with_router(&[json_first, filter(form)]);
    let address = proxy.http(json!([to("a", json!({}))]), filters);
    let check = |header: &str, body: &str, status: u16, expected: &[(&str, &str)]| {
        let sent = request(&[header, "x-user: eve"], body);
        let answer = Client::connect(address).send(&sent).unwrap();
        assert_eq!(answer.status, status, "{header} {body}");
        if status == 200 {
            let seen = answer.seen();
            let given = ["x-user", "x_user"]
                .into_iter()
                .filter_map(|name| Some((name, seen["headers"][name].as_str()?)));
            assert_eq!(given.collect::<Vec<_>>(), expected, "{header} {body}");
            assert_eq!(seen["text"], body);
        }
    };
    let both = r#"{"user": "ann", "login": "bob"}"#;
    check(JSON, both, 200, &[("x-user", "ann")]);
    check(JSON, r#"{"login": "bob"}"#, 200, &[("x_user", "bob")]);
    check(JSON, r#"{"target": "b"}"#, 200, &[("x-user", "eve")]);
    let form = "content-type: application/x-www-form-urlencoded";
    check(form, "login=bob&user=ann", 200, &[("x_user", "bob")]);
    // What passes by one policy may be rejected by the next.
    check("content-type: text/plain", "a", 415, &[]);
    let long = format!(r#"{{"user": "ann", "more": "{}"}}"#, "x".repeat(100));
    check(JSON, &long, 413, &[]);
}
