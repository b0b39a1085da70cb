//! Messages to JSON, driven by the schema of their type.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::wire::{Content, Fault, Fields};
use crate::schema::{Additional, Format, Schema, Type, definitions, format_micros, format_seconds};

/// Messages may be nested this deep: schemas of custom resources are the deepest.
const MAX_DEPTH: usize = 100;

const EXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1";

/// Decodes a message of the type that `schema` describes.
pub(super) fn decode(message: &[u8], schema: &Schema) -> Result<Value, Fault> {
    let mut members = Map::new();
    structure(message, schema.resolved(), &mut members, 0)?;
    Ok(Value::Object(members))
}

fn structure(
    message: &[u8],
    schema: &Schema,
    members: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), Fault> {
    if depth > MAX_DEPTH {
        return Err(Fault::TooDeep);
    }
    let mut fields = Fields::new(message);
    while let Some((number, content)) = fields.next()? {
        // An embedded struct is a message of its own whose fields are the object's.
        if let Some((_, name)) = schema.inline.iter().find(|(inline, _)| *inline == number) {
            if let Some(embedded) = definitions::definition(name) {
                structure(content.bytes()?, embedded, members, depth + 1)?;
            }
            continue;
        }
        let known = schema
            .properties
            .iter()
            .find(|(_, property)| property.go.number == number);
        // Fields of a newer client are unknown here, as they are to a server that is older than its client.
        let Some((name, property)) = known else {
            continue;
        };
        field(members, name, property, content, depth + 1)?;
    }
    Ok(())
}

fn field(
    members: &mut Map<String, Value>,
    name: &str,
    property: &Schema,
    content: Content<'_>,
    depth: usize,
) -> Result<(), Fault> {
    let schema = property.resolved();
    match (schema.type_, &schema.items, &schema.additional) {
        (Some(Type::Array), Some(items), _) => {
            let list = members.entry(name).or_insert_with(|| json!([]));
            let Some(list) = list.as_array_mut() else {
                return Err(Fault::Mismatch);
            };
            match (content, items.resolved().type_) {
                (Content::Bytes(packed), Some(Type::Integer)) => {
                    list.extend(Fields::packed(packed)?.into_iter().map(Value::from));
                }
                _ => list.push(value(items, content, depth)?),
            }
        }
        (Some(Type::Object), _, Additional::Schema(values)) if schema.go.struct_name.is_none() => {
            let extra = property
                .go
                .type_name
                .as_deref()
                .is_some_and(|name| name.ends_with(".ExtraValue"));
            let (key, entry) = map_entry(content.bytes()?, values, extra, depth)?;
            let map = members.entry(name).or_insert_with(|| json!({}));
            let Some(map) = map.as_object_mut() else {
                return Err(Fault::Mismatch);
            };
            map.insert(key, entry);
        }
        _ => {
            members.insert(name.to_owned(), value(property, content, depth)?);
        }
    }
    Ok(())
}

/// An entry of a map: field 1 is the key, field 2 the value.
fn map_entry(
    message: &[u8],
    values: &Schema,
    extra: bool,
    depth: usize,
) -> Result<(String, Value), Fault> {
    let mut key = String::new();
    let mut entry = None;
    let mut fields = Fields::new(message);
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => key = content.text()?,
            2 if extra => entry = Some(extra_value(content.bytes()?)?),
            2 => entry = Some(value(values, content, depth)?),
            _ => {}
        }
    }
    let entry = match entry {
        Some(entry) => entry,
        None if extra => json!([]),
        // A value that is left out is the zero value of its type.
        None => match values.resolved().type_ {
            Some(Type::String) => json!(""),
            Some(Type::Object) => json!({}),
            _ => Value::Null,
        },
    };
    Ok((key, entry))
}

/// `ExtraValue`: a list that Go wraps in a message.
fn extra_value(message: &[u8]) -> Result<Value, Fault> {
    let mut items = Vec::new();
    let mut fields = Fields::new(message);
    while let Some((number, content)) = fields.next()? {
        if number == 1 {
            items.push(Value::String(content.text()?));
        }
    }
    Ok(Value::Array(items))
}

