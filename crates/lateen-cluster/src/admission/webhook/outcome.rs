//! What a webhook's call or answer means for the request.

use serde_json::Value;

use crate::status::{Result, Status};

use super::review::Answer;

/// Why a call gave no answer.
pub(crate) enum Failure {
    /// The webhook could not be called, or its answer could not be understood.
    Call(String),
    /// The request cannot be shown to the webhook.
    Refused(Status),
}

impl Failure {
    /// What the client is told of the webhook `name`.
    pub(crate) fn into_status(self, name: &str) -> Status {
        match self {
            Self::Call(why) => Status::internal(format!("failed calling webhook {name:?}: {why}")),
            Self::Refused(status) => status,
        }
    }
}

/// Reasons that a webhook may give; others are left out, as no client acts on them.
const REASONS: [&str; 18] = [
    "AlreadyExists",
    "BadRequest",
    "Conflict",
    "Expired",
    "Forbidden",
    "Gone",
    "InternalError",
    "Invalid",
    "MethodNotAllowed",
    "NotAcceptable",
    "NotFound",
    "RequestEntityTooLarge",
    "ServerTimeout",
    "ServiceUnavailable",
    "Timeout",
    "TooManyRequests",
    "Unauthorized",
    "UnsupportedMediaType",
];

impl Answer {
    /// Turns a denial into the error that the client gets from the webhook `name`.
    pub(crate) fn allowed(&self, name: &str) -> Result<()> {
        if self.allowed {
            return Ok(());
        }
        let text = |key: &str| self.status[key].as_str().unwrap_or_default();
        let denied = format!("admission webhook {name:?} denied the request");
        let message = match (text("message"), text("reason")) {
            ("", "") => format!("{denied} without explanation"),
            ("", reason) => format!("{denied}: {reason}"),
            (message, _) => format!("{denied}: {message}"),
        };
        let code = self.status["code"]
            .as_u64()
            .and_then(|code| u16::try_from(code).ok());
        let code = code.filter(|code| (400..600).contains(code)).unwrap_or(400);
        let reason = REASONS
            .iter()
            .find(|reason| **reason == text("reason"))
            .unwrap_or(&"");
        let mut status = Status::new(code, reason, message);
        if let details @ Value::Object(_) = &self.status["details"] {
            status.details = details.clone();
        }
        Err(status)
    }
}
