//! Filter configuration of routes, and the parts of routes that no other table covers.

use http::{HeaderMap, HeaderName, HeaderValue};
use lateen_route::stateful_session::Session;
use lateen_route::{Decision, RequestView, RouteTable};
use lateen_xds::json::to_message;
use lateen_xds::pb::envoy::config::route::v3::RouteConfiguration;
use serde_json::{Value, json};

const COOKIE: &str =
    "type.googleapis.com/envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState";

fn compile(route: &Value) -> Result<RouteTable, lateen_route::Invalid> {
    let table = json!({ "name": "t", "virtualHosts": [{ "name": "v", "domains": ["*"], "routes": [route] }] });
    RouteTable::compile(to_message::<RouteConfiguration>(&table).unwrap())
}

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let line = |(name, value): &(&str, &str)| {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        (name, HeaderValue::from_str(value).unwrap())
    };
    lines.iter().map(line).collect()
}

fn view<'a>(path: &'a str, headers: &'a HeaderMap) -> RequestView<'a> {
    RequestView {
        method: "GET",
        scheme: "http",
        authority: "a",
        path,
        headers,
    }
}

#[test]
fn what_cannot_be_carried_out_is_refused_with_its_path() {
    let with = |config: Value| {
        json!({ "match": { "prefix": "/" }, "route": { "cluster": "c" },
            "typedPerFilterConfig": { "f": config } })
    };
    let fault = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault";
    let wrapper = "type.googleapis.com/envoy.config.route.v3.FilterConfig";
    let of_route = "type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute";
    let unknown = "type.googleapis.com/google.protobuf.Struct";
    for (route, path) in [
        (
            with(json!({ "@type": fault, "abort": { "httpStatus": 700 } })),
            Some("[f].abort.http_status"),
        ),
        (
            with(json!({ "@type": fault, "delay": { "fixedDelay": "0s" } })),
            Some("[f].delay.fixed_delay"),
        ),
        (
            with(json!({ "@type": fault, "delay": {} })),
            Some("[f].delay.fault_delay_secifier"),
        ),
        (with(json!({ "@type": unknown, "value": {} })), Some("[f]")),
        (with(json!({ "@type": wrapper })), Some("[f].config")),
        (
            with(json!({ "@type": wrapper, "config": { "@type": unknown, "value": {} } })),
            Some("[f].config"),
        ),
        (
            with(
                json!({ "@type": wrapper, "isOptional": true, "config": { "@type": unknown, "value": {} } }),
            ),
            None,
        ),
        (with(json!({ "@type": wrapper, "disabled": true })), None),
        (with(json!({ "@type": of_route })), Some("[f].override")),
        (
            with(
                json!({ "@type": of_route, "statefulSession": { "sessionState": { "name": "other", "typedConfig": { "@type": COOKIE } } } }),
            ),
            Some("[f].stateful_session.session_state.name"),
        ),
    ] {
        let error = compile(&route).err().map(|error| error.path);
        let path =
            path.map(|path| format!("virtual_hosts[0].routes[0].typed_per_filter_config{path}"));
        assert_eq!(error, path, "{route}");
    }
}

#[test]
fn a_session_is_read_in_every_form_and_only_below_its_path() {
    let session = |path: &str| {
        let message = json!({ "sessionState": {
            "name": "envoy.http.stateful_session.cookie",
            "typedConfig": { "@type": COOKIE, "cookie": { "name": "s", "path": path, "ttl": "10s" } },
        }});
        Session::compile(to_message(&message).unwrap())
            .unwrap()
            .unwrap()
    };
    let endpoint = "127.0.0.1:9002".parse().unwrap();
    for (value, at, expected) in [
        // Without an end, quoted, as earlier versions wrote it, ended, and no session at all.
        ("Cg4xMjcuMC4wLjE6OTAwMg==", 9, Some(endpoint)),
        ("\"Cg4xMjcuMC4wLjE6OTAwMg==\"", 9, Some(endpoint)),
        ("MTI3LjAuMC4xOjkwMDI=", 9, Some(endpoint)),
        ("Cg4xMjcuMC4wLjE6OTAwMhAB", 1, Some(endpoint)),
        ("Cg4xMjcuMC4wLjE6OTAwMhAB", 2, None),
        ("abc", 9, None),
    ] {
        let line = headers(&[("cookie", &format!("a=b; s={value}"))]);
        assert_eq!(
            session("").endpoint(&view("/", &line), at),
            expected,
            "{value}"
        );
    }
    let none = HeaderMap::new();
    for (base, path, expected) in [
        ("", "/x", true),
        ("/a", "/a?q", true),
        ("/a", "/a/b", true),
        ("/a", "/ab", false),
        ("/a/", "/a/b", true),
        ("/a/", "/a", false),
    ] {
        assert_eq!(
            session(base).applies(&view(path, &none)),
            expected,
            "{base} {path}"
        );
    }
    // What is announced is understood again.
    let (_, value) = session("/").announce(endpoint, 5).unwrap();
    let text = value.to_str().unwrap().to_owned();
    assert!(text.ends_with("; Max-Age=10; Path=/; HttpOnly"), "{text}");
    let line = headers(&[("cookie", text.split(';').next().unwrap())]);
    assert_eq!(session("/").endpoint(&view("/", &line), 15), Some(endpoint));
    assert_eq!(session("/").endpoint(&view("/", &line), 16), None);
}

#[test]
fn cookies_match_by_value_and_inverted() {
    let direct = json!({ "status": 200 });
    for (matcher, cookie, expected) in [
        (
            json!({ "name": "a", "stringMatch": { "exact": "b" } }),
            "x=y; a=b",
            true,
        ),
        (
            json!({ "name": "a", "stringMatch": { "exact": "b" } }),
            "a=c",
            false,
        ),
        (
            json!({ "name": "a", "stringMatch": { "exact": "b" } }),
            "x=y",
            false,
        ),
        (
            json!({ "name": "a", "stringMatch": { "exact": "b" }, "invertMatch": true }),
            "a=c",
            true,
        ),
        (
            json!({ "name": "a", "stringMatch": { "exact": "b" }, "invertMatch": true }),
            "a=b",
            false,
        ),
    ] {
        let table = compile(
            &json!({ "match": { "prefix": "/", "cookies": [matcher] }, "directResponse": direct }),
        )
        .unwrap();
        let lines = headers(&[("cookie", cookie)]);
        let found = matches!(table.decide(&view("/", &lines), 0), Decision::Route { .. });
        assert_eq!(found, expected, "{matcher} {cookie}");
    }
}

#[test]
fn a_number_of_the_request_draws_the_cluster() {
    let table = compile(
        &json!({ "match": { "prefix": "/" }, "route": { "weightedClusters": {
            "headerName": "x-number",
            "clusters": [{ "name": "a", "weight": 30 }, { "name": "b", "weight": 70 }],
        }}}),
    )
    .unwrap();
    for (lines, random, drawn) in [
        (headers(&[("x-number", "29")]), 99, 0),
        (headers(&[("x-number", "130")]), 0, 1),
        (headers(&[("x-number", "words")]), 99, 1),
        (HeaderMap::new(), 0, 0),
    ] {
        let Decision::Route { weighted, .. } = table.decide(&view("/", &lines), random) else {
            panic!("no route");
        };
        assert_eq!(weighted, Some(drawn), "{lines:?}");
    }
}
