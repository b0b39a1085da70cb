//! Constraints that the protobuf definitions put on texts, under the names that they have there.

use http::HeaderName;

use crate::Invalid;

/// Most bytes of the value of an added header.
const HEADER_VALUE_LIMIT: usize = 16_384;

/// `min_len: 1`
pub fn not_empty(field: &str, text: &str) -> Result<(), Invalid> {
    if text.is_empty() {
        return Err(Invalid::new(field, "must not be empty"));
    }
    Ok(())
}

/// `well_known_regex: HTTP_HEADER_VALUE`, not strict: one line without NUL.
pub fn one_line(field: &str, text: &str) -> Result<(), Invalid> {
    if text.contains(['\0', '\r', '\n']) {
        return Err(Invalid::new(field, "must be one line without NUL"));
    }
    Ok(())
}

/// The value of an added header: one line of limited length.
pub fn header_value(field: &str, text: &str) -> Result<(), Invalid> {
    if text.len() > HEADER_VALUE_LIMIT {
        let reason = format!("must have at most {HEADER_VALUE_LIMIT} bytes");
        return Err(Invalid::new(field, reason));
    }
    one_line(field, text)
}

/// The name of a header field.
pub fn header_name(field: &str, name: &str) -> Result<HeaderName, Invalid> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Invalid::new(field, format!("`{name}` is not a valid header name")))
}
