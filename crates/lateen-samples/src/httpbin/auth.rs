//! Answers for those who give the right credentials.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use super::{Form, formats, json as as_json};
use crate::respond::{self, FullResponse};
use crate::server::FullRequest;

/// `/basic-auth/USER/PASSWORD`, and the hidden variant, which is 404 for everyone else.
pub(super) fn basic(
    form: Form,
    user: &str,
    password: &str,
    hidden: bool,
    request: &FullRequest,
) -> FullResponse {
    let given = credentials(request, "Basic ").and_then(|given| STANDARD.decode(given).ok());
    if given.is_some_and(|given| given == format!("{user}:{password}").as_bytes()) {
        let shown = json!({"authenticated": true, "user": user});
        return as_json::json(form, StatusCode::OK, &shown);
    }
    if hidden {
        return formats::not_found();
    }
    refused("Basic realm=\"Fake Realm\"")
}

/// `/bearer`: any token will do.
pub(super) fn bearer(form: Form, request: &FullRequest) -> FullResponse {
    match credentials(request, "Bearer ") {
        Some(token) => {
            let shown = json!({"authenticated": true, "token": token});
            as_json::json(form, StatusCode::OK, &shown)
        }
        None => refused("Bearer"),
    }
}

fn credentials<'a>(request: &'a FullRequest, scheme: &str) -> Option<&'a str> {
    let value = request.headers().get(header::AUTHORIZATION)?;
    value.to_str().ok()?.strip_prefix(scheme)
}

fn refused(challenge: &'static str) -> FullResponse {
    let mut response = respond::text(StatusCode::UNAUTHORIZED, "");
    response.headers_mut().insert(
        header::WWW_AUTHENTICATE,
        HeaderValue::from_static(challenge),
    );
    response
}
