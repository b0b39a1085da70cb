//! Reading fields out of a body takes no memory that grows with the body.

use lateen_route::body_fields::{BodyField, BodyFields, Format, Pointer, Unreadable};
use lateen_sys::allocation::CountingAllocator;

#[global_allocator]
static MEMORY: CountingAllocator = CountingAllocator::new();

/// Length of the bodies, the longest that a policy may look at.
const LENGTH: usize = 16 << 20;

/// Most bytes that reading may take: values, names and lists of fields.
const MOST: usize = 64 << 10;

fn check(what: &str, format: Format, body: &str, expected: Result<&[(&str, &str)], Unreadable>) {
    let field = |(pointer, header): &(&str, &str)| BodyField {
        pointer: Pointer::parse(pointer).unwrap(),
        header: header.parse().unwrap(),
    };
    let policy = BodyFields {
        fields: [("/user", "x-user"), ("/list/3/id", "x-id")]
            .iter()
            .map(field)
            .collect(),
        content_types: Vec::new(),
        most_bytes: LENGTH,
        overwrite: true,
        reject: false,
    };
    assert!(body.len() > LENGTH - 100, "{what}: {} bytes", body.len());
    let (found, peak) = MEMORY.peak_of(|| policy.extract(format, body.as_bytes()));
    let found = found.as_ref().map(|values| {
        let pairs = values.iter();
        pairs
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect::<Vec<_>>()
    });
    assert_eq!(
        found.as_deref().map_err(|error| **error),
        expected,
        "{what}"
    );
    assert!(peak <= MOST, "{what}: {peak} bytes");
}

/// A body that begins and ends so, with as much of `unit` between as fits.
fn filled(start: &str, unit: &str, end: &str) -> String {
    let times = (LENGTH - start.len() - end.len()) / unit.len();
    format!("{start}{}{end}", unit.repeat(times))
}

#[test]
fn memory_does_not_grow_with_the_body() {
    let ann: Result<&[(&str, &str)], _> = Ok(&[("x-user", "ann")]);
    let malformed = Err(Unreadable::Malformed);
    let json = |what, start, unit, end, expected| {
        check(what, Format::Json, &filled(start, unit, end), expected);
    };
    json("members", "{", r#""m":0,"#, r#""user":"ann"}"#, ann);
    json(
        "items",
        r#"{"user":"ann","list":[1,2,3,{"id":7}"#,
        ",0",
        "]}",
        Ok(&[("x-user", "ann"), ("x-id", "7")]),
    );
    json(
        "members of the wanted name's length",
        "{",
        r#""\u0061ser":0,"#,
        r#""user":"ann"}"#,
        ann,
    );
    json(
        "a name with escapes",
        r#"{"user":"ann",""#,
        r"\u0061",
        r#"":0}"#,
        ann,
    );
    json(
        "a text with escapes",
        r#"{"user":"ann","b":""#,
        r"\u0061",
        r#""}"#,
        ann,
    );
    json("a wanted text", r#"{"user":""#, "a", r#""}"#, malformed);
    json(
        "a wanted text with escapes",
        r#"{"user":""#,
        r"\n",
        r#""}"#,
        malformed,
    );
    json("a wanted number", r#"{"user":1"#, "0", "}", malformed);
    json(
        "an object for a text",
        r#"{"user":{"#,
        r#""m":0,"#,
        r#""m":0}}"#,
        Ok(&[]),
    );
    json("nesting", "", "[", "", malformed);
    let form = |what, start, unit, end, expected| {
        check(what, Format::Form, &filled(start, unit, end), expected);
    };
    form("pairs", "", "m=0&", "user=ann", ann);
    form("a name with escapes", "user=ann&", "%61", "=1", ann);
    form("a wanted text with escapes", "user=", "%61", "", malformed);
}
