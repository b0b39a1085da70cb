//! Pieces of the Prometheus text format.

use std::fmt::Write;

/// Appends a label to others, with its value escaped.
pub(crate) fn write_label(name: &str, value: &str, out: &mut String) {
    if !out.is_empty() {
        out.push(',');
    }
    let _ = write!(out, "{name}=\"");
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
    out.push('"');
}
