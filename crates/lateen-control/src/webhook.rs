//! The injection webhook: `/inject` over HTTPS, and the CA bundle that the API server needs to call it.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::StreamExt as _;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::watcher::{self, watcher};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::engine::World;
use crate::http_server::{self, Reply};
use crate::inject::{InjectConfig, Outcome, Owner, inject};

/// The webhook configuration whose CA bundle is ours to fill.
pub(crate) const CONFIGURATION: &str = "istio-sidecar-injector";

/// Largest review taken: an object may have 1.5 MiB in etcd, and a review carries it once.
const MAX_REVIEW: usize = 3 << 20;
/// How long to wait after a failed watch or patch.
const RETRY: Duration = Duration::from_millis(500);

/// Answers a request of the webhook port.
pub(crate) async fn answer(
    world: Arc<World>,
    config: Arc<InjectConfig>,
    request: Request<Incoming>,
) -> Reply {
    // Istio's webhook URLs carry cluster and network in the path; they say nothing that is not in the configuration.
    let path = request.uri().path();
    if path != "/inject" && !path.starts_with("/inject/") {
        return http_server::text(StatusCode::NOT_FOUND, "only /inject is served here\n");
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
    match serde_json::from_slice::<Value>(&body) {
        Ok(review) => review_reply(&world, &config, &review),
        Err(error) => http_server::text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

fn review_reply(world: &World, config: &InjectConfig, review: &Value) -> Reply {
    let request = &review["request"];
    let Some(uid) = request["uid"].as_str() else {
        return http_server::text(StatusCode::BAD_REQUEST, "the review has no request.uid\n");
    };
    let mut response = json!({"uid": uid, "allowed": true});
    let pod = &request["object"];
    let namespace = request["namespace"].as_str().unwrap_or("default");
    let owner = Owner::of_pod(pod, namespace);
    match inject(pod, &owner, config) {
        Ok(Outcome::Injected {
            pod: injected,
            warnings,
        }) => {
            world.metrics.injected.add(1);
            let patch = json_patch::diff(pod, &injected);
            // A list of operations always has a JSON form.
            let patch = serde_json::to_vec(&patch).unwrap_or_default();
            response["patchType"] = "JSONPatch".into();
            response["patch"] = BASE64.encode(patch).into();
            if !warnings.is_empty() {
                response["warnings"] = warnings.into();
            }
        }
        Ok(Outcome::Skipped(reason)) => {
            world.metrics.injection_skipped.add(1);
            tracing::debug!(namespace, pod = owner.workload, %reason, "pod not injected");
        }
        Err(error) => {
            world.metrics.injection_failed.add(1);
            response["allowed"] = false.into();
            response["status"] =
                json!({"code": 400, "message": format!("sidecar injection: {error}")});
        }
    }
    http_server::json(&json!({
        "apiVersion": review["apiVersion"].as_str().unwrap_or("admission.k8s.io/v1"),
        "kind": "AdmissionReview",
        "response": response,
    }))
}

/// Keeps the CA bundle in the webhook configuration, now and whenever somebody applies it again without.
pub(crate) async fn keep_bundle(client: Client, certificate: String) {
    let bundle = BASE64.encode(certificate);
    let api: Api<MutatingWebhookConfiguration> = Api::all(client);
    let only = watcher::Config::default().fields(&format!("metadata.name={CONFIGURATION}"));
    let mut events = std::pin::pin!(watcher(api.clone(), only));
    while let Some(event) = events.next().await {
        let found = match event {
            Ok(watcher::Event::Apply(found) | watcher::Event::InitApply(found)) => found,
            Ok(_) => continue,
            Err(error) => {
                tracing::warn!(%error, "cannot watch webhook configuration {CONFIGURATION}");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        while let Err(error) = patch_bundle(&api, &found, &bundle).await {
            tracing::warn!(%error, "cannot put the CA bundle into webhook configuration {CONFIGURATION}");
            tokio::time::sleep(RETRY).await;
            if matches!(error, kube::Error::Api(status) if status.code == 404 || status.code == 409)
            {
                // It was deleted or changed: the watch tells.
                break;
            }
        }
    }
}

async fn patch_bundle(
    api: &Api<MutatingWebhookConfiguration>,
    found: &MutatingWebhookConfiguration,
    bundle: &str,
) -> Result<(), kube::Error> {
    let mut operations = Vec::new();
    for (position, webhook) in found.webhooks.iter().flatten().enumerate() {
        let now = webhook.client_config.ca_bundle.as_ref();
        if now.map(|now| BASE64.encode(&now.0)).as_deref() == Some(bundle) {
            continue;
        }
        let at = format!("/webhooks/{position}");
        // The position is only right while the name stands there.
        operations.push(json!({"op": "test", "path": format!("{at}/name"), "value": webhook.name}));
        operations.push(
            json!({"op": "add", "path": format!("{at}/clientConfig/caBundle"), "value": bundle}),
        );
    }
    if operations.is_empty() {
        return Ok(());
    }
    // The operations are the patch format by construction.
    let patch: json_patch::Patch =
        serde_json::from_value(operations.into()).map_err(kube::Error::SerdeError)?;
    api.patch(
        &found.name_any(),
        &PatchParams::default(),
        &Patch::Json::<()>(patch),
    )
    .await?;
    tracing::info!("CA bundle put into webhook configuration {CONFIGURATION}");
    Ok(())
}
