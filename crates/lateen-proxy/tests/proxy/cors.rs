//! Cross-origin requests through the whole proxy.

use serde_json::{Value, json};

use crate::support::{Client, Proxy, Upstream, filters, get, merge, to};

fn policy(more: Value) -> Value {
    let mut policy = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allowOriginStringMatch": [{ "exact": "http://a.test" }],
        "allowMethods": "GET",
        "exposeHeaders": "x-b",
    });
    merge(&mut policy, more);
    policy
}

fn start(more: Value) -> (Proxy, Upstream, std::net::SocketAddr) {
    let upstream = Upstream::start("up");
    let mut proxy = Proxy::start(1);
    proxy.cluster("up", &[upstream.address], json!({}));
    let mut route = to("up", json!({}));
    route["typedPerFilterConfig"] = json!({ "cors": policy(more) });
    let cors = json!({ "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors" });
    let address = proxy.http(json!([route]), filters(&[("cors", cors)]));
    (proxy, upstream, address)
}

#[test]
fn only_allowed_origins_may_read_the_answer() {
    let (_proxy, _upstream, address) = start(json!({}));
    let answer = get(address, "/", &["origin: http://a.test"]);
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("http://a.test")
    );
    assert_eq!(answer.header("access-control-expose-headers"), Some("x-b"));
    let answer = get(address, "/", &["origin: http://b.test"]);
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (200, None)
    );
}

#[test]
fn a_preflight_is_answered_by_the_proxy() {
    let preflight = |address, origin: &str| {
        let request = format!(
            "OPTIONS / HTTP/1.1\r\nhost: a\r\norigin: {origin}\r\naccess-control-request-method: GET\r\n\r\n"
        );
        Client::connect(address).send(&request).unwrap()
    };
    let (_proxy, upstream, address) = start(json!({}));
    let answer = preflight(address, "http://a.test");
    assert_eq!(
        (answer.status, answer.header("access-control-allow-methods")),
        (200, Some("GET"))
    );
    assert_eq!(upstream.count(), 0);
    // What the proxy does not know goes on, unless it is told to answer.
    assert_eq!(preflight(address, "http://b.test").name(), "up");
    let (_proxy, upstream, address) = start(json!({ "forwardNotMatchingPreflights": false }));
    let answer = preflight(address, "http://b.test");
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (200, None)
    );
    assert_eq!(upstream.count(), 0);
}
