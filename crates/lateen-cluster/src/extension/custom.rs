//! The strategy of a custom resource, made from its CustomResourceDefinition.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::builtin::dns_subdomain;
use crate::field::{FieldError, FieldErrorKind};
use crate::resource::{Resource, Scale, Version};
use crate::status::{Result, Status};
use crate::strategy::{Column, FieldValidation, ListType, Part, RequestInfo, Strategy};

use super::check::{self, NO_FIELD};
use super::columns::Columns;
use super::path::Path;
use super::schema::{ListKind, Schema};
use super::{defaults, embedded, list, openapi, prune, rule};

/// Verbs of custom resources, in the order in which Kubernetes lists them.
const VERBS: [&str; 8] = [
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "create",
    "update",
    "watch",
];

/// Makes the row of the table for an accepted definition: its names are those in `status.acceptedNames`.
pub fn resource(definition: &Value) -> Resource {
    let spec = &definition["spec"];
    let group = text(&spec["group"]);
    let names = &definition["status"]["acceptedNames"];
    let listed = spec["versions"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let kind = text(&names["kind"]);
    let mut served: Vec<&Value> = listed
        .iter()
        .filter(|version| version["served"] == true)
        .collect();
    served.sort_by_cached_key(|version| priority(version["name"].as_str().unwrap_or_default()));
    let storage = listed.iter().find(|version| version["storage"] == true);
    let subresources = |key: &str| {
        listed
            .iter()
            .map(|version| &version["subresources"][key])
            .find(|found| !found.is_null())
    };
    Resource {
        kind: kind.clone(),
        plural: text(&names["plural"]),
        singular: text(&names["singular"]),
        short_names: texts(&names["shortNames"]),
        categories: texts(&names["categories"]),
        namespaced: spec["scope"] == "Namespaced",
        versions: served
            .iter()
            .map(|version| Version {
                group: group.clone(),
                name: text(&version["name"]),
                deprecation: deprecation(version, &group, &kind),
            })
            .collect(),
        storage_version: storage
            .map(|version| text(&version["name"]))
            .unwrap_or_default(),
        verbs: VERBS.to_vec(),
        status_subresource: subresources("status").is_some(),
        scale: subresources("scale").map(|scale| Scale {
            spec_replicas: text(&scale["specReplicasPath"]),
            status_replicas: text(&scale["statusReplicasPath"]),
            label_selector: scale["labelSelectorPath"]
                .as_str()
                .filter(|path| !path.is_empty())
                .map(str::to_owned),
        }),
        strategy: Arc::new(Custom {
            kind,
            list_kind: text(&names["listKind"]),
            group: group.clone(),
            storage: format!(
                "{group}/{}",
                storage
                    .map(|version| text(&version["name"]))
                    .unwrap_or_default()
            ),
            scale: subresources("scale").cloned(),
            versions: listed
                .iter()
                .map(|version| {
                    (
                        format!("{group}/{}", text(&version["name"])),
                        Served::new(version),
                    )
                })
                .collect(),
        }),
        group,
    }
}

fn deprecation(version: &Value, group: &str, kind: &str) -> Option<String> {
    if version["deprecated"] != true {
        return None;
    }
    let own = version["deprecationWarning"].as_str().map(str::to_owned);
    Some(own.unwrap_or_else(|| format!("{group}/{} {kind} is deprecated", text(&version["name"]))))
}

/// What one version needs.
struct Served {
    schema: Schema,
    /// The schema as it stands in the definition, for documents.
    source: Value,
    columns: Columns,
    /// Selectable fields without the first dot, and where they are.
    selectable: Vec<(String, Option<Path>)>,
    status_subresource: bool,
}

impl Served {
    fn new(version: &Value) -> Self {
        let source = version["schema"]["openAPIV3Schema"].clone();
        let fields = version["selectableFields"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        Self {
            schema: Schema::parse(&source),
            source,
            columns: Columns::parse(&version["additionalPrinterColumns"]),
            selectable: fields
                .iter()
                .filter_map(|field| field["jsonPath"].as_str())
                .map(|path| (path.trim_start_matches('.').to_owned(), Path::parse(path)))
                .collect(),
            status_subresource: !version["subresources"]["status"].is_null(),
        }
    }
}

/// The strategy of one custom resource.
struct Custom {
    kind: String,
    list_kind: String,
    group: String,
    /// `group/version` that objects are stored in.
    storage: String,
    scale: Option<Value>,
    /// By `group/version`; unserved versions too, because objects may be stored in them.
    versions: BTreeMap<String, Served>,
}

impl Custom {
    fn version(&self, api_version: &str) -> Option<&Served> {
        self.versions.get(api_version)
    }

    /// The version that `object` says it has.
    fn version_of(&self, object: &Value) -> Option<&Served> {
        self.version(object["apiVersion"].as_str()?)
    }
}

impl Strategy for Custom {
    fn decode(
        &self,
        object: &mut Value,
        info: RequestInfo<'_>,
        validation: FieldValidation,
    ) -> Result<Vec<String>> {
        let version = self.version(info.api_version).ok_or_else(|| {
            Status::bad_request(format!(
                "{} is not served in {}",
                self.kind, info.api_version
            ))
        })?;
        let mut unknown = super::metadata::decode(object)?;
        unknown.extend(prune::unknown(&version.schema, object));
        unknown.extend(embedded::decode(&version.schema, object)?);
        prune::nulls(&version.schema, object);
        defaults::fill(&version.schema, object);
        let faults: Vec<String> = unknown
            .iter()
            .map(|path| format!("unknown field {path:?}"))
            .collect();
        match validation {
            FieldValidation::Ignore => Ok(Vec::new()),
            FieldValidation::Warn => Ok(faults),
            FieldValidation::Strict if faults.is_empty() => Ok(Vec::new()),
            FieldValidation::Strict => {
                let (kind, short) = (
                    &self.kind,
                    info.api_version.rsplit('/').next().unwrap_or_default(),
                );
                Err(Status::bad_request(format!(
                    "{kind} in version {short:?} cannot be handled as a {kind}: strict decoding error: {}",
                    faults.join(", ")
                )))
            }
        }
    }

    fn convert_to_storage(&self, object: &mut Value, _info: RequestInfo<'_>) -> Result<()> {
        // Versions differ in their schema only: there is no conversion but this.
        object["apiVersion"] = json!(self.storage);
        Ok(())
    }

    fn convert_from_storage(&self, object: &mut Value, api_version: &str) -> Result<()> {
        let same = object["apiVersion"] == api_version;
        object["apiVersion"] = json!(api_version);
        if let (false, Some(version)) = (same, self.version(api_version)) {
            prune::unknown(&version.schema, object);
            defaults::fill(&version.schema, object);
        }
        Ok(())
    }

    fn default(&self, object: &mut Value) {
        if let Some(version) = self.version_of(object) {
            prune::nulls(&version.schema, object);
            defaults::fill(&version.schema, object);
        }
    }

    fn prepare_create(&self, object: &mut Value, info: RequestInfo<'_>) {
        if self
            .version(info.api_version)
            .is_some_and(|version| version.status_subresource)
        {
            remove(object, "status");
        }
        object["metadata"]["generation"] = json!(1);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, info: RequestInfo<'_>) {
        match info.part {
            Part::Status => keep_all_but_status(object, old),
            Part::Main => {
                if self
                    .version(info.api_version)
                    .is_some_and(|version| version.status_subresource)
                {
                    match old.get("status") {
                        Some(status) => object["status"] = status.clone(),
                        None => remove(object, "status"),
                    }
                }
                let before = old["metadata"]["generation"].as_i64().unwrap_or(1);
                let changed = !same_but_metadata(object, old);
                object["metadata"]["generation"] = json!(before + i64::from(changed));
            }
        }
    }

    fn validate(
        &self,
        object: &Value,
        old: Option<&Value>,
        info: RequestInfo<'_>,
    ) -> Vec<FieldError> {
        let Some(version) = self
            .version(info.api_version)
            .or_else(|| self.version_of(object))
        else {
            return Vec::new();
        };
        let schema = &version.schema;
        let mut errors = Vec::new();
        if old.is_none() {
            let given = text(&object["metadata"]["name"]);
            for fault in dns_subdomain(&given) {
                errors.push(FieldError::invalid("metadata.name", json!(given), fault));
            }
        }
        errors.extend(match info.part {
            Part::Main => check::check(schema, object, old, ""),
            Part::Status => match (object.get("status"), schema.properties.get("status")) {
                (Some(status), Some(below)) => check::check(
                    below,
                    status,
                    old.and_then(|old| old.get("status")),
                    "status",
                ),
                _ => Vec::new(),
            },
        });
        if let Some(scale) = &self.scale {
            super::scale::check(scale, object, info.part, &mut errors);
        }
        if info.part == Part::Main {
            errors.extend(embedded::check(schema, object));
        }
        // Repeated items that were there before do not block an update.
        if old.is_none_or(|old| list::repeated(schema, old, "").is_empty()) {
            errors.extend(list::repeated(schema, object, ""));
        }
        if schema.has_rules {
            if errors.iter().any(blocks_rules) {
                errors.push(FieldError::invalid(
                    NO_FIELD,
                    Value::Null,
                    "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
                ));
            } else {
                errors.extend(rule::broken(schema, object, old, ""));
            }
        }
        errors
    }

    fn columns(&self, api_version: &str) -> Vec<Column> {
        self.version(api_version)
            .map(|version| version.columns.headings())
            .unwrap_or_default()
    }

    fn row(&self, object: &Value, api_version: &str, now: &str) -> Vec<Value> {
        self.version(api_version)
            .map(|version| version.columns.row(object, now))
            .unwrap_or_default()
    }

    fn selectable_field(&self, object: &Value, path: &str) -> Option<String> {
        // Which fields can be selected does not depend on the object, which may be empty.
        let find = |version: &Served| {
            let (_, place) = version.selectable.iter().find(|(name, _)| name == path)?;
            let value = place.as_ref().and_then(|place| place.first(object));
            Some(match value {
                None | Some(Value::Null) => String::new(),
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
            })
        };
        self.versions.values().find_map(find)
    }

    fn has_selectable_fields(&self) -> bool {
        self.versions
            .values()
            .any(|version| !version.selectable.is_empty())
    }

    fn strategic_merge(&self) -> bool {
        false
    }

    fn openapi(&self, api_version: &str) -> Option<(String, Map<String, Value>)> {
        let version = self.version(api_version)?;
        Some(openapi::document(
            &self.group,
            api_version,
            &self.kind,
            &self.list_kind,
            &version.source,
        ))
    }

    fn list_type(&self, path: &[&str]) -> Option<ListType> {
        let schema = self.version(&self.storage)?.schema.at(path)?;
        if schema.items.is_some() {
            return Some(match &schema.list {
                ListKind::Atomic => ListType::Atomic,
                ListKind::Set => ListType::Set,
                ListKind::Map(keys) => ListType::Map(keys.clone()),
            });
        }
        schema.atomic_map.then_some(ListType::Atomic)
    }
}

/// Whether rules would only add noise to this fault.
fn blocks_rules(error: &FieldError) -> bool {
    matches!(
        error.kind,
        FieldErrorKind::NotSupported
            | FieldErrorKind::Required
            | FieldErrorKind::TooLong
            | FieldErrorKind::TooMany
            | FieldErrorKind::TypeInvalid
    )
}

/// A write of the status changes nothing else, but for the record of who owns which field.
fn keep_all_but_status(object: &mut Value, old: &Value) {
    let mut kept = old.clone();
    for key in ["managedFields", "resourceVersion"] {
        if let Some(value) = object["metadata"].get(key) {
            kept["metadata"][key] = value.clone();
        }
    }
    match object.get_mut("status") {
        Some(status) => kept["status"] = status.take(),
        None => remove(&mut kept, "status"),
    }
    *object = kept;
}

fn same_but_metadata(left: &Value, right: &Value) -> bool {
    let (Some(left), Some(right)) = (left.as_object(), right.as_object()) else {
        return left == right;
    };
    let rest = |fields: &Map<String, Value>| {
        fields
            .iter()
            .filter(|(name, _)| *name != "metadata")
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect::<BTreeMap<_, _>>()
    };
    rest(left) == rest(right)
}

fn remove(object: &mut Value, name: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.shift_remove(name);
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

/// Sorts versions as Kubernetes prefers them: `v2` before `v1` before `v1beta1` before `v1alpha1` before other names.
fn priority(version: &str) -> (u8, std::cmp::Reverse<(u64, u64)>, String) {
    let parse = || {
        let rest = version.strip_prefix('v')?;
        let end = rest
            .find(|char: char| !char.is_ascii_digit())
            .unwrap_or(rest.len());
        let major: u64 = rest[..end].parse().ok()?;
        let (stage, minor) = match &rest[end..] {
            "" => (0, "0"),
            stage => match (stage.strip_prefix("beta"), stage.strip_prefix("alpha")) {
                (Some(minor), _) => (1, minor),
                (_, Some(minor)) => (2, minor),
                _ => return None,
            },
        };
        Some((
            stage,
            std::cmp::Reverse((major, minor.parse().ok()?)),
            String::new(),
        ))
    };
    parse().unwrap_or_else(|| (3, std::cmp::Reverse((0, 0)), version.to_owned()))
}
