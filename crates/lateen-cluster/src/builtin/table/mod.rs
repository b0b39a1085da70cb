//! What `kubectl get` prints: columns and cells as the printers of Kubernetes make them.

mod age;
mod cluster;
mod network;
mod pods;
mod scaling;
mod workloads;

use serde_json::{Value, json};
use time::OffsetDateTime;

pub use age::human_duration;
pub(super) use age::{age, since};
pub(super) use cluster::{
    ACCOUNT, BINDING, CONFIG_MAP, EVENT, LEASE, NAMESPACE, NODE, PLAIN, POLICY, POLICY_BINDING,
    PRIORITY_CLASS, SECRET, WEBHOOKS,
};
pub(super) use network::{ENDPOINT_SLICE, ENDPOINTS, SERVICE};
pub(super) use pods::POD;
pub(super) use scaling::{AUTOSCALER, DISRUPTION_BUDGET};
pub(super) use workloads::{CONTROLLER_REVISION, DEPLOYMENT, REPLICA_SET, STATEFUL_SET};

use super::read::text;
use crate::schema::definitions;
use crate::strategy::Column;

/// Columns of a kind, and the function that fills a row.
pub(super) struct Table {
    pub(super) columns: &'static [ColumnSpec],
    /// As many cells as columns; the time is now.
    pub(super) row: fn(&Value, OffsetDateTime) -> Vec<Value>,
}

/// A column as the table of a kind says it.
pub(super) struct ColumnSpec {
    name: &'static str,
    type_: &'static str,
    description: Description,
    priority: i32,
}

/// Where the description of a column comes from.
#[derive(Clone, Copy)]
enum Description {
    Text(&'static str),
    /// Fields from the kind on, e.g. `["spec", "type"]`.
    Field(&'static [&'static str]),
}

/// A column that describes itself.
const fn text_column(
    name: &'static str,
    type_: &'static str,
    description: &'static str,
) -> ColumnSpec {
    ColumnSpec {
        name,
        type_,
        description: Description::Text(description),
        priority: 0,
    }
}

/// A column that shows a field and has its description.
const fn field_column(
    name: &'static str,
    type_: &'static str,
    field: &'static [&'static str],
) -> ColumnSpec {
    ColumnSpec {
        name,
        type_,
        description: Description::Field(field),
        priority: 0,
    }
}

/// The same column, shown only with `-o wide`.
const fn wide(column: ColumnSpec) -> ColumnSpec {
    ColumnSpec {
        priority: 1,
        name: column.name,
        type_: column.type_,
        description: column.description,
    }
}

const NAME: ColumnSpec = field_column("Name", "string", &["metadata", "name"]);
const AGE: ColumnSpec = field_column("Age", "string", &["metadata", "creationTimestamp"]);

impl Table {
    /// The columns with their descriptions, for a kind of the definition of that name.
    pub(super) fn columns(&self, definition: &str) -> Vec<Column> {
        self.columns
            .iter()
            .map(|column| Column {
                name: column.name.to_owned(),
                type_: column.type_,
                format: if column.name == "Name" { "name" } else { "" },
                description: match column.description {
                    Description::Text(text) => text.to_owned(),
                    Description::Field(path) => definitions::description(definition, path),
                },
                priority: column.priority,
            })
            .collect()
    }
}

/// The name of an object.
fn name(object: &Value) -> Value {
    json!(text(object, "/metadata/name"))
}

/// Text, or `<none>`.
fn or_none(text: &str) -> &str {
    if text.is_empty() { "<none>" } else { text }
}

/// The first few of many, joined; `empty` stands for none.
fn some_of(items: &[String], most: usize, empty: &str) -> String {
    let shown = items
        .get(..most.min(items.len()))
        .unwrap_or_default()
        .join(",");
    if items.len() > most {
        format!("{shown} + {} more...", items.len() - most)
    } else if shown.is_empty() {
        empty.to_owned()
    } else {
        shown
    }
}
