//! The strategy of CustomResourceDefinitions themselves.
//!
//! [`spec`] checks what a definition says about itself, [`version`] what its versions say; [`structural`] and
//! [`keywords`] check the schemas. All messages are those of Kubernetes' `apiextensions-apiserver`.

mod keywords;
mod spec;
mod structural;
mod version;

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::field::FieldError;
use crate::resource::{Resource, Version};
use crate::schema::{self, definitions};
use crate::status::{Result, Status};
use crate::strategy::{Column, FieldValidation, Part, RequestInfo, Strategy};

/// API group of definitions.
pub const GROUP: &str = "apiextensions.k8s.io";
/// Plural name of definitions.
pub const PLURAL: &str = "customresourcedefinitions";
/// Holds back the removal of a definition until its instances are gone.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

const KIND: &str = "CustomResourceDefinition";
const TYPE: &str =
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition";

/// The row of the table that serves definitions.
pub fn resource() -> Resource {
    Resource {
        group: GROUP.to_owned(),
        kind: KIND.to_owned(),
        plural: PLURAL.to_owned(),
        singular: "customresourcedefinition".to_owned(),
        short_names: vec!["crd".to_owned(), "crds".to_owned()],
        categories: vec!["api-extensions".to_owned()],
        namespaced: false,
        versions: vec![Version {
            group: GROUP.to_owned(),
            name: "v1".to_owned(),
            deprecation: None,
        }],
        storage_version: "v1".to_owned(),
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
        status_subresource: true,
        scale: None,
        strategy: Arc::new(Definition),
    }
}

struct Definition;

impl Strategy for Definition {
    fn decode(
        &self,
        object: &mut Value,
        info: RequestInfo<'_>,
        validation: FieldValidation,
    ) -> Result<Vec<String>> {
        let cannot = |fault: &str| {
            let version = info.api_version.rsplit('/').next().unwrap_or_default();
            Status::bad_request(format!(
                "{KIND} in version {version:?} cannot be handled as a {KIND}: {fault}"
            ))
        };
        let type_ = definitions::definition(TYPE)
            .ok_or_else(|| Status::internal(format!("{TYPE} is not in the table of types")))?;
        let unknown = schema::decode(object, type_, validation).map_err(|fault| cannot(&fault))?;
        if validation == FieldValidation::Strict && !unknown.is_empty() {
            return Err(cannot(&format!(
                "strict decoding error: {}",
                unknown.join(", ")
            )));
        }
        Ok(unknown)
    }

    fn default(&self, object: &mut Value) {
        let spec = &mut object["spec"];
        let kind = spec["names"]["kind"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if spec["names"].is_object() && !kind.is_empty() {
            for (name, value) in [
                ("singular", kind.to_lowercase()),
                ("listKind", format!("{kind}List")),
            ] {
                if spec["names"][name].as_str().unwrap_or_default().is_empty() {
                    spec["names"][name] = json!(value);
                }
            }
        }
        if spec.is_object() && spec["conversion"].is_null() {
            spec["conversion"] = json!({"strategy": "None"});
        }
        if let Some(type_) = definitions::definition(TYPE) {
            schema::normalize(object, type_);
        }
    }

    fn prepare_create(&self, object: &mut Value, _info: RequestInfo<'_>) {
        object["metadata"]["generation"] = json!(1);
        object["status"] = json!({
            "acceptedNames": {"plural": "", "kind": ""},
            "conditions": [],
            "storedVersions": [],
        });
        add_stored_version(object);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, info: RequestInfo<'_>) {
        if info.part == Part::Status {
            object["spec"] = old["spec"].clone();
            return;
        }
        object["status"] = old["status"].clone();
        let before = old["metadata"]["generation"].as_i64().unwrap_or(1);
        let changed = object["spec"] != old["spec"];
        object["metadata"]["generation"] = json!(before + i64::from(changed));
        add_stored_version(object);
    }

    fn validate(
        &self,
        object: &Value,
        old: Option<&Value>,
        info: RequestInfo<'_>,
    ) -> Vec<FieldError> {
        match info.part {
            Part::Main => spec::check(object, old),
            Part::Status => Vec::new(),
        }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        version::warnings(object)
    }

    fn columns(&self, _api_version: &str) -> Vec<Column> {
        let column = |name: &str, format: &'static str, description: &str| Column {
            name: name.to_owned(),
            type_: "string",
            format,
            description: description.to_owned(),
            priority: 0,
        };
        vec![
            column("Name", "name", super::columns::NAME),
            column("Created At", "", super::columns::AGE),
        ]
    }

    fn row(&self, object: &Value, _api_version: &str, _now: &str) -> Vec<Value> {
        let metadata = &object["metadata"];
        vec![
            metadata["name"].clone(),
            metadata["creationTimestamp"].clone(),
        ]
    }

    fn deletion_finalizers(&self) -> &'static [&'static str] {
        &[FINALIZER]
    }

    fn openapi(&self, _api_version: &str) -> Option<(String, Map<String, Value>)> {
        Some((TYPE.to_owned(), definitions::documents(TYPE)))
    }
}

/// Notes the storage version among those that objects may be stored in.
fn add_stored_version(object: &mut Value) {
    let versions = object["spec"]["versions"].as_array();
    let storage = versions
        .into_iter()
        .flatten()
        .find(|version| version["storage"] == true)
        .map(|version| version["name"].clone());
    let (Some(storage), Some(stored)) =
        (storage, object["status"]["storedVersions"].as_array_mut())
    else {
        return;
    };
    if !stored.contains(&storage) {
        stored.push(storage);
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests;
