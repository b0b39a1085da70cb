//! Answers that say what was asked.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{StatusCode, header};
use serde_json::{Map, Value, json};

use super::multipart;
use super::{Form, json as as_json, parameter};
use crate::identity::Identity;
use crate::respond::FullResponse;
use crate::server::{FullRequest, Peer};

/// Headers that the older one does not show unless asked by `show_env`: those that proxies on the way put there.
const HIDDEN: &[&str] = &[
    "connect-time",
    "total-route-time",
    "via",
    "x-forwarded-for",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-protocol",
    "x-forwarded-ssl",
    "x-heroku-dynos-in-use",
    "x-heroku-queue-depth",
    "x-heroku-queue-wait-time",
    "x-real-ip",
    "x-request-id",
    "x-request-start",
    "x-varnish",
];

pub(super) fn get(form: Form, request: &FullRequest) -> FullResponse {
    let mut shown = common(form, request);
    if form == Form::Go {
        shown.insert("method".to_owned(), json!(request.method().as_str()));
    }
    as_json::json(form, StatusCode::OK, &Value::Object(shown))
}

pub(super) fn with_body(form: Form, request: &FullRequest) -> FullResponse {
    let mut shown = everything(form, request);
    if form == Form::Python {
        shown.remove("method");
    }
    as_json::json(form, StatusCode::OK, &Value::Object(shown))
}

pub(super) fn anything(form: Form, request: &FullRequest) -> FullResponse {
    as_json::json(
        form,
        StatusCode::OK,
        &Value::Object(everything(form, request)),
    )
}

pub(super) fn headers(form: Form, request: &FullRequest) -> FullResponse {
    let shown = json!({"headers": header_map(form, request)});
    as_json::json(form, StatusCode::OK, &shown)
}

pub(super) fn ip(form: Form, request: &FullRequest) -> FullResponse {
    as_json::json(form, StatusCode::OK, &json!({"origin": origin(request)}))
}

pub(super) fn user_agent(form: Form, request: &FullRequest) -> FullResponse {
    let agent = request
        .headers()
        .get(header::USER_AGENT)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    as_json::json(form, StatusCode::OK, &json!({"user-agent": agent}))
}

pub(super) fn hostname(form: Form) -> FullResponse {
    let shown = json!({"hostname": Identity::discover().pod_name});
    as_json::json(form, StatusCode::OK, &shown)
}

/// Arguments, headers, origin and URL.
pub(super) fn common(form: Form, request: &FullRequest) -> Map<String, Value> {
    let query = request.uri().query().unwrap_or_default();
    let mut shown = Map::new();
    shown.insert("args".to_owned(), fields(form, query.as_bytes()));
    shown.insert("headers".to_owned(), header_map(form, request));
    shown.insert("origin".to_owned(), json!(origin(request)));
    shown.insert("url".to_owned(), json!(url(request)));
    shown
}

/// The same with method and body.
pub(super) fn everything(form: Form, request: &FullRequest) -> Map<String, Value> {
    let mut shown = common(form, request);
    let body = request.body();
    let content_type = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let (mut data, mut fields_of_form, mut files) = (json!(""), json!({}), json!({}));
    if content_type.starts_with("application/x-www-form-urlencoded") {
        fields_of_form = fields(form, body);
    } else if let Some(boundary) = multipart::boundary(content_type) {
        let (mut plain, mut uploaded) = (BTreeMap::new(), BTreeMap::new());
        for part in multipart::parts(body, &boundary) {
            let list: &mut BTreeMap<String, Vec<String>> = if part.is_file {
                &mut uploaded
            } else {
                &mut plain
            };
            list.entry(part.name)
                .or_default()
                .push(readable(part.content));
        }
        fields_of_form = values(form, plain);
        files = values(form, uploaded);
    } else {
        data = json!(readable(body));
    }
    let parsed = serde_json::from_slice(body).unwrap_or(Value::Null);
    shown.insert("data".to_owned(), data);
    shown.insert("files".to_owned(), files);
    shown.insert("form".to_owned(), fields_of_form);
    shown.insert("json".to_owned(), parsed);
    shown.insert("method".to_owned(), json!(request.method().as_str()));
    shown
}

/// The URL that the client asked for, as far as the server can know.
pub(super) fn url(request: &FullRequest) -> String {
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    format!("{}{path}", base(request))
}

/// Scheme and authority of [`url`].
pub(super) fn base(request: &FullRequest) -> String {
    let header = |name| {
        let value = request.headers().get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    let scheme = header("x-forwarded-proto")
        .or_else(|| header("x-forwarded-protocol"))
        .or_else(|| (header("x-forwarded-ssl")? == "on").then(|| "https".to_owned()))
        .unwrap_or_else(|| "http".to_owned());
    format!("{scheme}://{}", host(request).unwrap_or_default())
}

fn host(request: &FullRequest) -> Option<String> {
    let header = request.headers().get(header::HOST);
    header
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .or_else(|| Some(request.uri().authority()?.to_string()))
}

pub(super) fn origin(request: &FullRequest) -> String {
    let forwarded = request.headers().get("x-forwarded-for");
    match (forwarded, request.extensions().get::<Peer>()) {
        (Some(value), _) => String::from_utf8_lossy(value.as_bytes()).into_owned(),
        (None, Some(Peer(peer))) => peer.ip().to_canonical().to_string(),
        (None, None) => String::new(),
    }
}

pub(super) fn header_map(form: Form, request: &FullRequest) -> Value {
    let all = form == Form::Go || parameter(request, "show_env").is_some();
    let mut shown: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in request.headers() {
        if all || !HIDDEN.contains(&name.as_str()) {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            shown
                .entry(capitalised(name.as_str()))
                .or_default()
                .push(value);
        }
    }
    if let Some(host) = host(request) {
        shown.insert("Host".to_owned(), vec![host]);
    }
    let shown = shown.into_iter().map(|(name, values)| match form {
        Form::Python => (name, json!(values.join(","))),
        Form::Go => (name, json!(values)),
    });
    Value::Object(shown.collect())
}

/// `x-b3-traceid` as `X-B3-Traceid`.
fn capitalised(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let (first, rest) = word.split_at_checked(1).unwrap_or((word, ""));
        first.to_ascii_uppercase() + rest
    });
    words.collect::<Vec<_>>().join("-")
}

/// Fields of a query or a form.
pub(super) fn fields(form: Form, encoded: &[u8]) -> Value {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(encoded) {
        all.entry(name.into_owned())
            .or_default()
            .push(value.into_owned());
    }
    values(form, all)
}

/// The older one shows a value that stands alone without a list around it.
fn values(form: Form, all: BTreeMap<String, Vec<String>>) -> Value {
    let shown = all
        .into_iter()
        .map(|(name, values)| match (form, values.as_slice()) {
            (Form::Python, [value]) => (name, json!(value)),
            _ => (name, json!(values)),
        });
    Value::Object(shown.collect())
}

/// Text as it is, anything else as a data URL.
fn readable(content: &[u8]) -> String {
    match std::str::from_utf8(content) {
        Ok(text) => text.to_owned(),
        Err(_) => format!(
            "data:application/octet-stream;base64,{}",
            STANDARD.encode(content)
        ),
    }
}
