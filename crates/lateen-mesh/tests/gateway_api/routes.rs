//! Routes of the mesh.

use lateen_xds::pb::envoy::{
    config::route::v3::{
        RouteAction, route::Action, route_action::ClusterNotFoundResponseCode,
        route_action::ClusterSpecifier, route_match::PathSpecifier,
    },
    extensions::filters::http::cors::v3::CorsPolicy,
};
use prost::Message;
use serde_json::{Value, json};

use super::{Mesh, backend};

/// Names of the rules in the order in which they are tried.
fn order(mesh: &Mesh) -> Vec<String> {
    let routes = mesh.routes("shop", "80").into_iter();
    routes.map(|route| route.name).collect()
}

fn forward(mesh: &Mesh) -> RouteAction {
    let route = mesh.routes("shop", "80").into_iter().next();
    match route.and_then(|route| route.action) {
        Some(Action::Route(action)) => action,
        other => panic!("{other:?} does not forward"),
    }
}

/// Clusters and weights of the first rule.
fn clusters(mesh: &Mesh) -> Vec<(String, u32)> {
    match forward(mesh).cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => vec![(name, 1)],
        Some(ClusterSpecifier::WeightedClusters(weighted)) => weighted
            .clusters
            .into_iter()
            .map(|one| (one.name, one.weight.map_or(0, |weight| weight.value)))
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_most_specific_match_of_all_routes_is_tried_first() {
    let rule = |name: &str, wanted: Value| json!({"name": name, "matches": [wanted], "backendRefs": backend("web")});
    let path = |kind: &str, value: &str| json!({"type": kind, "value": value});
    let header = |name: &str| json!({"name": name, "value": "1"});
    let mut mesh = Mesh::new();
    mesh.route(
        "old",
        json!([
            rule(
                "regex",
                json!({"path": path("RegularExpression", "/[a-z]*-and-very-long")})
            ),
            rule("short", json!({"path": path("PathPrefix", "/a")})),
            rule(
                "query",
                json!({"path": path("PathPrefix", "/a/b"), "queryParams": [header("q")]})
            ),
            rule("any", json!({})),
        ]),
    );
    mesh.route(
        "new",
        json!([
            rule("same", json!({"path": path("PathPrefix", "/a/")})),
            rule(
                "two",
                json!({"path": path("PathPrefix", "/a/b"), "headers": [header("x"), header("y")]})
            ),
            rule(
                "one",
                json!({"path": path("PathPrefix", "/a/b"), "headers": [header("x")]})
            ),
            rule(
                "method",
                json!({"path": path("PathPrefix", "/a/b"), "method": "GET"})
            ),
            rule("exact", json!({"path": path("Exact", "/a")})),
        ]),
    );
    let expected = [
        "exact", "method", "two", "one", "query", "short", "same", "regex", "any",
    ];
    assert_eq!(order(&mesh), expected);
}

#[test]
fn conditions_are_met_by_whole_segments_and_by_the_first_of_a_name() {
    let mut mesh = Mesh::new();
    let wanted = json!({"path": {"value": "/a/"}, "headers": [
        {"name": "X-One", "value": "1"},
        {"name": "x-one", "value": "2"},
    ]});
    let rules = json!([{"matches": [wanted], "backendRefs": backend("web")}]);
    mesh.route("a", rules);
    let found = mesh.routes("shop", "80").remove(0).r#match;
    let found = found.expect("a match");
    let segments = PathSpecifier::PathSeparatedPrefix("/a".to_owned());
    assert_eq!(found.path_specifier, Some(segments));
    let names: Vec<&str> = found.headers.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["x-one"]);
    assert!(format!("{:?}", found.headers).contains("Exact(\"1\")"));
}

#[test]
fn grpc_methods_are_paths() {
    let check = |method: Value, expected: PathSpecifier| {
        let mut mesh = Mesh::new();
        let parent = json!({"group": "", "kind": "Service", "name": "web"});
        let rule = json!({"matches": [{"method": method}], "backendRefs": backend("web")});
        let spec = json!({"parentRefs": [parent], "rules": [rule]});
        mesh.apply("GRPCRoute", "shop", "calls", spec);
        let found = mesh.routes("shop", "80").remove(0).r#match;
        let found = found.and_then(|found| found.path_specifier);
        let text = |specifier: Option<PathSpecifier>| match specifier {
            Some(PathSpecifier::SafeRegex(regex)) => regex.regex,
            other => format!("{other:?}"),
        };
        assert_eq!(text(found), text(Some(expected)), "{method}");
    };
    let regex = |text: &str| {
        PathSpecifier::SafeRegex(lateen_xds::pb::envoy::r#type::matcher::v3::RegexMatcher {
            regex: text.to_owned(),
            ..Default::default()
        })
    };
    let both = json!({"service": "shop.Cart", "method": "Add"});
    check(both, PathSpecifier::Path("/shop.Cart/Add".to_owned()));
    let service = PathSpecifier::PathSeparatedPrefix("/shop.Cart".to_owned());
    check(json!({"service": "shop.Cart"}), service);
    check(json!({"method": "Add"}), regex("/[^/]+/Add"));
    let expression = json!({"type": "RegularExpression", "service": "shop[.].*"});
    check(expression, regex("/shop[.].*/.+"));
}

