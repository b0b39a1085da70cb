//! Finds, for an item of a list, the item that it was before an update.

use serde_json::Value;

use super::schema::{ListKind, Schema};

/// The items of the old list. Only lists whose items have keys can be matched.
pub(crate) struct Items<'a> {
    keys: &'a [String],
    old: &'a [Value],
}

impl<'a> Items<'a> {
    /// The items of `old`, which has `schema`.
    pub(crate) fn new(schema: &'a Schema, old: Option<&'a Value>) -> Self {
        match (&schema.list, old.and_then(Value::as_array)) {
            (ListKind::Map(keys), Some(old)) => Self { keys, old },
            _ => Self {
                keys: &[],
                old: &[],
            },
        }
    }

    /// The old item with the keys of `item`.
    pub(crate) fn of(&self, item: &Value) -> Option<&'a Value> {
        if self.keys.is_empty() {
            return None;
        }
        self.old
            .iter()
            .find(|old| self.keys.iter().all(|key| old.get(key) == item.get(key)))
    }
}
