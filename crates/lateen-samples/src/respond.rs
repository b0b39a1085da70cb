//! Answers: status, type and body in one call.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};

/// The body of an answer: whole, or made while it is sent.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;
/// An answer.
pub(crate) type FullResponse = Response<Body>;

/// A body that is at hand.
pub(crate) fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).boxed_unsync()
}

/// A plain text answer.
pub(crate) fn text(status: StatusCode, body: impl Into<String>) -> FullResponse {
    typed(status, "text/plain; charset=utf-8", body.into())
}

/// A page.
pub(crate) fn html(status: StatusCode, body: impl Into<String>) -> FullResponse {
    typed(status, "text/html; charset=utf-8", body.into())
}

/// A JSON answer, in the shortest form.
pub(crate) fn json(status: StatusCode, value: &serde_json::Value) -> FullResponse {
    typed(status, "application/json", value.to_string())
}

/// An answer with a content type of the caller's.
pub(crate) fn typed(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> FullResponse {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A redirect, with a line for who does not follow it. A `target` that cannot stand in a header leads to `/`.
pub(crate) fn redirect(status: StatusCode, target: &str) -> FullResponse {
    let location = HeaderValue::from_str(target).unwrap_or(HeaderValue::from_static("/"));
    let mut response = text(status, "see the location header\n");
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// 405, naming the methods that would work.
pub(crate) fn method_not_allowed(allowed: &'static str) -> FullResponse {
    let mut response = text(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("use {allowed} here\n"),
    );
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}
