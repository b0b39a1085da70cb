//! Who owns which field (`metadata.managedFields`), and server-side apply, which is decided by it.
//!
//! The rules are those of `sigs.k8s.io/structured-merge-diff`, with one simplification: a field has the same path in
//! all versions of a kind.

mod set;
mod typed;

use serde_json::{Map, Value, json};
use set::Set;

use crate::clock;
use crate::status::{Result, Status};
use crate::strategy::Strategy;

/// Fields that nobody owns: they say what the object is, or the server writes them.
const UNOWNED: &[&[&str]] = &[
    &["f:apiVersion"],
    &["f:kind"],
    &["f:metadata", "f:name"],
    &["f:metadata", "f:namespace"],
    &["f:metadata", "f:creationTimestamp"],
    &["f:metadata", "f:selfLink"],
    &["f:metadata", "f:uid"],
    &["f:metadata", "f:clusterName"],
    &["f:metadata", "f:generation"],
    &["f:metadata", "f:managedFields"],
    &["f:metadata", "f:resourceVersion"],
    &["f:metadata", "f:deletionTimestamp"],
    &["f:metadata", "f:deletionGracePeriodSeconds"],
];

/// Managers that only updated are merged when there are more (`managedfields.NewDefaultFieldManager`).
const MAX_UPDATERS: usize = 10;

/// What identifies a manager's entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manager {
    /// Name, from `fieldManager` or the user agent.
    pub(crate) name: String,
    /// Whether it applies (true) or updates.
    pub(crate) applies: bool,
    /// `status` or another subresource; empty for the object.
    pub(crate) subresource: String,
    /// Version of the request, `group/version`.
    pub(crate) api_version: String,
}

/// One entry of `managedFields`.
#[derive(Debug, Clone)]
struct Entry {
    manager: Manager,
    time: String,
    set: Set,
}

/// All entries of an object.
#[derive(Debug, Clone, Default)]
pub(crate) struct Managed(Vec<Entry>);

impl Managed {
    /// Reads an object's entries; those that cannot be read are dropped.
    pub(crate) fn of(object: &Value) -> Self {
        let list = object["metadata"]["managedFields"].as_array();
        let text =
            |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        Self(
            list.into_iter()
                .flatten()
                .filter_map(|entry| {
                    Some(Entry {
                        manager: Manager {
                            name: text(entry, "manager"),
                            applies: entry["operation"] == "Apply",
                            subresource: text(entry, "subresource"),
                            api_version: text(entry, "apiVersion"),
                        },
                        time: text(entry, "time"),
                        set: Set::decode(&entry["fieldsV1"])?,
                    })
                })
                .collect(),
        )
    }

    /// Writes the entries into an object.
    pub(crate) fn write(&self, object: &mut Value) {
        let entries: Vec<Value> = self.0.iter().map(Entry::encode).collect();
        let Some(metadata) = object["metadata"].as_object_mut() else {
            return;
        };
        metadata.shift_remove("managedFields");
        if !entries.is_empty() {
            metadata.insert("managedFields".to_owned(), Value::Array(entries));
        }
    }

    /// Records that `manager` changed the object from `old` to `new` by a plain write.
    pub(crate) fn updated(
        mut self,
        manager: &Manager,
        old: &Value,
        new: &Value,
        strategy: &dyn Strategy,
    ) -> Self {
        let found = typed::difference(old, new, strategy);
        let changed = owned(found.changed);
        if changed.is_empty() && found.removed.is_empty() {
            return self;
        }
        self.take_from_others(manager, &changed.clone().union(&found.removed));
        let place = self.place(manager);
        let entry = &mut self.0[place];
        let before = entry.set.clone();
        entry.set = entry.set.without_below(&found.removed).union(&changed);
        if entry.set != before {
            entry.time = clock::now();
        }
        self.0.retain(|entry| !entry.set.is_empty());
        self.cap_updaters();
        self
    }

    /// Takes `fields` from everyone but `manager`.
    fn take_from_others(&mut self, manager: &Manager, fields: &Set) {
        for entry in &mut self.0 {
            if entry.manager != *manager {
                entry.set = entry.set.difference(fields);
            }
        }
    }

    /// The index of the manager's entry, which is made if need be.
    fn place(&mut self, manager: &Manager) -> usize {
        let found = self.0.iter().position(|entry| entry.manager == *manager);
        found.unwrap_or_else(|| {
            self.0.push(Entry {
                manager: manager.clone(),
                time: clock::now(),
                set: Set::default(),
            });
            self.0.len() - 1
        })
    }

