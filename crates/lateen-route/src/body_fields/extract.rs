//! Values out of bodies.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{BodyField, Format, Pointer, Unreadable};

/// The value of each field, in their order.
pub(super) fn values(
    fields: &[BodyField],
    format: Format,
    body: &[u8],
) -> Result<Vec<Option<String>>, Unreadable> {
    match format {
        Format::Json => {
            // The parser checks all of the document, without recursion, before anything is taken out of it.
            let document: &RawValue =
                serde_json::from_slice(body).map_err(|_| Unreadable::Malformed)?;
            fields
                .iter()
                .map(|field| in_json(document, &field.pointer))
                .collect()
        }
        Format::Form => {
            let body = std::str::from_utf8(body).map_err(|_| Unreadable::Malformed)?;
            let pairs: Vec<(String, String)> = body
                .split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    Some((decoded(name)?, decoded(value)?))
                })
                .collect::<Option<_>>()
                .ok_or(Unreadable::Malformed)?;
            fields
                .iter()
                .map(|field| in_form(&pairs, &field.pointer))
                .collect()
        }
    }
}

fn in_json(document: &RawValue, pointer: &Pointer) -> Result<Option<String>, Unreadable> {
    let mut place = document;
    for name in &pointer.0 {
        let inner = match place.get().as_bytes().first() {
            Some(b'{') => only(parse::<Members<'_>>(place)?.0, name)?,
            Some(b'[') => {
                let items: Vec<&RawValue> = parse(place)?;
                // `01` is no position, see RFC 6901 section 4.
                let plain = name == "0" || !name.starts_with('0');
                let position = name.parse::<usize>().ok().filter(|_| plain);
                position.and_then(|position| items.get(position).copied())
            }
            _ => None,
        };
        let Some(inner) = inner else { return Ok(None) };
        place = inner;
    }
    match place.get().as_bytes().first() {
        Some(b'"') => parse(place).map(Some),
        // Numbers as they are written: 1.0 and 1 are different texts.
        Some(b'-' | b'0'..=b'9' | b't' | b'f') => Ok(Some(place.get().to_owned())),
        _ => Ok(None),
    }
}

fn parse<'v, T: Deserialize<'v>>(value: &'v RawValue) -> Result<T, Unreadable> {
    serde_json::from_str(value.get()).map_err(|_| Unreadable::Malformed)
}

/// The value of a name. One that stands twice means something else to every reader.
fn only<'v>(
    members: Vec<(Cow<'v, str>, &'v RawValue)>,
    wanted: &str,
) -> Result<Option<&'v RawValue>, Unreadable> {
    let mut same = members.into_iter().filter(|(name, _)| name == wanted);
    match (same.next(), same.next()) {
        (_, Some(_)) => Err(Unreadable::Malformed),
        (first, None) => Ok(first.map(|(_, value)| value)),
    }
}

fn in_form(pairs: &[(String, String)], pointer: &Pointer) -> Result<Option<String>, Unreadable> {
    let [wanted] = pointer.0.as_slice() else {
        return Ok(None);
    };
    let mut same = pairs.iter().filter(|(name, _)| name == wanted);
    match (same.next(), same.next()) {
        (_, Some(_)) => Err(Unreadable::Malformed),
        (first, None) => Ok(first.map(|(_, value)| value.clone())),
    }
}

/// Undoes the escapes of a form; nothing when they are broken or no UTF-8.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
                if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    return None;
                }
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &tail[2..];
            }
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).ok()
}

/// The members of an object as they stand, repeated ones included.
struct Members<'v>(Vec<(Cow<'v, str>, &'v RawValue)>);

impl<'v> Deserialize<'v> for Members<'v> {
    fn deserialize<D: Deserializer<'v>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'v> Visitor<'v> for Collect {
            type Value = Members<'v>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'v>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    members.push((Cow::Owned(name), map.next_value()?));
                }
                Ok(Members(members))
            }
        }

        deserializer
            .deserialize_map(Collect)
            .map_err(de::Error::custom)
    }
}
