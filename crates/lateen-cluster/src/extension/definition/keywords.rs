//! Which words of OpenAPI a schema may use, and how they go together.

use serde_json::{Value, json};

use crate::field::FieldError;

use super::super::path_check;
use super::super::rule::Rule;
use super::super::schema::Schema;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const REASONS: [&str; 4] = [
    "FieldValueDuplicate",
    "FieldValueForbidden",
    "FieldValueInvalid",
    "FieldValueRequired",
];

/// What holds at a place because of the nodes above it.
#[derive(Clone, Default)]
struct Above {
    root: bool,
    /// Inside `metadata`, `kind` or `apiVersion` of an object.
    in_meta: bool,
    /// Why no default may stand here; empty when one may.
    no_default: String,
    /// Innermost list or map whose items cannot be told apart on an update; empty when there is none.
    uncorrelated: String,
    /// Inside `allOf`, `anyOf`, `oneOf` or `not`, where rules have no types.
    nested: bool,
}

/// The faults of the schema `source` at the path `at`. Rules are only parsed when the schema is `sound` otherwise.
pub(super) fn check(source: &Value, at: &str, sound: bool) -> Vec<FieldError> {
    let mut run = Run {
        errors: Vec::new(),
        rules: Vec::new(),
        sound,
    };
    run.node(
        source,
        at,
        &Above {
            root: true,
            ..Above::default()
        },
    );
    run.errors.extend(run.rules);
    run.errors
}

struct Run {
    errors: Vec<FieldError>,
    /// Faults of rules, which come last.
    rules: Vec<FieldError>,
    sound: bool,
}

impl Run {
    fn node(&mut self, node: &Value, at: &str, above: &Above) {
        let before = self.errors.len();
        self.words(node, at, above);
        let below = Above {
            root: false,
            ..above.clone()
        };
        let values = &node["additionalProperties"];
        if !values.is_null() {
            let has_fields = node["properties"]
                .as_object()
                .is_some_and(|fields| !fields.is_empty());
            if has_fields && *values != true {
                let detail = "additionalProperties and properties are mutual exclusive";
                self.forbid(at, "additionalProperties", detail);
            }
            if values.is_object() {
                let no_default = match above.in_meta {
                    true => "inside additionalProperties applying to object metadata".to_owned(),
                    false => above.no_default.clone(),
                };
                let below = Above {
                    root: false,
                    no_default,
                    ..above.clone()
                };
                self.node(values, &format!("{at}.additionalProperties"), &below);
            }
        }
        let embedded = node["x-kubernetes-embedded-resource"] == true;
        for (name, property) in node["properties"].as_object().into_iter().flatten() {
            let mut below = below.clone();
            if (above.root || embedded)
                && matches!(name.as_str(), "metadata" | "kind" | "apiVersion")
            {
                below.in_meta = true;
                if above.root {
                    below.no_default = format!("in top-level {name}");
                }
            }
            self.node(property, &format!("{at}.properties[{name}]"), &below);
        }
        let nested = Above {
            nested: true,
            ..below.clone()
        };
        if node["not"].is_object() {
            self.node(&node["not"], &format!("{at}.not"), &nested);
        }
        for key in ["allOf", "oneOf", "anyOf"] {
            for (index, alternative) in node[key].as_array().into_iter().flatten().enumerate() {
                self.node(alternative, &format!("{at}.{key}[{index}]"), &nested);
            }
        }
        if node["items"].is_object() {
            let mut below = below;
            if node["x-kubernetes-list-type"] != "map" && below.uncorrelated.is_empty() {
                below.uncorrelated = at.to_owned();
            }
            self.node(&node["items"], &format!("{at}.items"), &below);
        }
        self.merge_words(node, at);
        self.rule_words(node, at);
        if self.sound && self.errors.len() == before && !above.nested {
            self.parse_rules(node, at, above);
        }
    }

    fn forbid(&mut self, at: &str, key: &str, detail: &str) {
        self.errors
            .push(FieldError::forbidden(format!("{at}.{key}"), detail));
    }

    fn require(&mut self, at: &str, key: &str, detail: &str) {
        self.errors
            .push(FieldError::required(format!("{at}.{key}"), detail));
    }

    fn refuse(&mut self, at: &str, key: &str, value: &Value, detail: &str) {
        self.errors.push(FieldError::invalid(
            format!("{at}.{key}"),
            value.clone(),
            detail,
        ));
    }

