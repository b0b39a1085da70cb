//! Any cookie of a client, and any pattern of a configuration.

use http::HeaderMap;
use http::header::COOKIE;
use lateen_xds::json;
use serde_json::{Value, json};

use crate::RequestView;
use crate::format::Template;
use crate::stateful_session::Session;
use crate::string_match::StringMatch;

/// A session leads to the endpoint that the header names, and what is announced of an endpoint is read back.
#[test]
fn sessions() {
    let by_cookie = session(
        "cookie",
        "type.googleapis.com/envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState",
        json!({ "cookie": { "name": "s", "ttl": "60s", "path": "/" } }),
    );
    let by_header = session(
        "header",
        "type.googleapis.com/envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState",
        json!({ "name": "cookie" }),
    );
    bolero::check!(name = "sessions")
        .with_iterations(0)
        .for_each(|bytes: &[u8]| {
            let Ok(value) = bytes.try_into() else { return };
            let found = endpoint(&by_cookie, value);
            let _ = endpoint(&by_header, bytes.try_into().expect("a value"));
            if let Some(address) = found {
                let (_, cookie) = by_cookie.announce(address, 1).expect("can be written");
                assert_eq!(endpoint(&by_cookie, cookie), Some(address));
            }
        });
}

fn endpoint(session: &Session, value: http::HeaderValue) -> Option<std::net::SocketAddr> {
    let headers = HeaderMap::from_iter([(COOKIE, value)]);
    let request = RequestView {
        method: "GET",
        scheme: "http",
        authority: "a",
        path: "/",
        headers: &headers,
    };
    session.endpoint(&request, 1)
}

fn session(kind: &str, url: &str, mut state: Value) -> Session {
    state["@type"] = url.into();
    let message = json::to_message(&json!({
        "sessionState": { "name": format!("envoy.http.stateful_session.{kind}"), "typedConfig": state },
    }));
    Session::compile(message.unwrap()).unwrap().unwrap()
}

/// Expressions and formats are compiled within their limits or refused; what is compiled can be used.
#[test]
fn patterns() {
    bolero::check!(name = "patterns")
        .with_iterations(0)
        .for_each(|bytes: &[u8]| {
            let Ok(text) = std::str::from_utf8(bytes) else {
                return;
            };
            let matcher = json!({ "safeRegex": { "regex": text } });
            if let Ok(matcher) = StringMatch::compile(json::to_message(&matcher).unwrap()) {
                matcher.matches(b"/products/1?x=y");
            }
            let _ = Template::parse(text);
        });
}
