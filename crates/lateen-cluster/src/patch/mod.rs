//! Patches: RFC 6902 (JSON Patch), RFC 7386 (merge patch) and Kubernetes' strategic merge patch.

pub mod keys;
mod strategic;

use serde_json::Value;

pub use strategic::strategic_merge;

use crate::status::{Result, Status};

/// The most operations in one JSON Patch (`maxJSONPatchOperations` of Kubernetes).
const MAX_OPERATIONS: usize = 10_000;

/// Applies a JSON Patch document to `object`.
pub fn json_patch(object: &mut Value, patch: &Value) -> Result<()> {
    if patch
        .as_array()
        .is_some_and(|list| list.len() > MAX_OPERATIONS)
    {
        return Err(Status::new(
            413,
            "RequestEntityTooLarge",
            format!(
                "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
                patch.as_array().map_or(0, Vec::len)
            ),
        ));
    }
    let patch: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
    // Kubernetes does not say which operation failed.
    json_patch::patch(object, &patch).map_err(|_error| {
        Status::new(
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
        )
    })
}

/// Applies a merge patch to `object`: maps merge, `null` removes, everything else replaces.
pub fn merge(object: &mut Value, patch: &Value) {
    json_patch::merge(object, patch);
}
