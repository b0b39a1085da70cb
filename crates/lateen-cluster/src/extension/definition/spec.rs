//! What a CustomResourceDefinition may say of its names, versions, subresources and columns.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::field::FieldError;

use super::super::name::{label_faults, subdomain_faults};
use super::super::{format, path_check, schema};
use super::{keywords, structural};

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

/// All faults of a definition; `old` is the one before an update.
pub(super) fn check(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = &object["spec"];
    let group = text(&spec["group"]);
    let names = &spec["names"];
    if old.is_none() {
        let name = text(&object["metadata"]["name"]);
        for fault in subdomain_faults(name) {
            errors.push(FieldError::invalid("metadata.name", json!(name), fault));
        }
        if name != format!("{}.{group}", text(&names["plural"])) {
            let detail = "must be spec.names.plural+\".\"+spec.group";
            errors.push(FieldError::invalid("metadata.name", json!(name), detail));
        }
    }
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
    } else {
        let faults = subdomain_faults(group);
        if !faults.is_empty() {
            errors.push(FieldError::invalid(
                "spec.group",
                json!(group),
                faults.join(","),
            ));
        } else if !group.contains('.') {
            let detail = "should be a domain with at least one dot";
            errors.push(FieldError::invalid("spec.group", json!(group), detail));
        }
    }
    match text(&spec["scope"]) {
        "" => errors.push(FieldError::required("spec.scope", "")),
        "Cluster" | "Namespaced" => {}
        _ => errors.push(FieldError::not_supported(
            "spec.scope",
            spec["scope"].clone(),
            &["Cluster", "Namespaced"],
        )),
    }
    check_versions(list(&spec["versions"]), &mut errors);
    for key in ["plural", "singular", "kind", "listKind"] {
        if text(&names[key]).is_empty() {
            errors.push(FieldError::required(format!("spec.names.{key}"), ""));
        }
    }
    check_names(names, &mut errors);
    check_conversion(&spec["conversion"], &mut errors);
    if let Some(old) = old {
        check_unchanged(spec, old, &mut errors);
        check_stored(object, &mut errors);
    }
    if spec["preserveUnknownFields"] == true {
        errors.push(FieldError::invalid(
            "spec.preserveUnknownFields",
            json!(true),
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ));
    }
    check_approval(object, group, &mut errors);
    errors
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

fn check_versions(versions: &[Value], errors: &mut Vec<FieldError>) {
    for (index, version) in versions.iter().enumerate() {
        if !version["schema"]["openAPIV3Schema"].is_object() {
            let field = format!("spec.versions[{index}].schema.openAPIV3Schema");
            errors.push(FieldError::required(field, ""));
        }
    }
    let mut seen = HashSet::new();
    let mut unique = true;
    for (index, version) in versions.iter().enumerate() {
        let at = format!("spec.versions[{index}]");
        let name = text(&version["name"]);
        unique &= seen.insert(name);
        let faults = label_faults(name);
        if !faults.is_empty() {
            errors.push(FieldError::invalid(
                format!("{at}.name"),
                json!(name),
                faults.join(","),
            ));
        }
        check_version(version, &at, errors);
    }
    let whole = || Value::Array(versions.to_vec());
    if !unique {
        errors.push(FieldError::invalid(
            "spec.versions",
            whole(),
            "must contain unique version names",
        ));
    }
    if versions
        .iter()
        .filter(|version| version["storage"] == true)
        .count()
        != 1
    {
        let detail = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", whole(), detail));
    }
}

