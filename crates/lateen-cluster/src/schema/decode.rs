//! Reading an object as a Go struct: wrong types are errors worded as Go words them, unknown fields are dropped.

use serde_json::{Map, Value, json};

use super::node::{Additional, Format, Schema, Type};
use super::quantity::Quantity;
use crate::strategy::FieldValidation;

/// Checks the types of all fields of a built-in object and drops the unknown ones.
///
/// Returns the paths of unknown fields as `unknown field "spec.foo"` unless they are to be ignored. Fails with Go's text
/// for the first field of a wrong type.
pub fn decode(
    object: &mut Value,
    schema: &Schema,
    validation: FieldValidation,
) -> Result<Vec<String>, String> {
    let mut decoder = Decoder {
        unknown: Vec::new(),
        error: None,
    };
    decoder.value(object, schema, &Place::default());
    match decoder.error {
        Some(error) => Err(error),
        None if validation == FieldValidation::Ignore => Ok(Vec::new()),
        None => Ok(decoder.unknown),
    }
}

/// Where the decoder stands: the path with indexes for unknown fields, and Go's idea of the path for type errors.
#[derive(Default, Clone)]
struct Place {
    path: String,
    /// Innermost struct and the fields that led here, without indexes and map keys.
    struct_name: String,
    fields: Vec<String>,
    /// Go type at this place.
    type_name: String,
}

struct Decoder {
    unknown: Vec<String>,
    error: Option<String>,
}

impl Decoder {
    fn value(&mut self, value: &mut Value, schema: &Schema, place: &Place) {
        let schema = schema.resolved();
        match schema.format {
            Format::Raw => return,
            Format::Quantity => return self.quantity(value),
            Format::Time | Format::MicroTime => return self.time(value, place),
            _ => {}
        }
        match (&mut *value, schema.type_) {
            (Value::Null, _) | (_, None) => {}
            (Value::Object(members), Some(Type::Object)) => {
                if schema.go.struct_name.is_some() {
                    self.structure(members, schema, place);
                } else {
                    self.map(members, schema, place);
                }
            }
            (Value::Array(items), Some(Type::Array)) => {
                let Some(of) = &schema.items else { return };
                let mut inner = place.clone();
                inner.type_name = place.type_name.trim_start_matches("[]").to_owned();
                for (index, item) in items.iter_mut().enumerate() {
                    inner.path = format!("{}[{index}]", place.path);
                    self.value(item, of, &inner);
                    // Go leaves the zero value where a list has null.
                    if item.is_null() {
                        *item = match of.resolved().type_ {
                            Some(Type::Object) => json!({}),
                            Some(Type::String) => json!(""),
                            _ => Value::Null,
                        };
                    }
                }
            }
            (Value::String(text), Some(Type::String)) if schema.format == Format::Byte => {
                self.bytes(text);
            }
            (Value::String(_), Some(Type::String | Type::IntOrString))
            | (Value::Bool(_), Some(Type::Boolean)) => {}
            (Value::Number(_), Some(Type::Number)) => {}
            (Value::Number(number), Some(Type::Integer | Type::IntOrString)) => {
                let fits = match schema.format {
                    Format::Int64 => number.as_i64().is_some(),
                    _ => number
                        .as_i64()
                        .is_some_and(|number| i32::try_from(number).is_ok()),
                };
                if !fits {
                    let found = format!("number {number}");
                    if schema.type_ == Some(Type::IntOrString) {
                        self.fail(format!(
                            "json: cannot unmarshal {found} into Go value of type int32"
                        ));
                    } else {
                        self.wrong_type(&found, place);
                    }
                }
            }
            // IntOrString has a decoder of its own that doesn't know where it stands.
            (other, Some(Type::IntOrString)) => {
                let found = kind_of(other);
                self.fail(format!(
                    "json: cannot unmarshal {found} into Go value of type int32"
                ));
            }
            (other, Some(_)) => self.wrong_type(kind_of(other), place),
        }
    }

