//! The definitions of built-in kinds, from the committed tables `data/kubernetes-types.gz` (structure) and
//! `data/kubernetes-openapi.gz` (documents with descriptions).
//!
//! Both are made by `tools/kubernetes-schema`. They are unpacked on first use (200 kB and 500 kB), and each definition
//! is parsed when it is first asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::ops::Range;
use std::sync::{LazyLock, OnceLock};

use serde_json::{Map, Value};

use super::node::{Format, Schema, Type};

static TYPES: LazyLock<Lines> =
    LazyLock::new(|| Lines::unpack(include_bytes!("../../data/kubernetes-types.gz")));

static DOCUMENTS: LazyLock<Lines> =
    LazyLock::new(|| Lines::unpack(include_bytes!("../../data/kubernetes-openapi.gz")));

static COMPILED: LazyLock<BTreeMap<&'static str, OnceLock<Option<Schema>>>> = LazyLock::new(|| {
    TYPES
        .places
        .keys()
        .map(|name| (name.as_str(), OnceLock::new()))
        .collect()
});

/// The structure of a built-in type, e.g. `io.k8s.api.core.v1.Container`; `None` for a name that is not in the table.
pub fn definition(name: &str) -> Option<&'static Schema> {
    let (name, cell) = COMPILED.get_key_value(name)?;
    cell.get_or_init(|| {
        let document: Value = serde_json::from_str(TYPES.find(name)?).ok()?;
        let mut schema = Schema::compile(&document);
        special(name, &mut schema);
        Some(schema)
    })
    .as_ref()
}

/// The OpenAPI documents of `root` and of every definition that it needs, by name.
pub fn documents(root: &str) -> Map<String, Value> {
    let mut found = Map::new();
    let mut seen = BTreeSet::new();
    let mut wanted = vec![root.to_owned()];
    while let Some(name) = wanted.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let Some(document) = document(&name) else {
            continue;
        };
        references(&document, &mut wanted);
        found.insert(name, document);
    }
    found
}

/// The description of a field, by the path from a definition; empty when there is none.
pub fn description(root: &str, path: &[&str]) -> String {
    let mut name = root.to_owned();
    let mut text = String::new();
    for (index, field) in path.iter().enumerate() {
        let Some(document) = document(&name) else {
            break;
        };
        let property = &document["properties"][*field];
        if index + 1 == path.len() {
            text = property["description"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
        }
        let mut wanted = Vec::new();
        references(property, &mut wanted);
        let Some(next) = wanted.pop() else { break };
        name = next;
    }
    text
}

/// Documents describe the kinds of Kubernetes' present groups; for types of legacy groups the structure is shown.
fn document(name: &str) -> Option<Value> {
    let text = DOCUMENTS.find(name).or_else(|| TYPES.find(name))?;
    let mut document: Value = serde_json::from_str(text).ok()?;
    without_private_members(&mut document);
    Some(document)
}

fn without_private_members(document: &mut Value) {
    match document {
        Value::Object(members) => {
            members.retain(|name, _| {
                !matches!(
                    name.as_str(),
                    "x-go"
                        | "x-go-type"
                        | "x-always"
                        | "x-pointer"
                        | "x-protobuf"
                        | "x-protobuf-inline"
                )
            });
            members.values_mut().for_each(without_private_members);
        }
        Value::Array(items) => items.iter_mut().for_each(without_private_members),
        _ => {}
    }
}

fn references(document: &Value, wanted: &mut Vec<String>) {
    match document {
        Value::Object(members) => {
            for (name, member) in members {
                match member
                    .as_str()
                    .and_then(|text| text.strip_prefix("#/components/schemas/"))
                {
                    Some(target) if name == "$ref" => wanted.push(target.to_owned()),
                    _ => references(member, wanted),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, wanted)),
        _ => {}
    }
}

/// Types whose JSON form their Go fields do not show.
fn special(name: &str, schema: &mut Schema) {
    let (type_, format) = match name {
        "io.k8s.apimachinery.pkg.apis.meta.v1.Time" => (Some(Type::String), Format::Time),
        "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime" => (Some(Type::String), Format::MicroTime),
        "io.k8s.apimachinery.pkg.api.resource.Quantity" => (Some(Type::String), Format::Quantity),
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => {
            (Some(Type::IntOrString), Format::None)
        }
        "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1"
        | "io.k8s.apimachinery.pkg.runtime.RawExtension"
        | "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON"
        | "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray"
        | "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool"
        | "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray" => {
            (None, Format::Raw)
        }
        _ => return,
    };
    schema.type_ = type_;
    schema.format = format;
}

/// A table of `name TAB json` lines.
struct Lines {
    text: String,
    /// Where the JSON of each name stands in the text.
    places: BTreeMap<String, Range<usize>>,
}

impl Lines {
    fn unpack(packed: &[u8]) -> Self {
        let mut text = String::new();
        // The table is part of the program: a broken one shows in the first test, not at a user's.
        let read = flate2::read::GzDecoder::new(packed).read_to_string(&mut text);
        debug_assert!(read.is_ok(), "committed table cannot be unpacked");
        let mut places = BTreeMap::new();
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            if let Some((name, json)) = line.split_once('\t') {
                let from = start + name.len() + 1;
                places.insert(name.to_owned(), from..from + json.len());
            }
            start += line.len();
        }
        Self { text, places }
    }

    fn find(&self, name: &str) -> Option<&str> {
        self.text.get(self.places.get(name)?.clone())
    }
}
