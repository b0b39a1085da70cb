//! Route tables: matching rules, rewrites, and the index against trying the routes one by one.

use http::{HeaderMap, HeaderName, HeaderValue};
use lateen_route::hash::{Peer, hash_request, xx64};
use lateen_route::table::explain::Verdict;
use lateen_route::{Action, Decision, RequestView, RouteTable};
use lateen_xds::json::to_message;
use lateen_xds::pb::envoy::config::route::v3::RouteConfiguration;
use proptest::prelude::*;
use serde_json::{Value, json};

fn table(value: &Value) -> RouteTable {
    RouteTable::compile(to_message::<RouteConfiguration>(value).unwrap()).unwrap()
}

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    map
}

fn view<'a>(authority: &'a str, path: &'a str, headers: &'a HeaderMap) -> RequestView<'a> {
    RequestView {
        method: "GET",
        scheme: "http",
        authority,
        path,
        headers,
    }
}

/// The name of the route that is chosen.
fn chosen(table: &RouteTable, request: &RequestView<'_>) -> String {
    match table.decide(request, 0) {
        Decision::Route { route, .. } => route.name.clone(),
        Decision::NotFound => "-".to_owned(),
        Decision::RedirectToHttps(_) => "https".to_owned(),
    }
}

/// A table with one route under test, which answers as `yes`.
fn matches(condition: Value, path: &str, lines: &[(&str, &str)]) -> bool {
    let mut condition = condition;
    if ["prefix", "path", "safeRegex", "pathSeparatedPrefix"]
        .iter()
        .all(|k| condition.get(k).is_none())
    {
        condition["prefix"] = json!("/");
    }
    let table = table(
        &json!({ "name": "t", "virtualHosts": [{ "name": "v", "domains": ["*"], "routes": [
            { "name": "yes", "match": condition, "directResponse": { "status": 200 } },
        ]}]}),
    );
    chosen(&table, &view("a", path, &headers(lines))) == "yes"
}

#[test]
fn hosts_are_found_from_the_most_specific_domain() {
    let host = |name: &str, domains: &[&str]| {
        json!({ "name": name, "domains": domains, "routes": [
            { "name": name, "match": { "prefix": "/" }, "directResponse": { "status": 200 } },
        ]})
    };
    let with_port = |ignore: bool| {
        table(
            &json!({ "name": "t", "ignorePortInHostMatching": ignore, "virtualHosts": [
                host("exact", &["a.b.test"]),
                host("long suffix", &["*.b.test"]),
                host("short suffix", &["*.test"]),
                host("prefix", &["a.*"]),
                host("any", &["*"]),
            ]}),
        )
    };
    let none = HeaderMap::new();
    for (authority, name) in [
        ("a.b.test", "exact"),
        ("A.B.Test", "exact"),
        ("x.b.test", "long suffix"),
        ("x.test", "short suffix"),
        ("a.example", "prefix"),
        ("other", "any"),
        ("a.b.test:80", "exact"),
        ("[::1]:80", "any"),
    ] {
        assert_eq!(
            chosen(&with_port(true), &view(authority, "/", &none)),
            name,
            "{authority}"
        );
    }
    assert_eq!(
        chosen(&with_port(false), &view("a.b.test:80", "/", &none)),
        "prefix"
    );
}

#[test]
fn paths_match_without_their_query() {
    for (condition, path, expected) in [
        (json!({ "path": "/a" }), "/a?x=1", true),
        (json!({ "path": "/a" }), "/a/", false),
        (json!({ "prefix": "/a" }), "/ab", true),
        (json!({ "prefix": "/a" }), "/A", false),
        (
            json!({ "prefix": "/a", "caseSensitive": false }),
            "/AB",
            true,
        ),
        (json!({ "pathSeparatedPrefix": "/a" }), "/a", true),
        (json!({ "pathSeparatedPrefix": "/a" }), "/a/b", true),
        (json!({ "pathSeparatedPrefix": "/a" }), "/ab", false),
        (
            json!({ "safeRegex": { "regex": "/[0-9]+" } }),
            "/12?q",
            true,
        ),
        (
            json!({ "safeRegex": { "regex": "/[0-9]+" } }),
            "/12x",
            false,
        ),
    ] {
        assert_eq!(
            matches(condition.clone(), path, &[]),
            expected,
            "{condition} {path}"
        );
    }
}