#[test]
fn a_route_for_a_port_leaves_the_others_alone() {
    let mut mesh = Mesh::new();
    let parent = json!({"group": "", "kind": "Service", "name": "web", "port": 8080});
    let spec = json!({"parentRefs": [parent], "rules": [{"backendRefs": backend("other")}]});
    mesh.apply("HTTPRoute", "shop", "a", spec);
    let name = |port: &str| mesh.routes("shop", port).remove(0).name;
    assert_eq!(name("8080"), "shop.a.0");
    assert_eq!(name("80"), "default");
}

#[test]
fn routes_of_clients_come_before_those_of_the_service() {
    let parent = json!({"group": "", "kind": "Service", "name": "web", "namespace": "shop"});
    let spec = |rule: &str| {
        let rule = json!({"name": rule, "backendRefs": [{"name": "far", "namespace": "away", "port": 80}]});
        json!({"parentRefs": [parent], "rules": [rule]})
    };
    let mut mesh = Mesh::new();
    mesh.apply("HTTPRoute", "shop", "producer", spec("producer"));
    mesh.apply("HTTPRoute", "away", "consumer", spec("consumer"));
    let seen_from = |namespace: &str| mesh.routes(namespace, "80").remove(0).name;
    assert_eq!(seen_from("shop"), "producer");
    assert_eq!(seen_from("away"), "consumer");
    assert_eq!(seen_from("third"), "producer");
}

#[test]
fn backends_share_requests_by_weight() {
    let check = |backends: Value, expected: &[(&str, u32)]| {
        let mut mesh = Mesh::new();
        mesh.route("a", json!([{"backendRefs": backends}]));
        let found = clusters(&mesh);
        let found: Vec<_> = found
            .iter()
            .map(|(name, weight)| (&**name, *weight))
            .collect();
        assert_eq!(found, expected, "{backends}");
        let code = forward(&mesh).cluster_not_found_response_code();
        assert_eq!(code, ClusterNotFoundResponseCode::InternalServerError);
    };
    let one = |name: &str, weight: u32| json!({"name": name, "port": 80, "weight": weight});
    let web = "outbound|80||web.shop.svc.cluster.local";
    let other = "outbound|80||other.shop.svc.cluster.local";
    check(
        json!([one("web", 9), one("other", 1)]),
        &[(web, 9), (other, 1)],
    );
    check(json!([one("web", 9), one("other", 0)]), &[(web, 1)]);
    // A service that is not there gets its share of errors.
    let missing = "outbound|80||missing.shop.svc.cluster.local";
    check(
        json!([one("web", 1), one("missing", 1)]),
        &[(web, 1), (missing, 1)],
    );
    // So does what cannot be a backend.
    let secret = json!({"kind": "Secret", "name": "web", "port": 80, "weight": 1});
    check(
        json!([one("web", 1), secret]),
        &[(web, 1), ("outbound|80||", 1)],
    );
    let host = json!({"group": "networking.istio.io", "kind": "Hostname", "name": "a.example.com", "port": 80});
    check(json!([host]), &[("outbound|80||a.example.com", 1)]);
}

#[test]
fn what_cannot_be_done_is_answered_with_an_error() {
    let check = |rule: Value| {
        let mut mesh = Mesh::new();
        mesh.route("a", json!([rule]));
        let action = mesh.routes("shop", "80").remove(0).action;
        let status = match action {
            Some(Action::DirectResponse(response)) => response.status,
            other => panic!("{other:?} for {rule}"),
        };
        assert_eq!(status, 500, "{rule}");
    };
    check(json!({}));
    check(json!({"backendRefs": [{"name": "web", "port": 80, "weight": 0}]}));
    let foreign =
        json!({"type": "ExtensionRef", "extensionRef": {"group": "a", "kind": "B", "name": "c"}});
    check(json!({"filters": [foreign], "backendRefs": backend("web")}));
    let future = json!({"type": "ExternalAuth"});
    check(json!({"filters": [future], "backendRefs": backend("web")}));
    let hostile = json!({"type": "RequestHeaderModifier", "requestHeaderModifier":
        {"set": [{"name": "x", "value": "a\r\nb: c"}]}});
    check(json!({"filters": [hostile], "backendRefs": backend("web")}));
}

