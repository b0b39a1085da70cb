//! The filter `header_mutation` on requests and responses, by itself and configured by routes.

use lateen_xds::ResourceType;
use serde_json::{Value, json};

use crate::support::{Proxy, Upstream, filters, free_address, get, http_listener, to};

const TYPE: &str = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3";

fn add(key: &str, value: &str, action: &str) -> Value {
    json!({ "append": { "header": { "key": key, "value": value }, "appendAction": action } })
}

fn set(key: &str, value: &str) -> Value {
    add(key, value, "OVERWRITE_IF_EXISTS_OR_ADD")
}

fn per_route(request: Value, response: Value) -> Value {
    json!({ "mutations": {
        "@type": format!("{TYPE}.HeaderMutationPerRoute"),
        "mutations": { "requestMutations": request, "responseMutations": response },
    }})
}

fn filter(mutations: Value, reversed: bool) -> Value {
    filters(&[(
        "mutations",
        json!({
            "@type": format!("{TYPE}.HeaderMutation"),
            "mutations": mutations,
            "mostSpecificHeaderMutationsWins": reversed,
        }),
    )])
}

#[test]
fn each_change_sees_what_the_one_before_it_left() {
    let upstream = Upstream::start("up");
    let mut proxy = Proxy::start(1);
    proxy.cluster("up", &[upstream.address], json!({}));
    let request = json!([
        { "remove": "x-gone" },
        { "removeOnMatch": { "keyMatcher": { "prefix": "x-secret-" } } },
        set("x-one", "first"),
        add("x-one", "not", "ADD_IF_ABSENT"),
        add("x-two", "not", "OVERWRITE_IF_EXISTS"),
        set("x-two", "%REQ(x-one)% %REQ(x-given)% %REQ(:PATH)%"),
        set("x-three", "%REQ(x-two)%!"),
        set("x-empty", "%REQ(x-gone)%"),
        set("x-long", "%REQ(x-given)%"),
    ]);
    let response = json!([
        set("x-status", "%RESPONSE_CODE% %REQ(x-one)%"),
        { "removeOnMatch": { "keyMatcher": { "exact": "x-envoy-upstream-service-time" } } },
        set("x-copied", "%RESP(x-status)%"),
    ]);
    let mutations = json!({ "requestMutations": request, "responseMutations": response });
    let routes = json!([
        { "match": { "prefix": "/direct" }, "directResponse": { "status": 418 } },
        to("up", json!({})),
    ]);
    let address = proxy.http(routes, filter(mutations, false));
    let answer = get(
        address,
        "/a",
        &[
            "x-gone: 1",
            "x-secret-a: 1",
            "x-secret-b: 2",
            "x-given: here",
        ],
    );
    let seen = answer.seen();
    for (name, expected) in [
        ("x-gone", json!(null)),
        ("x-secret-a", json!(null)),
        ("x-secret-b", json!(null)),
        ("x-one", json!("first")),
        ("x-two", json!("first here /a")),
        ("x-three", json!("first here /a!")),
        ("x-empty", json!(null)),
        ("x-long", json!("here")),
    ] {
        assert_eq!(seen["headers"][name], expected, "{name}");
    }
    assert_eq!(answer.header("x-status"), Some("200 first"));
    assert_eq!(answer.header("x-copied"), Some("200 first"));
    assert_eq!(answer.header("x-envoy-upstream-service-time"), None);
    // Answers of the proxy pass it, too.
    let answer = get(address, "/direct", &[]);
    assert_eq!(answer.header("x-status"), Some("418 first"));
}

#[test]
fn routes_add_changes_whose_order_can_be_chosen() {
    for (reversed, wins) in [(false, "host"), (true, "route")] {
        let upstream = Upstream::start("up");
        let mut proxy = Proxy::start(1);
        proxy.cluster("up", &[upstream.address], json!({}));
        let own = json!({ "requestMutations": [set("x-own", "filter"), set("x-who", "filter")] });
        let level = |who: &str| {
            per_route(
                json!([
                    set("x-who", who),
                    add("x-all", who, "APPEND_IF_EXISTS_OR_ADD")
                ]),
                json!([set("x-who", who)]),
            )
        };
        let mut route = to("up", json!({}));
        route["typedPerFilterConfig"] = level("route");
        let off = json!({
            "match": { "prefix": "/off" }, "route": { "cluster": "up" },
            "typedPerFilterConfig": { "mutations": {
                "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true,
            }},
        });
        let hosts = json!([{
            "name": "all", "domains": ["*"], "routes": [off, route],
            "typedPerFilterConfig": level("host"),
        }]);
        let address = proxy.http_hosts(hosts, filter(own, reversed));
        let answer = get(address, "/", &[]);
        let seen = answer.seen();
        assert_eq!(seen["headers"]["x-own"], "filter");
        assert_eq!(seen["headers"]["x-who"], wins);
        // The upstream shows the last of several.
        assert_eq!(seen["headers"]["x-all"], wins);
        assert_eq!(answer.header("x-who"), Some(wins));
        let seen = get(address, "/off", &[]).seen();
        assert_eq!(seen["headers"]["x-own"], json!(null));
        assert_eq!(seen["headers"]["x-who"], json!(null));
    }
}

#[test]
fn what_cannot_be_changed_is_refused_with_its_path() {
    let mut proxy = Proxy::start(1);
    for (mutations, path) in [
        (
            json!({ "requestMutations": [set("a", "b"), set(":path", "/")] }),
            "request_mutations[1].append.header.key",
        ),
        (
            json!({ "responseMutations": [{ "remove": ":status" }] }),
            "response_mutations[0].remove",
        ),
        (
            json!({ "requestMutations": [{ "removeOnMatch": {} }] }),
            "request_mutations[0].remove_on_match.key_matcher",
        ),
        (
            json!({ "queryParameterMutations": [{ "remove": "a" }, {}] }),
            "query_parameter_mutations[1]",
        ),
        (
            json!({ "responseTrailersMutations": [{ "remove": "a" }] }),
            "response_trailers_mutations",
        ),
    ] {
        let listener = http_listener("l", free_address(), filter(mutations, false));
        let rejected = proxy.send(ResourceType::Listener, &[listener]);
        let path = format!(
            "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config.mutations.{path}"
        );
        assert!(
            rejected.len() == 1 && rejected[0].reason.starts_with(&path),
            "{path}: {rejected:?}"
        );
    }
}
