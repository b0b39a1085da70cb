//! A cluster for tests: everything that runs, but for listeners.

use http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::server::full;
use crate::user::User;
use crate::{AutoscalerConfig, Cluster, Config};

/// A cluster in a folder of its own, with the namespace `test`.
pub(crate) struct TestCluster {
    pub(crate) cluster: Cluster,
    _folder: tempfile::TempDir,
}

impl TestCluster {
    /// Starts a cluster; the namespace gets `labels`.
    pub(crate) async fn start(labels: Value) -> Self {
        let folder = tempfile::tempdir().expect("makes a folder");
        let config = Config {
            state_dir: folder.path().to_owned(),
            listeners: Vec::new(),
            certificate_names: Vec::new(),
            service_range: "10.96.0.0/16".to_owned(),
            node_ports: 30000..=32767,
            kubelet_socket: folder.path().join("kubelet.sock"),
            autoscaler: AutoscalerConfig::default(),
        };
        let cluster = Cluster::start(config).await.expect("starts");
        let started = Self {
            cluster,
            _folder: folder,
        };
        let namespace = json!({"metadata": {"name": "test", "labels": labels}});
        started.create("/api/v1/namespaces", &namespace).await;
        started
    }

    /// The answer to a request: code, body and warnings.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        body: &Value,
    ) -> (u16, Value, Vec<String>) {
        let media = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", media)
            .body(full(body.to_string()))
            .expect("is a request");
        let response = self
            .cluster
            .api()
            .clone()
            .handle(request, Some(User::admin()))
            .await;
        let code = response.status().as_u16();
        let warnings = response.headers().get_all("warning").iter();
        let warnings = warnings
            .map(|value| value.to_str().expect("is text").to_owned())
            .collect();
        let body = response
            .into_body()
            .collect()
            .await
            .expect("is whole")
            .to_bytes();
        (
            code,
            serde_json::from_slice(&body).unwrap_or_default(),
            warnings,
        )
    }

    /// The object at `path`; null when there is none.
    pub(crate) async fn get(&self, path: &str) -> Value {
        match self.send("GET", path, &Value::Null).await {
            (200, object, _) => object,
            _ => Value::Null,
        }
    }

    /// Posts an object that must be accepted.
    pub(crate) async fn create(&self, path: &str, body: &Value) -> Value {
        let (code, answer, _) = self.send("POST", path, body).await;
        assert_eq!(code, 201, "{answer}");
        answer
    }

    /// Waits until the object at `path` is as `wanted`, ten seconds at most.
    pub(crate) async fn wait(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            let object = self.get(path).await;
            if wanted(&object) {
                return object;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{path} stays {object}"
            );
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}