#[test]
fn filters_of_rules_and_backends_change_headers() {
    let change = |kind: &str, field: &str| {
        json!({"type": kind, field: {
            "set": [{"name": "X-Set", "value": "1"}], "add": [{"name": "x-add", "value": "2"}], "remove": ["x-gone"],
        }})
    };
    let requests = change("RequestHeaderModifier", "requestHeaderModifier");
    let responses = change("ResponseHeaderModifier", "responseHeaderModifier");
    let mut mesh = Mesh::new();
    let backends = json!([{"name": "web", "port": 80, "filters": [requests]}]);
    mesh.route(
        "a",
        json!([{"filters": [responses], "backendRefs": backends}]),
    );
    let route = mesh.routes("shop", "80").remove(0);
    for (added, removed) in [
        (
            &route.request_headers_to_add,
            &route.request_headers_to_remove,
        ),
        (
            &route.response_headers_to_add,
            &route.response_headers_to_remove,
        ),
    ] {
        let headers = added.iter().filter_map(|one| one.header.as_ref());
        let added: Vec<_> = headers.map(|one| (&*one.key, &*one.value)).collect();
        assert_eq!(added, [("x-set", "1"), ("x-add", "2")]);
        assert_eq!(removed, &["x-gone"]);
    }
}

#[test]
fn rewrites_replace_hosts_and_paths() {
    let check = |prefix: &str, filter: Value, expected: (&str, &str, &str)| {
        let mut mesh = Mesh::new();
        let filter = json!({"type": "URLRewrite", "urlRewrite": filter});
        mesh.route(
            "a",
            json!([{"matches": [{"path": {"value": prefix}}], "filters": [filter], "backendRefs": backend("web")}]),
        );
        let action = forward(&mesh);
        let regex = action.regex_rewrite.unwrap_or_default();
        let pattern = regex.pattern.unwrap_or_default().regex;
        let found = (&*action.prefix_rewrite, &*pattern, &*regex.substitution);
        assert_eq!(found, expected, "{filter}");
        let host = format!("{:?}", action.host_rewrite_specifier);
        assert_eq!(
            host.contains("a.example.com"),
            filter["urlRewrite"]["hostname"].is_string()
        );
    };
    let prefix =
        |value: &str| json!({"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": value}});
    check("/one", prefix("/two"), ("/two", "", ""));
    check("/one", prefix("/two/"), ("/two", "", ""));
    check("/o.e", prefix("/"), ("", r"^/o\.e(/?)(.*)", r"/\2"));
    check("/one", prefix(""), ("", "^/one(/?)(.*)", r"/\2"));
    let whole = json!({"path": {"type": "ReplaceFullPath", "replaceFullPath": "/all"}});
    check("/one", whole, ("", "/.*", "/all"));
    check("/one", json!({"hostname": "a.example.com"}), ("", "", ""));
}

