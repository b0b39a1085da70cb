//! Strategic merge patch: a merge patch whose lists merge by key, with directives.
//!
//! The rules are those of `apimachinery/pkg/util/strategicpatch` as it applies a patch to an object.

use serde_json::{Map, Value};

use super::keys;
use crate::status::{Result, Status};
use crate::strategy::{ListType, Strategy};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

/// Applies the strategic merge patch `patch` to `object`.
pub fn strategic_merge(object: &mut Value, patch: &Value, strategy: &dyn Strategy) -> Result<()> {
    let Value::Object(patch) = patch else {
        return Err(Status::bad_request("the patch must be a JSON object"));
    };
    let Value::Object(object) = object else {
        return Err(Status::internal("the patched object is not a JSON object"));
    };
    merge_maps(object, patch, &mut Vec::new(), strategy)
}

fn merge_maps<'a>(
    object: &mut Map<String, Value>,
    patch: &'a Map<String, Value>,
    path: &mut Vec<&'a str>,
    strategy: &dyn Strategy,
) -> Result<()> {
    match patch.get(PATCH).map(|directive| directive.as_str()) {
        None | Some(Some("merge")) => {}
        Some(Some("replace")) => {
            *object = without_directives(patch);
            return Ok(());
        }
        Some(Some("delete")) => {
            object.clear();
            return Ok(());
        }
        Some(_) => return Err(unknown_directive(&patch[PATCH])),
    }
    if let Some(retained) = patch.get(RETAIN_KEYS) {
        let retained = list_of(retained, RETAIN_KEYS)?;
        object.retain(|key, _| retained.iter().any(|kept| kept == key));
    }
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(DELETE_PRIMITIVES) {
            let removed = list_of(value, key)?;
            if let Some(Value::Array(list)) = object.get_mut(field) {
                list.retain(|item| !removed.contains(item));
            }
        } else if !key.starts_with('$') {
            path.push(key);
            let done = merge_field(object, key, value, path, strategy);
            path.pop();
            done?;
        }
    }
    for (key, order) in patch {
        if let Some(field) = key.strip_prefix(SET_ORDER) {
            let order = list_of(order, key)?;
            path.push(field);
            let merge_key = key_of(path, strategy);
            path.pop();
            let patched = patch.get(field).and_then(Value::as_array);
            if let Some(Value::Array(list)) = object.get_mut(field) {
                reorder(list, order, patched, merge_key.as_deref());
            }
        }
    }
    Ok(())
}

fn merge_field<'a>(
    object: &mut Map<String, Value>,
    key: &str,
    value: &'a Value,
    path: &mut Vec<&'a str>,
    strategy: &dyn Strategy,
) -> Result<()> {
    match (object.get_mut(key), value) {
        (_, Value::Null) => {
            object.shift_remove(key);
        }
        (Some(Value::Object(old)), Value::Object(new)) => {
            merge_maps(old, new, path, strategy)?;
        }
        (Some(Value::Array(old)), Value::Array(new)) => match merge_type(path, strategy) {
            MergeType::Key(merge_key) => merge_lists(old, new, &merge_key, path, strategy)?,
            MergeType::Set => {
                for item in new {
                    if !old.contains(item) {
                        old.push(item.clone());
                    }
                }
            }
            MergeType::Replace => *old = new.clone(),
        },
        // A list that is not there yet may still be patched with directives.
        (None, Value::Array(new)) => {
            let mut list = Vec::new();
            match merge_type(path, strategy) {
                MergeType::Key(merge_key) => {
                    merge_lists(&mut list, new, &merge_key, path, strategy)?;
                }
                MergeType::Set | MergeType::Replace => list.clone_from(new),
            }
            object.insert(key.to_owned(), Value::Array(list));
        }
        (_, Value::Object(new)) => {
            if new.get(PATCH).and_then(Value::as_str) != Some("delete") {
                object.insert(key.to_owned(), Value::Object(without_directives(new)));
            }
        }
        (_, new) => {
            object.insert(key.to_owned(), new.clone());
        }
    }
    Ok(())
}

enum MergeType {
    Key(String),
    Set,
    Replace,
}