    fn words(&mut self, node: &Value, at: &str, above: &Above) {
        if let Some(type_) = node["type"].as_str().filter(|type_| !type_.is_empty())
            && !TYPES.contains(&type_)
        {
            let field = format!("{at}.type");
            self.errors
                .push(FieldError::not_supported(field, json!(type_), &TYPES));
            if type_ == "null" {
                let detail = "type cannot be set to null, use nullable as an alternative";
                self.forbid(at, "type", detail);
            }
        }
        if !node["default"].is_null() && !above.no_default.is_empty() {
            self.forbid(
                at,
                "default",
                &format!("must not be set {}", above.no_default),
            );
        }
        for key in [
            "id",
            "additionalItems",
            "patternProperties",
            "definitions",
            "dependencies",
            "$ref",
        ] {
            if !node[key].is_null() {
                self.forbid(at, key, &format!("{key} is not supported"));
            }
        }
        if node["items"].is_array() {
            self.forbid(
                at,
                "items",
                "items must be a schema object and not an array",
            );
        }
        if above.in_meta && node["x-kubernetes-embedded-resource"] == true {
            let detail = "must not be used inside of resource meta";
            self.forbid(at, "x-kubernetes-embedded-resource", detail);
        }
        if node["uniqueItems"] == true {
            let detail =
                "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.forbid(at, "uniqueItems", detail);
        }
        if node["x-kubernetes-preserve-unknown-fields"] == false {
            let key = "x-kubernetes-preserve-unknown-fields";
            self.refuse(at, key, &json!(false), "must be true or undefined");
        }
    }

