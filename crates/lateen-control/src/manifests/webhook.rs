//! When the API server asks for injection, and for validation.

use serde_json::{Value, json};

use super::Options;
use crate::webhook::{INJECTOR, validator};

pub(super) fn render(options: &Options) -> [Value; 2] {
    [injector(options), validator_of(options)]
}

/// Istio's four cases: a namespace or a pod may ask, by name or by revision, and a pod may refuse.
fn injector(options: &Options) -> Value {
    let exists = |key: &str, yes: bool| json!({"key": key, "operator": if yes { "Exists" } else { "DoesNotExist" }});
    let within =
        |key: &str, values: &[&str]| json!({"key": key, "operator": "In", "values": values});
    let unless_refused =
        json!({"key": "sidecar.istio.io/inject", "operator": "NotIn", "values": ["false"]});
    let cases = [
        (
            "rev.namespace",
            vec![
                within("istio.io/rev", &["default"]),
                exists("istio-injection", false),
            ],
            vec![unless_refused.clone()],
        ),
        (
            "rev.object",
            vec![
                exists("istio.io/rev", false),
                exists("istio-injection", false),
            ],
            vec![unless_refused.clone(), within("istio.io/rev", &["default"])],
        ),
        (
            "namespace",
            vec![within("istio-injection", &["enabled"])],
            vec![unless_refused],
        ),
        (
            "object",
            vec![
                exists("istio-injection", false),
                exists("istio.io/rev", false),
            ],
            vec![
                within("sidecar.istio.io/inject", &["true"]),
                exists("istio.io/rev", false),
            ],
        ),
    ];
    let webhooks: Vec<Value> = cases
        .into_iter()
        .map(|(name, namespace_expressions, object_expressions)| {
            json!({
                "name": format!("{name}.sidecar-injector.istio.io"),
                "clientConfig": {
                    "service": {"name": "istiod", "namespace": options.namespace, "path": "/inject", "port": 443},
                },
                "sideEffects": "None",
                "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
                // A pod without its sidecar would bypass the mesh: rather no pod than such a one.
                "failurePolicy": "Fail",
                "reinvocationPolicy": "Never",
                "admissionReviewVersions": ["v1"],
                "namespaceSelector": {"matchExpressions": namespace_expressions},
                "objectSelector": {"matchExpressions": object_expressions},
            })
        })
        .collect();
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {
            "name": INJECTOR,
            "labels": {"app": "sidecar-injector", "istio.io/rev": "default"},
        },
        "webhooks": webhooks,
    })
}

/// Everything that configures the mesh, when it is created or changed.
fn validator_of(options: &Options) -> Value {
    let name = validator(&options.namespace);
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name, "labels": {"app": "istiod", "istio": "istiod", "istio.io/rev": "default"}},
        "webhooks": [{
            "name": "rev.validation.istio.io",
            "clientConfig": {
                "service": {"name": "istiod", "namespace": options.namespace, "path": "/validate", "port": 443},
            },
            "sideEffects": "None",
            "rules": [{
                "operations": ["CREATE", "UPDATE"],
                "apiGroups": ["gateway.networking.k8s.io", "lateen.dev", "networking.istio.io", "security.istio.io"],
                "apiVersions": ["*"],
                "resources": ["*"],
            }],
            // The control plane makes this Fail as soon as it serves: an installation may bring its own objects.
            "failurePolicy": "Ignore",
            "admissionReviewVersions": ["v1"],
        }],
    })
}
