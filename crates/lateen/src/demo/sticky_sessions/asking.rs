//! Requests of the tour, and who answered them.

use std::time::{Duration, Instant};

use http::{HeaderName, Method, StatusCode};
use serde_json::Value;

use super::BACKENDS;
use crate::http_client::{Answer, HttpClient, HttpError};

const TARGET: HeaderName = HeaderName::from_static("target");
const USER: HeaderName = HeaderName::from_static("x-user");

/// How long the routes may take to work once everything is ready.
const ROUTES_WITHIN: Duration = Duration::from_secs(20);

/// One answer of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) service: String,
    pub(super) pod: String,
}

impl Hit {
    /// Reads an answer; what is not one of a backend has its status in place of a service.
    fn of(answer: &Answer) -> Self {
        let fields: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let field = |name: &str| fields[name].as_str().unwrap_or("?").to_owned();
        if answer.status == StatusCode::OK {
            Self {
                service: field("service_name"),
                pod: field("pod_id"),
            }
        } else {
            Self {
                service: answer.status.to_string(),
                pod: "-".to_owned(),
            }
        }
    }

    /// Whether a backend answered.
    pub(super) fn is_answer(&self) -> bool {
        self.pod != "-"
    }
}

/// Sends a request that says everything in its body, and nothing in headers but what `more` holds.
pub(super) async fn hit_by_body(
    client: &mut HttpClient,
    more: Option<&str>,
    body: &Value,
) -> Result<Hit, HttpError> {
    let mut headers = vec![(http::header::CONTENT_TYPE, "application/json")];
    headers.extend(more.map(|target| (TARGET, target)));
    let answer = client
        .send(Method::POST, "/hit_backend", &headers, body.to_string())
        .await?;
    Ok(Hit::of(&answer))
}

/// Waits until the gateway has the routes to every backend.
pub(super) async fn wait_for_routes(client: &mut HttpClient) -> Result<(), HttpError> {
    let deadline = Instant::now() + ROUTES_WITHIN;
    for backend in BACKENDS {
        loop {
            match ask(client, backend, None).await {
                Ok(answer) if answer.status == StatusCode::OK => break,
                Err(error) if Instant::now() > deadline => return Err(error),
                Ok(answer) if Instant::now() > deadline => {
                    return Err(HttpError::Exchange {
                        address: client.address(),
                        why: format!("{backend} answers {}", answer.status),
                    });
                }
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
    Ok(())
}

/// Who answers a request for a backend.
pub(super) async fn hit(
    client: &mut HttpClient,
    backend: &str,
    user: Option<&str>,
) -> Result<Hit, HttpError> {
    Ok(Hit::of(&ask(client, backend, user).await?))
}

/// Sends a request that names its backend, and its user if there is one, in headers.
pub(super) async fn ask(
    client: &mut HttpClient,
    backend: &str,
    user: Option<&str>,
) -> Result<Answer, HttpError> {
    let body = serde_json::json!({"username": user.unwrap_or("nobody")}).to_string();
    let mut headers = vec![
        (TARGET, backend),
        (http::header::CONTENT_TYPE, "application/json"),
    ];
    if let Some(user) = user {
        headers.push((USER, user));
    }
    client
        .send(Method::POST, "/hit_backend", &headers, body)
        .await
}
