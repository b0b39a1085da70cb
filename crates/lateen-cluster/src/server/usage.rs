//! `metrics.k8s.io`: what pods and nodes use, asked of the node's agent at each request and never stored.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::body::Body;
use super::kubelet;
use super::query::Query;
use super::respond::encoded;
use super::review::{Unstored, UnstoredTable};
use super::route::{Call, allow, not_allowed};
use crate::clock;
use crate::resource::{Resource, Version};
use crate::schema::quantity::Quantity;
use crate::selector::LabelSelector;
use crate::status::{Result, Status};
use crate::store::Key;
use crate::strategy::Column;

/// Group of both resources.
const GROUP: &str = "metrics.k8s.io";

/// The agent's answer in its own form, see `lateen-node`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Usages {
    node: Option<NodeUsage>,
    pods: Vec<PodUsage>,
}

#[derive(Debug, Deserialize)]
struct NodeUsage {
    name: String,
    #[serde(flatten)]
    measured: Measured,
    #[serde(flatten)]
    amounts: Amounts,
}

#[derive(Debug, Deserialize)]
struct PodUsage {
    namespace: String,
    name: String,
    #[serde(flatten)]
    measured: Measured,
    containers: Vec<ContainerUsage>,
}

#[derive(Debug, Deserialize)]
struct ContainerUsage {
    name: String,
    #[serde(flatten)]
    amounts: Amounts,
}

/// When it was measured.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    timestamp: String,
    window_millis: u64,
}

/// Billionths of a processor, and bytes.
#[derive(Debug, Deserialize)]
struct Amounts {
    cpu: u64,
    memory: u64,
}

/// The rows of the resources that are answered here.
pub(crate) fn rows() -> Vec<Resource> {
    let row = |kind: &str, plural: &str, namespaced| Resource {
        group: GROUP.to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
        singular: String::new(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced,
        versions: vec![Version {
            group: GROUP.to_owned(),
            name: "v1beta1".to_owned(),
            deprecation: None,
        }],
        storage_version: "v1beta1".to_owned(),
        verbs: vec!["get", "list"],
        status_subresource: false,
        scale: None,
        strategy: Arc::new(Unstored {
            table: Some(UnstoredTable { columns, row }),
        }),
    };
    vec![
        row("NodeMetrics", "nodes", false),
        row("PodMetrics", "pods", true),
    ]
}

/// Whether a resource is answered here instead of being read from the store.
pub(super) fn is_usage(group: &str) -> bool {
    group == GROUP
}

/// Answers `get` and `list`.
pub(super) async fn answer(call: &Call<'_>, method: &Method) -> Result<Response<Body>> {
    if *method != Method::GET || call.query.flag("watch") {
        return Err(not_allowed());
    }
    let target = &call.target;
    let usages = ask(call).await?;
    let objects = if target.resource.namespaced {
        pods(call, usages.pods)
    } else {
        nodes(call, usages.node)
    };
    if !target.name.is_empty() {
        allow(target, "get")?;
        let object = objects.into_iter().next();
        let object = object.ok_or_else(|| target.not_found())?;
        return call.answer(200, &object);
    }
    allow(target, "list")?;
    let selected = selected(objects, &call.query)?;
    let shown = call.shape.list(target, json!({}), &selected)?;
    Ok(encoded(200, &shown, call.shape.accepted.yaml))
}

async fn ask(call: &Call<'_>) -> Result<Usages> {
    let bytes: Bytes = kubelet::read(&call.api.kubelet, "/stats/usage").await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Status::internal(format!("the node's metrics cannot be read: {error}")))
}

