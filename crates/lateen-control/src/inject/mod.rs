//! Sidecar injection: one pure function from a pod to the pod with its proxy, for the webhook and for files alike.
//!
//! The proxy follows the application's containers, as the second container of a simple pod; with
//! `holdApplicationUntilProxyStarts` (or `sidecar.istio.io/nativeSidecar`) it is a native sidecar instead, which
//! Kubernetes starts before the application. Either way it counts in `READY 2/2`.
//!
//! A container `istio-proxy` with the image `auto` in the pod changes the injected one; with the annotation
//! `inject.istio.io/templates: gateway` the pod becomes a gateway, of which nothing is redirected.
//!
//! Probes of the application are asked of the proxy's agent, which has no need of a certificate to reach it
//! (`sidecar.istio.io/rewriteAppHTTPProbers: "false"` leaves them to the kubelet).

mod containers;
mod custom;
mod files;
mod probes;
mod settings;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

pub use files::{FileError, Report, inject_documents};
pub use settings::SettingError;

use crate::PROXY_CONTAINER;
pub(crate) use containers::{
    security_context as proxy_security_context, volume_mounts as proxy_volume_mounts,
    volumes as proxy_volumes,
};
use custom::Custom;
use settings::Settings;

/// Name of the init container that redirects the pod's traffic.
pub(crate) const INIT_CONTAINER: &str = "istio-init";
/// Annotation that records what was injected.
pub(crate) const STATUS: &str = "sidecar.istio.io/status";
const INJECT: &str = "sidecar.istio.io/inject";
const REVISION: &str = "default";
/// Namespaces of the system's own pods.
const SYSTEM_NAMESPACES: [&str; 4] = [
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "local-path-storage",
];

/// What is the same for all pods of a mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InjectConfig {
    /// Image that holds the proxy.
    pub image: String,
    /// When the image is pulled: `IfNotPresent`, `Always` or `Never`.
    pub image_pull_policy: String,
    /// Namespace of the control plane.
    pub namespace: String,
    /// First part of every identity.
    pub trust_domain: String,
    /// Name of the cluster.
    pub cluster_id: String,
    /// Name of the mesh.
    pub mesh_id: String,
    /// Where proxies find the control plane.
    pub discovery_address: String,
    /// Whether the proxy starts before the application, unless a pod says otherwise.
    pub hold_application: bool,
}

impl Default for InjectConfig {
    fn default() -> Self {
        Self {
            image: crate::manifests::IMAGE.to_owned(),
            image_pull_policy: "IfNotPresent".to_owned(),
            namespace: "istio-system".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            cluster_id: "Kubernetes".to_owned(),
            mesh_id: "cluster.local".to_owned(),
            discovery_address: "istiod.istio-system.svc:15012".to_owned(),
            hold_application: false,
        }
    }
}

/// The workload that a pod belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the workload, such as that of the Deployment.
    pub workload: String,
    /// URL path of the workload, Istio's `OWNER` metadata.
    pub path: String,
}

impl Owner {
    /// The owner that a pod's references name; that of a ReplicaSet made by a Deployment is the Deployment.
    pub fn of_pod(pod: &Value, namespace: &str) -> Self {
        let metadata = &pod["metadata"];
        let references = metadata["ownerReferences"].as_array();
        let controller = references
            .into_iter()
            .flatten()
            .find(|owner| owner["controller"] == true);
        let Some(controller) = controller else {
            let named = metadata["name"].as_str();
            let generated = || {
                metadata["generateName"]
                    .as_str()
                    .map(|name| name.trim_end_matches('-'))
            };
            let name = named.or_else(generated).unwrap_or_default();
            return Self::new(namespace, "v1", "Pod", name);
        };
        let text = |field: &str| controller[field].as_str().unwrap_or_default();
        let (api_version, kind, name) = (text("apiVersion"), text("kind"), text("name"));
        let hash = metadata["labels"]["pod-template-hash"].as_str();
        let deployment = hash.and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-'));
        match deployment {
            Some(deployment) if kind == "ReplicaSet" => {
                Self::new(namespace, api_version, "Deployment", deployment)
            }
            _ => Self::new(namespace, api_version, kind, name),
        }
    }

