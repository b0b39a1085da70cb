//! Rows that accept everything, until the built-in kinds have their own.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::field::FieldError;
use crate::resource::{Resource, Scale, Version};
use crate::status::Result;
use crate::strategy::{Column, FieldValidation, RequestInfo, Strategy};

struct Permissive;

impl Strategy for Permissive {
    fn decode(&self, _: &mut Value, _: RequestInfo<'_>, _: FieldValidation) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn default(&self, _: &mut Value) {}

    fn prepare_create(&self, object: &mut Value, _: RequestInfo<'_>) {
        object["metadata"]["generation"] = json!(1);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: RequestInfo<'_>) {
        if object["spec"] != old["spec"] {
            let generation = old["metadata"]["generation"].as_u64().unwrap_or(0);
            object["metadata"]["generation"] = json!(generation + 1);
        }
    }

    fn validate(&self, _: &Value, _: Option<&Value>, _: RequestInfo<'_>) -> Vec<FieldError> {
        Vec::new()
    }

    fn columns(&self, _: &str) -> Vec<Column> {
        vec![Column {
            name: "Name".to_owned(),
            type_: "string",
            format: "name",
            description: "Name".to_owned(),
            priority: 0,
        }]
    }

    fn row(&self, object: &Value, _: &str, _: &str) -> Vec<Value> {
        vec![object["metadata"]["name"].clone()]
    }

    fn selectable_field(&self, object: &Value, path: &str) -> Option<String> {
        let mut value = object;
        for part in path.split('.') {
            value = &value[part];
        }
        Some(value.as_str().unwrap_or_default().to_owned())
    }

    fn openapi(&self, _: &str) -> Option<(String, Map<String, Value>)> {
        None
    }
}

/// The rows: group, version, kind, plural, namespaced, short name.
pub(crate) fn rows() -> Vec<Resource> {
    let kinds = [
        ("", "v1", "Namespace", "namespaces", false, "ns"),
        ("", "v1", "Pod", "pods", true, "po"),
        ("", "v1", "Service", "services", true, "svc"),
        ("", "v1", "ConfigMap", "configmaps", true, "cm"),
        ("", "v1", "Secret", "secrets", true, ""),
        ("", "v1", "ServiceAccount", "serviceaccounts", true, "sa"),
        ("", "v1", "Endpoints", "endpoints", true, "ep"),
        ("", "v1", "Event", "events", true, "ev"),
        ("", "v1", "Node", "nodes", false, "no"),
        ("apps", "v1", "Deployment", "deployments", true, "deploy"),
        ("apps", "v1", "ReplicaSet", "replicasets", true, "rs"),
        ("apps", "v1", "StatefulSet", "statefulsets", true, "sts"),
        ("apps", "v1", "DaemonSet", "daemonsets", true, "ds"),
        ("batch", "v1", "Job", "jobs", true, ""),
        (
            "discovery.k8s.io",
            "v1",
            "EndpointSlice",
            "endpointslices",
            true,
            "",
        ),
        ("coordination.k8s.io", "v1", "Lease", "leases", true, ""),
        (
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
            false,
            "crd",
        ),
        (
            "admissionregistration.k8s.io",
            "v1",
            "MutatingWebhookConfiguration",
            "mutatingwebhookconfigurations",
            false,
            "",
        ),
        (
            "admissionregistration.k8s.io",
            "v1",
            "ValidatingWebhookConfiguration",
            "validatingwebhookconfigurations",
            false,
            "",
        ),
    ];
    kinds
        .into_iter()
        .map(
            |(group, version, kind, plural, namespaced, short)| Resource {
                group: group.to_owned(),
                kind: kind.to_owned(),
                plural: plural.to_owned(),
                singular: kind.to_lowercase(),
                short_names: if short.is_empty() {
                    vec![]
                } else {
                    vec![short.to_owned()]
                },
                categories: vec![],
                namespaced,
                versions: vec![Version {
                    group: group.to_owned(),
                    name: version.to_owned(),
                    deprecation: None,
                }],
                storage_version: version.to_owned(),
                verbs: vec![
                    "create",
                    "delete",
                    "deletecollection",
                    "get",
                    "list",
                    "patch",
                    "update",
                    "watch",
                ],
                status_subresource: !matches!(
                    kind,
                    "ConfigMap"
                        | "Secret"
                        | "ServiceAccount"
                        | "Endpoints"
                        | "Event"
                        | "EndpointSlice"
                        | "Lease"
                ),
                scale: matches!(kind, "Deployment" | "ReplicaSet" | "StatefulSet").then(|| Scale {
                    spec_replicas: ".spec.replicas".to_owned(),
                    status_replicas: ".status.replicas".to_owned(),
                    label_selector: None,
                }),
                strategy: Arc::new(Permissive),
            },
        )
        .collect()
}