/// Metrics of the pods that the request is about. A pod that is gone from the store is left out.
fn pods(call: &Call<'_>, usages: Vec<PodUsage>) -> Vec<Value> {
    let target = &call.target;
    let concerns = |usage: &PodUsage| {
        (target.namespace.is_empty() || target.namespace == usage.namespace)
            && (target.name.is_empty() || target.name == usage.name)
    };
    let known: HashMap<(String, String), Arc<Value>> = {
        let namespace = (!target.namespace.is_empty()).then_some(target.namespace.as_str());
        let (objects, _) = call.api.store.list("pods", namespace, None);
        let key = |pod: &Value| {
            let text = |name: &str| super::meta(pod, name).to_owned();
            (text("namespace"), text("name"))
        };
        objects.into_iter().map(|pod| (key(&pod), pod)).collect()
    };
    let mut shown = Vec::new();
    for usage in usages.into_iter().filter(concerns) {
        let key = (usage.namespace, usage.name);
        let Some(pod) = known.get(&key) else { continue };
        let containers: Vec<Value> = usage
            .containers
            .iter()
            .map(|container| json!({"name": container.name, "usage": amounts(&container.amounts)}))
            .collect();
        let mut object = object(call, &key.1, &usage.measured);
        object["metadata"]["namespace"] = json!(key.0);
        object["metadata"]["labels"] = pod["metadata"]["labels"].clone();
        object["containers"] = json!(containers);
        shown.push(object);
    }
    shown.sort_by_key(|object| {
        let text = |name: &str| super::meta(object, name).to_owned();
        (text("namespace"), text("name"))
    });
    shown
}

fn nodes(call: &Call<'_>, usage: Option<NodeUsage>) -> Vec<Value> {
    let wanted = &call.target.name;
    let concerns = |usage: &NodeUsage| wanted.is_empty() || *wanted == usage.name;
    let Some(usage) = usage.filter(concerns) else {
        return Vec::new();
    };
    let key = Key {
        resource: "nodes".into(),
        namespace: String::new(),
        name: usage.name.clone(),
    };
    let Some(node) = call.api.store.get(&key) else {
        return Vec::new();
    };
    let mut object = object(call, &usage.name, &usage.measured);
    object["metadata"]["labels"] = node["metadata"]["labels"].clone();
    object["usage"] = amounts(&usage.amounts);
    vec![object]
}

fn object(call: &Call<'_>, name: &str, measured: &Measured) -> Value {
    let seconds = measured.window_millis as f64 / 1000.0;
    json!({
        "kind": call.target.resource.kind,
        "apiVersion": call.target.api_version(),
        "metadata": {"name": name, "creationTimestamp": clock::now()},
        "timestamp": measured.timestamp,
        "window": format!("{seconds}s"),
    })
}

fn amounts(amounts: &Amounts) -> Value {
    let mut usage = Map::new();
    usage.insert("cpu".to_owned(), json!(format!("{}n", amounts.cpu)));
    let kibibytes = amounts.memory / 1024;
    usage.insert("memory".to_owned(), json!(format!("{kibibytes}Ki")));
    Value::Object(usage)
}

fn selected(mut objects: Vec<Value>, query: &Query) -> Result<Vec<Arc<Value>>> {
    let labels = LabelSelector::parse(query.get("labelSelector").unwrap_or_default())?;
    objects.retain(|object| labels.matches(object));
    // kubectl names a single pod like this when it has its name.
    if let Some(name) = query
        .get("fieldSelector")
        .and_then(|text| text.strip_prefix("metadata.name="))
    {
        objects.retain(|object| super::meta(object, "name") == name);
    }
    Ok(objects.into_iter().map(Arc::new).collect())
}

fn columns() -> Vec<Column> {
    let column = |name: &str, description: &str| Column {
        name: name.to_owned(),
        type_: "string",
        format: if name == "Name" { "name" } else { "" },
        description: description.to_owned(),
        priority: 0,
    };
    vec![
        column("Name", "Name of the pod or node"),
        column("cpu", "Processor time in use"),
        column("memory", "Memory in use"),
        column("Window", "Time over which it was measured"),
    ]
}

fn row(object: &Value) -> Vec<Value> {
    let of = |usage: &Value, name: &str| {
        let text = usage[name].as_str().unwrap_or_default();
        Quantity::parse(text).map_or(0, Quantity::milli)
    };
    let containers = object["containers"].as_array();
    let usages: Vec<&Value> = match containers {
        Some(containers) => containers.iter().map(|one| &one["usage"]).collect(),
        None => vec![&object["usage"]],
    };
    let sum = |name: &str| usages.iter().map(|usage| of(usage, name)).sum::<i64>();
    vec![
        json!(super::meta(object, "name")),
        json!(Quantity::thousandths(sum("cpu")).canonical()),
        json!(format!("{}Ki", sum("memory") / 1000 / 1024)),
        object["window"].clone(),
    ]
}
