//! The handler as clients meet it, without a socket.

mod deletes;
mod fuzz;
mod lists;
mod patches;
mod services;
mod tokens;
mod watches;
mod writes;

use std::sync::Arc;

use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{Api, Body, ServiceRange, full};
use crate::registry::Registry;
use crate::store::Store;
use crate::user::User;

/// A server with the built-in kinds and a namespace `default`.
struct Server {
    api: Arc<Api>,
    _folder: tempfile::TempDir,
}

/// An answer: its code, its body and its warnings.
struct Answer {
    code: u16,
    body: Value,
    warnings: Vec<String>,
}

impl Answer {
    /// The body of a successful answer.
    #[track_caller]
    fn ok(self) -> Value {
        assert!(self.code < 300, "{}: {}", self.code, self.body);
        self.body
    }

    fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }
}

impl Server {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let registry = Registry::new(crate::builtin::rows());
        for row in super::review_rows() {
            registry.insert(row);
        }
        let range = ServiceRange::parse("10.96.0.0/24", 30000..=30003).unwrap();
        let server = Self {
            api: Api::for_test(folder.path(), store, registry, range),
            _folder: folder,
        };
        let namespace = json!({"metadata": {"name": "default"}});
        server.post("/api/v1/namespaces", &namespace).await.ok();
        server
    }

    async fn raw(
        &self,
        method: &str,
        path: &str,
        media: &str,
        body: String,
    ) -> http::Response<Body> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", media)
            .header("user-agent", "test/1.0")
            .body(full(body))
            .unwrap();
        self.api.clone().handle(request, Some(User::admin())).await
    }

    async fn send(&self, method: &str, path: &str, media: &str, body: &Value) -> Answer {
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let response = self.raw(method, path, media, text).await;
        let code = response.status().as_u16();
        let warnings = response.headers().get_all("warning").iter();
        let warnings = warnings
            .map(|value| value.to_str().unwrap().to_owned())
            .collect();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Answer {
            code,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            warnings,
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", &Value::Null).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, "application/json", body).await
    }

    async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send("PUT", path, "application/json", body).await
    }

    async fn delete(&self, path: &str, options: &Value) -> Answer {
        self.send("DELETE", path, "application/json", options).await
    }

    async fn merge(&self, path: &str, patch: &Value) -> Answer {
        self.send("PATCH", path, "application/merge-patch+json", patch)
            .await
    }

    async fn apply(&self, path: &str, manager: &str, force: bool, config: &Value) -> Answer {
        let path = format!("{path}?fieldManager={manager}&force={force}");
        self.send("PATCH", &path, "application/apply-patch+yaml", config)
            .await
    }
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str, data: &Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}
