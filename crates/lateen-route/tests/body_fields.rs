//! Fields out of random bodies, compared with serde_json's own documents.

use lateen_route::body_fields::{BodyField, BodyFields, Format, Pointer};
use proptest::prelude::*;
use serde_json::Value;

/// Names of members and positions, so few that pointers often lead somewhere.
const NAMES: &str = "[ab01]|a/b|c~d|\u{e9}";

fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z\"\\\\/\u{e9}]{0,5}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(NAMES, inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn pointers() -> impl Strategy<Value = Vec<String>> {
    let name = NAMES.prop_map(|name: String| name.replace('~', "~0").replace('/', "~1"));
    let pointer =
        prop::collection::vec(name, 1..4).prop_map(|names| format!("/{}", names.join("/")));
    prop::collection::vec(pointer, 1..6)
}

fn policy(pointers: &[String]) -> BodyFields {
    let field = |(index, pointer): (usize, &String)| BodyField {
        pointer: Pointer::parse(pointer).expect("a pointer"),
        header: format!("x-{index}").parse().expect("a name"),
    };
    BodyFields {
        fields: pointers.iter().enumerate().map(field).collect(),
        content_types: Vec::new(),
        most_bytes: 1 << 20,
        overwrite: true,
        reject: false,
    }
}

/// Headers as the policy gives them.
fn found(policy: &BodyFields, format: Format, body: &[u8]) -> Option<Vec<(String, String)>> {
    let values = policy.extract(format, body).ok()?;
    let pair = |(name, value): &(http::HeaderName, http::HeaderValue)| {
        let value = std::str::from_utf8(value.as_bytes()).expect("UTF-8");
        (name.to_string(), value.to_owned())
    };
    Some(values.iter().map(pair).collect())
}

/// The same taken out of a document that was read whole.
fn expected(pointers: &[String], document: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    let pairs = pointers.iter().enumerate();
    pairs
        .filter_map(|(index, pointer)| {
            Some((format!("x-{index}"), text(document.pointer(pointer)?)?))
        })
        .collect()
}

proptest! {
    #[test]
    fn values_are_those_of_the_document(document in document(), pointers in pointers(), pretty: bool) {
        let body = if pretty {
            serde_json::to_string_pretty(&document)
        } else {
            serde_json::to_string(&document)
        };
        let values = found(&policy(&pointers), Format::Json, body.unwrap().as_bytes());
        prop_assert_eq!(values, Some(expected(&pointers, &document)));
    }

    #[test]
    fn what_is_read_is_json(
        document in document(),
        pointers in pointers(),
        at: prop::sample::Index,
        byte in prop_oneof![any::<u8>(), prop::sample::select(b"{}[]\",:\\u0".as_slice())],
    ) {
        let mut body = serde_json::to_vec(&document).unwrap();
        let at = at.index(body.len());
        body[at] = byte;
        if let Some(values) = found(&policy(&pointers), Format::Json, &body) {
            let read = match serde_json::from_slice::<Value>(&body) {
                Ok(read) => read,
                // RFC 8259's grammar has both, and what is not wanted is not converted.
                Err(error) => {
                    let reason = error.to_string();
                    let known = ["number out of range", "surrogate", "hex escape"];
                    prop_assert!(known.iter().any(|known| reason.contains(known)), "{}", reason);
                    return Ok(());
                }
            };
            // Numbers are copied as they are written, so only the names are the same.
            let names = |values: Vec<(String, String)>| -> Vec<String> {
                values.into_iter().map(|(name, _)| name).collect()
            };
            prop_assert_eq!(names(values), names(expected(&pointers, &read)));
        }
    }

    #[test]
    fn no_bytes_are_too_much(body: Vec<u8>, pointers in pointers()) {
        let policy = policy(&pointers);
        let _ = policy.extract(Format::Json, &body);
        let _ = policy.extract(Format::Form, &body);
    }
}

/// Fuzzed: the first byte is `J` for JSON, anything else for a form. A value that is read is the one that serde_json reads.
#[test]
fn bodies() {
    let pointers = ["/target", "/a", "/a/b", "/a/0", "/user/name", "/c~0d"].map(str::to_owned);
    let policy = policy(&pointers);
    bolero::check!(name = "bodies")
        .with_iterations(0)
        .for_each(|bytes: &[u8]| {
            let Some((kind, body)) = bytes.split_first() else {
                return;
            };
            if *kind != b'J' {
                let _ = found(&policy, Format::Form, body);
                return;
            }
            let values = found(&policy, Format::Json, body);
            let (Some(values), Ok(document)) = (values, serde_json::from_slice(body)) else {
                return;
            };
            let expected = expected(&pointers, &document);
            for (value, expected) in values.iter().zip(&expected) {
                assert_eq!(value.0, expected.0);
                // Numbers are copied as they are written.
                let same = value.1 == expected.1 || value.1.parse::<f64>().is_ok();
                assert!(same, "{value:?} {expected:?}");
            }
            assert_eq!(values.len(), expected.len());
        });
}
