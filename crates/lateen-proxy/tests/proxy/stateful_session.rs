//! Sessions that name their endpoint, through the whole proxy.

use lateen_xds::ResourceType;
use serde_json::{Value, json};

use crate::support::{Proxy, Upstream, cluster, filters, get, to};

fn session(strict: bool, cookie: bool) -> Value {
    let (name, config) = if cookie {
        let kind = "type.googleapis.com/envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState";
        (
            "envoy.http.stateful_session.cookie",
            json!({ "@type": kind, "cookie": { "name": "s", "ttl": "60s", "path": "/a" } }),
        )
    } else {
        let kind = "type.googleapis.com/envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState";
        (
            "envoy.http.stateful_session.header",
            json!({ "@type": kind, "name": "x-session" }),
        )
    };
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSession",
        "strict": strict,
        "sessionState": { "name": name, "typedConfig": config },
    })
}

struct Mesh {
    proxy: Proxy,
    upstreams: Vec<Upstream>,
    address: std::net::SocketAddr,
}

fn start(strict: bool, cookie: bool) -> Mesh {
    let upstreams: Vec<_> = ["a", "b", "c"].map(Upstream::start).into();
    let mut proxy = Proxy::start(1);
    let endpoints: Vec<_> = upstreams.iter().map(|upstream| upstream.address).collect();
    proxy.cluster("up", &endpoints, json!({}));
    let address = proxy.http(
        json!([to("up", json!({}))]),
        filters(&[("session", session(strict, cookie))]),
    );
    Mesh {
        proxy,
        upstreams,
        address,
    }
}

#[test]
fn a_session_by_cookie_stays_at_its_endpoint() {
    let mesh = start(false, true);
    let first = get(mesh.address, "/a", &[]);
    let set = first.header("set-cookie").unwrap();
    assert!(set.ends_with("; Max-Age=60; Path=/a; HttpOnly"), "{set}");
    let line = format!("cookie: {}", set.split(';').next().unwrap());
    for _ in 0..20 {
        let answer = get(mesh.address, "/a/b?c", &[&line]);
        assert_eq!(
            (answer.name(), answer.header("set-cookie")),
            (first.name(), None)
        );
    }
    // Elsewhere the cookie means nothing.
    assert_eq!(get(mesh.address, "/ab", &[]).header("set-cookie"), None);
}

#[test]
fn a_session_whose_endpoint_is_gone_moves_unless_it_is_strict() {
    for strict in [false, true] {
        let mut mesh = start(strict, false);
        let first = get(mesh.address, "/", &[]);
        let token = first.header("x-session").unwrap().to_owned();
        let line = format!("x-session: {token}");
        let names = ["a", "b", "c"];
        let rest: Vec<_> = names
            .iter()
            .zip(&mesh.upstreams)
            .filter(|(name, _)| **name != first.name())
            .map(|(_, upstream)| upstream.address)
            .collect();
        mesh.proxy
            .accept(ResourceType::Cluster, &[cluster("up", &rest, json!({}))]);
        let answer = get(mesh.address, "/", &[&line]);
        if strict {
            assert_eq!(
                (answer.status, answer.body.as_str()),
                (503, "no healthy upstream")
            );
        } else {
            assert_ne!(answer.name(), first.name());
            assert_ne!(answer.header("x-session"), Some(token.as_str()));
        }
    }
}
