//! Values out of forms (`application/x-www-form-urlencoded`, WHATWG URL section 5.1).

use std::borrow::Cow;

use super::names::{Likeness, Seen, compare};
use super::{BodyField, LONGEST_VALUE, Unreadable};

/// Longest escape of one byte, `%61`.
const ESCAPED_BYTE: usize = 3;

/// The value of each field, in their order.
pub(super) fn values<'b>(
    fields: &[BodyField],
    body: &'b str,
) -> Result<Vec<Option<Cow<'b, str>>>, Unreadable> {
    // Some readers end a pair there, as HTML 4 recommended.
    if body.contains(';') {
        return Err(Unreadable::Malformed);
    }
    let mut found = vec![None; fields.len()];
    let mut seen = vec![Seen::default(); fields.len()];
    for pair in body.split('&').filter(|pair| !pair.is_empty()) {
        if !is_well_formed(pair) {
            return Err(Unreadable::Malformed);
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        for (index, field) in fields.iter().enumerate() {
            let [wanted] = field.pointer.0.as_slice() else {
                continue;
            };
            let likeness = likeness(name, wanted);
            if !seen[index].note(likeness) {
                return Err(Unreadable::Malformed);
            }
            if likeness == Likeness::Same {
                found[index] = Some(value);
            }
        }
    }
    let found = found.into_iter();
    found.map(|value| value.map(text).transpose()).collect()
}

/// How an escaped name is to a wanted one. Some readers take `name[]` and `name[x]` for parts of `name`.
fn likeness(name: &str, wanted: &str) -> Likeness {
    let wanted = || wanted.bytes().map(char::from);
    let name = || decoded(name).map(char::from);
    match compare(name(), wanted()) {
        Likeness::Other => {
            let length = wanted().count();
            let start = compare(name().take(length), wanted());
            if start != Likeness::Other && name().nth(length) == Some('[') {
                Likeness::Alike
            } else {
                Likeness::Other
            }
        }
        found => found,
    }
}

fn text(value: &str) -> Result<Cow<'_, str>, Unreadable> {
    if !value.contains(['%', '+']) {
        return Ok(Cow::Borrowed(value));
    }
    // It is too long whatever it says.
    if value.len() > ESCAPED_BYTE * LONGEST_VALUE {
        return Err(Unreadable::Malformed);
    }
    let text = String::from_utf8(decoded(value).collect());
    text.map(Cow::Owned).map_err(|_| Unreadable::Malformed)
}

/// Whether two hexadecimal digits follow each percent sign.
fn is_well_formed(text: &str) -> bool {
    let mut parts = text.as_bytes().split(|byte| *byte == b'%');
    parts.next();
    parts.all(|part| {
        part.get(..2)
            .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

/// The bytes of a text without its escapes, which are well-formed.
fn decoded(text: &str) -> impl Iterator<Item = u8> {
    let mut rest = text.bytes();
    std::iter::from_fn(move || {
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        match rest.next()? {
            b'+' => Some(b' '),
            b'%' => Some(digit(rest.next()?)? << 4 | digit(rest.next()?)?),
            other => Some(other),
        }
    })
}