    fn structure(&mut self, members: &mut Map<String, Value>, schema: &Schema, place: &Place) {
        let mut inner = Place {
            struct_name: schema
                .go
                .struct_name
                .as_deref()
                .unwrap_or_default()
                .to_owned(),
            ..place.clone()
        };
        let mut drop = Vec::new();
        for (name, member) in members.iter_mut() {
            let path = join(&place.path, name);
            let Some(property) = schema.properties.get(name) else {
                self.unknown.push(format!("unknown field {path:?}"));
                drop.push(name.clone());
                continue;
            };
            inner.path = path;
            inner.type_name = property
                .go
                .type_name
                .as_deref()
                .unwrap_or_default()
                .to_owned();
            inner.fields.push(name.clone());
            self.value(member, property, &inner);
            inner.fields.pop();
            if member.is_null() && property.resolved().format != Format::Raw {
                drop.push(name.clone());
            }
        }
        for name in drop {
            members.shift_remove(&name);
        }
    }

    fn map(&mut self, members: &mut Map<String, Value>, schema: &Schema, place: &Place) {
        let Additional::Schema(values) = &schema.additional else {
            return;
        };
        let mut inner = place.clone();
        inner.type_name = place
            .type_name
            .split_once(']')
            .map_or_else(String::new, |(_, element)| element.to_owned());
        for (name, member) in members.iter_mut() {
            inner.path = join(&place.path, name);
            self.value(member, values, &inner);
            if member.is_null() && values.resolved().type_ == Some(Type::String) {
                *member = json!("");
            }
        }
    }

    fn quantity(&mut self, value: &Value) {
        let text = match value {
            Value::Null => return,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if let Err(error) = Quantity::parse(&text) {
            self.fail(error.to_string());
        }
    }

    fn time(&mut self, value: &Value, place: &Place) {
        match value {
            Value::Null => {}
            Value::String(text) if super::go::parse_time(text).is_some() => {}
            Value::String(text) => {
                // Go names the first part of its layout that does not fit; the year is the usual one.
                self.fail(format!(
                    "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
                ));
            }
            other => {
                let _ = place;
                self.fail(format!(
                    "json: cannot unmarshal {} into Go value of type string",
                    kind_of(other)
                ));
            }
        }
    }

    fn bytes(&mut self, text: &str) {
        let clean: String = text
            .chars()
            .filter(|letter| !matches!(letter, '\r' | '\n'))
            .collect();
        if let Some(offset) = base64_fault(&clean) {
            self.fail(format!("illegal base64 data at input byte {offset}"));
        }
    }

    fn wrong_type(&mut self, found: &str, place: &Place) {
        let text = if place.fields.is_empty() {
            format!(
                "json: cannot unmarshal {found} into Go value of type {}",
                place.type_name
            )
        } else {
            format!(
                "json: cannot unmarshal {found} into Go struct field {}.{} of type {}",
                place.struct_name,
                place.fields.join("."),
                place.type_name
            )
        };
        self.fail(text);
    }

    /// The first fault is the one that Go tells.
    fn fail(&mut self, text: String) {
        self.error.get_or_insert(text);
    }
}

/// Offset of the first fault in standard base64, `None` when there is none.
fn base64_fault(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let body = text.trim_end_matches('=').len();
    if let Some(offset) = bytes[..body]
        .iter()
        .position(|byte| !byte.is_ascii_alphanumeric() && !matches!(byte, b'+' | b'/'))
    {
        return Some(offset);
    }
    let padding = bytes.len() - body;
    let wanted = match body % 4 {
        0 => 0,
        2 => 2,
        3 => 1,
        _ => return Some(body),
    };
    (padding != wanted).then_some(if padding < wanted {
        bytes.len() / 4 * 4
    } else {
        body + wanted
    })
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}
