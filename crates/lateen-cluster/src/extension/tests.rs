//! Custom resources as a client meets them: an object goes through the strategy, the messages come out.

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::resource::Resource;
use crate::strategy::{FieldValidation, Part, RequestInfo};

use super::custom;

const API_VERSION: &str = "sail.example/v1";

/// The row of a definition with `schema`, with `status` and `scale` subresources.
fn row(schema: Value) -> Resource {
    custom::resource(&json!({
        "spec": {
            "group": "sail.example",
            "scope": "Namespaced",
            "versions": [{
                "name": "v1",
                "served": true,
                "storage": true,
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.crew", "statusReplicasPath": ".status.crew"},
                },
                "schema": {"openAPIV3Schema": schema},
            }],
        },
        "status": {"acceptedNames": {
            "plural": "boats", "singular": "boat", "kind": "Boat", "listKind": "BoatList",
        }},
    }))
}

/// A row whose `spec` has `schema`.
fn with_spec(schema: Value) -> Resource {
    row(json!({"type": "object", "properties": {
        "spec": schema,
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }}))
}

fn info(part: Part) -> RequestInfo<'static> {
    RequestInfo {
        api_version: API_VERSION,
        namespace: "default",
        part,
    }
}

fn boat(spec: Value) -> Value {
    json!({"apiVersion": API_VERSION, "kind": "Boat", "metadata": {"name": "one"}, "spec": spec})
}

/// Decodes, defaults and validates, as a create does.
fn create(row: &Resource, mut object: Value) -> (Value, Vec<FieldError>) {
    let strategy = &row.strategy;
    strategy
        .decode(&mut object, info(Part::Main), FieldValidation::Ignore)
        .expect("decodes");
    strategy.default(&mut object);
    strategy.prepare_create(&mut object, info(Part::Main));
    let errors = strategy.validate(&object, None, info(Part::Main));
    (object, errors)
}

/// The messages that a new object with `spec` gets.
fn faults(row: &Resource, spec: Value) -> Vec<String> {
    create(row, boat(spec))
        .1
        .iter()
        .map(ToString::to_string)
        .collect()
}

const UNCHECKED: &str = "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";

