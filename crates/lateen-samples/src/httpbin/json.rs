//! JSON the way each of the two programs writes it, to the byte: clients of this demo compare sizes.

use http::StatusCode;
use serde_json::Value;

use super::Form;
use crate::respond::{self, FullResponse};

/// An answer with this value, keys in order.
pub(super) fn json(form: Form, status: StatusCode, value: &Value) -> FullResponse {
    let content_type = match form {
        Form::Python => "application/json",
        Form::Go => "application/json; charset=utf-8",
    };
    respond::typed(status, content_type, text(form, value))
}

/// The text of a value: two blanks of indent, a new line at the end.
pub(super) fn text(form: Form, value: &Value) -> String {
    let mut text = String::new();
    write(form, value, 0, &mut text);
    text.push('\n');
    text
}

fn write(form: Form, value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            list(
                form,
                ('{', '}'),
                &fields,
                depth,
                out,
                |(name, value), out| {
                    string(form, name, out);
                    out.push_str(": ");
                    write(form, value, depth + 1, out);
                },
            );
        }
        Value::Array(items) => list(form, ('[', ']'), items, depth, out, |item, out| {
            write(form, item, depth + 1, out);
        }),
        Value::String(text) => string(form, text, out),
        other => out.push_str(&other.to_string()),
    }
}

fn list<T>(
    form: Form,
    (open, close): (char, char),
    items: &[T],
    depth: usize,
    out: &mut String,
    mut item: impl FnMut(&T, &mut String),
) {
    let indent = |depth: usize, out: &mut String| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    out.push(open);
    for (index, value) in items.iter().enumerate() {
        if index > 0 {
            // The older one writes the blank of its separator before the line ends.
            out.push_str(if form == Form::Python { ", " } else { "," });
        }
        indent(depth + 1, out);
        item(value, out);
    }
    if !items.is_empty() {
        indent(depth, out);
    }
    out.push(close);
}

/// The older one writes ASCII only.
fn string(form: Form, text: &str, out: &mut String) {
    let quoted = Value::from(text).to_string();
    if form == Form::Go {
        out.push_str(&quoted);
        return;
    }
    for character in quoted.chars() {
        if character.is_ascii() {
            out.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_written_as_the_originals_do() {
        let value = json!({"b": [1, "é"], "a": {}, "c": [], "d": {"x": null}});
        assert_eq!(
            text(Form::Python, &value),
            "{\n  \"a\": {}, \n  \"b\": [\n    1, \n    \"\\u00e9\"\n  ], \n  \"c\": [], \n  \"d\": {\n    \"x\": null\n  }\n}\n"
        );
        assert_eq!(
            text(Form::Go, &json!({"b": "é", "a": 1})),
            "{\n  \"a\": 1,\n  \"b\": \"é\"\n}\n"
        );
        assert_eq!(text(Form::Python, &json!("😀")), "\"\\ud83d\\ude00\"\n");
    }
}
