//! The admission webhooks: `/inject` adds sidecars, `/validate` refuses configuration that cannot work.

mod bundle;
mod injection;
mod validation;

use std::sync::Arc;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

pub(crate) use bundle::keep as keep_bundle;

use crate::engine::World;
use crate::http_server::{self, Reply};
use crate::inject::InjectConfig;

/// The webhook configuration that asks for injection.
pub(crate) const INJECTOR: &str = "istio-sidecar-injector";

/// The webhook configuration that asks for validation, named as Istio does: after the namespace.
pub(crate) fn validator(namespace: &str) -> String {
    format!("istio-validator-{namespace}")
}

/// Largest review taken: an object may have 1.5 MiB in etcd, and the review of a change carries it twice.
const MAX_REVIEW: usize = 4 << 20;

/// Answers a request of the webhook port.
pub(crate) async fn answer(
    world: Arc<World>,
    config: Arc<InjectConfig>,
    request: Request<Incoming>,
) -> Reply {
    // Istio's webhook URLs carry cluster and network in the path; they say nothing that is not in the configuration.
    let path = request.uri().path();
    let is_injection = path == "/inject" || path.starts_with("/inject/");
    if !is_injection && path != "/validate" {
        return http_server::text(
            StatusCode::NOT_FOUND,
            "only /inject and /validate are served here\n",
        );
    }
    if request.method() != Method::POST {
        return http_server::text(StatusCode::METHOD_NOT_ALLOWED, "only POST\n");
    }
    let body = match Limited::new(request.into_body(), MAX_REVIEW)
        .collect()
        .await
    {
        Ok(body) => body.to_bytes(),
        Err(error) => return http_server::text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    let review = match serde_json::from_slice::<Value>(&body) {
        Ok(review) => review,
        Err(error) => return http_server::text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    let Some(uid) = review["request"]["uid"].as_str() else {
        return http_server::text(StatusCode::BAD_REQUEST, "the review has no request.uid\n");
    };
    let verdict = if is_injection {
        injection::review(&world, &config, &review["request"])
    } else {
        validation::review(&world, &review["request"])
    };
    let mut response = match verdict {
        Ok(additions) => additions,
        Err(message) => json!({"status": {"code": 400, "message": message}}),
    };
    response["allowed"] = response.get("status").is_none().into();
    response["uid"] = uid.into();
    http_server::json(&json!({
        "apiVersion": review["apiVersion"].as_str().unwrap_or("admission.k8s.io/v1"),
        "kind": "AdmissionReview",
        "response": response,
    }))
}

/// What a review comes to: what is added to the answer that allows it, or why it is refused.
type Verdict = Result<Value, String>;
