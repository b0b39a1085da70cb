//! Fields of a pod that its containers may see (`fieldRef`), as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Pod;

/// The value of a field path such as `metadata.labels['app']`; nothing when the path is not one
/// that Kubernetes exposes.
pub(crate) fn value(pod: &Pod, path: &str, address: Ipv4Addr, node: Ipv4Addr) -> Option<String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => return None,
        };
        return Some(
            map.and_then(|map| map.get(key))
                .cloned()
                .unwrap_or_default(),
        );
    }
    let text = match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => Some(lines(meta.labels.as_ref())),
        "metadata.annotations" => Some(lines(meta.annotations.as_ref())),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()),
        "spec.serviceAccountName" => Some(
            spec.and_then(|spec| spec.service_account_name.clone())
                .unwrap_or_default(),
        ),
        "status.podIP" | "status.podIPs" => Some(address.to_string()),
        "status.hostIP" | "status.hostIPs" => Some(node.to_string()),
        _ => return None,
    };
    Some(text.unwrap_or_default())
}

/// Splits `metadata.labels['app']` into the map's path and the key.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, key) = path.strip_suffix("']")?.split_once("['")?;
    Some((map, key))
}

/// A map in the form of downward API files: `key="value"`, sorted, one a line.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let mut text = String::new();
    for (key, value) in map.into_iter().flatten() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{key}={value:?}");
    }
    text.pop();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_the_values_that_kubernetes_gives() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web-0", "namespace": "lab", "uid": "u",
                         "labels": {"app": "web", "version": "v1"}},
            "spec": {"containers": [], "nodeName": "lateen"},
        }))
        .unwrap();
        let (address, node) = (Ipv4Addr::new(10, 244, 0, 5), Ipv4Addr::new(10, 244, 0, 1));
        for (path, expected) in [
            ("metadata.name", Some("web-0")),
            ("metadata.namespace", Some("lab")),
            ("metadata.labels['app']", Some("web")),
            ("metadata.labels['none']", Some("")),
            ("metadata.labels", Some("app=\"web\"\nversion=\"v1\"")),
            ("spec.nodeName", Some("lateen")),
            ("spec.serviceAccountName", Some("")),
            ("status.podIP", Some("10.244.0.5")),
            ("status.hostIP", Some("10.244.0.1")),
            ("spec.containers", None),
            ("metadata.finalizers['x']", None),
        ] {
            assert_eq!(
                value(&pod, path, address, node).as_deref(),
                expected,
                "{path}"
            );
        }
    }
}
