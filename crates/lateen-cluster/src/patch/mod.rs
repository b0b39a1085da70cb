//! Patches: RFC 6902 (JSON Patch), RFC 7386 (merge patch) and Kubernetes' strategic merge patch.

pub mod keys;
mod strategic;

use json_patch::PatchOperation;
use serde_json::Value;

pub use strategic::strategic_merge;

use crate::status::{Result, Status};

/// The most operations in one JSON Patch (`maxJSONPatchOperations` of Kubernetes).
const MAX_OPERATIONS: usize = 10_000;

/// The most bytes of an object that copies in a JSON Patch may lead to.
const MAX_SIZE: usize = 3 * 1024 * 1024;

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
    let failed = || {
        Status::new(
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
        )
    };
    let mut start = 0;
    for (index, operation) in patch.0.iter().enumerate() {
        // Each copy may double the object: it is applied up to there, and measured.
        if matches!(operation, PatchOperation::Copy(_)) {
            json_patch::patch(object, &patch.0[start..=index]).map_err(|_error| failed())?;
            start = index + 1;
            if object.to_string().len() > MAX_SIZE {
                return Err(Status::new(
                    413,
                    "RequestEntityTooLarge",
                    format!("the patched object has more than {MAX_SIZE} bytes"),
                ));
            }
        }
    }
    json_patch::patch(object, &patch.0[start..]).map_err(|_error| failed())
}

/// Applies a merge patch to `object`: maps merge, `null` removes, everything else replaces.
pub fn merge(object: &mut Value, patch: &Value) {
    json_patch::merge(object, patch);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn copies_cannot_blow_an_object_up() {
        let mut object = json!({"a": ["x".repeat(1000)]});
        let double = json!({"op": "copy", "from": "/a", "path": "/a/-"});
        let refused = json_patch(&mut object, &json!(vec![double; 60])).unwrap_err();
        assert_eq!(refused.code, 413);
        let mut object = json!({"a": 1});
        let copy = json!([
            {"op": "copy", "from": "/a", "path": "/b"},
            {"op": "replace", "path": "/a", "value": 2},
        ]);
        json_patch(&mut object, &copy).unwrap();
        assert_eq!(object, json!({"a": 2, "b": 1}));
    }
}
