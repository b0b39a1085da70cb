//! The form that an object has after a trip through its Go struct.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::node::{Additional, Format, Schema, Type};
use super::quantity::Quantity;

/// Gives an object the form of its Go struct written as JSON: zero values are dropped where the field says `omitempty`
/// and added where it does not, quantities and times are canonical. Idempotent.
pub fn normalize(value: &mut Value, schema: &Schema) {
    let schema = schema.resolved();
    match value {
        Value::Object(members) if schema.format != Format::Raw => {
            if schema.go.struct_name.is_some() {
                // A struct: every field behaves as its tag says.
                for (name, property) in &schema.properties {
                    match members.get_mut(name) {
                        Some(member) => {
                            if member.is_null() && zero(property).is_null() && property.go.always {
                                continue;
                            }
                            normalize(member, property);
                            let dropped =
                                !property.go.pointer && !property.go.always && is_empty(member);
                            if dropped || (member.is_null() && !raw(property)) {
                                members.shift_remove(name);
                            }
                        }
                        None if property.go.always
                            && !matches!(name.as_str(), "apiVersion" | "kind") =>
                        {
                            let mut zero = zero(property);
                            normalize(&mut zero, property);
                            members.insert(name.clone(), zero);
                        }
                        None => {}
                    }
                }
            } else if let Additional::Schema(values) = &schema.additional {
                members
                    .values_mut()
                    .for_each(|member| normalize(member, values));
            }
        }
        Value::Array(items) => {
            if let Some(of) = &schema.items {
                items.iter_mut().for_each(|item| normalize(item, of));
            }
        }
        _ => normalize_scalar(value, schema),
    }
}

fn normalize_scalar(value: &mut Value, schema: &Schema) {
    match schema.format {
        Format::Quantity => {
            let text = match &*value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => return,
            };
            if let Ok(quantity) = Quantity::parse(&text) {
                *value = Value::String(quantity.canonical());
            }
        }
        Format::Time => {
            if let Some(time) = value.as_str().and_then(parse_time) {
                *value = Value::String(format_seconds(time));
            }
        }
        Format::MicroTime => {
            if let Some(time) = value.as_str().and_then(parse_time) {
                *value = Value::String(format_micros(time));
            }
        }
        _ => {}
    }
}

/// The zero value of a field's type.
fn zero(property: &Schema) -> Value {
    let schema = property.resolved();
    match (schema.format, schema.type_) {
        (Format::Time | Format::MicroTime | Format::Raw, _) => Value::Null,
        (Format::Quantity, _) => json!("0"),
        (_, Some(Type::IntOrString | Type::Integer | Type::Number)) => json!(0),
        (Format::Byte, _) => Value::Null,
        (_, Some(Type::String)) => json!(""),
        (_, Some(Type::Boolean)) => json!(false),
        (_, Some(Type::Object)) if schema.go.struct_name.is_some() => json!({}),
        _ => Value::Null,
    }
}

/// What `omitempty` leaves out.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

fn raw(property: &Schema) -> bool {
    property.resolved().format == Format::Raw
}

/// Reads an RFC 3339 time.
pub(crate) fn parse_time(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

/// `2026-01-02T03:04:05Z`.
pub(crate) fn format_seconds(time: OffsetDateTime) -> String {
    let time = time.to_offset(time::UtcOffset::UTC);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// `2026-01-02T03:04:05.000006Z`.
pub(crate) fn format_micros(time: OffsetDateTime) -> String {
    let seconds = format_seconds(time);
    format!(
        "{}.{:06}Z",
        seconds.trim_end_matches('Z'),
        time.microsecond()
    )
}
