//! Checks paths in a definition that must name a field of the schema (`fieldPath` of rules, `selectableFields`).

use serde_json::Value;

/// The schema of the field that `path` (`.spec.name`, or `.labels['a.b']` where `brackets` are allowed) names in
/// `schema`.
///
/// # Errors
/// Why it names none, worded as Kubernetes does.
pub(crate) fn named_field<'a>(
    path: &str,
    schema: &'a Value,
    brackets: bool,
) -> Result<&'a Value, String> {
    let mut node = schema;
    let mut rest = path;
    while !rest.is_empty() {
        let name = if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            rest = &after[end..];
            after[..end].to_owned()
        } else if let Some(after) = rest.strip_prefix('[') {
            if !brackets {
                return Err("array notation is not allowed".to_owned());
            }
            let end = after.find("']").ok_or("unexpected end of JSON path")?;
            let quoted = after[..end].strip_prefix('\'');
            let name =
                quoted.ok_or_else(|| format!("expected single quoted string but got {after}"))?;
            rest = &after[end + 2..];
            name.replace("\\'", "'").replace("\\\\", "\\")
        } else {
            return Err(format!("expected [ or . but got: {rest}"));
        };
        if name.is_empty() {
            return Err("unexpected end of JSON path".to_owned());
        }
        let below = match (&node["properties"], &node["additionalProperties"]) {
            (Value::Object(properties), _) => properties.get(&name),
            (_, values @ Value::Object(_)) => Some(values),
            _ => None,
        };
        node = below.ok_or("does not refer to a valid field")?;
    }
    Ok(node)
}
