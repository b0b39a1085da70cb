//! What the API server needs to call the webhooks: the CA bundle in their configurations.

use std::fmt::Debug;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::StreamExt as _;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::watcher::{self, watcher};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
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

/// A webhook configuration of either kind.
trait Configuration:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static
{
    /// Name, way to call, and failure policy of each webhook.
    fn webhooks(&self) -> Vec<(&str, &WebhookClientConfig, Option<&str>)>;
}

impl Configuration for MutatingWebhookConfiguration {
    fn webhooks(&self) -> Vec<(&str, &WebhookClientConfig, Option<&str>)> {
        let all = self.webhooks.iter().flatten();
        all.map(|webhook| {
            let policy = webhook.failure_policy.as_deref();
            (webhook.name.as_str(), &webhook.client_config, policy)
        })
        .collect()
    }
}

impl Configuration for ValidatingWebhookConfiguration {
    fn webhooks(&self) -> Vec<(&str, &WebhookClientConfig, Option<&str>)> {
        let all = self.webhooks.iter().flatten();
        all.map(|webhook| {
            let policy = webhook.failure_policy.as_deref();
            (webhook.name.as_str(), &webhook.client_config, policy)
        })
        .collect()
    }
}

async fn keep_in<C: Configuration>(client: &Client, name: &str, bundle: &str) {
    let api: Api<C> = Api::all_with(client.clone(), &());
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

async fn complete<C: Configuration>(
    api: &Api<C>,
    found: &C,
    bundle: &str,
) -> Result<(), kube::Error> {
    let operations = operations(found, bundle);
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

fn operations<C: Configuration>(found: &C, bundle: &str) -> Vec<Value> {
    let mut operations = Vec::new();
    for (position, (name, client, policy)) in found.webhooks().into_iter().enumerate() {
        let now = client.ca_bundle.as_ref().map(|now| BASE64.encode(&now.0));
        if now.as_deref() == Some(bundle) && policy == Some(FAIL) {
            continue;
        }
        let at = format!("/webhooks/{position}");
        // The position is only right while the name stands there.
        operations.push(json!({"op": "test", "path": format!("{at}/name"), "value": name}));
        operations.push(
            json!({"op": "add", "path": format!("{at}/clientConfig/caBundle"), "value": bundle}),
        );
        operations.push(json!({"op": "add", "path": format!("{at}/failurePolicy"), "value": FAIL}));
    }
    operations
}