#[test]
fn messages_are_those_of_kubernetes() {
    let row = with_spec(json!({
        "type": "object",
        "required": ["rig"],
        "x-kubernetes-validations": [
            {"rule": "self.rig != 'gaff' || self.crew > 1", "message": "a gaff needs a crew"},
        ],
        "properties": {
            "rig": {"type": "string", "enum": ["lateen", "gaff", "sloop"]},
            "crew": {"type": "integer", "minimum": 1, "maximum": 12, "default": 2},
            "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 8},
            "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        },
    }));
    let check = |spec: Value, expected: &[&str]| assert_eq!(faults(&row, spec), expected);
    check(json!({"rig": "lateen"}), &[]);
    check(
        json!({"rig": "square"}),
        &[
            r#"spec.rig: Unsupported value: "square": supported values: "lateen", "gaff", "sloop""#,
            UNCHECKED,
        ],
    );
    check(
        json!({"rig": "gaff", "crew": 1}),
        &["spec: Invalid value: a gaff needs a crew"],
    );
    check(
        json!({"crew": 99, "name": "Xyz", "tags": ["a", "a"]}),
        &[
            "spec.crew: Invalid value: 99: spec.crew in body should be less than or equal to 12",
            r#"spec.name: Invalid value: "Xyz": spec.name in body should match '^[a-z]+$'"#,
            "spec.rig: Required value",
            r#"spec.tags[1]: Duplicate value: "a""#,
            UNCHECKED,
        ],
    );
    check(
        json!({"rig": "lateen", "crew": "many"}),
        &[
            r#"spec.crew: Invalid value: "string": spec.crew in body must be of type integer: "string""#,
            ".spec.crew: Invalid value: 0: .spec.crew accessor error: many is of the type string, expected int64",
            UNCHECKED,
        ],
    );
    check(
        json!({"rig": "lateen", "name": "muchtoolong"}),
        &[
            "spec.name: Too long: may not be more than 8 bytes",
            UNCHECKED,
        ],
    );
}

#[test]
fn every_constraint_of_a_schema_is_checked() {
    let check = |schema: Value, value: Value, expected: &[&str]| {
        let schema = json!({"type": "object", "properties": {"x": schema}});
        assert_eq!(faults(&with_spec(schema), json!({"x": value})), expected);
    };
    check(json!({"type": "integer"}), json!(1.0), &[]);
    check(
        json!({"type": "integer"}),
        json!(1.5),
        &[r#"spec.x: Invalid value: "number": spec.x in body must be of type integer: "number""#],
    );
    check(
        json!({"x-kubernetes-int-or-string": true}),
        json!(true),
        &[
            r#"spec.x: Invalid value: "boolean": spec.x in body must be of type integer,string: "boolean""#,
        ],
    );
    check(
        json!({"type": "string", "format": "date-time"}),
        json!("now"),
        &[r#"spec.x: Invalid value: "now": spec.x in body must be of type date-time: "now""#],
    );
    check(
        json!({"type": "string", "format": "of-no-known-kind"}),
        json!("now"),
        &[],
    );
    check(
        json!({"type": "string", "minLength": 3}),
        json!("é"),
        &[r#"spec.x: Invalid value: "é": spec.x in body should be at least 3 chars long"#],
    );
    check(
        json!({"type": "number", "multipleOf": 0.5, "exclusiveMinimum": true, "minimum": 1}),
        json!(0.75),
        &[
            "spec.x: Invalid value: 0.75: spec.x in body should be a multiple of 0.5",
            "spec.x: Invalid value: 0.75: spec.x in body should be greater than 1",
        ],
    );
    check(
        json!({"type": "array", "items": {"type": "string"}, "maxItems": 1}),
        json!(["a", "b"]),
        &["spec.x: Too many: 2: must have at most 1 item"],
    );
    check(
        json!({"type": "array", "items": {"type": "string"}, "minItems": 1}),
        json!([1]),
        &[
            r#"spec.x[0]: Invalid value: "integer": spec.x[0] in body must be of type string: "integer""#,
        ],
    );
    check(
        json!({"type": "object", "additionalProperties": {"type": "boolean"}, "minProperties": 2}),
        json!({"a": 1}),
        &[
            "spec.x: Invalid value: 1: spec.x in body should have at least 2 properties",
            r#"spec.x.a: Invalid value: "integer": spec.x.a in body must be of type boolean: "integer""#,
        ],
    );
    check(
        json!({"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
               "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}),
        json!({"a": "1", "b": "2"}),
        &[
            r#"<nil>: Invalid value: "": "spec.x" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
        ],
    );
    check(
        json!({"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
               "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}),
        json!({}),
        &[
            r#"<nil>: Invalid value: "": "spec.x" must validate at least one schema (anyOf)"#,
            "spec.x.a: Required value",
        ],
    );
    check(
        json!({"type": "string", "not": {"enum": ["a"]}}),
        json!("a"),
        &[r#"<nil>: Invalid value: "": "spec.x" must not validate the schema (not)"#],
    );
    check(
        json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
               "items": {"type": "object", "properties": {"name": {"type": "string"}, "v": {"type": "string"}}}}),
        json!([{"name": "a", "v": "1"}, {"name": "a", "v": "2"}]),
        &[r#"spec.x[1]: Duplicate value: {"name":"a"}"#],
    );
}

#[test]
fn unknown_fields_are_dropped_or_refused_as_asked() {
    let row = with_spec(json!({"type": "object", "properties": {
        "rig": {"type": "string"},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                 "properties": {"strict": {"type": "object"}}},
    }}));
    let object = boat(json!({"unknown": 1, "free": {"any": {"thing": 1}, "strict": {"no": 1}}}));
    let decode = |validation| {
        let mut object = object.clone();
        let result = row
            .strategy
            .decode(&mut object, info(Part::Main), validation);
        (object, result)
    };
    let (pruned, warnings) = decode(FieldValidation::Warn);
    assert_eq!(
        pruned["spec"],
        json!({"free": {"any": {"thing": 1}, "strict": {}}})
    );
    assert_eq!(
        warnings.expect("accepted"),
        [
            r#"unknown field "spec.free.strict.no""#,
            r#"unknown field "spec.unknown""#
        ]
    );
    let refusal = decode(FieldValidation::Strict).1.expect_err("refused");
    assert_eq!(
        refusal.message,
        r#"Boat in version "v1" cannot be handled as a Boat: strict decoding error: unknown field "spec.free.strict.no", unknown field "spec.unknown""#
    );
    assert_eq!(refusal.code, 400);
}

#[test]
fn defaults_fill_missing_fields_and_nulls_at_all_depths() {
    let row = with_spec(json!({"type": "object", "default": {}, "properties": {
        "crew": {"type": "integer", "default": 2},
        "hull": {"type": "object", "default": {}, "properties": {
            "length": {"type": "integer", "default": 9},
            "name": {"type": "string", "nullable": true},
            "plain": {"type": "string"},
        }},
        "masts": {"type": "array", "items": {"type": "object", "properties": {
            "height": {"type": "integer", "default": 5},
        }}},
    }}));
    let mut object =
        boat(json!({"crew": null, "masts": [{}], "hull": {"name": null, "plain": null}}));
    object = create(&row, object).0;
    assert_eq!(
        object["spec"],
        json!({"crew": 2, "masts": [{"height": 5}], "hull": {"name": null, "length": 9}})
    );
    assert_eq!(object["metadata"]["generation"], 1);
}

#[test]
fn rules_compare_with_the_old_object_and_make_messages() {
    let row = with_spec(json!({"type": "object", "properties": {
        "hull": {"type": "string", "x-kubernetes-validations": [
            {"rule": "self == oldSelf", "message": "the hull stays", "reason": "FieldValueForbidden"},
        ]},
        "crew": {"type": "integer", "x-kubernetes-validations": [
            {"rule": "self < 10", "messageExpression": "'no room for ' + string(self)"},
            {"rule": "oldSelf.hasValue() || self > 1", "optionalOldSelf": true, "message": "starts with two"},
        ]},
        "masts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"], "properties": {
                "name": {"type": "string"},
                "height": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]},
            }},
            "x-kubernetes-validations": [{"rule": "self.all(mast, mast.height < 50)", "message": "too high",
                "fieldPath": ".first"}]},
        "namespace": {"type": "string"},
    }, "x-kubernetes-validations": [
        {"rule": "!has(self.__namespace__) || self.__namespace__ != 'x'", "message": "not x", "fieldPath": ".namespace"},
        {"rule": "self.crew == 0 || self.missing > 1", "message": "reads what is not there"},
    ]}));
    let run = |spec: Value, old: Option<Value>| -> Vec<String> {
        let object = boat(spec);
        let old = old.map(boat);
        let errors = row
            .strategy
            .validate(&object, old.as_ref(), info(Part::Main));
        errors.iter().map(ToString::to_string).collect()
    };
    let missing = r#"spec: Invalid value: "object": no such key: missing evaluating rule: reads what is not there"#;
    assert_eq!(
        run(json!({"crew": 12, "namespace": "x"}), None),
        [
            "spec.namespace: Invalid value: not x",
            missing,
            "spec.crew: Invalid value: 12: no room for 12",
        ]
    );
    assert_eq!(
        run(json!({"crew": 0}), None),
        ["spec.crew: Invalid value: 0: starts with two"]
    );
    assert_eq!(
        run(
            json!({"crew": 0, "hull": "oak", "masts": [{"name": "b", "height": 90}, {"name": "a", "height": 1}]}),
            Some(json!({"crew": 0, "hull": "elm", "masts": [{"name": "a", "height": 2}]})),
        ),
        [
            "spec.hull: Forbidden: the hull stays",
            "spec.masts.first: Invalid value: too high",
            "spec.masts[1].height: Invalid value: 1: failed rule: self >= oldSelf",
        ]
    );
}

#[test]
fn unchanged_parts_stay_valid_when_the_schema_became_stricter() {
    let row = with_spec(json!({"type": "object", "properties": {
        "name": {"type": "string", "pattern": "^[a-z]+$"},
        "crew": {"type": "integer"},
    }}));
    let old = boat(json!({"name": "OLD", "crew": 1}));
    let check = |spec: Value, expected: usize| {
        let errors = row
            .strategy
            .validate(&boat(spec), Some(&old), info(Part::Main));
        assert_eq!(errors.len(), expected, "{errors:?}");
    };
    check(json!({"name": "OLD", "crew": 2}), 0);
    check(json!({"name": "NEW", "crew": 1}), 1);
}

#[test]
fn status_and_spec_are_written_apart() {
    let row = with_spec(json!({"type": "object", "properties": {"crew": {"type": "integer"}}}));
    let mut old = boat(json!({"crew": 1}));
    old["metadata"]["generation"] = json!(3);
    old["status"] = json!({"at": "sea"});

    let mut main = boat(json!({"crew": 2}));
    main["status"] = json!({"at": "port"});
    row.strategy
        .prepare_update(&mut main, &old, info(Part::Main));
    assert_eq!(
        (&main["status"], &main["metadata"]["generation"]),
        (&json!({"at": "sea"}), &json!(4))
    );

    let mut status = boat(json!({"crew": 9}));
    status["status"] = json!({"at": "port"});
    row.strategy
        .prepare_update(&mut status, &old, info(Part::Status));
    assert_eq!(status["status"], json!({"at": "port"}));
    assert_eq!(
        (&status["spec"], &status["metadata"]["generation"]),
        (&json!({"crew": 1}), &json!(3))
    );

    let mut labelled = old.clone();
    labelled["metadata"]["labels"] = json!({"a": "b"});
    row.strategy
        .prepare_update(&mut labelled, &old, info(Part::Main));
    assert_eq!(labelled["metadata"]["generation"], 3);
}
