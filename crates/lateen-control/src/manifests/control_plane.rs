//! The control plane's own objects.

use serde_json::{Value, json};

use super::Options;
use crate::MeshConfig;

const NAME: &str = "istiod";

pub(super) fn render(options: &Options) -> Vec<Value> {
    vec![
        service_account(options),
        cluster_role(),
        cluster_role_binding(options),
        role(options),
        role_binding(options),
        mesh_config(options),
        service(options),
        deployment(options),
    ]
}

fn labels() -> Value {
    json!({"app": NAME, "istio": "pilot", "istio.io/rev": "default"})
}

fn metadata(options: &Options) -> Value {
    json!({"name": NAME, "namespace": options.namespace, "labels": labels()})
}

fn service_account(options: &Options) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(options)})
}

/// What the control plane reads everywhere, and the little that it writes: the root certificate, gateways, the webhook
/// configurations that it completes, and the status of Lateen's own kinds and the Gateway API's.
fn cluster_role() -> Value {
    let read = json!(["get", "list", "watch"]);
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": NAME, "labels": labels()},
        "rules": [
            {"apiGroups": [""], "resources": ["namespaces", "nodes", "pods", "services"], "verbs": read},
            // Who calls, and what a gateway may be shown: its own namespace's certificates, once it has proved itself.
            {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
            {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
            {"apiGroups": [""], "resources": ["secrets"], "verbs": read},
            // The root certificate in every namespace.
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "get", "list", "patch", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
            {"apiGroups": ["gateway.networking.k8s.io", "lateen.dev", "networking.istio.io", "security.istio.io"],
             "resources": ["*"], "verbs": read},
            {"apiGroups": ["gateway.networking.k8s.io", "lateen.dev"], "resources": ["*/status"], "verbs": ["patch"]},
            // The proxies of gateways that name no Service, and the classes of gateways.
            {"apiGroups": [""], "resources": ["serviceaccounts", "services"], "verbs": ["create", "patch"]},
            {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["create", "patch"]},
            {"apiGroups": ["gateway.networking.k8s.io"], "resources": ["gatewayclasses"], "verbs": ["create"]},
            {"apiGroups": ["admissionregistration.k8s.io"],
             "resources": ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
             "verbs": ["get", "list", "watch", "patch"]},
        ],
    })
}

fn cluster_role_binding(options: &Options) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": NAME, "labels": labels()},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAME},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": options.namespace}],
    })
}

/// The certificate authority's Secret is made in the control plane's own namespace only.
fn role(options: &Options) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": metadata(options),
        "rules": [
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create", "get"]},
        ],
    })
}

fn role_binding(options: &Options) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": metadata(options),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": options.namespace}],
    })
}

/// Settings that differ from the defaults, as YAML under the key that Istio uses.
fn mesh_config(options: &Options) -> Value {
    let defaults = serde_json::to_value(MeshConfig::default()).unwrap_or_default();
    let mut settings = serde_json::to_value(&options.mesh).unwrap_or_default();
    if let Some(settings) = settings.as_object_mut() {
        settings.retain(|key, value| defaults.get(key) != Some(value));
    }
    let text = serde_saphyr::to_string(&settings).unwrap_or_default();
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "istio", "namespace": options.namespace, "labels": labels()},
        "data": {"mesh": text, "meshNetworks": "networks: {}"},
    })
}

fn service(options: &Options) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(options),
        "spec": {
            "selector": {"app": NAME, "istio": "pilot"},
            "ports": [
                {"name": "grpc-xds", "port": 15010, "protocol": "TCP", "targetPort": 15010},
                {"name": "https-dns", "port": 15012, "protocol": "TCP", "targetPort": 15012},
                {"name": "https-webhook", "port": 443, "protocol": "TCP", "targetPort": 15017},
                {"name": "http-monitoring", "port": 15014, "protocol": "TCP", "targetPort": 15014},
            ],
        },
    })
}

fn deployment(options: &Options) -> Value {
    let mut pod_labels = labels();
    pod_labels["sidecar.istio.io/inject"] = "false".into();
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(options),
        "spec": {
            "replicas": options.replicas,
            "selector": {"matchLabels": {"app": NAME, "istio": "pilot"}},
            "strategy": {"rollingUpdate": {"maxSurge": "100%", "maxUnavailable": "25%"}},
            "template": {
                "metadata": {
                    "labels": pod_labels,
                    "annotations": {"prometheus.io/port": "15014", "prometheus.io/scrape": "true"},
                },
                "spec": {
                    "serviceAccountName": NAME,
                    "containers": [{
                        "name": "discovery",
                        "image": options.image,
                        "imagePullPolicy": options.image_pull_policy,
                        "args": ["controlplane"],
                        "env": [
                            field("POD_NAME", "metadata.name"),
                            field("POD_NAMESPACE", "metadata.namespace"),
                            field("HOST_IP", "status.hostIP"),
                            json!({"name": "LATEEN_IMAGE", "value": options.image}),
                        ],
                        "ports": [
                            {"containerPort": 8080, "name": "http-debug", "protocol": "TCP"},
                            {"containerPort": 15010, "name": "grpc-xds", "protocol": "TCP"},
                            {"containerPort": 15012, "name": "tls-xds", "protocol": "TCP"},
                            {"containerPort": 15014, "name": "http-monitoring", "protocol": "TCP"},
                            {"containerPort": 15017, "name": "https-webhooks", "protocol": "TCP"},
                        ],
                        "readinessProbe": {
                            "httpGet": {"path": "/ready", "port": 8080},
                            "periodSeconds": 1,
                            "timeoutSeconds": 5,
                        },
                        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
                        "securityContext": {
                            "allowPrivilegeEscalation": false,
                            "capabilities": {"drop": ["ALL"]},
                            "readOnlyRootFilesystem": true,
                            "runAsGroup": 1337,
                            "runAsNonRoot": true,
                            "runAsUser": 1337,
                        },
                    }],
                },
            },
        },
    })
}
