//! The request as webhooks and policies see it (`admission.k8s.io/v1` `AdmissionRequest`).

use serde_json::{Value, json};

use super::matching::Version;
use super::{Attributes, Operation};
use crate::status::Result;

/// The request with its objects in `version`.
///
/// # Errors
/// An object cannot be brought to the version.
pub(crate) fn request(
    uid: &str,
    version: &Version,
    attributes: &Attributes<'_>,
    object: Option<&Value>,
) -> Result<Value> {
    let resource = attributes.resource;
    let api_version = version.api_version();
    let shown = |object: Option<&Value>| -> Result<Value> {
        let Some(object) = object else {
            return Ok(Value::Null);
        };
        let mut object = object.clone();
        resource
            .strategy
            .convert_from_storage(&mut object, &api_version)?;
        Ok(object)
    };
    let gvk = |group: &str, version: &str| json!({"group": group, "version": version, "kind": resource.kind});
    let gvr = |group: &str, version: &str| json!({"group": group, "version": version, "resource": resource.plural});
    let deleted = attributes.operation == Operation::Delete;
    let mut request = json!({
        "uid": uid,
        "kind": gvk(&version.group, &version.name),
        "resource": gvr(&version.group, &version.name),
        "requestKind": gvk(attributes.group, attributes.version),
        "requestResource": gvr(attributes.group, attributes.version),
        "name": attributes.name,
        "operation": attributes.operation.name(),
        "userInfo": attributes.user.to_info(),
        "object": shown(object.filter(|_| !deleted))?,
        "oldObject": shown(attributes.old)?,
        "dryRun": attributes.dry_run,
        "options": attributes.options,
    });
    if !attributes.namespace.is_empty() {
        request["namespace"] = json!(attributes.namespace);
    }
    if !attributes.subresource.is_empty() {
        request["subResource"] = json!(attributes.subresource);
        request["requestSubResource"] = json!(attributes.subresource);
    }
    Ok(request)
}
