//! Sets of field paths, in the form of `metadata.managedFields[].fieldsV1`.
//!
//! A path element is kept as Kubernetes writes it: `f:name` is a field, `k:{"name":"web"}` an item of a list that is
//! told apart by keys, `v:"x"` an item of a set.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

/// The deepest path that is read from a client; JSON itself is limited to 128 levels.
const MAX_DEPTH: usize = 128;

/// A set of paths, as a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Set {
    /// Whether the path to here is in the set itself.
    pub(super) member: bool,
    pub(super) children: BTreeMap<String, Self>,
}

impl Set {
    /// The set of only the path to here.
    pub(super) fn leaf() -> Self {
        Self {
            member: true,
            children: BTreeMap::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    /// Adds a subtree; an empty one adds nothing.
    pub(super) fn add(&mut self, element: String, child: Self) {
        if !child.is_empty() {
            self.children.insert(element, child);
        }
    }

    pub(super) fn remove(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else {
            self.member = false;
            return;
        };
        if rest.is_empty() {
            self.children.remove(*first);
        } else if let Some(child) = self.children.get_mut(*first) {
            child.remove(rest);
            if child.is_empty() {
                self.children.remove(*first);
            }
        }
    }

    pub(super) fn union(mut self, other: &Self) -> Self {
        self.member |= other.member;
        for (element, theirs) in &other.children {
            let ours = self.children.remove(element).unwrap_or_default();
            self.children.insert(element.clone(), ours.union(theirs));
        }
        self
    }

    /// What is in `self` but not in `other`.
    pub(super) fn difference(&self, other: &Self) -> Self {
        let mut left = Self {
            member: self.member && !other.member,
            children: BTreeMap::new(),
        };
        for (element, ours) in &self.children {
            let child = match other.children.get(element) {
                Some(theirs) => ours.difference(theirs),
                None => ours.clone(),
            };
            left.add(element.clone(), child);
        }
        left
    }

    /// Like [`Self::difference`], but a path in `other` also takes everything below it.
    pub(super) fn without_below(&self, other: &Self) -> Self {
        if other.member {
            return Self::default();
        }
        let mut left = Self {
            member: self.member,
            children: BTreeMap::new(),
        };
        for (element, ours) in &self.children {
            let child = match other.children.get(element) {
                Some(theirs) => ours.without_below(theirs),
                None => ours.clone(),
            };
            left.add(element.clone(), child);
        }
        left
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        let mut both = Self {
            member: self.member && other.member,
            children: BTreeMap::new(),
        };
        for (element, ours) in &self.children {
            if let Some(theirs) = other.children.get(element) {
                both.add(element.clone(), ours.intersection(theirs));
            }
        }
        both
    }

    /// `fieldsV1` of the set.
    pub(super) fn encode(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.children.is_empty() {
            map.insert(".".to_owned(), json!({}));
        }
        for (element, child) in &self.children {
            map.insert(element.clone(), child.encode());
        }
        Value::Object(map)
    }

    /// Reads `fieldsV1`; `None` when it is something else.
    pub(super) fn decode(fields: &Value) -> Option<Self> {
        let mut set = Self::decode_level(fields, 0)?;
        // The root is no path.
        set.member = false;
        Some(set)
    }

    fn decode_level(fields: &Value, depth: usize) -> Option<Self> {
        let map = fields.as_object().filter(|_| depth < MAX_DEPTH)?;
        let mut set = Self {
            member: map.is_empty() || map.contains_key("."),
            children: BTreeMap::new(),
        };
        for (element, child) in map.iter().filter(|(element, _)| *element != ".") {
            set.children
                .insert(element.clone(), Self::decode_level(child, depth + 1)?);
        }
        Some(set)
    }

    /// All paths in Kubernetes' text form, e.g. `.spec.containers[name="web"].image`.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect(&mut String::new(), &mut paths);
        paths
    }

    fn collect(&self, path: &mut String, paths: &mut Vec<String>) {
        if self.member {
            paths.push(path.clone());
        }
        for (element, child) in &self.children {
            let length = path.len();
            write_element(element, path);
            child.collect(path, paths);
            path.truncate(length);
        }
    }
}

fn write_element(element: &str, path: &mut String) {
    // Writing to a string cannot fail.
    let _ = match element.split_once(':') {
        Some(("f", name)) => write!(path, ".{name}"),
        Some(("v", value)) => write!(path, "[={value}]"),
        Some(("k", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let parts: Vec<String> = keys
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            write!(path, "[{}]", parts.join(","))
        }
        _ => write!(path, "[{element}]"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_written_as_kubernetes_does() {
        let fields = json!({
            "f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {".": {}, "f:image": {}, "f:name": {}}}},
            "f:data": {"f:a": {}},
        });
        let set = Set::decode(&fields).unwrap();
        assert_eq!(set.encode(), fields);
        assert_eq!(
            set.paths(),
            [
                ".data.a",
                ".spec.containers[name=\"web\"]",
                ".spec.containers[name=\"web\"].image",
                ".spec.containers[name=\"web\"].name",
            ]
        );
    }

    #[test]
    fn set_arithmetic_keeps_only_what_is_there() {
        let one = Set::decode(&json!({"f:a": {}, "f:b": {"f:c": {}, "f:d": {}}})).unwrap();
        let two = Set::decode(&json!({"f:b": {"f:c": {}}, "f:e": {}})).unwrap();
        assert_eq!(one.difference(&two).paths(), [".a", ".b.d"]);
        assert_eq!(one.intersection(&two).paths(), [".b.c"]);
        assert_eq!(one.union(&two).paths(), [".a", ".b.c", ".b.d", ".e"]);
    }
}
