//! Answers with a status of the caller's choice.

use http::{HeaderName, HeaderValue, StatusCode, header};

use super::parameter;
use crate::respond::{self, FullResponse};
use crate::server::FullRequest;

/// `/status/CODE`, `/status/CODE,CODE` and `/status/CODE:WEIGHT,...`: one of the codes, by chance.
pub(super) fn status(codes: &str) -> FullResponse {
    let choices: Option<Vec<(StatusCode, f64)>> = codes.split(',').map(choice).collect();
    let Some(choices) = choices else {
        return respond::text(StatusCode::BAD_REQUEST, "Invalid status code");
    };
    let total: f64 = choices.iter().map(|(_, weight)| weight).sum();
    let mut at = fastrand::f64() * total;
    let mut chosen = choices[0].0;
    for (code, weight) in choices {
        chosen = code;
        if at < weight {
            break;
        }
        at -= weight;
    }
    of(chosen)
}

/// `/unstable?failure_rate=R`: 500 in this part of the answers (0 to 1, else one half), 200 in the others.
pub(super) fn unstable(request: &FullRequest) -> FullResponse {
    let rate = match parameter(request, "failure_rate").map(|rate| rate.parse::<f64>()) {
        None => 0.5,
        Some(Ok(rate)) if (0.0..=1.0).contains(&rate) => rate,
        Some(_) => return respond::text(StatusCode::BAD_REQUEST, "a rate is from 0 to 1\n"),
    };
    of(if fastrand::f64() < rate {
        StatusCode::INTERNAL_SERVER_ERROR
    } else {
        StatusCode::OK
    })
}

fn choice(text: &str) -> Option<(StatusCode, f64)> {
    let (code, weight) = text.split_once(':').unwrap_or((text, "1"));
    let code = StatusCode::from_u16(code.trim().parse().ok()?).ok()?;
    let weight: f64 = weight.trim().parse().ok()?;
    // A status below 200 announces another answer, which never comes.
    (code.as_u16() >= 200 && weight.is_finite() && weight >= 0.0).then_some((code, weight))
}

/// An answer with what its status asks for.
fn of(code: StatusCode) -> FullResponse {
    let mut response = match code.as_u16() {
        402 => respond::text(code, "pay first\n"),
        406 => respond::typed(
            code,
            "application/json",
            r#"{"message": "Client did not request a supported media type.", "accept": ["image/webp", "image/svg+xml", "image/jpeg", "image/png", "image/*"]}"#,
        ),
        418 => respond::text(
            code,
            "a teapot:\n\n    _...._\n  .'  _  '.   __\n  | (_)  |`-'.'\n  |      |  / \n   '.__.'--'\n",
        ),
        _ => respond::html(code, ""),
    };
    let extra: Option<(HeaderName, &'static str)> = match code.as_u16() {
        301 | 302 | 303 | 305 | 307 | 308 => Some((header::LOCATION, "/redirect/1")),
        401 => Some((header::WWW_AUTHENTICATE, "Basic realm=\"Fake Realm\"")),
        407 => Some((header::PROXY_AUTHENTICATE, "Basic realm=\"Fake Realm\"")),
        418 => Some((
            HeaderName::from_static("x-more-info"),
            "http://tools.ietf.org/html/rfc2324",
        )),
        _ => None,
    };
    if let Some((name, value)) = extra {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}