    /// Merges the oldest updaters when there are many of them.
    fn cap_updaters(&mut self) {
        let is_updater = |entry: &Entry| !entry.manager.applies;
        while self.0.iter().filter(|entry| is_updater(entry)).count() > MAX_UPDATERS {
            let mut oldest: Vec<usize> = (0..self.0.len())
                .filter(|&index| is_updater(&self.0[index]))
                .collect();
            oldest.sort_by(|&one, &two| self.0[one].time.cmp(&self.0[two].time));
            let (first, second) = (oldest[0], oldest[1]);
            let merged = self.0[first].set.clone();
            let kept = &mut self.0[second];
            kept.manager.name = "ancient-changes".to_owned();
            kept.set = std::mem::take(&mut kept.set).union(&merged);
            self.0.remove(first);
        }
    }
}

impl Entry {
    fn encode(&self) -> Value {
        let mut entry = json!({
            "manager": self.manager.name,
            "operation": if self.manager.applies { "Apply" } else { "Update" },
            "apiVersion": self.manager.api_version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.set.encode(),
        });
        if !self.manager.subresource.is_empty() {
            entry["subresource"] = json!(self.manager.subresource);
        }
        entry
    }

    /// How messages call the entry.
    fn describe(&self) -> String {
        let manager = &self.manager;
        let mut text = format!("{:?}", manager.name);
        if !manager.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", manager.subresource));
        }
        if !manager.applies {
            text.push_str(&format!(" using {}", manager.api_version));
        }
        text
    }
}

fn owned(mut set: Set) -> Set {
    for path in UNOWNED {
        set.remove(path);
    }
    set
}

/// Applies `config` to `live` for `manager`: the new object and who owns what of it. `live` is an empty object when
/// there is none yet. Without `force`, fields of others with another value are a conflict.
pub(crate) fn apply(
    live: &Value,
    config: &Value,
    manager: &Manager,
    force: bool,
    strategy: &dyn Strategy,
) -> Result<(Value, Managed)> {
    let config = without_nulls(config);
    let mut managed = Managed::of(live);
    let applied = owned(typed::fields(&config, strategy));
    let mut merged = live.clone();
    typed::merge(&mut merged, &config, strategy);

    let place = managed.place(manager);
    let last = managed.0[place].set.clone();
    managed.0[place].set = applied.clone();
    if applied != last {
        managed.0[place].time = clock::now();
    }
    // What the manager applied before and does not now goes, unless someone else wants it or something below it.
    let mut keep = Set::default();
    for entry in &managed.0 {
        keep = keep.union(&entry.set);
    }
    let dropped = last.difference(&applied);
    typed::remove(&mut merged, &without_ancestors(&dropped, &keep), strategy);

    let found = typed::difference(live, &merged, strategy);
    let mut conflicts = Vec::new();
    for entry in &managed.0 {
        let taken = entry.set.intersection(&found.changed);
        if entry.manager != *manager && !taken.is_empty() {
            conflicts.push((entry.describe(), taken));
        }
    }
    if !conflicts.is_empty() && !force {
        return Err(conflict(&conflicts));
    }
    managed.take_from_others(manager, &found.changed.union(&found.removed));
    managed.0.retain(|entry| !entry.set.is_empty());
    Ok((merged, managed))
}

/// The members of `set` that are neither in `keep` nor above something in it.
fn without_ancestors(set: &Set, keep: &Set) -> Set {
    let mut left = Set {
        member: set.member && keep.is_empty(),
        ..Set::default()
    };
    for (element, child) in &set.children {
        let below = keep.children.get(element).cloned().unwrap_or_default();
        left.add(element.clone(), without_ancestors(child, &below));
    }
    left
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key.clone(), without_nulls(value)))
                .collect::<Map<_, _>>(),
        ),
        Value::Array(list) => Value::Array(list.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

/// 409 with a cause for every field.
fn conflict(conflicts: &[(String, Set)]) -> Status {
    let mut causes = Vec::new();
    let mut lines = Vec::new();
    let mut sorted: Vec<&(String, Set)> = conflicts.iter().collect();
    sorted.sort_by(|one, two| one.0.cmp(&two.0));
    for (manager, set) in sorted {
        lines.push(format!("conflicts with {manager}:"));
        for path in set.paths() {
            causes.push(json!({
                "reason": "FieldManagerConflict",
                "message": format!("conflict with {manager}"),
                "field": path,
            }));
            lines.push(format!("- {path}"));
        }
    }
    let message = match causes.as_slice() {
        [one] => format!(
            "Apply failed with 1 conflict: {}: {}",
            one["message"].as_str().unwrap_or_default(),
            one["field"].as_str().unwrap_or_default()
        ),
        many => format!(
            "Apply failed with {} conflicts: {}",
            many.len(),
            lines.join("\n")
        ),
    };
    let mut status = Status::new(409, "Conflict", message);
    status.details = json!({"causes": causes});
    status
}