fn value(property: &Schema, content: Content<'_>, depth: usize) -> Result<Value, Fault> {
    let schema = property.resolved();
    let value = match (schema.format, schema.type_) {
        (Format::Time, _) => moment(content.bytes()?, format_seconds)?,
        (Format::MicroTime, _) => moment(content.bytes()?, format_micros)?,
        (Format::Quantity, _) => json!(first_text(content.bytes()?)?),
        (Format::Raw, _) => raw(property, content.bytes()?, depth)?,
        (Format::Byte, _) => json!(STANDARD.encode(content.bytes()?)),
        (_, Some(Type::IntOrString)) => int_or_string(content.bytes()?)?,
        (_, Some(Type::String)) => Value::String(content.text()?),
        (_, Some(Type::Boolean)) => json!(content.integer()? != 0),
        (_, Some(Type::Integer)) => json!(content.integer()?),
        (_, Some(Type::Number)) => json!(content.float()?),
        (_, Some(Type::Object)) => {
            let mut members = Map::new();
            structure(content.bytes()?, schema, &mut members, depth)?;
            Value::Object(members)
        }
        _ => return Err(Fault::Mismatch),
    };
    Ok(value)
}

/// Seconds and nanoseconds since 1970; nothing at all is no time.
fn moment(message: &[u8], format: fn(OffsetDateTime) -> String) -> Result<Value, Fault> {
    let (mut seconds, mut nanoseconds) = (0, 0);
    let mut fields = Fields::new(message);
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => seconds = content.integer()?,
            2 => nanoseconds = content.integer()?,
            _ => {}
        }
    }
    if message.is_empty() {
        return Ok(Value::Null);
    }
    let time = OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| Fault::Mismatch)?;
    Ok(json!(format(
        time + time::Duration::nanoseconds(nanoseconds)
    )))
}

/// The text in field 1.
fn first_text(message: &[u8]) -> Result<String, Fault> {
    let mut text = String::from("0");
    let mut fields = Fields::new(message);
    while let Some((number, content)) = fields.next()? {
        if number == 1 {
            text = content.text()?;
        }
    }
    Ok(text)
}

fn int_or_string(message: &[u8]) -> Result<Value, Fault> {
    let (mut is_text, mut number_value, mut text) = (false, 0, String::new());
    let mut fields = Fields::new(message);
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => is_text = content.integer()? != 0,
            2 => number_value = content.integer()?,
            3 => text = content.text()?,
            _ => {}
        }
    }
    Ok(if is_text {
        json!(text)
    } else {
        json!(number_value)
    })
}

/// JSON inside a message, and the unions in schemas of custom resources.
fn raw(property: &Schema, message: &[u8], depth: usize) -> Result<Value, Fault> {
    let name = property.reference.as_deref().unwrap_or_default();
    let union = name
        .strip_prefix(EXTENSIONS)
        .map(|name| name.trim_start_matches('.'));
    let mut plain = Value::Null;
    let mut list = Vec::new();
    let mut fields = Fields::new(message);
    while let Some((number, content)) = fields.next()? {
        match (union, number) {
            (Some("JSONSchemaPropsOrArray" | "JSONSchemaPropsOrStringArray"), 1)
            | (Some("JSONSchemaPropsOrBool"), 2) => plain = nested(content, depth)?,
            (Some("JSONSchemaPropsOrArray"), 2) => list.push(nested(content, depth)?),
            (Some("JSONSchemaPropsOrStringArray"), 2) => list.push(Value::String(content.text()?)),
            (Some("JSONSchemaPropsOrBool"), 1) if plain.is_null() => {
                plain = json!(content.integer()? != 0);
            }
            (None | Some("JSON"), 1) => plain = serde_json::from_slice(content.bytes()?)?,
            _ => {}
        }
    }
    Ok(if list.is_empty() {
        plain
    } else {
        Value::Array(list)
    })
}

fn nested(content: Content<'_>, depth: usize) -> Result<Value, Fault> {
    let name = format!("{EXTENSIONS}.JSONSchemaProps");
    let schema = definitions::definition(&name).ok_or(Fault::Mismatch)?;
    let mut members = Map::new();
    structure(content.bytes()?, schema, &mut members, depth + 1)?;
    let mut value = Value::Object(members);
    crate::schema::normalize(&mut value, schema);
    Ok(value)
}
