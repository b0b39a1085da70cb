//! Errors about one field of an object, worded as `apimachinery/pkg/util/validation/field` words them.

use std::fmt;

use serde_json::Value;

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// Path such as `spec.template.spec.containers[0].name`.
    pub field: String,
    /// The kind of fault.
    pub kind: FieldErrorKind,
    /// The offending value; not shown for `Required`, `Forbidden`, `TooLong` and `Rule`.
    pub value: Value,
    /// Explanation, may be empty.
    pub detail: String,
}

/// The kinds of fault that Kubernetes tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// A value that must be unique is repeated.
    Duplicate,
    /// The field may not be set here.
    Forbidden,
    /// The value is wrong.
    Invalid,
    /// As `Invalid`, for an object or list that breaks a rule: it is too large to be shown.
    Rule,
    /// What the value refers to does not exist.
    NotFound,
    /// The value is not one of those that are known.
    NotSupported,
    /// The field must be given.
    Required,
    /// The value is longer than allowed.
    TooLong,
    /// The list has more items than allowed.
    TooMany,
    /// The value has the wrong JSON type.
    TypeInvalid,
}

impl FieldErrorKind {
    /// The machine-readable reason in `details.causes`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::Invalid | Self::Rule => "FieldValueInvalid",
            Self::NotFound => "FieldValueNotFound",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Required => "FieldValueRequired",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::Invalid | Self::Rule | Self::TypeInvalid => "Invalid value",
            Self::NotFound => "Not found",
            Self::NotSupported => "Unsupported value",
            Self::Required => "Required value",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
        }
    }
}

impl FieldError {
    /// The field has a wrong value.
    pub fn invalid(field: impl Into<String>, value: Value, detail: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            kind: FieldErrorKind::Invalid,
            value,
            detail: detail.into(),
        }
    }

    /// The field must be given.
    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            kind: FieldErrorKind::Required,
            value: Value::Null,
            detail: detail.into(),
        }
    }

    /// The field may not be given or changed.
    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            kind: FieldErrorKind::Forbidden,
            value: Value::Null,
            detail: detail.into(),
        }
    }

    /// The value is not one of `supported`.
    pub fn not_supported(field: impl Into<String>, value: Value, supported: &[&str]) -> Self {
        let quoted: Vec<String> = supported.iter().map(|name| format!("{name:?}")).collect();
        Self {
            field: field.into(),
            kind: FieldErrorKind::NotSupported,
            value,
            detail: format!("supported values: {}", quoted.join(", ")),
        }
    }

    /// The value stands twice in a list that must be unique.
    pub fn duplicate(field: impl Into<String>, value: Value) -> Self {
        Self {
            field: field.into(),
            kind: FieldErrorKind::Duplicate,
            value,
            detail: String::new(),
        }
    }

    /// The list or map has more than `most` entries.
    pub fn too_many(field: impl Into<String>, entries: usize, most: u64) -> Self {
        let noun = if most == 1 { "item" } else { "items" };
        Self {
            field: field.into(),
            kind: FieldErrorKind::TooMany,
            value: Value::from(entries),
            detail: format!("must have at most {most} {noun}"),
        }
    }

    /// The string is longer than `most` characters.
    pub fn too_long(field: impl Into<String>, most: u64) -> Self {
        let noun = if most == 1 { "byte" } else { "bytes" };
        Self {
            field: field.into(),
            kind: FieldErrorKind::TooLong,
            value: Value::Null,
            detail: format!("may not be more than {most} {noun}"),
        }
    }

    /// The text without the field: `Invalid value: -1: must be greater than or equal to 0`.
    pub fn message(&self) -> String {
        let mut text = self.kind.label().to_owned();
        let shows_value = !matches!(
            self.kind,
            FieldErrorKind::Forbidden
                | FieldErrorKind::Required
                | FieldErrorKind::Rule
                | FieldErrorKind::TooLong
        );
        if shows_value {
            text.push_str(": ");
            text.push_str(&self.value.to_string());
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field, self.message())
    }
}
