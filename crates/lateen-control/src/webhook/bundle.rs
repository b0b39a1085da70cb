//! What the API server needs to call the webhooks: the CA bundle in their configurations.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::StreamExt as _;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::watcher::{self, watcher};
use kube::{Client, Resource, ResourceExt as _};
use serde_json::{Value, json};

/// How long to wait after a failed watch or patch.
const RETRY: Duration = Duration::from_millis(500);

/// Failures of calls are refusals. The validator's manifest lets objects pass for as long as nobody serves it.
const FAIL: &str = "Fail";

/// Keeps the CA bundle in both configurations, now and whenever somebody applies one again without.
pub(crate) async fn keep(client: Client, certificate: &str, injector: &str, validator: &str) {
    let bundle = BASE64.encode(certificate);
    tokio::join!(
        keep_in::<MutatingWebhookConfiguration>(&client, injector, &bundle),
        keep_in::<ValidatingWebhookConfiguration>(&client, validator, &bundle),
    );
}

/// The same in a configuration of one of the two kinds, whose webhooks differ in nothing that matters here.
async fn keep_in<C: Resource<DynamicType = ()>>(client: &Client, name: &str, bundle: &str) {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::erase::<C>(&()));
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = std::pin::pin!(watcher(api.clone(), only));
    while let Some(event) = events.next().await {
        let found = match event {
            Ok(watcher::Event::Apply(found) | watcher::Event::InitApply(found)) => found,
            Ok(_) => continue,
            Err(error) => {
                tracing::warn!(%error, "cannot watch webhook configuration {name}");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        while let Err(error) = complete(&api, &found, bundle).await {
            tracing::warn!(%error, "cannot put the CA bundle into webhook configuration {name}");
            tokio::time::sleep(RETRY).await;
            if matches!(error, kube::Error::Api(status) if status.code == 404 || status.code == 409)
            {
                // It was deleted or changed: the watch tells.
                break;
            }
        }
    }
}

async fn complete(
    api: &Api<DynamicObject>,
    found: &DynamicObject,
    bundle: &str,
) -> Result<(), kube::Error> {
    let operations = operations(&found.data["webhooks"], bundle);
    if operations.is_empty() {
        return Ok(());
    }
    // The operations are the patch format by construction.
    let patch: json_patch::Patch =
        serde_json::from_value(operations.into()).map_err(kube::Error::SerdeError)?;
    let name = found.name_any();
    api.patch(&name, &PatchParams::default(), &Patch::Json::<()>(patch))
        .await?;
    tracing::info!("CA bundle put into webhook configuration {name}");
    Ok(())
}

/// The operations that put the bundle and the failure policy where one of them is not.
fn operations(webhooks: &Value, bundle: &str) -> Vec<Value> {
    let mut operations = Vec::new();
    for (position, webhook) in webhooks.as_array().into_iter().flatten().enumerate() {
        if webhook["clientConfig"]["caBundle"] == bundle && webhook["failurePolicy"] == FAIL {
            continue;
        }
        let at = format!("/webhooks/{position}");
        // The position is only right while the name stands there.
        let name = &webhook["name"];
        operations.push(json!({"op": "test", "path": format!("{at}/name"), "value": name}));
        operations.push(
            json!({"op": "add", "path": format!("{at}/clientConfig/caBundle"), "value": bundle}),
        );
        operations.push(json!({"op": "add", "path": format!("{at}/failurePolicy"), "value": FAIL}));
    }
    operations
}
