//! What one version of a CustomResourceDefinition may say: schema, subresources, columns and selectable fields.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::field::FieldError;

use super::super::{format, path_check, schema};
use super::{keywords, list, structural, text};

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] = [
    "byte",
    "date",
    "date-time",
    "double",
    "float",
    "int32",
    "int64",
    "password",
];

/// Most fields that one version can be selected by.
const MAX_SELECTABLE: usize = 8;
/// Longest warning for a deprecated version, in bytes.
const MAX_WARNING: usize = 256;

/// Fields that the root of a schema may have next to a `status` subresource, as Kubernetes prints them.
const ROOT_FIELDS: [(&str, &str); 22] = [
    ("Description", "description"),
    ("Type", "type"),
    ("Format", "format"),
    ("Title", "title"),
    ("Maximum", "maximum"),
    ("ExclusiveMaximum", "exclusiveMaximum"),
    ("Minimum", "minimum"),
    ("ExclusiveMinimum", "exclusiveMinimum"),
    ("MaxLength", "maxLength"),
    ("MinLength", "minLength"),
    ("Pattern", "pattern"),
    ("MaxItems", "maxItems"),
    ("MinItems", "minItems"),
    ("UniqueItems", "uniqueItems"),
    ("MultipleOf", "multipleOf"),
    ("Required", "required"),
    ("Items", "items"),
    ("Properties", "properties"),
    ("ExternalDocs", "externalDocs"),
    ("Example", "example"),
    (
        "XPreserveUnknownFields",
        "x-kubernetes-preserve-unknown-fields",
    ),
    ("XValidations", "x-kubernetes-validations"),
];

/// Adds the faults of the version at the path `at`.
pub(super) fn check(version: &Value, at: &str, errors: &mut Vec<FieldError>) {
    if let Some(warning) = version["deprecationWarning"].as_str() {
        let mut fault = |detail: &str| {
            let field = format!("{at}.deprecationWarning");
            errors.push(FieldError::invalid(field, json!(warning), detail));
        };
        if version["deprecated"] != true {
            fault("can only be set for deprecated versions");
        }
        if warning.len() > MAX_WARNING {
            fault("must be <= 256 characters long");
        }
        if warning.is_empty() {
            fault("must not be an empty string");
        }
        if let Some(place) = warning.find(char::is_control) {
            fault(&format!(
                "must only contain printable UTF-8 characters; non-printable character found at index {place}"
            ));
        }
    }
    let source = &version["schema"]["openAPIV3Schema"];
    let status = !version["subresources"]["status"].is_null();
    if source.is_object() {
        check_schema(
            source,
            &format!("{at}.schema.openAPIV3Schema"),
            status,
            errors,
        );
    }
    check_scale(
        &version["subresources"]["scale"],
        &format!("{at}.subresources.scale"),
        errors,
    );
    for (index, column) in list(&version["additionalPrinterColumns"])
        .iter()
        .enumerate()
    {
        check_column(
            column,
            &format!("{at}.additionalPrinterColumns[{index}]"),
            errors,
        );
    }
    let selectable = list(&version["selectableFields"]);
    check_selectable(
        selectable,
        source,
        &format!("{at}.selectableFields"),
        errors,
    );
}

fn check_schema(source: &Value, at: &str, status: bool, errors: &mut Vec<FieldError>) {
    let before = errors.len();
    if structural::depth(source) > schema::MAX_DEPTH {
        let detail = format!("schema nests deeper than {} levels", schema::MAX_DEPTH);
        errors.push(FieldError::forbidden(at, detail));
        return;
    }
    if status {
        if source["type"] != "object" && !source["type"].is_null() {
            errors.push(FieldError::invalid(
                format!("{at}.type"),
                source["type"].clone(),
                "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled",
            ));
        }
        let other = source
            .as_object()
            .into_iter()
            .flat_map(|fields| fields.keys())
            .any(|key| !ROOT_FIELDS.iter().any(|(_, allowed)| allowed == key));
        if other {
            let names = ROOT_FIELDS.map(|(name, _)| name).join(" ");
            let detail = format!(
                "only [{names}] fields are allowed at the root of the schema if the status subresource is enabled"
            );
            errors.push(FieldError::invalid(at, source.clone(), detail));
        }
    }
    if source["nullable"] == true {
        let detail = "nullable cannot be true at the root";
        errors.push(FieldError::forbidden(format!("{at}.nullable"), detail));
    }
    let faults = structural::check(source, at);
    let structural = faults.is_empty();
    errors.extend(faults);
    if structural {
        errors.extend(structural::check_defaults(source, at));
    }
    let sound = errors.len() == before;
    errors.extend(keywords::check(source, at, sound));
}