fn check_version(version: &Value, at: &str, errors: &mut Vec<FieldError>) {
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

fn check_names(names: &Value, errors: &mut Vec<FieldError>) {
    let mut label = |key: &str, shown: &str, checked: &str, before: &str| {
        let faults = label_faults(checked);
        if !shown.is_empty() && !faults.is_empty() {
            let detail = format!("{before}{}", faults.join(","));
            errors.push(FieldError::invalid(
                format!("spec.names.{key}"),
                json!(shown),
                detail,
            ));
        }
    };
    for key in ["plural", "singular"] {
        let name = text(&names[key]);
        label(key, name, name, "");
    }
    for key in ["kind", "listKind"] {
        let name = text(&names[key]);
        let before = "may have mixed case, but should otherwise match: ";
        label(key, name, &name.to_lowercase(), before);
    }
    for key in ["shortNames", "categories"] {
        for (index, name) in list(&names[key]).iter().enumerate() {
            label(&format!("{key}[{index}]"), text(name), text(name), "");
        }
    }
    let kind = text(&names["kind"]);
    if !kind.is_empty() && names["listKind"] == kind {
        let detail = "kind and listKind may not be the same";
        errors.push(FieldError::invalid(
            "spec.names.listKind",
            json!(kind),
            detail,
        ));
    }
}

fn check_conversion(conversion: &Value, errors: &mut Vec<FieldError>) {
    match text(&conversion["strategy"]) {
        "None" => {
            if !conversion["webhook"].is_null() {
                let detail = "should not be set when strategy is not set to Webhook";
                errors.push(FieldError::forbidden(
                    "spec.conversion.webhookClientConfig",
                    detail,
                ));
            }
        }
        "" if conversion.is_null() => {}
        "" => errors.push(FieldError::required("spec.conversion.strategy", "")),
        "Webhook" => errors.push(FieldError::invalid(
            "spec.conversion.strategy",
            json!("Webhook"),
            "this server does not call conversion webhooks: use None, or serve one version",
        )),
        other => errors.push(FieldError::not_supported(
            "spec.conversion.strategy",
            json!(other),
            &["None", "Webhook"],
        )),
    }
}

/// What objects in the store depend on cannot change.
fn check_unchanged(spec: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let established = list(&old["status"]["conditions"])
        .iter()
        .any(|condition| condition["type"] == "Established" && condition["status"] == "True");
    let mut fixed = |field: &str, new: &Value, old: &Value| {
        if new != old {
            let field = format!("spec.{field}");
            errors.push(FieldError::invalid(
                field,
                new.clone(),
                "field is immutable",
            ));
        }
    };
    let old = &old["spec"];
    if established {
        fixed("scope", &spec["scope"], &old["scope"]);
        fixed("names.kind", &spec["names"]["kind"], &old["names"]["kind"]);
    }
    fixed("group", &spec["group"], &old["group"]);
    fixed(
        "names.plural",
        &spec["names"]["plural"],
        &old["names"]["plural"],
    );
}

fn check_stored(object: &Value, errors: &mut Vec<FieldError>) {
    let versions = list(&object["spec"]["versions"]);
    for (index, stored) in list(&object["status"]["storedVersions"]).iter().enumerate() {
        if !versions.iter().any(|version| version["name"] == *stored) {
            let name = text(stored);
            let detail = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            let field = format!("status.storedVersions[{index}]");
            errors.push(FieldError::invalid(field, stored.clone(), detail));
        }
    }
}

/// Groups of the Kubernetes community need a note of their approval.
fn check_approval(object: &Value, group: &str, errors: &mut Vec<FieldError>) {
    const ANNOTATION: &str = "api-approved.kubernetes.io";
    let protected = group == "k8s.io"
        || group == "kubernetes.io"
        || group.ends_with(".k8s.io")
        || group.ends_with(".kubernetes.io");
    if !protected {
        return;
    }
    let field = format!("metadata.annotations[{ANNOTATION}]");
    let value = text(&object["metadata"]["annotations"][ANNOTATION]);
    if value.is_empty() {
        let detail = format!(
            "protected groups must have approval annotation {ANNOTATION:?}, see https://github.com/kubernetes/enhancements/pull/1111"
        );
        errors.push(FieldError::required(field, detail));
    } else if !value.starts_with("unapproved") && !(value.contains("://") && value.len() > 8) {
        let detail = format!(
            "protected groups must have approval annotation {ANNOTATION:?} with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111"
        );
        errors.push(FieldError::invalid(field, json!(value), detail));
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
