//! A built-in kind as a [`Strategy`].

use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::read::{at, remove};
use super::table::Table;
use super::validate::Check;
use crate::field::FieldError;
use crate::schema::{self, Schema, definitions};
use crate::status::{Result, Status};
use crate::strategy::{Column, FieldValidation, ListType, Part, RequestInfo, Strategy};

/// How a value converts between a served and the stored version.
pub(super) type Convert = fn(&mut Value);

/// A path that a field selector can name, and how its value is read.
pub(super) type SelectableField = (&'static str, fn(&Value) -> String);

/// A version of a kind.
pub(super) struct Form {
    /// `group/version`, or the version alone for the core group.
    pub(super) api_version: String,
    /// Name of the definition, e.g. `io.k8s.api.apps.v1.Deployment`.
    pub(super) definition: String,
    /// To the stored version.
    pub(super) to_storage: Convert,
    /// From the stored version.
    pub(super) from_storage: Convert,
}

/// A built-in kind.
pub(super) struct Kind {
    /// Kind, e.g. `Deployment`.
    pub(super) name: &'static str,
    /// Served versions; the first is the stored one.
    pub(super) forms: Vec<Form>,
    /// Whether objects live in namespaces.
    pub(super) namespaced: bool,
    /// Whether `metadata.generation` counts changes of the wish.
    pub(super) generation: bool,
    /// Whether `status` is written through its own subresource.
    pub(super) status: bool,
    /// What is wrong with a name of this kind.
    pub(super) name_rule: fn(&str) -> Vec<String>,
    /// Fills defaults.
    pub(super) default: fn(&mut Value),
    /// What the server sets on a new object.
    pub(super) create: fn(&mut Value),
    /// What the server carries over on an update of the main part.
    pub(super) update: fn(&mut Value, &Value),
    /// Faults beyond those of metadata.
    pub(super) validate: fn(&Check<'_>) -> Vec<FieldError>,
    /// Columns and cells.
    pub(super) table: Table,
    /// Field selectors: path, and how the value is read.
    pub(super) fields: &'static [SelectableField],
}

impl Kind {
    fn form(&self, api_version: &str) -> &Form {
        self.forms
            .iter()
            .find(|form| form.api_version == api_version)
            .unwrap_or(&self.forms[0])
    }

    fn schema(&self, form: &Form) -> Result<&'static Schema> {
        definitions::definition(&form.definition)
            .ok_or_else(|| Status::internal(format!("no definition of {}", form.definition)))
    }

    /// The parts of an object that are its wish: what `generation` counts.
    fn wish(&self, object: &Value) -> Value {
        let mut wish = object.clone();
        for name in ["metadata", "status", "apiVersion", "kind"] {
            remove(&mut wish, name);
        }
        // A Deployment counts changes of its annotations too: controllers act on them.
        if self.name == "Deployment" {
            wish["annotations"] = at(object, "/metadata/annotations").clone();
        }
        wish
    }

    fn normalize(&self, object: &mut Value) {
        if let Ok(schema) = self.schema(&self.forms[0]) {
            schema::normalize(object, schema);
        }
    }
}

impl Strategy for Kind {
    fn decode(
        &self,
        object: &mut Value,
        info: RequestInfo<'_>,
        validation: FieldValidation,
    ) -> Result<Vec<String>> {
        let form = self.form(info.api_version);
        let version = form.api_version.rsplit('/').next().unwrap_or_default();
        let refused = |why: String| {
            let kind = self.name;
            Status::bad_request(format!(
                "{kind} in version {version:?} cannot be handled as a {kind}: {why}"
            ))
        };
        let unknown = schema::decode(object, self.schema(form)?, validation).map_err(refused)?;
        if validation == FieldValidation::Strict && !unknown.is_empty() {
            return Err(refused(format!(
                "strict decoding error: {}",
                unknown.join(", ")
            )));
        }
        Ok(unknown)
    }

    fn convert_to_storage(&self, object: &mut Value, info: RequestInfo<'_>) -> Result<()> {
        (self.form(info.api_version).to_storage)(object);
        object["apiVersion"] = json!(self.forms[0].api_version);
        Ok(())
    }

    fn convert_from_storage(&self, object: &mut Value, api_version: &str) -> Result<()> {
        (self.form(api_version).from_storage)(object);
        object["apiVersion"] = json!(api_version);
        Ok(())
    }

    fn default(&self, object: &mut Value) {
        (self.default)(object);
        self.normalize(object);
    }

    fn prepare_create(&self, object: &mut Value, _info: RequestInfo<'_>) {
        if self.status {
            remove(object, "status");
        }
        (self.create)(object);
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.shift_remove("generation");
            if self.generation {
                metadata.insert("generation".to_owned(), json!(1));
            }
        }
        self.normalize(object);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, info: RequestInfo<'_>) {
        match info.part {
            Part::Status => {
                let status = remove(object, "status").unwrap_or(Value::Null);
                let metadata = object["metadata"].take();
                let mut kept = old.clone();
                kept["metadata"] = metadata;
                kept["status"] = status;
                *object = kept;
            }
            Part::Main => {
                if self.status {
                    match old.get("status") {
                        Some(status) => object["status"] = status.clone(),
                        None => drop(remove(object, "status")),
                    }
                }
                (self.update)(object, old);
            }
        }
        self.normalize(object);
        let old_generation = at(old, "/metadata/generation").as_i64();
        let Some(metadata) = object["metadata"].as_object_mut() else {
            return;
        };
        metadata.shift_remove("generation");
        if self.generation {
            let generation = old_generation.unwrap_or(0).max(1);
            metadata.insert("generation".to_owned(), json!(generation));
            if info.part == Part::Main && self.wish(object) != self.wish(old) {
                object["metadata"]["generation"] = json!(generation.saturating_add(1));
            }
        }
    }

    fn validate(
        &self,
        object: &Value,
        old: Option<&Value>,
        info: RequestInfo<'_>,
    ) -> Vec<FieldError> {
        let check = Check { object, old };
        let mut errors = super::validate::identity(&check, self.namespaced, self.name_rule);
        if info.part == Part::Main {
            errors.extend((self.validate)(&check));
        }
        errors
    }

    fn columns(&self, _api_version: &str) -> Vec<Column> {
        self.table.columns(&self.forms[0].definition)
    }

    fn row(&self, object: &Value, _api_version: &str, now: &str) -> Vec<Value> {
        let now = schema::parse_time(now).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        (self.table.row)(object, now)
    }

    fn selectable_field(&self, object: &Value, path: &str) -> Option<String> {
        self.fields
            .iter()
            .find(|(name, _)| *name == path)
            .map(|(_, read)| read(object))
    }

    fn has_selectable_fields(&self) -> bool {
        !self.fields.is_empty()
    }

    fn strategic_merge(&self) -> bool {
        true
    }

    fn openapi(&self, api_version: &str) -> Option<(String, Map<String, Value>)> {
        let definition = &self.form(api_version).definition;
        Some((definition.to_owned(), definitions::documents(definition)))
    }

    fn list_type(&self, path: &[&str]) -> Option<ListType> {
        self.schema(&self.forms[0]).ok()?.list_type(path)
    }
}
