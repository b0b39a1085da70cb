//! Operations on objects that need to know how lists merge: field sets, differences, merging and removing.

use serde_json::{Map, Value};

use super::set::Set;
use crate::patch::keys;
use crate::strategy::{ListType, Strategy};

/// How the value at a path is taken.
enum Kind {
    Map,
    /// Items are told apart by these fields.
    Keyed(Vec<String>),
    Set,
    /// As a whole.
    Atomic,
}

fn kind(value: &Value, path: &[&str], strategy: &dyn Strategy) -> Kind {
    match value {
        Value::Object(_) => match keys::list_type(strategy, path) {
            Some(ListType::Atomic) => Kind::Atomic,
            _ => Kind::Map,
        },
        Value::Array(_) => match keys::list_type(strategy, path) {
            Some(ListType::Map(keys)) => Kind::Keyed(keys),
            Some(ListType::Set) => Kind::Set,
            Some(ListType::Atomic) | None => Kind::Atomic,
        },
        _ => Kind::Atomic,
    }
}

/// `k:{...}` of a list item. The protocol of a port is TCP when it is not given; other absent keys are left out.
fn key_element(item: &Value, keys: &[String]) -> String {
    let mut sorted: Vec<&String> = keys.iter().collect();
    sorted.sort();
    let mut found = Map::new();
    for key in sorted {
        match item.get(key) {
            Some(value) => drop(found.insert(key.clone(), value.clone())),
            None if key == "protocol" => drop(found.insert(key.clone(), "TCP".into())),
            None => {}
        }
    }
    format!("k:{}", Value::Object(found))
}

/// The items of a list with the elements by which they are known.
fn elements<'v>(list: &'v Value, kind: &Kind) -> Vec<(String, &'v Value)> {
    let items = list.as_array().into_iter().flatten();
    items
        .map(|item| match kind {
            Kind::Keyed(keys) => (key_element(item, keys), item),
            _ => (format!("v:{item}"), item),
        })
        .collect()
}

/// All fields of an object.
pub(super) fn fields(object: &Value, strategy: &dyn Strategy) -> Set {
    let mut set = fields_at(object, &mut Vec::new(), strategy);
    set.member = false;
    set
}

fn fields_at<'v>(value: &'v Value, path: &mut Vec<&'v str>, strategy: &dyn Strategy) -> Set {
    let kind = kind(value, path, strategy);
    let mut set = Set::default();
    match (&kind, value) {
        (Kind::Map, Value::Object(map)) if !map.is_empty() => {
            for (name, child) in map {
                path.push(name);
                set.add(format!("f:{name}"), fields_at(child, path, strategy));
                path.pop();
            }
        }
        (Kind::Keyed(_) | Kind::Set, Value::Array(list)) if !list.is_empty() => {
            for (element, item) in elements(value, &kind) {
                let mut child = if item.is_object() {
                    fields_at(item, path, strategy)
                } else {
                    Set::leaf()
                };
                child.member = true;
                set.add(element, child);
            }
        }
        _ => set.member = true,
    }
    set
}

/// What a write did to an object.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// Fields that are new or have another value.
    pub(super) changed: Set,
    /// Fields that are gone.
    pub(super) removed: Set,
}

/// Compares two states of an object.
pub(super) fn difference(old: &Value, new: &Value, strategy: &dyn Strategy) -> Difference {
    let mut found = difference_at(Some(old), Some(new), &mut Vec::new(), strategy);
    found.changed.member = false;
    found.removed.member = false;
    found
}

