//! Redirects, cookies, validators of caches, and headers of the caller's choice.

use std::fmt::Write;

use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use super::{Form, echo, json as as_json, parameter};
use crate::respond::{self, FullResponse};
use crate::server::FullRequest;

/// Most redirects in a row, and most links on a page.
const COUNT_LIMIT: u32 = 200;

/// `/redirect/N`: N redirects, then `/get`. `?absolute=true` makes them whole URLs.
pub(super) fn redirect(count: &str, request: &FullRequest) -> FullResponse {
    let absolute =
        parameter(request, "absolute").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if absolute {
        absolute_redirect(count, request)
    } else {
        relative_redirect(count)
    }
}

pub(super) fn relative_redirect(count: &str) -> FullResponse {
    follow(count, "relative-redirect", "")
}

pub(super) fn absolute_redirect(count: &str, request: &FullRequest) -> FullResponse {
    follow(count, "absolute-redirect", &echo::base(request))
}

fn follow(count: &str, name: &str, base: &str) -> FullResponse {
    match count.parse() {
        Ok(1) => respond::redirect(StatusCode::FOUND, &format!("{base}/get")),
        Ok(count @ 2..=COUNT_LIMIT) => {
            respond::redirect(StatusCode::FOUND, &format!("{base}/{name}/{}", count - 1))
        }
        _ => respond::text(StatusCode::BAD_REQUEST, "give a number from 1 to 200\n"),
    }
}

/// `/redirect-to?url=URL&status_code=3xx`.
pub(super) fn redirect_to(request: &FullRequest) -> FullResponse {
    let code = parameter(request, "status_code").and_then(|code| code.parse().ok());
    let code = code
        .filter(|code| (300..400).contains(code))
        .and_then(|code| StatusCode::from_u16(code).ok())
        .unwrap_or(StatusCode::FOUND);
    match parameter(request, "url") {
        Some(url) => respond::redirect(code, &url),
        None => respond::text(StatusCode::BAD_REQUEST, "say where to, with ?url=\n"),
    }
}

pub(super) fn cookies(form: Form, request: &FullRequest) -> FullResponse {
    let all = request.headers().get_all(header::COOKIE);
    let pairs = all.iter().filter_map(|value| value.to_str().ok());
    let pairs = pairs.flat_map(|value| value.split(';')).filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        Some((name.to_owned(), json!(value.trim_matches('"'))))
    });
    let cookies: Map<String, Value> = pairs.collect();
    as_json::json(form, StatusCode::OK, &json!({"cookies": cookies}))
}

/// `/cookies/set?NAME=VALUE`.
pub(super) fn set_cookies(request: &FullRequest) -> FullResponse {
    let query = request.uri().query().unwrap_or_default();
    to_cookies(
        form_urlencoded::parse(query.as_bytes()).map(|(name, value)| cookie(&name, &value, "")),
    )
}

pub(super) fn set_cookie(name: &str, value: &str) -> FullResponse {
    to_cookies([cookie(name, value, "")])
}

/// `/cookies/delete?NAME`.
pub(super) fn delete_cookies(request: &FullRequest) -> FullResponse {
    let query = request.uri().query().unwrap_or_default();
    let gone = "; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0";
    to_cookies(form_urlencoded::parse(query.as_bytes()).map(|(name, _)| cookie(&name, "", gone)))
}

fn cookie(name: &str, value: &str, attributes: &str) -> Option<HeaderValue> {
    // What separates cookies from each other must not come from a caller.
    let plain = |text: &str| !text.contains([';', ',', ' ', '\t']);
    if name.is_empty() || name.contains('=') || !plain(name) || !plain(value) {
        return None;
    }
    HeaderValue::from_str(&format!("{name}={value}{attributes}; Path=/")).ok()
}

