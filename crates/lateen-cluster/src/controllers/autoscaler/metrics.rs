//! What pods use, as `metrics.k8s.io` tells it.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Client};
use serde::Deserialize;

use super::calculate::Usage;
use crate::schema::quantity::Quantity;

/// Window of metrics that name none.
const DEFAULT_WINDOW: Duration = Duration::from_secs(60);

/// What `metrics.k8s.io/v1beta1` says of a pod.
#[derive(Debug, Deserialize)]
struct PodMetrics {
    timestamp: Timestamp,
    #[serde(default)]
    window: String,
    #[serde(default)]
    containers: Vec<ContainerMetrics>,
}

#[derive(Debug, Deserialize)]
struct ContainerMetrics {
    name: String,
    usage: BTreeMap<String, String>,
}

/// What the pods that `selector` matches use of a resource: all their containers, or one. Pods of which a container is
/// missing are left out. The error is a text for a condition.
pub(super) async fn usage(
    client: &Client,
    namespace: &str,
    selector: &str,
    resource: &str,
    container: Option<&str>,
) -> Result<BTreeMap<String, Usage>, String> {
    let kind = ApiResource {
        group: "metrics.k8s.io".to_owned(),
        version: "v1beta1".to_owned(),
        api_version: "metrics.k8s.io/v1beta1".to_owned(),
        kind: "PodMetrics".to_owned(),
        plural: "pods".to_owned(),
    };
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind);
    let list = api.list(&ListParams::default().labels(selector)).await;
    let list = list.map_err(|error| {
        let said = match error {
            kube::Error::Api(status) => status.message,
            other => other.to_string(),
        };
        format!("unable to fetch metrics from resource metrics API: {said}")
    })?;
    if list.items.is_empty() {
        return Err("no metrics returned from resource metrics API".to_owned());
    }
    Ok(list
        .items
        .into_iter()
        .filter_map(|object| {
            let pod: PodMetrics = serde_json::from_value(object.data).ok()?;
            let usage = Usage {
                amount: amount(&pod.containers, resource, container)?,
                at: pod.timestamp,
                window: window(&pod.window),
            };
            Some((object.metadata.name?, usage))
        })
        .collect())
}

fn amount(containers: &[ContainerMetrics], resource: &str, wanted: Option<&str>) -> Option<i64> {
    let mut sum = None;
    for container in containers {
        if wanted.is_some_and(|name| name != container.name) {
            continue;
        }
        // A container without the metric makes the whole pod one whose metrics are missing.
        let text = container.usage.get(resource)?;
        let amount = Quantity::parse(text).ok()?.milli();
        sum = Some(sum.unwrap_or(0_i64).saturating_add(amount));
    }
    sum
}

fn window(text: &str) -> Duration {
    let parsed: Option<k8s_openapi::jiff::SignedDuration> = text.parse().ok();
    parsed
        .and_then(|window| Duration::try_from(window).ok())
        .unwrap_or(DEFAULT_WINDOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_containers_or_takes_one() {
        let containers: Vec<ContainerMetrics> = serde_json::from_value(serde_json::json!([
            {"name": "app", "usage": {"cpu": "120m", "memory": "10Mi"}},
            {"name": "side", "usage": {"cpu": "30500u"}},
        ]))
        .unwrap();
        let check = |resource, container, expected| {
            assert_eq!(amount(&containers, resource, container), expected);
        };
        check("cpu", None, Some(151));
        check("cpu", Some("app"), Some(120));
        check("cpu", Some("other"), None);
        check("memory", None, None);
        check("memory", Some("app"), Some(10 * 1024 * 1024 * 1000));
    }

    #[test]
    fn reads_windows() {
        assert_eq!(window("20.5s"), Duration::from_millis(20_500));
        assert_eq!(window("1m0s"), Duration::from_secs(60));
        assert_eq!(window(""), DEFAULT_WINDOW);
    }
}