#[test]
fn headers_match_line_by_line() {
    let header = |fields: Value| {
        let mut matcher = json!({ "name": "x-m" });
        matcher
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        json!({ "headers": [matcher] })
    };
    let exact = |text: &str| json!({ "stringMatch": { "exact": text } });
    let two = [("x-m", "a"), ("x-m", "b")];
    for (fields, lines, expected) in [
        (exact("a"), &two[..], true),
        (exact("b"), &two[..], true),
        (exact("a,b"), &two[..], false),
        (exact("a,b"), &[("x-m", "a,b")][..], true),
        (
            json!({ "stringMatch": { "exact": "b" }, "invertMatch": true }),
            &two[..],
            false,
        ),
        (
            json!({ "stringMatch": { "exact": "c" }, "invertMatch": true }),
            &two[..],
            true,
        ),
        (
            json!({ "stringMatch": { "exact": "c" }, "invertMatch": true }),
            &[][..],
            false,
        ),
        (
            json!({ "stringMatch": { "exact": "c" }, "invertMatch": true, "treatMissingHeaderAsEmpty": true }),
            &[][..],
            true,
        ),
        (json!({ "presentMatch": true }), &two[..], true),
        (json!({ "presentMatch": false }), &[][..], true),
        (
            json!({ "presentMatch": true, "invertMatch": true }),
            &[][..],
            true,
        ),
        (
            json!({ "stringMatch": { "prefix": "A", "ignoreCase": true } }),
            &two[..],
            true,
        ),
        (
            json!({ "stringMatch": { "suffix": "yz" } }),
            &[("x-m", "xyz")][..],
            true,
        ),
        (
            json!({ "stringMatch": { "contains": "y" } }),
            &[("x-m", "xyz")][..],
            true,
        ),
        (
            json!({ "stringMatch": { "safeRegex": { "regex": "x.z" } } }),
            &[("x-m", "xyz")][..],
            true,
        ),
        (
            json!({ "stringMatch": { "safeRegex": { "regex": "x" } } }),
            &[("x-m", "xyz")][..],
            false,
        ),
        (
            json!({ "rangeMatch": { "start": "1", "end": "5" } }),
            &[("x-m", "4")][..],
            true,
        ),
        (
            json!({ "rangeMatch": { "start": "1", "end": "5" } }),
            &[("x-m", "5")][..],
            false,
        ),
    ] {
        assert_eq!(
            matches(header(fields.clone()), "/", lines),
            expected,
            "{fields} {lines:?}"
        );
    }
    assert!(matches(
        json!({ "headers": [{ "name": ":method", "stringMatch": { "exact": "GET" } }] }),
        "/",
        &[]
    ));
    let query = json!({ "queryParameters": [{ "name": "a", "stringMatch": { "exact": "1" } }] });
    assert!(matches(query.clone(), "/?b=2&a=1", &[]) && !matches(query, "/?a=2", &[]));
}

#[test]
fn rewrites_keep_the_query() {
    for (condition, action, path, expected) in [
        (
            json!({ "prefix": "/old/" }),
            json!({ "prefixRewrite": "/" }),
            "/old/x?q=1",
            "/x?q=1",
        ),
        (
            json!({ "path": "/a" }),
            json!({ "prefixRewrite": "/b" }),
            "/a?q",
            "/b?q",
        ),
        (
            json!({ "prefix": "/" }),
            json!({ "regexRewrite": {
                "pattern": { "regex": "^/users/([0-9]+)$" }, "substitution": "/u/\\1" } }),
            "/users/7?x=/users/1",
            "/u/7?x=/users/1",
        ),
    ] {
        let mut action = action;
        action["cluster"] = json!("c");
        let table = table(
            &json!({ "name": "t", "virtualHosts": [{ "name": "v", "domains": ["*"], "routes": [
                { "match": condition, "route": action },
            ]}]}),
        );
        let none = HeaderMap::new();
        let Decision::Route { route, .. } = table.decide(&view("a", path, &none), 0) else {
            panic!("no route for {path}");
        };
        let Action::Forward(forward) = &route.action else {
            panic!("not forwarded")
        };
        let rewrite = forward.path_rewrite.as_ref().unwrap();
        assert_eq!(rewrite.apply(route, path).as_deref(), Some(expected));
    }
}

