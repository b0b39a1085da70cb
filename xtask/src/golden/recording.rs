//! What the translation sends to a proxy, in the form of the recordings.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use lateen_mesh::{Proxy, resources};
use lateen_xds::{
    Names, ResourceType,
    json::{FieldNames, from_any},
    pb::{
        envoy::config::core::v3::Node,
        google::protobuf::{Struct, Value as Field, value::Kind},
    },
};
use regex::Regex;
use serde_json::{Map, Value, json};

use super::environment::{Environment, Pod};

/// Records what a proxy is sent. It says nothing about its extensions, as the recording client did.
pub(crate) fn record(
    environment: &Environment,
    namespace: &str,
    proxy: &str,
    revision: Option<&str>,
) -> Result<Value> {
    let pod = environment
        .pod(namespace, proxy, revision)
        .with_context(|| format!("no pod for {proxy}"))?;
    let node = node(
        pod,
        if proxy == "gateway" {
            "router"
        } else {
            "sidecar"
        },
    );
    let proxy = Proxy::from_node(&node)?;
    let fetch = |kind, names: &Names| -> Result<Vec<Value>> {
        let found = resources(&environment.index, &proxy, kind, names);
        found
            .iter()
            .map(|resource| {
                let mut json = from_any(&resource.body, FieldNames::Camel)
                    .with_context(|| resource.name.clone())?;
                if let Some(fields) = json.as_object_mut() {
                    fields.remove("@type");
                }
                Ok(json)
            })
            .collect()
    };
    let clusters = fetch(ResourceType::Cluster, &Names::All)?;
    let discovered = clusters
        .iter()
        .filter(|cluster| cluster["type"] == "EDS")
        .filter_map(|cluster| {
            cluster["edsClusterConfig"]["serviceName"]
                .as_str()
                .or_else(|| cluster["name"].as_str())
                .map(str::to_owned)
        });
    let endpoints = fetch(ResourceType::Endpoint, &discovered.collect())?;
    let listeners = fetch(ResourceType::Listener, &Names::All)?;
    let mut routes = BTreeSet::new();
    listeners
        .iter()
        .for_each(|listener| route_names(listener, &mut routes));
    let routes = fetch(ResourceType::Route, &Names::Only(routes))?;
    let dumped = [
        ("clusters", clusters),
        ("endpoints", endpoints),
        ("listeners", listeners),
        ("routes", routes),
    ];
    let mut result = Map::new();
    for (kind, resources) in dumped {
        let masked = resources
            .into_iter()
            .map(|resource| masked(resource, &environment.names));
        result.insert(
            kind.to_owned(),
            Value::Array(trimmed(kind, masked.collect())?),
        );
    }
    Ok(Value::Object(result))
}

fn node(pod: &Pod, kind: &str) -> Node {
    let text = |text: &str| Field {
        kind: Some(Kind::StringValue(text.to_owned())),
    };
    let labels = Struct {
        fields: pod
            .labels
            .iter()
            .map(|(key, value)| (key.clone(), text(value)))
            .collect(),
    };
    let metadata = [
        ("NAMESPACE", text(&pod.namespace)),
        ("CLUSTER_ID", text("Kubernetes")),
        ("ISTIO_VERSION", text("1.31.1")),
        (
            "LABELS",
            Field {
                kind: Some(Kind::StructValue(labels)),
            },
        ),
        ("SERVICE_ACCOUNT", text(&pod.service_account)),
    ];
    let (name, namespace) = (&pod.name, &pod.namespace);
    Node {
        id: format!(
            "{kind}~{}~{name}.{namespace}~{namespace}.svc.cluster.local",
            pod.address
        ),
        metadata: Some(Struct {
            fields: metadata
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        }),
        ..Node::default()
    }
}

fn route_names(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(name) = fields.get("routeConfigName").and_then(Value::as_str) {
                found.insert(name.to_owned());
            }
            fields.values().for_each(|inner| route_names(inner, found));
        }
        Value::Array(values) => values.iter().for_each(|inner| route_names(inner, found)),
        _ => {}
    }
}

/// Addresses replaced by what they stand for.
fn masked(value: Value, names: &BTreeMap<String, String>) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields
                .into_iter()
                .map(|(key, value)| (replaced(key, names), masked(value, names)));
            Value::Object(fields.collect())
        }
        Value::Array(values) => values
            .into_iter()
            .map(|value| masked(value, names))
            .collect(),
        Value::String(text) => Value::String(replaced(text, names)),
        other => other,
    }
}

fn replaced(mut text: String, names: &BTreeMap<String, String>) -> String {
    if text.contains("10.244.") {
        for (address, name) in names {
            text = text.replace(address, name);
        }
    }
    text
}

/// Without the system's own resources; endpoints and domains in a stable order.
fn trimmed(kind: &str, resources: Vec<Value>) -> Result<Vec<Value>> {
    let system =
        Regex::new(r"\.(istio-system|kube-system)\.svc\.cluster\.local|kubernetes\.default\.svc")?;
    let listener =
        Regex::new(r"vip:[a-z-]+\.(istio-system|kube-system)|vip:kubernetes\.default|_1501[0-4]$")?;
    let port = Regex::new(r"^1501[0-4]$")?;
    let mut kept = Vec::new();
    for mut resource in resources {
        let name = name_of(&resource).to_owned();
        let skipped = system.is_match(&name)
            || (kind == "routes" && port.is_match(&name))
            || (kind == "listeners" && listener.is_match(&name));
        if skipped {
            continue;
        }
        let localities = resource.get_mut("endpoints").and_then(Value::as_array_mut);
        for locality in localities
            .into_iter()
            .flatten()
            .filter(|_| kind == "endpoints")
        {
            if let Some(endpoints) = locality
                .get_mut("lbEndpoints")
                .and_then(Value::as_array_mut)
            {
                endpoints.sort_by_key(canonical);
            }
        }
        if kind == "routes" {
            let mut hosts: Vec<Value> = resource["virtualHosts"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            hosts.retain(|host| !system.is_match(name_of(host)));
            for domains in hosts
                .iter_mut()
                .filter_map(|host| host["domains"].as_array_mut())
            {
                domains.sort_by_key(canonical);
            }
            if hosts.is_empty() {
                continue;
            }
            resource["virtualHosts"] = json!(hosts);
        }
        kept.push(resource);
    }
    kept.sort_by(|a, b| name_of(a).cmp(name_of(b)));
    Ok(kept)
}

fn name_of(resource: &Value) -> &str {
    resource["name"]
        .as_str()
        .or_else(|| resource["clusterName"].as_str())
        .unwrap_or_default()
}

/// A text that sorts like the JSON text with sorted keys.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let sorted: BTreeMap<&String, String> = fields
                .iter()
                .map(|(key, value)| (key, canonical(value)))
                .collect();
            let fields: Vec<String> = sorted
                .iter()
                .map(|(key, value)| format!("{key:?}: {value}"))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        Value::Array(values) => {
            format!(
                "[{}]",
                values.iter().map(canonical).collect::<Vec<_>>().join(", ")
            )
        }
        other => other.to_string(),
    }
}