    /// The owner of a workload object.
    pub fn new(namespace: &str, api_version: &str, kind: &str, name: &str) -> Self {
        let plural = format!("{}s", kind.to_lowercase());
        Self {
            namespace: namespace.to_owned(),
            workload: name.to_owned(),
            path: format!("kubernetes://apis/{api_version}/namespaces/{namespace}/{plural}/{name}"),
        }
    }
}

/// What became of a pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It has a sidecar now.
    Injected {
        /// The pod, changed.
        pod: Value,
        /// What the user should know, such as annotations without effect.
        warnings: Vec<String>,
    },
    /// It stays as it is.
    Skipped(Skipped),
}

/// Why a pod is not injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Skipped {
    /// The pod's label or annotation says so.
    #[error("sidecar.istio.io/inject says false")]
    Refused,
    /// The pod shares the node's network, whose traffic must not be redirected.
    #[error("the pod uses the host network")]
    HostNetwork,
    /// The pod has a proxy already.
    #[error("the pod has a sidecar already")]
    AlreadyInjected,
    /// Pods of the system are left alone.
    #[error("the namespace belongs to the system")]
    SystemNamespace,
}

/// Adds the sidecar to a pod (or to a workload's pod template), or says why not.
///
/// # Errors
/// When an annotation or label has a value that cannot be followed.
pub fn inject(pod: &Value, owner: &Owner, config: &InjectConfig) -> Result<Outcome, SettingError> {
    if let Some(reason) = skipped(pod, owner) {
        return Ok(Outcome::Skipped(reason));
    }
    let settings = Settings::of(pod, config)?;
    let mut pod = pod.clone();
    let custom = Custom::take(&mut pod);
    let identity = Identity::of(&pod, owner);
    label(&mut pod, &identity, &settings);
    let probers = if settings.rewrite_probes {
        probes::rewrite(&mut pod)
    } else {
        Map::new()
    };
    let mut proxy = containers::proxy(&pod, owner, config, &settings);
    if !probers.is_empty() {
        let text = Value::Object(probers).to_string();
        let variable = json!({"name": "ISTIO_KUBE_APP_PROBERS", "value": text});
        if let Some(env) = proxy["env"].as_array_mut() {
            env.push(variable);
        }
    }
    custom.change_proxy(&mut proxy);
    let mut init = containers::init(config, &settings);
    custom.change_init(&mut init);
    let spec = object(&mut pod, "spec");
    if settings.gateway {
        array(spec, "containers").push(proxy);
    } else if settings.native_sidecar {
        let list = array(spec, "initContainers");
        // The redirect comes first: whatever starts after the proxy finds its traffic captured.
        list.insert(0, proxy);
        list.insert(0, init);
    } else {
        array(spec, "initContainers").push(init);
        array(spec, "containers").push(proxy);
    }
    array(spec, "volumes").extend(containers::volumes());
    Ok(Outcome::Injected {
        pod,
        warnings: settings.warnings,
    })
}

/// The environment of a gateway's proxy.
pub(crate) fn gateway_env(config: &InjectConfig, labels: &Value) -> Vec<Value> {
    let proxy_config = json!({"discoveryAddress": config.discovery_address});
    let mut env = containers::common_env(config, &proxy_config);
    env.push(containers::labels_env(labels));
    env
}

fn skipped(pod: &Value, owner: &Owner) -> Option<Skipped> {
    let metadata = &pod["metadata"];
    if SYSTEM_NAMESPACES.contains(&owner.namespace.as_str()) {
        return Some(Skipped::SystemNamespace);
    }
    if pod["spec"]["hostNetwork"] == true {
        return Some(Skipped::HostNetwork);
    }
    // The label wins over the annotation, which is older.
    let wish = metadata["labels"][INJECT]
        .as_str()
        .or_else(|| metadata["annotations"][INJECT].as_str());
    if wish.is_some_and(|wish| matches!(wish, "false" | "n" | "no" | "off")) {
        return Some(Skipped::Refused);
    }
    let recorded = metadata["annotations"].get(STATUS).is_some();
    recorded.then_some(Skipped::AlreadyInjected)
}