fn difference_at<'v>(
    old: Option<&'v Value>,
    new: Option<&'v Value>,
    path: &mut Vec<&'v str>,
    strategy: &dyn Strategy,
) -> Difference {
    let mut found = Difference::default();
    let (old, new) = match (old, new) {
        (None, None) => return found,
        (None, Some(new)) => {
            found.changed = fields_at(new, path, strategy);
            return found;
        }
        (Some(old), None) => {
            found.removed = fields_at(old, path, strategy);
            return found;
        }
        (Some(old), Some(new)) if old == new => return found,
        (Some(old), Some(new)) => (old, new),
    };
    let (old_kind, new_kind) = (kind(old, path, strategy), kind(new, path, strategy));
    match (old_kind, &new_kind, old, new) {
        (Kind::Map, Kind::Map, Value::Object(before), Value::Object(after)) => {
            let gone = before.keys().filter(|name| !after.contains_key(*name));
            for name in after.keys().chain(gone) {
                path.push(name);
                let child = difference_at(before.get(name), after.get(name), path, strategy);
                path.pop();
                found.changed.add(format!("f:{name}"), child.changed);
                found.removed.add(format!("f:{name}"), child.removed);
            }
            // An emptied map is a value of its own.
            found.changed.member = after.is_empty();
        }
        (
            Kind::Keyed(_) | Kind::Set,
            Kind::Keyed(_) | Kind::Set,
            Value::Array(_),
            Value::Array(_),
        ) => {
            let (before, after) = (elements(old, &new_kind), elements(new, &new_kind));
            let find = |list: &[(String, &'v Value)], wanted: &str| {
                let found = list.iter().find(|(element, _)| element == wanted);
                found.map(|(_, item)| *item)
            };
            for (element, item) in &after {
                let previous = find(&before, element);
                let mut child = difference_at(previous, Some(item), path, strategy);
                child.changed.member |= previous.is_none();
                found.changed.add(element.clone(), child.changed);
                found.removed.add(element.clone(), child.removed);
            }
            for (element, item) in &before {
                if find(&after, element).is_none() {
                    let mut child = difference_at(Some(item), None, path, strategy);
                    child.removed.member = true;
                    found.removed.add(element.clone(), child.removed);
                }
            }
        }
        _ => {
            found.removed = fields_at(old, path, strategy);
            found.changed = fields_at(new, path, strategy);
            found.removed = found.removed.difference(&found.changed);
        }
    }
    found
}

/// Puts the fields of `applied` over `live`.
pub(super) fn merge(live: &mut Value, applied: &Value, strategy: &dyn Strategy) {
    merge_at(live, applied, &mut Vec::new(), strategy);
}

fn merge_at<'v>(
    live: &mut Value,
    applied: &'v Value,
    path: &mut Vec<&'v str>,
    strategy: &dyn Strategy,
) {
    let kind = kind(applied, path, strategy);
    match (&kind, live, applied) {
        (Kind::Map, Value::Object(live), Value::Object(applied)) => {
            for (name, value) in applied {
                path.push(name);
                match live.get_mut(name) {
                    Some(existing) => merge_at(existing, value, path, strategy),
                    None => drop(live.insert(name.clone(), value.clone())),
                }
                path.pop();
            }
        }
        (Kind::Keyed(_) | Kind::Set, live @ Value::Array(_), Value::Array(_)) => {
            let before = elements(live, &kind);
            let wished = elements(applied, &kind);
            let mut merged: Vec<Value> = Vec::new();
            // The applied order wins; an item that only the server has stays behind the item it followed.
            let is_wished = |wanted: &str| wished.iter().any(|(element, _)| element == wanted);
            let leading = before.iter().take_while(|(element, _)| !is_wished(element));
            merged.extend(leading.map(|(_, item)| (*item).clone()));
            for (element, item) in &wished {
                let place = before.iter().position(|(known, _)| known == element);
                let Some(place) = place else {
                    merged.push((*item).clone());
                    continue;
                };
                let mut existing = before[place].1.clone();
                if existing.is_object() {
                    merge_at(&mut existing, item, path, strategy);
                }
                merged.push(existing);
                let followers = before[place + 1..]
                    .iter()
                    .take_while(|(element, _)| !is_wished(element));
                merged.extend(followers.map(|(_, item)| (*item).clone()));
            }
            *live = Value::Array(merged);
        }
        (_, live, applied) => *live = applied.clone(),
    }
}

/// Removes every path of `set` from `object`, and with it what lies below. Maps and lists that become empty go too.
pub(super) fn remove(object: &mut Value, set: &Set, strategy: &dyn Strategy) {
    remove_at(object, set, &mut Vec::new(), strategy);
}

fn remove_at<'s>(
    value: &mut Value,
    set: &'s Set,
    path: &mut Vec<&'s str>,
    strategy: &dyn Strategy,
) {
    let kind = kind(value, path, strategy);
    match value {
        Value::Object(map) => {
            for (element, child) in &set.children {
                let Some(name) = element.strip_prefix("f:") else {
                    continue;
                };
                let Some(field) = map.get_mut(name) else {
                    continue;
                };
                path.push(name);
                if !child.member {
                    remove_at(field, child, path, strategy);
                }
                path.pop();
                let emptied = match field {
                    Value::Object(map) => map.is_empty(),
                    Value::Array(list) => list.is_empty(),
                    _ => false,
                };
                if child.member || emptied {
                    map.shift_remove(name);
                }
            }
        }
        Value::Array(list) => {
            let listed = Value::Array(std::mem::take(list));
            let known: Vec<String> = elements(&listed, &kind)
                .into_iter()
                .map(|(element, _)| element)
                .collect();
            let Value::Array(items) = listed else { return };
            for (element, mut item) in known.into_iter().zip(items) {
                match set.children.get(&element) {
                    Some(child) if child.member => {}
                    Some(child) => {
                        remove_at(&mut item, child, path, strategy);
                        list.push(item);
                    }
                    None => list.push(item),
                }
            }
        }
        _ => {}
    }
}