fn check_scale(scale: &Value, at: &str, errors: &mut Vec<FieldError>) {
    if scale.is_null() {
        return;
    }
    let parts: [(&str, &[&str], &str); 3] = [
        (
            "specReplicasPath",
            &[".spec."],
            "should be a json path under .spec",
        ),
        (
            "statusReplicasPath",
            &[".status."],
            "should be a json path under .status",
        ),
        (
            "labelSelectorPath",
            &[".spec.", ".status."],
            "should be a json path under either .spec or .status",
        ),
    ];
    for (key, roots, detail) in parts {
        let field = format!("{at}.{key}");
        let path = text(&scale[key]);
        if path.is_empty() {
            if key != "labelSelectorPath" {
                errors.push(FieldError::required(field, ""));
            }
        } else if !path.starts_with('.') {
            let detail = "must be a simple json path starting with .";
            errors.push(FieldError::invalid(field, json!(path), detail));
        } else if !roots.iter().any(|root| path.starts_with(root)) {
            errors.push(FieldError::invalid(field, json!(path), detail));
        }
    }
}

fn check_column(column: &Value, at: &str, errors: &mut Vec<FieldError>) {
    if text(&column["name"]).is_empty() {
        errors.push(FieldError::required(format!("{at}.name"), ""));
    }
    let type_ = text(&column["type"]);
    let detail = format!("must be one of {}", COLUMN_TYPES.join(","));
    if type_.is_empty() {
        errors.push(FieldError::required(format!("{at}.type"), detail));
    } else if !COLUMN_TYPES.contains(&type_) {
        errors.push(FieldError::invalid(
            format!("{at}.type"),
            json!(type_),
            detail,
        ));
    }
    let format = text(&column["format"]);
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
        let detail = format!("must be one of {}", COLUMN_FORMATS.join(","));
        errors.push(FieldError::invalid(
            format!("{at}.format"),
            json!(format),
            detail,
        ));
    }
    let path = text(&column["jsonPath"]);
    if path.is_empty() {
        errors.push(FieldError::required(format!("{at}.JSONPath"), ""));
    } else if !path.starts_with('.') {
        let detail = "must be a simple json path starting with .";
        errors.push(FieldError::invalid(
            format!("{at}.JSONPath"),
            json!(path),
            detail,
        ));
    }
}

fn check_selectable(fields: &[Value], source: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let mut seen = HashSet::new();
    for (index, field) in fields.iter().enumerate() {
        let at = format!("{at}[{index}].jsonPath");
        let path = text(&field["jsonPath"]);
        if path.is_empty() {
            errors.push(FieldError::required(at, ""));
            continue;
        }
        let target = match path_check::named_field(path, source, false) {
            Ok(target) => target,
            Err(fault) => {
                let detail = format!("is an invalid path: {fault}");
                errors.push(FieldError::invalid(at, json!(path), detail));
                continue;
            }
        };
        if path.starts_with(".metadata.") {
            let detail = "must not point to fields in metadata";
            errors.push(FieldError::invalid(at.clone(), json!(path), detail));
        }
        if !matches!(text(&target["type"]), "string" | "boolean" | "integer") {
            let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            errors.push(FieldError::invalid(at.clone(), json!(path), detail));
        }
        if !seen.insert(path) {
            errors.push(FieldError::duplicate(at, json!(path)));
        }
    }
    if seen.len() > MAX_SELECTABLE {
        errors.push(FieldError::too_many(at, seen.len(), MAX_SELECTABLE as u64));
    }
}

/// Formats that are not checked, which a client may not expect.
pub(super) fn warnings(object: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    for version in list(&object["spec"]["versions"]) {
        unknown_formats(&version["schema"]["openAPIV3Schema"], 0, &mut unknown);
    }
    unknown.sort();
    unknown.dedup();
    unknown
        .iter()
        .map(|format| format!("unrecognized format {format:?}"))
        .collect()
}

fn unknown_formats(schema: &Value, depth: usize, found: &mut Vec<String>) {
    if depth > schema::MAX_DEPTH {
        return;
    }
    match schema {
        Value::Object(fields) => {
            let type_ = text(&schema["type"]);
            if let Some(name) = fields.get("format").and_then(Value::as_str) {
                let known = match type_ {
                    "integer" => matches!(name, "int32" | "int64"),
                    "number" => matches!(name, "float" | "double"),
                    _ => format::is_known(name),
                };
                if !known && !name.is_empty() {
                    found.push(name.to_owned());
                }
            }
            for (key, value) in fields {
                match key.as_str() {
                    "properties" => {
                        for value in value.as_object().into_iter().flat_map(|map| map.values()) {
                            unknown_formats(value, depth + 1, found);
                        }
                    }
                    "items" | "additionalProperties" | "allOf" | "anyOf" | "oneOf" | "not" => {
                        unknown_formats(value, depth + 1, found);
                    }
                    _ => {}
                }
            }
        }
        Value::Array(schemas) => {
            schemas
                .iter()
                .for_each(|schema| unknown_formats(schema, depth + 1, found));
        }
        _ => {}
    }
}
