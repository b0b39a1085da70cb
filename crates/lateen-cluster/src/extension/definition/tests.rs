//! Definitions as a client writes them: what is refused, and in which words.

use serde_json::{Value, json};

use crate::strategy::{FieldValidation, Part, RequestInfo};

fn info() -> RequestInfo<'static> {
    RequestInfo {
        api_version: "apiextensions.k8s.io/v1",
        namespace: "",
        part: Part::Main,
    }
}

fn definition(schema: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "boats.sail.example"},
        "spec": {
            "group": "sail.example",
            "scope": "Namespaced",
            "names": {"plural": "boats", "kind": "Boat"},
            "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}},
            ],
        },
    })
}

/// The messages that a new definition gets.
fn faults(mut object: Value) -> Vec<String> {
    let strategy = super::resource().strategy;
    strategy
        .decode(&mut object, info(), FieldValidation::Strict)
        .expect("decodes");
    strategy.default(&mut object);
    strategy.prepare_create(&mut object, info());
    let errors = strategy.validate(&object, None, info());
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn a_plain_definition_is_accepted_and_completed() {
    let mut object = definition(json!({"type": "object"}));
    assert_eq!(faults(object.clone()), [""; 0]);
    let strategy = super::resource().strategy;
    strategy.default(&mut object);
    strategy.prepare_create(&mut object, info());
    assert_eq!(object["spec"]["names"]["singular"], "boat");
    assert_eq!(object["spec"]["names"]["listKind"], "BoatList");
    assert_eq!(object["spec"]["conversion"], json!({"strategy": "None"}));
    assert_eq!(object["status"]["storedVersions"], json!(["v1"]));
}

#[test]
fn names_and_versions_are_checked() {
    let check = |edit: fn(&mut Value), expected: &[&str]| {
        let mut object = definition(json!({"type": "object"}));
        edit(&mut object["spec"]);
        let found = faults(object);
        let found: Vec<&str> = found
            .iter()
            .map(|fault| fault.split("[{").next().unwrap_or_default())
            .collect();
        assert_eq!(found, expected);
    };
    check(
        |spec| spec["names"]["plural"] = json!("ships"),
        &[
            r#"metadata.name: Invalid value: "boats.sail.example": must be spec.names.plural+"."+spec.group"#,
        ],
    );
    check(
        |spec| spec["versions"][0]["storage"] = json!(false),
        &["spec.versions: Invalid value: "],
    );
    check(
        |spec| spec["scope"] = json!("World"),
        &[r#"spec.scope: Unsupported value: "World": supported values: "Cluster", "Namespaced""#],
    );
    check(
        |spec| spec["names"]["listKind"] = json!("Boat"),
        &[r#"spec.names.listKind: Invalid value: "Boat": kind and listKind may not be the same"#],
    );
    check(
        |spec| {
            spec["versions"][0]["subresources"] =
                json!({"scale": {"specReplicasPath": "spec.x", "statusReplicasPath": ".spec.x"}})
        },
        &[
            r#"spec.versions[0].subresources.scale.specReplicasPath: Invalid value: "spec.x": must be a simple json path starting with ."#,
            r#"spec.versions[0].subresources.scale.statusReplicasPath: Invalid value: ".spec.x": should be a json path under .status"#,
        ],
    );
    check(
        |spec| {
            spec["versions"][0]["additionalPrinterColumns"] =
                json!([{"name": "X", "type": "text", "jsonPath": ".x"}])
        },
        &[
            r#"spec.versions[0].additionalPrinterColumns[0].type: Invalid value: "text": must be one of boolean,date,integer,number,string"#,
        ],
    );
    check(
        |spec| {
            spec["conversion"] =
                json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"]}})
        },
        &[
            r#"spec.conversion.strategy: Invalid value: "Webhook": this server does not call conversion webhooks: use None, or serve one version"#,
        ],
    );
    check(
        |spec| {
            spec["versions"][0]
                .as_object_mut()
                .map(|version| version.shift_remove("schema"))
                .map_or((), drop)
        },
        &["spec.versions[0].schema.openAPIV3Schema: Required value"],
    );
}

#[test]
fn schemas_must_be_structural_and_use_known_words() {
    const AT: &str = "spec.versions[0].schema.openAPIV3Schema";
    let check = |schema: Value, expected: &[&str]| {
        let expected: Vec<String> = expected
            .iter()
            .map(|fault| format!("{AT}{fault}"))
            .collect();
        assert_eq!(faults(definition(schema)), expected);
    };
    let spec = |schema: Value| json!({"type": "object", "properties": {"spec": schema}});
    check(
        json!({"properties": {}}),
        &[".type: Required value: must not be empty at the root"],
    );
    check(
        spec(json!({"properties": {}})),
        &[".properties[spec].type: Required value: must not be empty for specified object fields"],
    );
    check(
        spec(json!({"type": "array"})),
        &[".properties[spec].items: Required value: must be specified"],
    );
    check(
        spec(
            json!({"type": "object", "properties": {"a": {"type": "string"}},
            "oneOf": [{"properties": {"b": {"type": "string"}}}]}),
        ),
        &[
            ".properties[spec].oneOf[0].properties[b].type: Forbidden: must be empty to be structural",
        ],
    );
    check(
        json!({"type": "object", "oneOf": [{"properties": {"b": {"maxLength": 3}}}]}),
        &[&format!(
            ".properties[b]: Required value: because it is defined in {AT}.oneOf[0].properties[b]"
        )],
    );
    check(
        spec(json!({"type": "string", "pattern": "["})),
        &[
            ".properties[spec].pattern: Invalid value: \"[\": must be a valid regular expression, but isn't: regex parse error:\n    [\n    ^\nerror: unclosed character class",
        ],
    );
    check(
        spec(
            json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
        ),
        &[],
    );
    check(
        spec(json!({"type": "integer", "default": "two"})),
        &[
            r#".properties[spec].default: Invalid value: "string":  in body must be of type integer: "string""#,
        ],
    );
    check(
        spec(
            json!({"type": "object", "default": {"x": 1}, "properties": {"y": {"type": "integer"}}}),
        ),
        &[r#".properties[spec].default: Invalid value: {"x":1}: must not have unknown fields"#],
    );
    check(
        spec(
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "properties": {"name": {"type": "string"}}}}),
        ),
        &[
            ".properties[spec].items.properties[name].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
        ],
    );
    check(
        json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
        &[
            ".properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
        ],
    );
    check(
        spec(
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "x-kubernetes-validations": [
                {"rule": "self.a == oldSelf.a"},
                {"rule": " "},
                {"rule": "self.a == 'x'", "fieldPath": ".b"},
                {"rule": "self.a == 'x'", "reason": "Whim"},
            ]}),
        ),
        &[
            ".properties[spec].x-kubernetes-validations[1].rule: Required value: rule is not specified",
            r#".properties[spec].x-kubernetes-validations[2].fieldPath: Invalid value: ".b": must be a valid path"#,
            r#".properties[spec].x-kubernetes-validations[3].reason: Unsupported value: "Whim": supported values: "FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired""#,
        ],
    );
    check(
        spec(
            json!({"type": "array", "items": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}),
        ),
        &[&format!(
            ".properties[spec].items.x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema within {AT}.properties[spec]"
        )],
    );
}

