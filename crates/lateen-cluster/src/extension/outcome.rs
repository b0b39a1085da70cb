//! What a check of a value found, and how values are compared and named in it.

use serde_json::Value;

use crate::field::FieldError;

/// What a check found.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) errors: Vec<FieldError>,
    /// Number of checks that were made; tells which alternative came closest.
    pub(super) matched: usize,
}

impl Outcome {
    pub(super) fn passed() -> Self {
        Self {
            errors: Vec::new(),
            matched: 1,
        }
    }

    pub(super) fn failed(error: FieldError) -> Self {
        Self {
            errors: vec![error],
            matched: 0,
        }
    }

    /// Adds a fault that is not there yet.
    pub(super) fn add(&mut self, error: FieldError) {
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.matched += other.matched;
        for error in other.errors {
            self.add(error);
        }
    }

    pub(super) fn applied(&mut self, other: Self) {
        self.merge(other);
        self.matched += 1;
    }
}

/// The JSON type of `value`, with whole numbers as `integer`.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Whether two values are equal, taking `1` and `1.0` for the same number.
pub(super) fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            left == right || left.as_f64() == right.as_f64()
        }
        _ => left == right,
    }
}

pub(super) fn is_whole(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

/// The format that Go's decoder would give a number; nothing for other values.
pub(super) fn native_format(value: &Value) -> &'static str {
    match value {
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        _ => "",
    }
}

/// Strings without quotes, everything else as JSON.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
