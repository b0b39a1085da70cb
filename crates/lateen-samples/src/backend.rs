//! The backend of the sticky-sessions scenario: it says which service and which pod answered.
//!
//! `POST /hit_backend` (also spelled `/hit-backend`) takes a JSON object with a `username` and answers with the identity
//! of the pod, under each of the names that the scenario's descriptions use for it: `service_name` and `target`,
//! `pod_id` and `podId`, `podIp`. `/headers` shows what the request carried, `/healthz` is for probes, any other path is 404
//! from the application.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::Error;
use crate::identity::{Identity, variable};
use crate::respond::{self, FullResponse};
use crate::server::{self, FullRequest};

const DEFAULT_PORT: u16 = 8080;

/// Runs the backend. Arguments: the service's name (else `SERVICE_NAME`, else `backend`) and a port (else `PORT`, else
/// 8080).
pub(crate) async fn run(arguments: &[String]) -> Result<(), Error> {
    let service = arguments
        .first()
        .cloned()
        .or_else(|| variable("SERVICE_NAME"))
        .unwrap_or_else(|| "backend".to_owned());
    let port = match arguments.get(1).cloned().or_else(|| variable("PORT")) {
        None => DEFAULT_PORT,
        Some(given) => given.parse().map_err(|_| Error::Arguments {
            name: "backend".to_owned(),
            why: format!("{given:?} is not a port; give a number from 1 to 65535"),
        })?,
    };
    let identity = Identity::discover();
    server::serve("backend", port, move |request| {
        std::future::ready(answer(&service, &identity, &request))
    })
    .await
}

fn answer(service: &str, identity: &Identity, request: &FullRequest) -> FullResponse {
    match (request.uri().path(), request.method()) {
        ("/hit_backend" | "/hit-backend", &Method::POST) => hit(service, identity, request),
        ("/hit_backend" | "/hit-backend", _) => {
            respond::text(StatusCode::METHOD_NOT_ALLOWED, "send a POST request\n")
        }
        ("/headers", _) => headers(request),
        ("/healthz", _) => respond::text(StatusCode::OK, "ok\n"),
        (path, _) => respond::text(
            StatusCode::NOT_FOUND,
            format!("{service} has no page {path}\n"),
        ),
    }
}

fn hit(service: &str, identity: &Identity, request: &FullRequest) -> FullResponse {
    let Ok(Value::Object(mut answer)) = serde_json::from_slice(request.body()) else {
        return respond::text(
            StatusCode::BAD_REQUEST,
            "send a JSON object, such as {\"username\": \"ann\"}\n",
        );
    };
    // A caller may identify itself by the header alone.
    if !answer.contains_key("username")
        && let Some(user) = request
            .headers()
            .get("x-user")
            .and_then(|user| user.to_str().ok())
    {
        answer.insert("username".to_owned(), json!(user));
    }
    for (name, value) in [
        ("service_name", service),
        ("target", service),
        ("pod_id", &identity.pod_name),
        ("podId", &identity.pod_name),
        ("podIp", &identity.pod_ip),
    ] {
        answer.insert(name.to_owned(), json!(value));
    }
    respond::json(StatusCode::OK, &Value::Object(answer))
}

/// What the request carried, so that a caller sees what the mesh adds on the way. Repeated headers are joined.
fn headers(request: &FullRequest) -> FullResponse {
    let mut shown = serde_json::Map::new();
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        let joined = match shown.get(name.as_str()).and_then(Value::as_str) {
            Some(before) => format!("{before}, {value}"),
            None => value.into_owned(),
        };
        shown.insert(name.to_string(), json!(joined));
    }
    respond::json(StatusCode::OK, &Value::Object(shown))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Request;
    use http_body_util::BodyExt;

    use super::*;

    fn identity() -> Identity {
        Identity {
            pod_name: "backend-2-x7k2p".to_owned(),
            pod_ip: "10.244.0.9".to_owned(),
        }
    }

    async fn check(method: &str, path: &str, body: &str, status: u16, expected: &str) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("x-user", "ann")
            .body(Bytes::from(body.to_owned()))
            .expect("a request");
        let response = answer("backend-2", &identity(), &request);
        assert_eq!(response.status().as_u16(), status, "{method} {path} {body}");
        let text = response
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        assert_eq!(
            String::from_utf8_lossy(&text),
            expected,
            "{method} {path} {body}"
        );
    }

    #[tokio::test]
    async fn says_who_answered_and_keeps_the_order_of_the_callers_fields() {
        let tail = r#""service_name":"backend-2","pod_id":"backend-2-x7k2p","podId":"backend-2-x7k2p","podIp":"10.244.0.9"}"#;
        let body = r#"{"username":"bob","target":"backend-1"}"#;
        let answered = format!(r#"{{"username":"bob","target":"backend-2",{tail}"#);
        check("POST", "/hit_backend", body, 200, &answered).await;
        check("POST", "/hit-backend", body, 200, &answered).await;
        let by_header = r#"{"username":"ann","service_name":"backend-2","target":"backend-2","pod_id":"backend-2-x7k2p","podId":"backend-2-x7k2p","podIp":"10.244.0.9"}"#;
        check("POST", "/hit_backend", "{}", 200, by_header).await;
    }

    #[tokio::test]
    async fn shows_the_headers_it_was_sent() {
        check("GET", "/headers", "", 200, r#"{"x-user":"ann"}"#).await;
    }

    #[tokio::test]
    async fn refuses_what_it_does_not_serve() {
        check("GET", "/x", "", 404, "backend-2 has no page /x\n").await;
        check("GET", "/hit_backend", "", 405, "send a POST request\n").await;
        for body in ["", "[]", "{", "username=ann"] {
            let expected = "send a JSON object, such as {\"username\": \"ann\"}\n";
            check("POST", "/hit_backend", body, 400, expected).await;
        }
    }
}
