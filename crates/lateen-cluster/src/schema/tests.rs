use serde_json::{Value, json};

use super::quantity::Quantity;
use super::{Schema, decode, definitions, duplicate_fields, normalize};
use crate::strategy::{FieldValidation, ListType};

fn pod_template() -> &'static Schema {
    definitions::definition("io.k8s.api.apps.v1.Deployment").unwrap()
}

#[test]
fn decoding_words_type_errors_as_go_does() {
    let check = |object: Value, expected: &str| {
        let mut object = object;
        let error = decode(&mut object, pod_template(), FieldValidation::Strict).unwrap_err();
        assert_eq!(error, expected, "{object}");
    };
    let container =
        |container: Value| json!({"spec": {"template": {"spec": {"containers": [container]}}}});
    let at = "Container.spec.template.spec.containers";
    check(
        container(json!({"image": true})),
        &format!("json: cannot unmarshal bool into Go struct field {at}.image of type string"),
    );
    check(
        container(json!({"command": "x"})),
        &format!(
            "json: cannot unmarshal string into Go struct field {at}.command of type []string"
        ),
    );
    check(
        container(json!({"command": [1]})),
        &format!("json: cannot unmarshal number into Go struct field {at}.command of type string"),
    );
    check(
        json!({"spec": {"replicas": 1.5}}),
        "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
    );
    check(
        json!({"metadata": {"labels": {"a": 1}}}),
        "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
    );
    check(
        json!({"spec": "x"}),
        "json: cannot unmarshal string into Go struct field Deployment.spec of type v1.DeploymentSpec",
    );
    check(
        container(json!({"resources": {"limits": {"cpu": "much"}}})),
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    );
}

#[test]
fn decoding_drops_and_names_unknown_fields() {
    let mut object = json!({"spec": {"replica": 1, "template": {"spec": {"containers": [{"name": "a", "imagee": "x"}]}}}, "foo": 1});
    let unknown = decode(&mut object, pod_template(), FieldValidation::Strict).unwrap();
    assert_eq!(
        unknown,
        [
            "unknown field \"spec.replica\"",
            "unknown field \"spec.template.spec.containers[0].imagee\"",
            "unknown field \"foo\"",
        ]
    );
    assert_eq!(
        object,
        json!({"spec": {"template": {"spec": {"containers": [{"name": "a"}]}}}})
    );
}

#[test]
fn normal_form_is_that_of_the_go_struct() {
    let check = |definition: &str, object: Value, expected: Value| {
        let mut object = object;
        normalize(&mut object, definitions::definition(definition).unwrap());
        assert_eq!(object, expected);
    };
    check(
        "io.k8s.api.core.v1.Container",
        json!({"name": "a", "tty": false, "env": [], "resources": {"limits": {"cpu": 0.5, "memory": "2048Mi"}}}),
        json!({"name": "a", "resources": {"limits": {"cpu": "500m", "memory": "2Gi"}}}),
    );
    check(
        "io.k8s.api.core.v1.ServiceStatus",
        json!({}),
        json!({"loadBalancer": {}}),
    );
}

#[test]
fn quantities_have_one_canonical_form() {
    for (text, canonical) in [
        ("0.5", "500m"),
        ("1", "1"),
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("1000", "1k"),
        ("1000Ki", "1000Ki"),
        ("512", "512"),
        ("1e3", "1e3"),
        ("-0.001", "-1m"),
        ("0", "0"),
        ("0Mi", "0"),
        ("0.5Gi", "512Mi"),
        ("0.0000000001", "1n"),
        ("100G", "100G"),
    ] {
        assert_eq!(
            Quantity::parse(text).unwrap().canonical(),
            canonical,
            "{text}"
        );
    }
    for text in ["", "a", "1.2.3", "1Zi", "1 Gi", ".", "1e"] {
        assert!(Quantity::parse(text).is_err(), "{text}");
    }
}

#[test]
fn repeated_fields_are_found_with_their_paths() {
    let found = duplicate_fields(br#"{"a": 1, "b": {"c": [{"d": 1, "d": 2}], "c": 1}, "a": 2}"#);
    assert_eq!(found, ["b.c[0].d", "b.c", "a"]);
    assert!(duplicate_fields(b"not json").is_empty());
}

#[test]
fn lists_of_built_in_kinds_merge_by_their_keys() {
    let list_type = |path: &[&str]| pod_template().list_type(path);
    let containers = ["spec", "template", "spec", "containers"];
    assert_eq!(
        list_type(&containers),
        Some(ListType::Map(vec!["name".to_owned()]))
    );
    let ports = ["spec", "template", "spec", "containers", "ports"];
    assert_eq!(
        list_type(&ports),
        Some(ListType::Map(vec![
            "containerPort".to_owned(),
            "protocol".to_owned()
        ]))
    );
    assert_eq!(list_type(&["spec", "nothing"]), None);
}

#[test]
fn documents_of_a_kind_are_complete() {
    let documents = definitions::documents("io.k8s.api.apps.v1.Deployment");
    assert!(documents.contains_key("io.k8s.api.core.v1.Container"));
    let text = Value::Object(documents.clone()).to_string();
    assert!(!text.contains("x-protobuf"));
    for reference in text.split("\"$ref\":\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(documents.contains_key(name), "{name}");
    }
}
