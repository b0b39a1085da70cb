//! How lists merge, asked by path.

use super::node::{Additional, Schema};
use crate::strategy::ListType;

impl Schema {
    /// The list type of the field at `path` (names without indexes, e.g. `["spec", "ports"]`); `None` when there is no
    /// such list or its schema does not say.
    pub fn list_type(&self, path: &[&str]) -> Option<ListType> {
        let mut here = self;
        for name in path {
            // A step into a list goes to its items: paths do not show indexes.
            let mut object = here.resolved();
            while let Some(items) = &object.items {
                object = items.resolved();
            }
            here = match (object.properties.get(*name), &object.additional) {
                (Some(property), _) => property,
                (None, Additional::Schema(values)) => values,
                _ => return None,
            };
        }
        here.list_type.clone()
    }
}
