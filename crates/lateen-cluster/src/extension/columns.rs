//! The table form of custom resources.

use serde_json::{Value, json};

use crate::builtin::human_duration;
use crate::schema;
use crate::strategy::Column;

use super::path::Path;

pub(crate) const NAME: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
pub(crate) const AGE: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// The columns of one version, ready to print.
#[derive(Debug)]
pub(crate) struct Columns {
    columns: Vec<(Column, Option<Path>)>,
}

impl Columns {
    /// Reads `additionalPrinterColumns`. Without any there is the age.
    pub(crate) fn parse(source: &Value) -> Self {
        let age = json!([{
            "name": "Age",
            "type": "date",
            "description": AGE,
            "jsonPath": ".metadata.creationTimestamp",
        }]);
        let listed = match source.as_array() {
            Some(columns) if !columns.is_empty() => columns,
            _ => age
                .as_array()
                .into_iter()
                .next()
                .map(|columns| columns as &Vec<Value>)
                .unwrap_or(const { &Vec::new() }),
        };
        Self {
            columns: listed.iter().map(column).collect(),
        }
    }

    /// Headings, the name first.
    pub(crate) fn headings(&self) -> Vec<Column> {
        let name = Column {
            name: "Name".to_owned(),
            type_: "string",
            format: "name",
            description: NAME.to_owned(),
            priority: 0,
        };
        std::iter::once(name)
            .chain(self.columns.iter().map(|(column, _)| column.clone()))
            .collect()
    }

    /// The cells of `object`; `now` is in RFC 3339 form.
    pub(crate) fn row(&self, object: &Value, now: &str) -> Vec<Value> {
        let cells = self.columns.iter().map(|(column, path)| {
            let value = path.as_ref().and_then(|path| path.first(object));
            value.map_or(Value::Null, |value| cell(column.type_, value, now))
        });
        std::iter::once(object["metadata"]["name"].clone())
            .chain(cells)
            .collect()
    }
}

fn column(source: &Value) -> (Column, Option<Path>) {
    let text = |key: &str| source[key].as_str().unwrap_or_default();
    let path = text("jsonPath");
    let description = match text("description") {
        "" => format!("Custom resource definition column (in JSONPath format): {path}"),
        given => given.to_owned(),
    };
    let column = Column {
        name: text("name").to_owned(),
        type_: match text("type") {
            "integer" => "integer",
            "number" => "number",
            "boolean" => "boolean",
            "date" => "date",
            _ => "string",
        },
        format: match text("format") {
            "int32" => "int32",
            "int64" => "int64",
            "float" => "float",
            "double" => "double",
            "byte" => "byte",
            "date" => "date",
            "date-time" => "date-time",
            "password" => "password",
            _ => "",
        },
        description,
        priority: source["priority"]
            .as_i64()
            .and_then(|wide| i32::try_from(wide).ok())
            .unwrap_or(0),
    };
    (column, Path::parse(path))
}

/// A value that does not fit the column's type is left empty.
fn cell(type_: &str, value: &Value, now: &str) -> Value {
    match (type_, value) {
        ("string", Value::Null) => Value::Null,
        ("string", Value::String(_)) => value.clone(),
        ("string", other) => Value::String(other.to_string()),
        ("integer", Value::Number(number)) => match number.as_i64() {
            Some(whole) => json!(whole),
            None => json!(number.as_f64().unwrap_or_default() as i64),
        },
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
        ("date", Value::String(text)) => Value::String(age(text, now)),
        _ => Value::Null,
    }
}

/// The time from `since` to `now` as kubectl shows it.
fn age(since: &str, now: &str) -> String {
    match (schema::parse_time(since), schema::parse_time(now)) {
        (Some(since), Some(now)) => human_duration(now - since),
        _ => "<invalid>".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_follow_the_type_of_their_column() {
        let columns = Columns::parse(&json!([
            {"name": "Hosts", "type": "string", "jsonPath": ".spec.hosts"},
            {"name": "Crew", "type": "integer", "jsonPath": ".spec.crew"},
            {"name": "Wrong", "type": "integer", "jsonPath": ".spec.hosts"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ]));
        let object = json!({
            "metadata": {"name": "one", "creationTimestamp": "2026-11-21T11:00:00Z"},
            "spec": {"hosts": ["a"], "crew": 2},
        });
        let row = columns.row(&object, "2026-11-21T12:00:00Z");
        assert_eq!(
            row,
            [
                json!("one"),
                json!("[\"a\"]"),
                json!(2),
                Value::Null,
                json!("60m")
            ]
        );
    }
}
