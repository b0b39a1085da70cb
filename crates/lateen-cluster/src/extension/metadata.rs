//! The metadata of custom resources, decoded like that of built-in kinds.

use serde_json::Value;

use crate::schema::{self, definitions};
use crate::status::{Result, Status};
use crate::strategy::FieldValidation;

/// Full name of the type of `metadata`.
pub(crate) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Drops unknown fields of `metadata` and returns their paths.
///
/// # Errors
/// A field has the wrong type.
pub(crate) fn decode(object: &mut Value) -> Result<Vec<String>> {
    let Some(schema) = definitions::definition(OBJECT_META) else {
        return Err(Status::internal(
            "the type of metadata is not in the table of types",
        ));
    };
    let Some(metadata) = object.get_mut("metadata") else {
        return Ok(Vec::new());
    };
    let unknown = schema::decode(metadata, schema, FieldValidation::Strict)
        .map_err(|fault| Status::bad_request(format!("metadata: {fault}")))?;
    let path = |fault: String| {
        let name = fault
            .trim_start_matches("unknown field ")
            .trim_matches('"')
            .to_owned();
        format!("metadata.{name}")
    };
    Ok(unknown.into_iter().map(path).collect())
}
