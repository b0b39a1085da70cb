//! Answers in several formats and encodings.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::{Form, echo, json as as_json};
use crate::html;
use crate::respond::{self, FullResponse};
use crate::server::FullRequest;

const PNG: &[u8] = include_bytes!("sail.png");
const SVG: &str = include_str!("sail.svg");

/// What [`fixed`] serves, with a line each for the index.
const PAGES: &[(&str, &str)] = &[
    (
        "get, post, put, patch, delete, anything",
        "the request, as the server saw it",
    ),
    ("headers, ip, user-agent, hostname", "one part of it"),
    ("status/{codes}", "one of these codes, such as 200:9,503:1"),
    (
        "delay/{seconds}, drip, stream/{n}, bytes/{n}, stream-bytes/{n}",
        "size and pace",
    ),
    (
        "redirect/{n}, redirect-to?url=, cookies, cookies/set?a=b",
        "what a browser follows and keeps",
    ),
    (
        "cache, cache/{n}, etag/{tag}, response-headers?a=b",
        "headers of the answer",
    ),
    ("basic-auth/{user}/{password}, bearer", "credentials"),
    (
        "json, html, xml, robots.txt, image, gzip, deflate, base64/{text}, uuid",
        "formats",
    ),
];

/// The pages that are the same for everyone.
pub(super) fn fixed(form: Form, name: &str, below: Option<&str>) -> FullResponse {
    match (name, below) {
        ("" | "index.html", None) => respond::html(StatusCode::OK, index()),
        ("json", None) => as_json::json(form, StatusCode::OK, &slide_show()),
        ("html", None) => respond::html(
            StatusCode::OK,
            "<!DOCTYPE html>\n<html>\n<head></head>\n<body>\n<h1>The lateen</h1>\n<p>A triangular sail on a long \
             yard, set at an angle to the mast: it lets a small boat sail close to the wind.</p>\n</body>\n</html>\n",
        ),
        ("xml", None) => respond::typed(
            StatusCode::OK,
            "application/xml",
            "<?xml version='1.0' encoding='us-ascii'?>\n<slideshow title=\"Sample Slide Show\" date=\"Date of publication\" author=\"Yours Truly\">\n  <slide type=\"all\">\n    <title>Wake up to WonderWidgets!</title>\n  </slide>\n</slideshow>\n",
        ),
        ("robots.txt", None) => respond::text(StatusCode::OK, "User-agent: *\nDisallow: /deny\n"),
        ("deny", None) => respond::text(StatusCode::OK, "robots.txt asks not to come here\n"),
        ("encoding", Some("utf8")) => respond::html(
            StatusCode::OK,
            "<h1>Unicode</h1>\n<p>naïve, Straße, \u{3b1}\u{3b2}\u{3b3}, \u{434}\u{430}, \u{5e2}\u{5d1}\u{5e8}\u{5d9}\u{5ea}, \u{65e5}\u{672c}\u{8a9e}, \u{26f5}</p>\n",
        ),
        ("forms", Some("post")) => respond::html(
            StatusCode::OK,
            "<!DOCTYPE html>\n<form method=\"post\" action=\"/post\">\n<p><label>Name <input name=\"name\"></label></p>\n\
             <p><label>Comment <textarea name=\"comment\"></textarea></label></p>\n<button>Send</button>\n</form>\n",
        ),
        _ => not_found(),
    }
}

pub(super) fn not_found() -> FullResponse {
    respond::html(
        StatusCode::NOT_FOUND,
        "<!DOCTYPE html>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n<p>There is no such page; / lists them.</p>\n",
    )
}

pub(super) fn gzip(form: Form, request: &FullRequest) -> FullResponse {
    let plain = packed_echo(form, "gzipped", request);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let packed = encoder.write_all(&plain).and_then(|()| encoder.finish());
    encoded("gzip", packed)
}

pub(super) fn deflate(form: Form, request: &FullRequest) -> FullResponse {
    let plain = packed_echo(form, "deflated", request);
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    let packed = encoder.write_all(&plain).and_then(|()| encoder.finish());
    encoded("deflate", packed)
}

fn packed_echo(form: Form, how: &str, request: &FullRequest) -> Vec<u8> {
    let mut shown = json!({
        "headers": echo::header_map(form, request),
        "method": request.method().as_str(),
        "origin": echo::origin(request),
    });
    shown[how] = json!(true);
    as_json::text(form, &shown).into_bytes()
}

fn encoded(encoding: &'static str, packed: std::io::Result<Vec<u8>>) -> FullResponse {
    let Ok(packed) = packed else {
        return respond::text(StatusCode::INTERNAL_SERVER_ERROR, "cannot compress\n");
    };
    let mut response = respond::typed(StatusCode::OK, "application/json", packed);
    response
        .headers_mut()
        .insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    response
}

pub(super) fn base64(value: &str) -> FullResponse {
    let decoded = URL_SAFE
        .decode(value)
        .or_else(|_| URL_SAFE_NO_PAD.decode(value));
    match decoded {
        Ok(text) => respond::typed(StatusCode::OK, "text/html; charset=utf-8", text),
        Err(_) => respond::text(
            StatusCode::OK,
            "Incorrect Base64 data try: SFRUUEJJTiBpcyBhd2Vzb21l",
        ),
    }
}

pub(super) fn uuid(form: Form) -> FullResponse {
    let uuid = uuid::Uuid::new_v4().to_string();
    as_json::json(form, StatusCode::OK, &json!({"uuid": uuid}))
}

/// The image in the format that the client prefers.
pub(super) fn image(request: &FullRequest) -> FullResponse {
    let accept = request.headers().get(header::ACCEPT);
    let accept = accept
        .and_then(|value| value.to_str().ok())
        .unwrap_or("*/*")
        .to_lowercase();
    if accept.contains("image/svg+xml") {
        image_of("svg")
    } else if ["image/png", "image/*", "*/*"]
        .iter()
        .any(|kind| accept.contains(kind))
    {
        image_of("png")
    } else {
        as_json::json(
            Form::Python,
            StatusCode::NOT_ACCEPTABLE,
            &json!({"accept": ["image/png", "image/svg+xml"], "message": "there is no image of that type"}),
        )
    }
}

pub(super) fn image_of(kind: &str) -> FullResponse {
    match kind {
        "png" => respond::typed(StatusCode::OK, "image/png", PNG),
        "svg" => respond::typed(StatusCode::OK, "image/svg+xml", SVG),
        _ => not_found(),
    }
}

fn slide_show() -> Value {
    json!({"slideshow": {
        "author": "Yours Truly",
        "date": "date of publication",
        "slides": [
            {"title": "Wake up to WonderWidgets!", "type": "all"},
            {"items": ["Why <em>WonderWidgets</em> are great", "Who <em>buys</em> WonderWidgets"], "title": "Overview", "type": "all"},
        ],
        "title": "Sample Slide Show",
    }})
}

fn index() -> String {
    let rows: Vec<[String; 2]> = PAGES
        .iter()
        .map(|(paths, what)| [(*paths).to_owned(), (*what).to_owned()])
        .collect();
    let table = html::table(&["Path", "Answers with"], &rows);
    html::page(
        "httpbin",
        &format!(
            "<nav><a class=\"brand\" href=\"/\">httpbin</a></nav>\n<main>\n<div class=\"card\">\n{table}</div>\n</main>\n"
        ),
    )
}
