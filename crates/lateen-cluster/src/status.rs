//! The error a client sees: a Kubernetes `Status` object with its HTTP code.
//!
//! Reasons, codes and message forms are those of Kubernetes' `apimachinery/pkg/api/errors`, because clients decide by
//! them (`kubectl` prints the message, controllers branch on the reason).

use serde_json::{Value, json};

use crate::field::FieldError;

/// A failed request, as the client is told of it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// HTTP status code, 400..=599.
    pub code: u16,
    /// Machine-readable reason such as `NotFound`.
    pub reason: &'static str,
    /// What a person reads.
    pub message: String,
    /// The `details` member; `Value::Null` when there is none.
    pub details: Value,
}

/// Result of handling a request.
pub type Result<T, E = Status> = std::result::Result<T, E>;

impl Status {
    /// A status without details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: Value::Null,
        }
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 403: an admission rule or the server forbids it.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(403, "Forbidden", message)
    }

    /// 404: no object of that name. `resource` is `plural.group`, or the plural alone for the core group.
    pub fn not_found(group: &str, plural: &str, name: &str) -> Self {
        let mut status = Self::new(
            404,
            "NotFound",
            format!("{} {name:?} not found", qualified(group, plural)),
        );
        status.details = details(group, plural, name);
        status
    }

    /// 409: an object of that name exists.
    pub fn already_exists(group: &str, plural: &str, name: &str) -> Self {
        let mut status = Self::new(
            409,
            "AlreadyExists",
            format!("{} {name:?} already exists", qualified(group, plural)),
        );
        status.details = details(group, plural, name);
        status
    }

    /// 409: the object changed since the client read it, or a precondition does not hold.
    pub fn conflict(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let mut status = Self::new(
            409,
            "Conflict",
            format!(
                "Operation cannot be fulfilled on {} {name:?}: {why}",
                qualified(group, plural)
            ),
        );
        status.details = details(group, plural, name);
        status
    }

    /// 422: the object was understood but its fields are wrong. `kind` is e.g. `Deployment`.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let listed: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let text = match listed.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let subject = if group.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}.{group}")
        };
        let mut status = Self::new(
            422,
            "Invalid",
            format!("{subject} {name:?} is invalid: {text}"),
        );
        status.details = json!({
            "name": name,
            "group": group,
            "kind": kind,
            "causes": errors
                .iter()
                .map(|error| json!({
                    "reason": error.kind.reason(),
                    "message": error.message(),
                    "field": error.field,
                }))
                .collect::<Vec<_>>(),
        });
        if group.is_empty() {
            status
                .details
                .as_object_mut()
                .map(|details| details.shift_remove("group"));
        }
        status
    }

    /// 500: a failure of the server itself.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(
            500,
            "InternalError",
            format!("Internal error occurred: {message}"),
        )
    }

    /// The object that is sent to the client.
    pub fn to_object(&self) -> Value {
        let mut object = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        });
        if !self.details.is_null() {
            object["details"] = self.details.clone();
        }
        object["code"] = json!(self.code);
        object
    }
}

/// `plural.group`, as Kubernetes names a resource in messages.
fn qualified(group: &str, plural: &str) -> String {
    if group.is_empty() {
        plural.to_owned()
    } else {
        format!("{plural}.{group}")
    }
}

fn details(group: &str, plural: &str, name: &str) -> Value {
    if group.is_empty() {
        json!({"name": name, "kind": plural})
    } else {
        json!({"name": name, "group": group, "kind": plural})
    }
}
