//! Any request, from its head to the decision where it goes.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;

use bytes::BytesMut;
use http::{Method, Version};
use lateen_route::hash::{Peer, hash_request};
use lateen_route::retry::{RetryPolicy, per_try_timeout};
use lateen_route::{Action, Decision, RouteTable};
use lateen_xds::json;
use serde_json::{Value, json};

use super::head::{Head, normalised};
use super::manager::HttpManager;
use super::{forwarded, hop};
use crate::config;
use crate::config::context::Context;
use crate::connection::ConnectionInfo;
use crate::http1;
use crate::proxy_protocol::Ends;
use crate::{Engine, EngineConfig};

/// The first byte says how the proxy is configured and which version the client speaks.
#[test]
fn requests() {
    let engine = Engine::start(&EngineConfig::default()).unwrap();
    let proxy = AssertUnwindSafe(ProxyOf {
        edge: manager(
            &engine,
            json!({
                "useRemoteAddress": true, "xffNumTrustedHops": 1, "normalizePath": true, "mergeSlashes": true,
                "pathWithEscapedSlashesAction": "UNESCAPE_AND_FORWARD", "stripMatchingHostPort": true,
                "via": "lateen", "forwardClientCertDetails": "APPEND_FORWARD",
            }),
        ),
        inside: manager(&engine, json!({ "stripTrailingHostDot": true })),
        table: table(),
        info: info(),
    });
    bolero::check!(name = "requests")
        .with_iterations(0)
        .for_each(|bytes: &[u8]| {
            if let Some((choice, bytes)) = bytes.split_first() {
                proxy.take(*choice, bytes);
            }
        });
}

/// A proxy without sockets.
struct ProxyOf {
    edge: HttpManager,
    inside: HttpManager,
    table: RouteTable,
    info: ConnectionInfo,
}

impl ProxyOf {
    fn take(&self, choice: u8, bytes: &[u8]) {
        let manager = if choice & 1 == 0 {
            &self.edge
        } else {
            &self.inside
        };
        let Ok(Some(mut read)) = http1::request(&mut BytesMut::from(bytes), 100) else {
            return;
        };
        if choice & 2 != 0 {
            read.version = Version::HTTP_2;
        }
        let (mut head, problem) = Head::new(read, manager, 80);
        if problem.is_none() {
            decide(&mut head, manager, &self.info, &self.table);
        }
    }
}

fn decide(head: &mut Head, manager: &HttpManager, info: &ConnectionInfo, table: &RouteTable) {
    if head.method != Method::CONNECT {
        assert!(
            head.path.starts_with('/') || head.path == "*",
            "{}",
            head.path
        );
        assert!(!head.path.contains('#'), "{}", head.path);
        // What was matched is what is passed on, so that nobody behind may read it in another way.
        let again = normalised(&head.path, manager).ok();
        assert_eq!(
            again,
            Some(None),
            "{} is not its own normal form",
            head.path
        );
    }
    forwarded::apply(head, manager, info);
    let view = head.view();
    let Decision::Route { route, .. } = table.decide(&view, 1) else {
        return;
    };
    if let Action::Forward(forward) = &route.action {
        let peer = Peer {
            remote: "192.0.2.1:1",
            remote_ip: "192.0.2.1",
            local: "192.0.2.2:80",
        };
        let (hash, cookies) = hash_request(&forward.hash, &view, &peer);
        assert!(hash.is_some() || cookies.is_empty());
    }
    let _ = per_try_timeout(&mut head.headers);
    let _ = RetryPolicy::for_request(None, &mut head.headers);
    hop::strip(&mut head.headers, false);
}

fn manager(engine: &Engine, options: Value) -> HttpManager {
    let mut message = json!({
        "statPrefix": "fuzz", "routeConfig": { "name": "none", "virtualHosts": [] },
        "httpFilters": [{
            "name": "envoy.filters.http.router",
            "typedConfig": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
        }],
    });
    for (name, value) in options.as_object().unwrap() {
        message[name] = value.clone();
    }
    let context = Context::new(&engine.shared);
    config::http::compile(json::to_message(&message).unwrap(), &context).unwrap()
}

/// Each kind of matcher and of hash.
fn table() -> RouteTable {
    let forward = json!({
        "cluster": "c",
        "hashPolicy": [
            { "header": { "headerName": "x-user" } },
            { "cookie": { "name": "session", "ttl": "60s" } },
            { "queryParameter": { "name": "q" } },
        ],
    });
    let routes = json!([
        { "match": { "path": "/exact" }, "route": forward },
        { "match": { "safeRegex": { "regex": "/re/[a-z]+/.*" } }, "route": forward },
        { "match": { "prefix": "/h", "headers": [
            { "name": "x-a", "stringMatch": { "exact": "1" } },
            { "name": "x-b", "stringMatch": { "safeRegex": { "regex": "[0-9]+" } }, "invertMatch": true },
            { "name": "x-c", "rangeMatch": { "start": "-5", "end": "70" } },
        ] }, "route": forward },
        { "match": { "prefix": "/q", "queryParameters": [
            { "name": "a", "stringMatch": { "prefix": "b", "ignoreCase": true } },
            { "name": "c", "presentMatch": true },
        ] }, "redirect": { "pathRedirect": "/there" } },
        { "match": { "pathSeparatedPrefix": "/sep" }, "route": forward },
        { "match": { "connectMatcher": {} }, "route": forward },
        { "match": { "prefix": "/" }, "route": forward },
    ]);
    let message = json::to_message(&json!({
        "name": "t", "virtualHosts": [
            { "name": "suffix", "domains": ["*.example.com"], "routes": routes },
            { "name": "prefix", "domains": ["example.*"], "routes": routes },
            { "name": "all", "domains": ["*"], "routes": routes },
        ],
    }));
    RouteTable::compile(message.unwrap()).unwrap()
}

fn info() -> ConnectionInfo {
    let address = |text: &str| -> SocketAddr { text.parse().unwrap() };
    let ends = Ends {
        source: address("192.0.2.1:1"),
        destination: address("192.0.2.2:80"),
    };
    ConnectionInfo {
        id: 1,
        remote: ends.source,
        direct: ends,
        local: ends.destination,
        restored: false,
        server_name: String::new(),
        transport: "raw_buffer",
        protocols: Vec::new(),
        chain: String::new(),
        inbound: false,
        tls: None,
        transport_failure: String::new(),
    }
}
