//! Finds the objects that a binding gives its policy as parameters.

use std::sync::Arc;

use serde_json::Value;

use crate::admission::{Attributes, matching};
use crate::registry::Registry;
use crate::store::{Key, Store};

use super::compile::{Binding, Policy};

/// The parameters, each of which the policy is asked with; one `None` for a policy without.
///
/// # Errors
/// Why there are none although there must be.
pub(crate) fn find(
    store: &Store,
    registry: &Registry,
    policy: &Policy,
    binding: &Binding,
    attributes: &Attributes<'_>,
) -> Result<Vec<Option<Arc<Value>>>, String> {
    let (Some((api_version, kind)), Some(wanted)) = (&policy.parameter_kind, &binding.parameters)
    else {
        return Ok(vec![None]);
    };
    let table = registry.table();
    let resource = table
        .kind(api_version, kind)
        .ok_or_else(|| format!("paramKind kind `{api_version}, Kind={kind}` not known"))?;
    let namespace = match (resource.namespaced, wanted.namespace.as_str()) {
        (false, "") => "",
        (false, _) => {
            let why = "paramRef.namespace must not be provided for a cluster-scoped `paramKind`";
            return Err(why.to_owned());
        }
        (true, "") if attributes.namespace.is_empty() => {
            let why = "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
            return Err(why.to_owned());
        }
        (true, "") => attributes.namespace,
        (true, given) => given,
    };
    let resource_key = resource.storage_key();
    let found: Vec<Option<Arc<Value>>> = if wanted.name.is_empty() {
        let within = resource.namespaced.then_some(namespace);
        let (objects, _) = store.list(&resource_key, within, None);
        let chosen = |object: &Arc<Value>| wanted.selector.matches(matching::labels(object));
        objects.into_iter().filter(chosen).map(Some).collect()
    } else {
        let key = Key {
            resource: resource_key.as_str().into(),
            namespace: namespace.to_owned(),
            name: wanted.name.clone(),
        };
        store.get(&key).map(Some).into_iter().collect()
    };
    if found.is_empty() && !wanted.optional {
        return Err(
            "no params found for policy binding with `Deny` parameterNotFoundAction".to_owned(),
        );
    }
    Ok(found)
}
