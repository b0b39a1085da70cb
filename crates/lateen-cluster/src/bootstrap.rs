//! What every cluster has from its first start: namespaces and the service `kubernetes`.

use std::sync::Arc;

use http::Request;
use serde_json::{Value, json};

use crate::server::{Api, full};
use crate::status::{Result, Status};
use crate::user::User;

/// Makes what is missing.
pub(crate) async fn run(api: &Arc<Api>) -> Result<()> {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let namespace = json!({"metadata": {"name": name}});
        ensure(api, "/api/v1/namespaces", &namespace).await?;
    }
    let service = json!({
        "metadata": {
            "name": "kubernetes",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": api.first_address().to_string(),
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}],
        },
    });
    ensure(api, "/api/v1/namespaces/default/services", &service).await
}

/// Creates `object` below `path`; one that is there stays as it is.
async fn ensure(api: &Arc<Api>, path: &str, object: &Value) -> Result<()> {
    let request = Request::post(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .header(http::header::USER_AGENT, "lateen-apiserver")
        .body(full(object.to_string()))
        .map_err(Status::internal)?;
    let response = api.clone().handle(request, Some(User::admin())).await;
    match response.status().as_u16() {
        200..300 | 409 => Ok(()),
        code => {
            let what = format!(
                "creating {path}/{} failed with {code}",
                object["metadata"]["name"]
            );
            Err(Status::internal(what))
        }
    }
}