#[test]
fn redirects_keep_what_they_do_not_name() {
    let check = |filter: Value, expected: (&str, u32, i32, &str)| {
        let mut mesh = Mesh::new();
        let filter = json!({"type": "RequestRedirect", "requestRedirect": filter});
        let rules = json!([{"matches": [{"path": {"value": "/one"}}], "filters": [filter]}]);
        let parent = json!({"group": "", "kind": "Service", "name": "web"});
        let spec = json!({"parentRefs": [parent], "rules": rules});
        mesh.apply("HTTPRoute", "shop", "a", spec);
        let found = match mesh.routes("shop", "8080").remove(0).action {
            Some(Action::Redirect(redirect)) => redirect,
            other => panic!("{other:?}"),
        };
        let path = format!("{:?}", found.path_rewrite_specifier);
        let (host, port, code, part) = expected;
        assert_eq!(
            (
                &*found.host_redirect,
                found.port_redirect,
                found.response_code
            ),
            (host, port, code),
            "{filter}"
        );
        assert!(path.contains(part), "{path} of {filter}");
    };
    // 1 is Envoy's code for 302, 0 the one for 301.
    check(
        json!({"hostname": "a.example.com"}),
        ("a.example.com", 8080, 1, "None"),
    );
    check(
        json!({"scheme": "https", "statusCode": 301}),
        ("", 0, 0, "None"),
    );
    check(json!({"port": 9000}), ("", 9000, 1, "None"));
    let path = json!({"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/two"}});
    check(path, ("", 8080, 1, r#"PrefixRewrite("/two")"#));
    let path = json!({"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}});
    check(path, ("", 8080, 1, r"^/one(/?)(.*)"));
    let path = json!({"path": {"type": "ReplaceFullPath", "replaceFullPath": "/all"}});
    check(path, ("", 8080, 1, r#"PathRedirect("/all")"#));
}

#[test]
fn mirrors_get_their_share() {
    let check = |settings: Value, expected: &[(&str, u32)]| {
        let mut mesh = Mesh::new();
        let mirror = |name: &str| {
            let mut mirror = settings.clone();
            mirror["backendRef"] = json!({"name": name, "port": 80});
            json!({"type": "RequestMirror", "requestMirror": mirror})
        };
        // The second one is not there: its copies are not sent, and requests go on.
        let filters = json!([mirror("other"), mirror("missing")]);
        mesh.route(
            "a",
            json!([{"filters": filters, "backendRefs": backend("web")}]),
        );
        let policies = forward(&mesh).request_mirror_policies;
        let found: Vec<_> = policies
            .iter()
            .map(|one| {
                let share = one.runtime_fraction.as_ref();
                let share = share.and_then(|share| share.default_value.as_ref());
                (&*one.cluster, share.map_or(0, |share| share.numerator))
            })
            .collect();
        assert_eq!(found, expected, "{settings}");
    };
    let other = "outbound|80||other.shop.svc.cluster.local";
    check(json!({}), &[(other, 100)]);
    check(json!({"percent": 20}), &[(other, 200_000)]);
    check(
        json!({"fraction": {"numerator": 1, "denominator": 8}}),
        &[(other, 125_000)],
    );
    check(json!({"percent": 0}), &[]);
}

#[test]
fn time_limits_and_repetitions_are_kept() {
    let check = |rule: Value, expected: (i64, u32, i64, &[u32])| {
        let mut mesh = Mesh::new();
        let mut rule = rule;
        rule["backendRefs"] = backend("web");
        mesh.route("a", json!([rule]));
        let action = forward(&mesh);
        let timeout = action.timeout.map_or(-1, |limit| limit.seconds);
        let policy = action.retry_policy.unwrap_or_default();
        let tries = policy.num_retries.map_or(0, |number| number.value);
        let each = policy.per_try_timeout.map_or(-1, |limit| limit.seconds);
        let found = (timeout, tries, each, &*policy.retriable_status_codes);
        assert_eq!(found, expected, "{rule}");
    };
    let timeouts = json!({"request": "10s", "backendRequest": "2s"});
    check(json!({"timeouts": {"request": "10s"}}), (10, 2, -1, &[]));
    check(json!({"timeouts": {"request": "0s"}}), (0, 2, -1, &[]));
    check(json!({"timeouts": timeouts}), (2, 2, -1, &[]));
    let retry = json!({"attempts": 3, "codes": [500, 503]});
    check(
        json!({"timeouts": timeouts, "retry": retry}),
        (10, 3, 2, &[500, 503]),
    );
}

#[test]
fn cross_origin_rules_name_origins() {
    let mut mesh = Mesh::new();
    let cors = json!({"allowOrigins": ["https://*.example.com", "https://a.com"], "allowMethods": ["GET"],
        "allowCredentials": true, "maxAge": 60});
    let filter = json!({"type": "CORS", "cors": cors});
    mesh.route(
        "a",
        json!([{"filters": [filter], "backendRefs": backend("web")}]),
    );
    let mut settings = mesh.routes("shop", "80").remove(0).typed_per_filter_config;
    let policy = settings
        .remove("envoy.filters.http.cors")
        .expect("a policy");
    let policy = CorsPolicy::decode(policy.value.as_slice()).expect("a policy");
    let origins = format!("{:?}", policy.allow_origin_string_match);
    assert!(
        origins.contains(r#"regex: "https://[^/\\s?#]*\\.example\\.com""#),
        "{origins}"
    );
    assert!(origins.contains("Exact(\"https://a.com\")"), "{origins}");
    assert_eq!((&*policy.allow_methods, &*policy.max_age), ("GET", "60"));
    let forwards = policy.forward_not_matching_preflights;
    assert_eq!(forwards.map(|flag| flag.value), Some(false));
}