/// Who the workload is to telemetry.
struct Identity {
    name: String,
    revision: String,
}

impl Identity {
    fn of(pod: &Value, owner: &Owner) -> Self {
        let labels = &pod["metadata"]["labels"];
        let first = |keys: &[&str]| {
            keys.iter()
                .find_map(|key| labels[*key].as_str().filter(|text| !text.is_empty()))
        };
        let name = first(&[
            "service.istio.io/canonical-name",
            "app.kubernetes.io/name",
            "app",
        ]);
        let revision = first(&[
            "service.istio.io/canonical-revision",
            "app.kubernetes.io/version",
            "version",
        ]);
        Self {
            name: name.unwrap_or(&owner.workload).to_owned(),
            revision: revision.unwrap_or("latest").to_owned(),
        }
    }
}

fn label(pod: &mut Value, identity: &Identity, settings: &Settings) {
    let metadata = object(pod, "metadata");
    let labels = entry(metadata, "labels");
    let wanted = [
        ("security.istio.io/tlsMode", "istio"),
        ("service.istio.io/canonical-name", identity.name.as_str()),
        (
            "service.istio.io/canonical-revision",
            identity.revision.as_str(),
        ),
    ];
    for (key, value) in wanted {
        labels.entry(key).or_insert_with(|| value.into());
    }
    let annotations = entry(metadata, "annotations");
    let (init, regular) = if settings.gateway {
        (vec![], vec![PROXY_CONTAINER])
    } else if settings.native_sidecar {
        (vec![INIT_CONTAINER, PROXY_CONTAINER], vec![])
    } else {
        (vec![INIT_CONTAINER], vec![PROXY_CONTAINER])
    };
    let status = json!({
        "initContainers": init,
        "containers": regular,
        "volumes": containers::volumes().iter().map(|volume| volume["name"].clone()).collect::<Vec<_>>(),
        "imagePullSecrets": null,
        "revision": REVISION,
    });
    annotations.insert(STATUS.to_owned(), status.to_string().into());
    let scrape = BTreeMap::from([
        ("prometheus.io/path", "/stats/prometheus"),
        ("prometheus.io/port", "15090"),
        ("prometheus.io/scrape", "true"),
    ]);
    for (key, value) in scrape {
        annotations.entry(key).or_insert_with(|| value.into());
    }
    // `kubectl logs` and `kubectl exec` without -c mean the application.
    let application = pod["spec"]["containers"][0]["name"]
        .as_str()
        .map(str::to_owned);
    if let Some(application) = application {
        let annotations = entry(object(pod, "metadata"), "annotations");
        for key in [
            "kubectl.kubernetes.io/default-container",
            "kubectl.kubernetes.io/default-logs-container",
        ] {
            annotations
                .entry(key)
                .or_insert_with(|| application.clone().into());
        }
    }
}

/// The object under a key of a JSON object, made when it is missing.
fn object<'a>(value: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(fields) => entry(fields, key),
        _ => unreachable!("made an object above"),
    }
}

fn entry<'a>(fields: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let slot = fields.entry(key).or_insert_with(|| json!({}));
    if !slot.is_object() {
        *slot = json!({});
    }
    match slot {
        Value::Object(fields) => fields,
        _ => unreachable!("made an object above"),
    }
}

fn array<'a>(fields: &'a mut Map<String, Value>, key: &str) -> &'a mut Vec<Value> {
    let slot = fields.entry(key).or_insert_with(|| json!([]));
    if !slot.is_array() {
        *slot = json!([]);
    }
    match slot {
        Value::Array(items) => items,
        _ => unreachable!("made an array above"),
    }
}

#[cfg(test)]
mod tests;