#[test]
fn rules_that_cannot_be_parsed_are_refused() {
    let found = faults(definition(
        json!({"type": "object", "properties": {"spec": {
            "type": "object", "x-kubernetes-validations": [{"rule": "self.a =="}],
        }}}),
    ));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("spec.versions[0].schema.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule: Invalid value: {\"rule\":\"self.a ==\"}: compilation failed: "), "{found:?}");
}

#[test]
fn names_in_rules_must_mean_something() {
    let check = |rule: &str, expected: Option<&str>| {
        let found = faults(definition(
            json!({"type": "object", "properties": {"spec": {
                "type": "object",
                "properties": {
                    "a": {"type": "string"},
                    "long-name": {"type": "integer"},
                    "list": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "string"}}}},
                    "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"c": {"type": "string"}}}},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                },
                "x-kubernetes-validations": [{"rule": rule}],
            }}}),
        ));
        let found: Vec<Option<&str>> = found
            .iter()
            .map(|fault| {
                fault
                    .rsplit_once("compilation failed: ")
                    .map(|(_, why)| why)
            })
            .collect();
        assert_eq!(
            found,
            expected.map(Some).into_iter().collect::<Vec<_>>(),
            "{rule}"
        );
    };
    check(
        "self.a == 'x' && self.__dash__ == 1",
        Some("undefined field '__dash__'"),
    );
    check("self.long__dash__name == math.greatest(1, 2)", None);
    check(
        "self.list.all(item, item.b == 'x' && item.d == 'y')",
        Some("undefined field 'd'"),
    );
    check("self.list.exists(item, self.list[0].b == item.b)", None);
    check(
        "self.map.all(key, self.map[key].c == 'x' && self.map.any.c == key)",
        None,
    );
    check("self.map['x'].d == 'y'", Some("undefined field 'd'"));
    check("has(self.missing)", Some("undefined field 'missing'"));
    check("self.free.anything == 1 && type(self.a) == string", None);
    check(
        "other.a == 'x'",
        Some("undeclared reference to 'other' (in container '')"),
    );
}

#[test]
fn the_definitions_of_istio_kinds_are_accepted() {
    let all = lateen_api::crd::all();
    assert!(!all.is_empty());
    for definition in all {
        let name = definition["metadata"]["name"].clone();
        assert_eq!(faults(definition), [""; 0], "{name}");
    }
}
