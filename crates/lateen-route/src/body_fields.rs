//! Fields of JSON and form bodies as request headers, so that routes can look at them.
//!
//! A body is read whole and strictly: what different readers could take for different things (a name that stands
//! twice, a foreign character set, a compressed body) is not readable at all, so that a client cannot show one value
//! to the proxy and another to the application. Reading takes no memory beside the body but for the wanted values.

mod form;
mod json;
mod names;
mod reserved;

use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};

pub use reserved::reserved;

/// Longest value that becomes a header, in bytes.
const LONGEST_VALUE: usize = 8 * 1024;

/// Longest values together, in bytes. With a client's headers they still make a head that others accept.
const LONGEST_VALUES: usize = 16 * 1024;

/// Most names of a pointer.
const MOST_NAMES: usize = 32;

/// Character sets that are UTF-8 or part of it.
const CHARACTER_SETS: [&str; 3] = ["utf-8", "utf8", "us-ascii"];

/// What is copied from bodies, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyFields {
    /// What is copied where.
    pub fields: Vec<BodyField>,
    /// Media types that are looked at, in lower case.
    pub content_types: Vec<String>,
    /// Longest body that is looked at, in bytes.
    pub most_bytes: usize,
    /// A value of the body replaces headers that the client sent; otherwise those stay.
    pub overwrite: bool,
    /// Requests whose body cannot be read are refused; otherwise they go on as they came.
    pub reject: bool,
}

/// One field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyField {
    /// Names and positions on the way to the value.
    pub pointer: Pointer,
    /// The header that takes it.
    pub header: HeaderName,
}

/// A JSON pointer (RFC 6901), split and unescaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON, whatever the media type calls it.
    Json,
    /// `application/x-www-form-urlencoded`.
    Form,
}

/// Why a body is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// It is longer than what is looked at.
    TooLarge,
    /// It is of another media type, character set or encoding.
    Type,
    /// It is not what it says to be, or a name on the way to a field stands twice.
    Malformed,
}

impl Pointer {
    /// Reads a pointer to something inside of a document, at most 32 names long.
    pub fn parse(text: &str) -> Option<Self> {
        let names = text.strip_prefix('/')?.split('/');
        let unescape = |name: &str| {
            let mut escapes = name.split('~').skip(1);
            let plain = escapes.all(|escape| escape.starts_with(['0', '1']));
            plain.then(|| name.replace("~1", "/").replace("~0", "~"))
        };
        let names: Vec<String> = names.map(unescape).collect::<Option<_>>()?;
        (names.len() <= MOST_NAMES).then_some(Self(names))
    }
}

impl BodyFields {
    /// How the body of a request with these headers is written.
    ///
    /// # Errors
    /// When bodies of this kind are not looked at.
    pub fn format(&self, headers: &HeaderMap) -> Result<Format, Unreadable> {
        let single = |name| {
            let mut lines = headers.get_all(name).iter();
            match (lines.next(), lines.next()) {
                (None, _) => Ok(None),
                (Some(line), None) => line.to_str().map(Some).map_err(|_| Unreadable::Type),
                (Some(_), Some(_)) => Err(Unreadable::Type),
            }
        };
        let encoding = single(CONTENT_ENCODING)?.unwrap_or("identity");
        let media = single(CONTENT_TYPE)?.ok_or(Unreadable::Type)?;
        let mut parts = media.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let foreign = parts.any(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
            let value = value.trim_matches('"').to_ascii_lowercase();
            // RFC 8187 has other spellings of parameters, `charset*`.
            let known = name == "charset" && CHARACTER_SETS.contains(&value.as_str());
            name.starts_with("charset") && !known
        });
        if foreign || !encoding.eq_ignore_ascii_case("identity") {
            return Err(Unreadable::Type);
        }
        if !self.content_types.contains(&media) {
            return Err(Unreadable::Type);
        }
        match media.as_str() {
            "application/x-www-form-urlencoded" => Ok(Format::Form),
            _ => Ok(Format::Json),
        }
    }

    /// The headers that a body gives. Fields that are not there, or are no text, number or boolean, give none.
    ///
    /// # Errors
    /// When the body cannot be read, or a value cannot be a header.
    pub fn extract(
        &self,
        format: Format,
        body: &[u8],
    ) -> Result<Vec<(HeaderName, HeaderValue)>, Unreadable> {
        if body.len() > self.most_bytes {
            return Err(Unreadable::TooLarge);
        }
        let body = std::str::from_utf8(body).map_err(|_| Unreadable::Malformed)?;
        let values = match format {
            Format::Json => json::values(&self.fields, body),
            Format::Form => form::values(&self.fields, body),
        }?;
        let mut left = LONGEST_VALUES;
        let mut found = Vec::new();
        for (field, text) in self.fields.iter().zip(values) {
            let Some(text) = text else { continue };
            // White space at the ends would be lost on the way, and the application would see another value.
            if text.len() > LONGEST_VALUE.min(left) || text.trim() != text {
                return Err(Unreadable::Malformed);
            }
            left -= text.len();
            let value = HeaderValue::from_bytes(text.as_bytes());
            let value = value.map_err(|_| Unreadable::Malformed)?;
            found.push((field.header.clone(), value));
        }
        Ok(found)
    }

    /// Puts the values into the headers of the request, and their names into `given`. What stands there already was
    /// given by an earlier policy, and stays.
    pub fn apply(
        &self,
        values: Vec<(HeaderName, HeaderValue)>,
        headers: &mut HeaderMap,
        given: &mut Vec<HeaderName>,
    ) {
        for (name, value) in values {
            let is_same = |other: &HeaderName| is_same_to_applications(other, &name);
            if given.iter().any(is_same) {
                continue;
            }
            let spellings: Vec<HeaderName> = headers
                .keys()
                .filter(|other| is_same(other))
                .cloned()
                .collect();
            if !self.overwrite && !spellings.is_empty() {
                continue;
            }
            for other in spellings {
                headers.remove(&other);
            }
            keep_end_to_end(&name, headers);
            headers.insert(name.clone(), value);
            given.push(name);
        }
    }
}

/// Whether applications may take two names for the same: many do not tell dashes and underscores apart.
pub fn is_same_to_applications(one: &HeaderName, other: &HeaderName) -> bool {
    let dashed = |byte: u8| if byte == b'_' { b'-' } else { byte };
    let (one, other) = (one.as_str().bytes(), other.as_str().bytes());
    one.map(dashed).eq(other.map(dashed))
}

/// A client that lists the header as one of its connection would have it removed on the way.
fn keep_end_to_end(name: &HeaderName, headers: &mut HeaderMap) {
    let listed = |line: &HeaderValue| {
        let Ok(line) = line.to_str() else {
            return (false, line.clone());
        };
        let names = line.split(',').map(str::trim);
        let kept: Vec<&str> = names
            .clone()
            .filter(|listed| !listed.eq_ignore_ascii_case(name.as_str()))
            .collect();
        let changed = kept.len() != names.count();
        let value = HeaderValue::from_str(&kept.join(", "));
        (
            changed,
            value.unwrap_or_else(|_| HeaderValue::from_static("")),
        )
    };
    let lines: Vec<_> = headers.get_all(CONNECTION).iter().map(listed).collect();
    if lines.iter().any(|(changed, _)| *changed) {
        headers.remove(CONNECTION);
        for (_, line) in lines.into_iter().filter(|(_, line)| !line.is_empty()) {
            headers.append(CONNECTION, line);
        }
    }
}

#[cfg(test)]
mod tests;