#[test]
fn hashes_are_combined_as_envoy_does() {
    let policies = |policies: Value| {
        table(
            &json!({ "name": "t", "virtualHosts": [{ "name": "v", "domains": ["*"], "routes": [
                { "match": { "prefix": "/" }, "route": { "cluster": "c", "hashPolicy": policies } },
            ]}]}),
        )
    };
    let hash = |table: &RouteTable, path: &str, lines: &[(&str, &str)]| {
        let headers = headers(lines);
        let request = view("a", path, &headers);
        let Decision::Route { route, .. } = table.decide(&request, 0) else {
            panic!("no route")
        };
        let peer = Peer {
            remote_ip: "1.2.3.4",
            remote: "1.2.3.4:5",
            local: "6.7.8.9:10",
        };
        hash_request(&route.forward().unwrap().hash, &request, &peer).0
    };
    let header = json!([{ "header": { "headerName": "x" } }]);
    let by_header = policies(header);
    assert_eq!(
        hash(&by_header, "/", &[("x", "user-7919")]),
        Some(0xb096_edb9_b8a9_f5b8)
    );
    assert_eq!(
        hash(&by_header, "/", &[("x", "b"), ("x", "a")]),
        Some(0x76d9_a191_6ddc_a8e6)
    );
    assert_eq!(hash(&by_header, "/", &[]), None);
    let both = policies(
        json!([{ "header": { "headerName": "x" } }, { "queryParameter": { "name": "q" } }]),
    );
    assert_eq!(
        hash(&both, "/?q=b", &[("x", "a")]),
        Some(0xdcd8_a342_49eb_432c)
    );
    let terminal = policies(json!([
        { "header": { "headerName": "x" }, "terminal": true }, { "queryParameter": { "name": "q" } },
    ]));
    assert_eq!(hash(&terminal, "/?q=b", &[("x", "a")]), Some(xx64(b"a", 0)));
    assert_eq!(hash(&terminal, "/?q=b", &[]), Some(xx64(b"b", 0)));
}

#[test]
fn an_explanation_names_the_condition_that_failed() {
    let table = table(
        &json!({ "name": "t", "virtualHosts": [{ "name": "v", "domains": ["*"], "routes": [
            { "name": "one", "match": { "path": "/x" }, "route": { "cluster": "a" } },
            { "name": "two", "match": { "prefix": "/", "headers": [{ "name": "h", "presentMatch": true }] },
              "route": { "cluster": "b" } },
            { "match": { "prefix": "/" }, "route": { "cluster": "c" } },
        ]}]}),
    );
    let none = HeaderMap::new();
    let explanation = table.explain(&view("a", "/y", &none), 0);
    let verdicts: Vec<_> = explanation
        .steps
        .iter()
        .map(|step| step.verdict.clone())
        .collect();
    assert!(explanation.matched);
    assert_eq!(
        verdicts,
        [
            Verdict::Path,
            Verdict::Header(0),
            Verdict::Matched("cluster c".to_owned())
        ]
    );
}