fn to_cookies(cookies: impl IntoIterator<Item = Option<HeaderValue>>) -> FullResponse {
    let mut response = respond::redirect(StatusCode::FOUND, "/cookies");
    for cookie in cookies {
        let Some(cookie) = cookie else {
            return respond::text(StatusCode::BAD_REQUEST, "that cannot be a cookie\n");
        };
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// `/links/N/AT`: N links to each other.
pub(super) fn links(count: &str, at: Option<&str>) -> FullResponse {
    let Ok(count @ 1..=COUNT_LIMIT) = count.parse() else {
        return respond::text(StatusCode::BAD_REQUEST, "give a number from 1 to 200\n");
    };
    let Some(at) = at.and_then(|at| at.parse::<u32>().ok()) else {
        return respond::redirect(StatusCode::FOUND, &format!("/links/{count}/0"));
    };
    let mut page = "<html><head><title>Links</title></head><body>".to_owned();
    for link in 0..count {
        let _ = if link == at {
            write!(page, "{link} ")
        } else {
            write!(page, "<a href='/links/{count}/{link}'>{link}</a> ")
        };
    }
    page.push_str("</body></html>");
    respond::html(StatusCode::OK, page)
}

/// `/cache`: 304 to whoever has an answer already.
pub(super) fn cache(form: Form, request: &FullRequest) -> FullResponse {
    let asked = request.headers();
    if asked.contains_key(header::IF_MODIFIED_SINCE) || asked.contains_key(header::IF_NONE_MATCH) {
        return respond::text(StatusCode::NOT_MODIFIED, "");
    }
    let mut response = echo::get(form, request);
    let headers = response.headers_mut();
    headers.insert(
        header::LAST_MODIFIED,
        HeaderValue::from_static("Thu, 01 Jan 2026 00:00:00 GMT"),
    );
    headers.insert(
        header::ETAG,
        HeaderValue::from_static("\"7d1f5d0c8c5d4b6f\""),
    );
    response
}

/// `/cache/SECONDS`: may be kept that long.
pub(super) fn cache_for(form: Form, seconds: &str, request: &FullRequest) -> FullResponse {
    let Ok(seconds) = seconds.parse::<u32>() else {
        return respond::text(StatusCode::BAD_REQUEST, "give a number of seconds\n");
    };
    let mut response = echo::get(form, request);
    if let Ok(value) = HeaderValue::from_str(&format!("public, max-age={seconds}")) {
        response.headers_mut().insert(header::CACHE_CONTROL, value);
    }
    response
}

/// `/etag/TAG`: honours `if-none-match` and `if-match`.
pub(super) fn etag(form: Form, tag: &str, request: &FullRequest) -> FullResponse {
    let names = |header: HeaderName| -> Option<bool> {
        let value = request.headers().get(header)?.to_str().ok()?;
        let same = |given: &str| {
            let given = given.trim();
            given == "*" || given.trim_start_matches("W/").trim_matches('"') == tag
        };
        Some(value.split(',').any(same))
    };
    let mut response = match (names(header::IF_NONE_MATCH), names(header::IF_MATCH)) {
        (Some(true), _) => respond::text(StatusCode::NOT_MODIFIED, ""),
        (None, Some(false)) => respond::text(StatusCode::PRECONDITION_FAILED, ""),
        _ => echo::get(form, request),
    };
    if let Ok(value) = HeaderValue::from_str(&format!("\"{tag}\"")) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response
}

/// `/response-headers?NAME=VALUE`: the headers of the answer, which also shows them.
pub(super) fn response_headers(form: Form, request: &FullRequest) -> FullResponse {
    let query = request.uri().query().unwrap_or_default();
    let mut chosen = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let header = HeaderName::try_from(name.as_ref());
        match (header, HeaderValue::from_str(&value)) {
            // How long the answer is and how it is sent is not the caller's to say.
            (Ok(header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::CONNECTION), _) => {}
            (Ok(header), Ok(value)) => chosen.push((header, value)),
            _ => return respond::text(StatusCode::BAD_REQUEST, "that cannot be a header\n"),
        }
    }
    let Value::Object(mut shown) = echo::fields(form, query.as_bytes()) else {
        return respond::text(StatusCode::BAD_REQUEST, "that cannot be a header\n");
    };
    let own = |text: &str| match form {
        Form::Python => json!(text),
        Form::Go => json!([text]),
    };
    shown
        .entry("Content-Type")
        .or_insert_with(|| own("application/json"));
    // The length is part of what it measures: repeat until it fits.
    let mut length = 0;
    for _ in 0..4 {
        shown.insert("Content-Length".to_owned(), own(&length.to_string()));
        let now = as_json::text(form, &Value::Object(shown.clone())).len();
        if now == length {
            break;
        }
        length = now;
    }
    let mut response = as_json::json(form, StatusCode::OK, &Value::Object(shown));
    for (name, value) in chosen {
        if name == header::CONTENT_TYPE {
            response.headers_mut().insert(name, value);
        } else {
            response.headers_mut().append(name, value);
        }
    }
    response
}
