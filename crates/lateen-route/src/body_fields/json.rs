//! Values out of JSON.
//!
//! Nothing but the wanted values is taken out of the document: what is passed over costs time, and no memory.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Deserializer;
use serde_json::value::RawValue;

use super::names::{Likeness, Seen, compare};
use super::{BodyField, LONGEST_VALUE, Unreadable};

/// Deepest nesting of arrays and objects. RFC 8259 section 9 lets a reader set it, and applications do.
const DEEPEST: usize = 128;

/// Longest escape of one byte, `\u0061`.
const ESCAPED_BYTE: usize = 6;

/// Longest escape of one letter, `\ud83d\ude00`.
const ESCAPED_LETTER: usize = 12;

/// The value of each field, in their order.
pub(super) fn values<'b>(
    fields: &[BodyField],
    body: &'b str,
) -> Result<Vec<Option<Cow<'b, str>>>, Unreadable> {
    if !is_shallow(body) {
        return Err(Unreadable::Malformed);
    }
    // The parser checks all of the document, without recursion, before anything is taken out of it.
    let document: &RawValue = serde_json::from_str(body).map_err(|_| Unreadable::Malformed)?;
    let mut search = Search {
        fields,
        found: vec![None; fields.len()],
    };
    let all: Vec<usize> = (0..fields.len()).collect();
    search
        .look(document, &all, 0)
        .map_err(|_| Unreadable::Malformed)?;
    let found = search.found.into_iter();
    found.map(|place| place.map_or(Ok(None), text)).collect()
}

/// Whether arrays and objects are not nested too deeply. Of what is no JSON it says nothing.
fn is_shallow(body: &str) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in body.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                if depth > DEEPEST {
                    return false;
                }
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

/// The text of a value; none of arrays, objects and null.
fn text(place: &RawValue) -> Result<Option<Cow<'_, str>>, Unreadable> {
    let raw = place.get();
    match raw.as_bytes().first() {
        Some(b'"') if !raw.contains('\\') => Ok(Some(Cow::Borrowed(&raw[1..raw.len() - 1]))),
        // It is too long whatever it says.
        Some(b'"') if raw.len() > ESCAPED_BYTE * LONGEST_VALUE + 2 => Err(Unreadable::Malformed),
        Some(b'"') => {
            let text = serde_json::from_str(raw).map_err(|_| Unreadable::Malformed)?;
            Ok(Some(Cow::Owned(text)))
        }
        // Numbers as they are written: 1.0 and 1 are different texts.
        Some(b'-' | b'0'..=b'9' | b't' | b'f') => Ok(Some(Cow::Borrowed(raw))),
        _ => Ok(None),
    }
}

/// A walk through a document, along all pointers at once.
struct Search<'p, 'b> {
    fields: &'p [BodyField],
    found: Vec<Option<&'b RawValue>>,
}

impl<'b> Search<'_, 'b> {
    /// Looks at a place for the fields whose first `depth` names lead there.
    fn look(
        &mut self,
        place: &'b RawValue,
        wanted: &[usize],
        depth: usize,
    ) -> serde_json::Result<()> {
        let is_here = |field: &usize| self.fields[*field].pointer.0.len() == depth;
        let (here, below): (Vec<usize>, Vec<usize>) =
            wanted.iter().copied().partition(|field| is_here(field));
        for field in here {
            self.found[field] = Some(place);
        }
        if below.is_empty() {
            return Ok(());
        }
        let mut parser = Deserializer::from_str(place.get());
        let inside = Inside {
            search: self,
            wanted: &below,
            depth,
        };
        match place.get().as_bytes().first() {
            Some(b'{') => parser.deserialize_map(inside),
            Some(b'[') => parser.deserialize_seq(inside),
            _ => Ok(()),
        }
    }
}

/// Members of an object or items of an array on the way to fields.
struct Inside<'s, 'p, 'b> {
    search: &'s mut Search<'p, 'b>,
    wanted: &'s [usize],
    depth: usize,
}

impl<'p> Inside<'_, 'p, '_> {
    /// The name that a field has here.
    fn name(&self, field: usize) -> &'p str {
        &self.search.fields[field].pointer.0[self.depth]
    }
}

impl<'b> Visitor<'b> for Inside<'_, '_, 'b> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'b>>(self, mut map: A) -> Result<(), A::Error> {
        let letters = |field: &usize| self.name(*field).chars().count();
        let longest = self.wanted.iter().map(letters).max().unwrap_or_default();
        let mut seen = vec![Seen::default(); self.wanted.len()];
        while let Some(name) = map.next_key_seed(MemberName { longest })? {
            let mut leads = Vec::new();
            for (field, seen) in self.wanted.iter().zip(&mut seen) {
                let Some(name) = &name else { break };
                let likeness = compare(name.chars(), self.name(*field).chars());
                if !seen.note(likeness) {
                    return Err(A::Error::custom("a name stands twice"));
                }
                if likeness == Likeness::Same {
                    leads.push(*field);
                }
            }
            if leads.is_empty() {
                map.next_value::<IgnoredAny>()?;
            } else {
                let place: &'b RawValue = map.next_value()?;
                let looked = self.search.look(place, &leads, self.depth + 1);
                looked.map_err(A::Error::custom)?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'b>>(self, mut items: A) -> Result<(), A::Error> {
        let position = |field: &usize| Some((position(self.name(*field))?, *field));
        let wanted: Vec<(usize, usize)> = self.wanted.iter().filter_map(position).collect();
        for index in 0.. {
            let leads: Vec<usize> = wanted
                .iter()
                .filter_map(|(position, field)| (*position == index).then_some(*field))
                .collect();
            if leads.is_empty() {
                if items.next_element::<IgnoredAny>()?.is_none() {
                    break;
                }
                continue;
            }
            let Some(place) = items.next_element::<&'b RawValue>()? else {
                break;
            };
            let looked = self.search.look(place, &leads, self.depth + 1);
            looked.map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

/// The position that a name is; `01` is none, see RFC 6901 section 4.
fn position(name: &str) -> Option<usize> {
    let plain = name == "0" || name.starts_with(|first: char| ('1'..='9').contains(&first));
    name.parse().ok().filter(|_| plain)
}

/// Reads the name of a member, unless it is so long that it cannot be wanted.
struct MemberName {
    /// Letters of the longest wanted name.
    longest: usize,
}

impl<'b> DeserializeSeed<'b> for MemberName {
    type Value = Option<Cow<'b, str>>;

    fn deserialize<D: serde::Deserializer<'b>>(
        self,
        deserializer: D,
    ) -> Result<Self::Value, D::Error> {
        let raw: &'b RawValue = serde::Deserialize::deserialize(deserializer)?;
        let raw = raw.get();
        if !raw.contains('\\') {
            return Ok(Some(Cow::Borrowed(&raw[1..raw.len() - 1])));
        }
        if raw.len() > ESCAPED_LETTER * self.longest + 2 {
            return Ok(None);
        }
        let name = serde_json::from_str(raw).map_err(D::Error::custom)?;
        Ok(Some(Cow::Owned(name)))
    }
}
