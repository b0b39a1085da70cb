//! The filter that copies fields of bodies into headers: a struct with `fields` (each with `pointer` and `header`),
//! `content_types`, `max_bytes`, `overwrite` and `reject`.

use http::HeaderName;
use lateen_route::body_fields::{BodyField, BodyFields, Pointer};
use lateen_route::{Invalid, Within};
use lateen_xds::pb::google::protobuf::value::Kind;
use lateen_xds::pb::google::protobuf::{Any, Value};

use super::telemetry::struct_of;

/// Name of the filter, and of the extension that the node lists.
pub(crate) const NAME: &str = "lateen.body_to_headers";

const TYPE: &str = "type.googleapis.com/lateen.body_to_headers.v1.BodyToHeaders";

/// Longest body that may be looked at: it is kept in memory.
const MOST_BYTES: f64 = 16.0 * 1024.0 * 1024.0;

/// Most fields.
const MOST_FIELDS: usize = 32;

/// Compiles the filter.
pub(super) fn compile(any: &Any) -> Result<BodyFields, Invalid> {
    let mut policy = BodyFields {
        fields: Vec::new(),
        content_types: Vec::new(),
        most_bytes: 0,
        overwrite: true,
        reject: false,
    };
    for (name, value) in struct_of(any, TYPE)?.fields {
        match (name.as_str(), value.kind) {
            ("fields", Some(Kind::ListValue(list))) if list.values.len() <= MOST_FIELDS => {
                for (index, value) in list.values.into_iter().enumerate() {
                    policy
                        .fields
                        .push(field(value).within_item("fields", index)?);
                }
            }
            ("content_types", Some(Kind::ListValue(list))) => {
                for (index, value) in list.values.into_iter().enumerate() {
                    let text = text(value).within_item("content_types", index)?;
                    policy.content_types.push(text.to_ascii_lowercase());
                }
            }
            ("max_bytes", Some(Kind::NumberValue(number)))
                if (1.0..=MOST_BYTES).contains(&number) =>
            {
                policy.most_bytes = number as usize;
            }
            ("overwrite", Some(Kind::BoolValue(overwrite))) => policy.overwrite = overwrite,
            ("reject", Some(Kind::BoolValue(reject))) => policy.reject = reject,
            _ => return Err(Invalid::unsupported(name)),
        }
    }
    if policy.fields.is_empty() {
        return Err(Invalid::new("fields", "must not be empty"));
    }
    if policy.content_types.is_empty() {
        return Err(Invalid::new("content_types", "must not be empty"));
    }
    if policy.most_bytes == 0 {
        return Err(Invalid::new("max_bytes", "is required"));
    }
    Ok(policy)
}

fn field(value: Value) -> Result<BodyField, Invalid> {
    let Some(Kind::StructValue(mut value)) = value.kind else {
        return Err(Invalid::new("", "must be a struct"));
    };
    let mut take = |name: &str| {
        let value = value.fields.remove(name).unwrap_or_default();
        text(value).within(name)
    };
    let (pointer, header) = (take("pointer")?, take("header")?);
    let pointer = Pointer::parse(&pointer)
        .ok_or_else(|| Invalid::new("pointer", format!("`{pointer}` is not a JSON pointer")))?;
    let header = HeaderName::try_from(&header)
        .map_err(|_| Invalid::new("header", format!("`{header}` is not a name of a header")))?;
    Ok(BodyField { pointer, header })
}

fn text(value: Value) -> Result<String, Invalid> {
    match value.kind {
        Some(Kind::StringValue(text)) => Ok(text),
        _ => Err(Invalid::new("", "must be a text")),
    }
}