    /// How lists and maps merge.
    fn merge_words(&mut self, node: &Value, at: &str) {
        let type_ = node["type"].as_str().unwrap_or_default();
        for (key, wanted, known) in [
            (
                "x-kubernetes-map-type",
                "object",
                &["atomic", "granular"][..],
            ),
            (
                "x-kubernetes-list-type",
                "array",
                &["atomic", "set", "map"][..],
            ),
        ] {
            let Some(merge) = node[key].as_str() else {
                continue;
            };
            if type_ != wanted {
                let detail = format!("must be {wanted} if {key} is specified");
                match type_ {
                    "" => self.require(at, "type", &detail),
                    _ => self.refuse(at, "type", &json!(type_), &detail),
                }
            }
            if !known.contains(&merge) {
                let field = format!("{at}.{key}");
                self.errors
                    .push(FieldError::not_supported(field, json!(merge), known));
            }
        }
        let list_type = node["x-kubernetes-list-type"].as_str();
        let keys = node["x-kubernetes-list-map-keys"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        if !keys.is_empty() && list_type != Some("map") {
            let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
            match list_type {
                None => self.require(at, "x-kubernetes-list-type", detail),
                Some(other) => self.refuse(at, "x-kubernetes-list-type", &json!(other), detail),
            }
        }
        let items = &node["items"];
        if list_type == Some("set") {
            let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
            let inner = |key: &str| items[key].as_str();
            match items["type"].as_str() {
                Some("array")
                    if !matches!(inner("x-kubernetes-list-type"), None | Some("atomic")) =>
                {
                    let value = items["x-kubernetes-list-type"].clone();
                    self.refuse(at, "items.x-kubernetes-list-type", &value, detail);
                }
                Some("object") if inner("x-kubernetes-map-type") != Some("atomic") => {
                    let value = items["x-kubernetes-list-type"].clone();
                    self.refuse(at, "items.x-kubernetes-map-type", &value, detail);
                }
                _ => {}
            }
        }
        if list_type == Some("map") {
            self.map_list(items, keys, at);
        }
        if let Some(kind @ ("set" | "map")) = list_type
            && items["nullable"] == true
        {
            let detail = format!("cannot be nullable when x-kubernetes-list-type is {kind}");
            self.forbid(at, "items.nullable", &detail);
        }
    }

    fn map_list(&mut self, items: &Value, keys: &[Value], at: &str) {
        if keys.is_empty() {
            let detail = "must not be empty if x-kubernetes-list-type is map";
            self.require(at, "x-kubernetes-list-map-keys", detail);
        }
        if items.is_null() {
            self.require(
                at,
                "items",
                "must have a schema if x-kubernetes-list-type is map",
            );
            return;
        }
        if items["type"] != "object" {
            let detail = "must be object if parent array's x-kubernetes-list-type is map";
            self.refuse(at, "items.type", &items["type"], detail);
            return;
        }
        for (index, key) in keys.iter().enumerate() {
            let all = Value::Array(keys.to_vec());
            let name = key.as_str().unwrap_or_default();
            let property = &items["properties"][name];
            let place = format!("items.properties[{name}]");
            if property.is_null() {
                let detail = "entries must all be names of item properties";
                self.refuse(at, "x-kubernetes-list-map-keys", &all, detail);
            } else if matches!(property["type"].as_str(), Some("array" | "object")) {
                let detail =
                    "must be a scalar type if parent array's x-kubernetes-list-type is map";
                self.refuse(at, &format!("{place}.type"), &items["type"], detail);
            }
            if keys[..index].contains(key) {
                let detail = "must not contain duplicate entries";
                self.refuse(at, "x-kubernetes-list-map-keys", &all, detail);
            }
            if property.is_null() {
                continue;
            }
            let required = items["required"]
                .as_array()
                .is_some_and(|names| names.contains(key));
            if !required && property["default"].is_null() {
                let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                self.require(at, &format!("{place}.default"), detail);
            }
            if property["nullable"] == true {
                let detail =
                    "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
                self.forbid(at, &format!("{place}.nullable"), detail);
            }
        }
    }

    fn rule_words(&mut self, node: &Value, at: &str) {
        for (index, rule) in rules(node).iter().enumerate() {
            let at = &format!("{at}.x-kubernetes-validations[{index}]");
            let given = |key: &str| rule[key].as_str().unwrap_or_default();
            let lines = |text: &str| text.trim().contains(['\n', '\r']);
            let (source, message) = (given("rule"), given("message"));
            if source.trim().is_empty() {
                self.require(at, "rule", "rule is not specified");
            } else if !message.is_empty() && message.trim().is_empty() {
                self.refuse(
                    at,
                    "message",
                    &rule["message"],
                    "must be non-empty if specified",
                );
            } else if lines(message) {
                self.refuse(
                    at,
                    "message",
                    &rule["message"],
                    "must not contain line breaks",
                );
            } else if lines(source) && message.trim().is_empty() {
                let detail = "message must be specified if rule contains line breaks";
                self.require(at, "message", detail);
            }
            let expression = given("messageExpression");
            if !expression.is_empty() && expression.trim().is_empty() {
                let detail = "messageExpression must be non-empty if specified";
                self.require(at, "messageExpression", detail);
            }
            if !rule["reason"].is_null() && !REASONS.contains(&given("reason")) {
                let field = format!("{at}.reason");
                let error = FieldError::not_supported(field, rule["reason"].clone(), &REASONS);
                self.errors.push(error);
            }
            let path = given("fieldPath");
            if path.is_empty() {
                continue;
            }
            if path.trim().is_empty() {
                self.refuse(
                    at,
                    "fieldPath",
                    &rule["fieldPath"],
                    "must be non-empty if specified",
                );
            }
            if path.contains(['\n', '\r']) {
                self.refuse(
                    at,
                    "fieldPath",
                    &rule["fieldPath"],
                    "must not contain line breaks",
                );
            }
            if path_check::named_field(path, node, true).is_err() {
                self.refuse(at, "fieldPath", &rule["fieldPath"], "must be a valid path");
            }
        }
    }

    fn parse_rules(&mut self, node: &Value, at: &str, above: &Above) {
        if rules(node).is_empty() {
            return;
        }
        let schema = Schema::parse(node);
        let root = above.root || schema.embedded;
        for (index, source) in rules(node).iter().enumerate() {
            let at = format!("{at}.x-kubernetes-validations[{index}]");
            let rule = Rule::parse(source);
            let mut fault = |key: &str, value: Value, detail: &str| {
                self.rules
                    .push(FieldError::invalid(format!("{at}.{key}"), value, detail));
            };
            if let Some(detail) = rule.fault(&schema, root) {
                fault("rule", source.clone(), &detail);
                continue;
            }
            if let Some(detail) = rule.message_fault(&schema, root) {
                let detail = format!("messageExpression {detail}");
                fault("messageExpression", source.clone(), &detail);
            }
            if rule.reads_old() {
                if !above.uncorrelated.is_empty() {
                    let detail = format!(
                        "oldSelf cannot be used on the uncorrelatable portion of the schema within {}",
                        above.uncorrelated
                    );
                    fault("rule", source["rule"].clone(), &detail);
                }
            } else if !source["optionalOldSelf"].is_null() {
                let detail = "may not be set if oldSelf is not used in rule";
                fault("optionalOldSelf", source["optionalOldSelf"].clone(), detail);
            }
        }
    }
}

fn rules(node: &Value) -> &[Value] {
    node["x-kubernetes-validations"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
}
