//! Deployments, ReplicaSets, StatefulSets and their revisions.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{AGE, ColumnSpec, NAME, Table, age, field_column, name, text_column, wide};
use crate::builtin::read::{at, int, list, members, text};

const CONTAINERS: ColumnSpec = wide(text_column(
    "Containers",
    "string",
    "Names of each container in the template.",
));
const IMAGES: ColumnSpec = wide(text_column(
    "Images",
    "string",
    "Images referenced by each container in the template.",
));
const SELECTOR: ColumnSpec = wide(field_column("Selector", "string", &["spec", "selector"]));

pub(in crate::builtin) const DEPLOYMENT: Table = Table {
    columns: &[
        NAME,
        text_column("Ready", "string", "Number of the pod with ready state"),
        field_column("Up-to-date", "string", &["status", "updatedReplicas"]),
        field_column("Available", "string", &["status", "availableReplicas"]),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    row: |deployment, now| {
        selecting_row(deployment, now, |cells| {
            cells.push(ready(deployment));
            cells.push(json!(int(deployment, "/status/updatedReplicas")));
            cells.push(json!(int(deployment, "/status/availableReplicas")));
        })
    },
};

pub(in crate::builtin) const REPLICA_SET: Table = Table {
    columns: &[
        NAME,
        field_column("Desired", "integer", &["spec", "replicas"]),
        field_column("Current", "integer", &["status", "replicas"]),
        field_column("Ready", "integer", &["status", "readyReplicas"]),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    row: |set, now| {
        selecting_row(set, now, |cells| {
            cells.push(json!(int(set, "/spec/replicas")));
            cells.push(json!(int(set, "/status/replicas")));
            cells.push(json!(int(set, "/status/readyReplicas")));
        })
    },
};

pub(in crate::builtin) const STATEFUL_SET: Table = Table {
    columns: &[
        NAME,
        text_column("Ready", "string", "Number of the pod with ready state"),
        AGE,
        CONTAINERS,
        IMAGES,
    ],
    row: |set, now| row(set, now, |cells| cells.push(ready(set))),
};

pub(in crate::builtin) const CONTROLLER_REVISION: Table = Table {
    columns: &[
        NAME,
        text_column("Controller", "string", "Controller of the object"),
        field_column("Revision", "string", &["revision"]),
        AGE,
    ],
    row: |revision, now| {
        vec![
            name(revision),
            json!(controller(revision)),
            json!(int(revision, "/revision")),
            age(revision, now),
        ]
    },
};

/// How many pods are ready of those that are wished for.
fn ready(object: &Value) -> Value {
    json!(format!(
        "{}/{}",
        int(object, "/status/readyReplicas"),
        int(object, "/spec/replicas")
    ))
}

/// The controller of an object in the form `statefulset.apps/web`.
fn controller(object: &Value) -> String {
    let references = list(object, "/metadata/ownerReferences");
    let Some(owner) = references.iter().find(|owner| owner["controller"] == true) else {
        return "<none>".to_owned();
    };
    let kind = text(owner, "/kind").to_lowercase();
    let name = text(owner, "/name");
    match text(owner, "/apiVersion").split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{name}"),
        None => format!("{kind}/{name}"),
    }
}

/// A row of a kind that shows its selector too.
fn selecting_row(
    object: &Value,
    now: OffsetDateTime,
    counts: impl FnOnce(&mut Vec<Value>),
) -> Vec<Value> {
    let mut cells = row(object, now, counts);
    cells.push(json!(format_selector(at(object, "/spec/selector"))));
    cells
}

fn row(object: &Value, now: OffsetDateTime, counts: impl FnOnce(&mut Vec<Value>)) -> Vec<Value> {
    let mut cells = vec![name(object)];
    counts(&mut cells);
    let containers = list(object, "/spec/template/spec/containers");
    let joined = |field: &str| {
        let texts: Vec<&str> = containers
            .iter()
            .map(|container| text(container, field))
            .collect();
        texts.join(",")
    };
    cells.push(age(object, now));
    cells.push(json!(joined("/name")));
    cells.push(json!(joined("/image")));
    cells
}

/// A label selector as one text: `app=web,tier in (a,b),!old`.
pub(in crate::builtin) fn format_selector(selector: &Value) -> String {
    let mut parts: Vec<(String, String)> = members(selector, "/matchLabels")
        .map(|(key, value)| {
            (
                key.clone(),
                format!("{key}={}", value.as_str().unwrap_or_default()),
            )
        })
        .collect();
    for expression in list(selector, "/matchExpressions") {
        let key = text(expression, "/key");
        let mut values: Vec<&str> = list(expression, "/values")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        values.sort_unstable();
        let values = values.join(",");
        let part = match text(expression, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        };
        parts.push((key.to_owned(), part));
    }
    parts.sort();
    let texts: Vec<String> = parts.into_iter().map(|(_, part)| part).collect();
    if texts.is_empty() {
        "<none>".to_owned()
    } else {
        texts.join(",")
    }
}
