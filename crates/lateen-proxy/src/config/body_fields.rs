//! The filter that copies fields of bodies into headers: a struct with `fields` (each with `pointer` and `header`),
//! `content_types`, `max_bytes`, `overwrite` and `reject`.

use http::HeaderName;
use lateen_route::body_fields::{
    BodyField, BodyFields, Pointer, is_same_to_applications, reserved,
};
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
            ("fields", Some(Kind::ListValue(list))) => {
                if list.values.len() > MOST_FIELDS {
                    let reason = format!("at most {MOST_FIELDS} are supported");
                    return Err(Invalid::new("fields", reason));
                }
                for (index, value) in list.values.into_iter().enumerate() {
                    let field = field(value, &policy.fields).within_item("fields", index)?;
                    policy.fields.push(field);
                }
            }
            ("content_types", Some(Kind::ListValue(list))) => {
                for (index, value) in list.values.into_iter().enumerate() {
                    let media = media_type(value).within_item("content_types", index)?;
                    policy.content_types.push(media);
                }
            }
            ("max_bytes", Some(Kind::NumberValue(number))) => {
                if !(1.0..=MOST_BYTES).contains(&number) {
                    let reason = format!("must be 1 to {MOST_BYTES}");
                    return Err(Invalid::new("max_bytes", reason));
                }
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

/// Compiles a field that follows `earlier` ones.
fn field(value: Value, earlier: &[BodyField]) -> Result<BodyField, Invalid> {
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
    if let Some(reason) = reserved(header.as_str()) {
        let reason = format!("`{header}` must not be taken from a body: {reason}");
        return Err(Invalid::new("header", reason));
    }
    if earlier
        .iter()
        .any(|field| is_same_to_applications(&field.header, &header))
    {
        let reason = format!("`{header}` is set by two fields");
        return Err(Invalid::new("header", reason));
    }
    Ok(BodyField { pointer, header })
}

/// A media type whose bodies can be read, in lower case.
fn media_type(value: Value) -> Result<String, Invalid> {
    let media = text(value)?.to_ascii_lowercase();
    let readable = ["application/json", "application/x-www-form-urlencoded"];
    if readable.contains(&media.as_str()) || media.ends_with("+json") {
        return Ok(media);
    }
    let reason = format!("bodies of the type `{media}` cannot be read");
    Err(Invalid::new("", reason))
}

fn text(value: Value) -> Result<String, Invalid> {
    match value.kind {
        Some(Kind::StringValue(text)) => Ok(text),
        _ => Err(Invalid::new("", "must be a text")),
    }
}