fn merge_type(path: &[&str], strategy: &dyn Strategy) -> MergeType {
    // Of two lists that server-side apply takes as atomic, strategic merge knows a key.
    if path == ["spec", "taints"] {
        return MergeType::Key("key".to_owned());
    }
    match keys::list_type(strategy, path) {
        Some(ListType::Map(keys)) => keys
            .into_iter()
            .next()
            .map_or(MergeType::Replace, MergeType::Key),
        Some(ListType::Set) => MergeType::Set,
        Some(ListType::Atomic) | None => MergeType::Replace,
    }
}

fn key_of(path: &[&str], strategy: &dyn Strategy) -> Option<String> {
    match merge_type(path, strategy) {
        MergeType::Key(key) => Some(key),
        MergeType::Set | MergeType::Replace => None,
    }
}

fn merge_lists<'a>(
    old: &mut Vec<Value>,
    new: &'a [Value],
    merge_key: &str,
    path: &mut Vec<&'a str>,
    strategy: &dyn Strategy,
) -> Result<()> {
    let is_replace = |item: &Value| item[PATCH] == "replace";
    if new.iter().any(is_replace) {
        *old = new
            .iter()
            .filter(|item| !is_replace(item))
            .map(stripped)
            .collect();
        return Ok(());
    }
    for item in new {
        let Value::Object(fields) = item else {
            return Err(Status::bad_request(format!(
                "the items of {} must be objects",
                path.join(".")
            )));
        };
        let Some(id) = fields.get(merge_key) else {
            return Err(Status::internal(format!(
                "map: {item} does not contain declared merge key: {merge_key}"
            )));
        };
        if fields.get(PATCH).and_then(Value::as_str) == Some("delete") {
            old.retain(|existing| existing.get(merge_key) != Some(id));
            continue;
        }
        let found = old
            .iter_mut()
            .find(|existing| existing.get(merge_key) == Some(id));
        match found.and_then(Value::as_object_mut) {
            Some(existing) => merge_maps(existing, fields, path, strategy)?,
            None => old.push(Value::Object(without_directives(fields))),
        }
    }
    Ok(())
}

/// Brings `list` into the order that the patch asks for. Items that only the server has keep their place relative to
/// the items they stood before.
fn reorder(
    list: &mut Vec<Value>,
    order: &[Value],
    patched: Option<&Vec<Value>>,
    merge_key: Option<&str>,
) {
    let id = |item: &Value| match merge_key {
        Some(key) => item.get(key).cloned().unwrap_or(Value::Null),
        None => item.clone(),
    };
    let position = |item: &Value| {
        let wanted = id(item);
        order.iter().position(|entry| id(entry) == wanted)
    };
    let is_patched = |item: &Value| {
        position(item).is_some()
            || patched.is_some_and(|patch| patch.iter().any(|entry| id(entry) == id(item)))
    };
    let before: Vec<Value> = list.iter().map(id).collect();
    let place = |item: &Value| before.iter().position(|entry| *entry == id(item));
    let (mut wished, server_only): (Vec<Value>, Vec<Value>) =
        list.drain(..).partition(|item| is_patched(item));
    wished.sort_by_key(|item| position(item).unwrap_or(usize::MAX));
    let mut left = wished.into_iter().peekable();
    let mut right = server_only.into_iter().peekable();
    loop {
        match (left.peek(), right.peek()) {
            (Some(ours), Some(theirs)) => {
                // A list item is put before a server-only one only when it stood before it.
                if place(ours) < place(theirs) {
                    list.extend(left.next());
                } else {
                    list.extend(right.next());
                }
            }
            (Some(_), None) => list.extend(left.next()),
            (None, Some(_)) => list.extend(right.next()),
            (None, None) => return,
        }
    }
}

/// A copy of a new value without directives and nulls.
fn without_directives(map: &Map<String, Value>) -> Map<String, Value> {
    map.iter()
        .filter(|(key, value)| !key.starts_with('$') && !value.is_null())
        .map(|(key, value)| (key.clone(), stripped(value)))
        .collect()
}

fn stripped(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(without_directives(map)),
        Value::Array(list) => Value::Array(
            list.iter()
                .filter(|item| item[PATCH] != "delete")
                .map(stripped)
                .collect(),
        ),
        other => other.clone(),
    }
}

fn list_of<'v>(value: &'v Value, what: &str) -> Result<&'v Vec<Value>> {
    value
        .as_array()
        .ok_or_else(|| Status::bad_request(format!("{what} must be a list")))
}

fn unknown_directive(directive: &Value) -> Status {
    Status::bad_request(format!("Unknown patch type: {directive} in map"))
}

#[cfg(test)]
mod tests;
