//! Reading fields of an object that may not be there.

use serde_json::{Map, Value};

static NULL: Value = Value::Null;

/// The value at a JSON pointer; `null` when there is none.
pub(super) fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or(&NULL)
}

/// The text at a JSON pointer; empty when there is none.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    at(value, pointer).as_str().unwrap_or_default()
}

/// The integer at a JSON pointer; 0 when there is none.
pub(super) fn int(value: &Value, pointer: &str) -> i64 {
    at(value, pointer).as_i64().unwrap_or(0)
}

/// The items at a JSON pointer; none when there is no list.
pub(super) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    at(value, pointer).as_array().map_or(&[], Vec::as_slice)
}

/// The members at a JSON pointer; none when there is no object.
pub(super) fn members<'a>(
    value: &'a Value,
    pointer: &str,
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    at(value, pointer).as_object().into_iter().flatten()
}

/// The object at a field, made when it is missing; `None` when something else stands there.
pub(super) fn object_mut<'a>(
    value: &'a mut Value,
    name: &str,
) -> Option<&'a mut Map<String, Value>> {
    let members = value.as_object_mut()?;
    let member = members.entry(name).or_insert(Value::Null);
    if member.is_null() {
        *member = Value::Object(Map::new());
    }
    member.as_object_mut()
}

/// Calls `change` for every item of the list at a JSON pointer.
pub(super) fn each(value: &mut Value, pointer: &str, mut change: impl FnMut(&mut Value)) {
    if let Some(items) = value.pointer_mut(pointer).and_then(Value::as_array_mut) {
        items.iter_mut().for_each(&mut change);
    }
}

/// Sets a field that is missing, `null`, an empty text or the number 0: Go's zero values.
pub(super) fn fill(value: &mut Value, name: &str, default: impl Into<Value>) {
    let Some(members) = value.as_object_mut() else {
        return;
    };
    let unset = match members.get(name) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Number(number)) => number.as_i64() == Some(0),
        Some(_) => false,
    };
    if unset {
        members.insert(name.to_owned(), default.into());
    }
}

/// Sets a field that is missing or `null`: Go's nil pointers.
pub(super) fn fill_pointer(value: &mut Value, name: &str, default: impl Into<Value>) {
    let Some(members) = value.as_object_mut() else {
        return;
    };
    if members.get(name).is_none_or(Value::is_null) {
        members.insert(name.to_owned(), default.into());
    }
}

/// Drops a field.
pub(super) fn remove(value: &mut Value, name: &str) -> Option<Value> {
    value.as_object_mut()?.shift_remove(name)
}