/// A path condition over a small alphabet, so that conditions overlap.
fn condition() -> impl Strategy<Value = Value> {
    let path = "(/[ab]{0,2}){1,3}";
    prop_oneof![
        path.prop_map(|path| json!({ "path": path })),
        path.prop_map(|path| json!({ "prefix": path })),
        path.prop_map(|path| json!({ "prefix": path, "caseSensitive": false })),
        "(/[ab]{1,2}){1,2}".prop_map(|path| json!({ "pathSeparatedPrefix": path })),
        "[ab]{1,2}".prop_map(|text| json!({ "safeRegex": { "regex": format!("/.*{text}.*") } })),
        (path, "[xy]").prop_map(|(path, value)| json!({
            "prefix": path, "headers": [{ "name": "h", "stringMatch": { "exact": value } }],
        })),
    ]
}

proptest! {
    #[test]
    fn the_index_finds_the_route_that_comes_first(
        conditions in proptest::collection::vec(condition(), 1..40),
        paths in proptest::collection::vec("(/[abAB]{0,2}){1,3}", 1..20),
        header in "[xyz]",
    ) {
        let routes: Vec<_> = conditions
            .iter()
            .enumerate()
            .map(|(n, condition)| json!({
                "name": n.to_string(), "match": condition, "directResponse": { "status": 200 },
            }))
            .collect();
        let table = table(&json!({
            "name": "t", "virtualHosts": [{ "name": "v", "domains": ["*"], "routes": routes }],
        }));
        let headers = headers(&[("h", &header)]);
        for path in &paths {
            let request = view("a", path, &headers);
            let linear = table.virtual_hosts[0]
                .routes
                .iter()
                .find(|route| route.matches(&request, 0))
                .map_or("-", |route| route.name.as_str());
            prop_assert_eq!(chosen(&table, &request), linear, "{}", path);
        }
    }
}

/// The location of a redirect in JSON form.
fn location(redirect: Value, authority: &str, path: &str) -> String {
    let table = table(
        &json!({ "name": "t", "virtualHosts": [{ "name": "v", "domains": ["*"], "routes": [
            { "match": { "prefix": "/" }, "redirect": redirect },
        ]}]}),
    );
    let headers = HeaderMap::new();
    let request = view(authority, path, &headers);
    match table.decide(&request, 0) {
        Decision::Route { route, .. } => match &route.action {
            Action::Redirect(redirect) => redirect.location(Some(route), &request),
            other => panic!("not a redirect: {other:?}"),
        },
        _ => panic!("no route"),
    }
}

#[test]
fn redirects_keep_and_replace_ports_as_envoy_does() {
    let check = |redirect: Value, authority: &str, path: &str, expected: &str| {
        assert_eq!(
            location(redirect.clone(), authority, path),
            expected,
            "{redirect} {authority} {path}"
        );
    };
    check(json!({}), "a.test:80", "/x", "http://a.test:80/x");
    check(
        json!({ "httpsRedirect": true }),
        "a.test:80",
        "/x",
        "https://a.test/x",
    );
    check(
        json!({ "httpsRedirect": true }),
        "a.test:8080",
        "/x",
        "https://a.test:8080/x",
    );
    check(
        json!({ "schemeRedirect": "https", "portRedirect": 443 }),
        "a.test",
        "/",
        "https://a.test:443/",
    );
    check(
        json!({ "portRedirect": 81 }),
        "[::1]:8080",
        "/",
        "http://[::1]:81/",
    );
    check(
        json!({ "portRedirect": 81 }),
        "[::1]",
        "/",
        "http://[::1]:81/",
    );
    check(
        json!({ "hostRedirect": "b.test" }),
        "a.test:8080",
        "/",
        "http://b.test/",
    );
    check(
        json!({ "pathRedirect": "/new" }),
        "a.test",
        "/x?",
        "http://a.test/new?",
    );
    check(
        json!({ "pathRedirect": "/new" }),
        "a.test",
        "/x?q=1",
        "http://a.test/new?q=1",
    );
    check(
        json!({ "pathRedirect": "/new", "stripQuery": true }),
        "a.test",
        "/x?q=1",
        "http://a.test/new",
    );
    check(
        json!({ "pathRedirect": "/new?y=2" }),
        "a.test",
        "/x?q=1",
        "http://a.test/new?y=2",
    );
}
