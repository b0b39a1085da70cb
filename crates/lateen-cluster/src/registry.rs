//! The table of served resources, shared by all requests.
//!
//! Built-in rows are there from the start; CustomResourceDefinitions add and remove rows while the server runs. Readers
//! take a snapshot without a lock.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::resource::{Resource, Version};

/// One state of the table.
#[derive(Default)]
pub struct Table {
    rows: Vec<Arc<Resource>>,
    /// For every row the generation in which it came to be.
    serials: Vec<u64>,
    /// (group, version, plural) as it stands in request paths.
    paths: HashMap<(String, String, String), usize>,
    /// Raised with every change.
    generation: u64,
}

impl Table {
    /// All rows, in the order in which they were added.
    pub fn rows(&self) -> &[Arc<Resource>] {
        &self.rows
    }

    /// The row that serves `/apis/{group}/{version}/{plural}`, and which of its versions that is.
    pub fn find(
        &self,
        group: &str,
        version: &str,
        plural: &str,
    ) -> Option<(&Arc<Resource>, &Version)> {
        let key = (group.to_owned(), version.to_owned(), plural.to_owned());
        let row = &self.rows[*self.paths.get(&key)?];
        let version = row
            .versions
            .iter()
            .find(|served| served.group == group && served.name == version)?;
        Some((row, version))
    }

    /// The row of `plural` in its present group.
    pub fn resource(&self, group: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.rows
            .iter()
            .find(|row| row.group == group && row.plural == plural)
    }

    /// The row that serves `kind` under `api_version` (`group/version` or `version`).
    pub fn kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Resource>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.rows.iter().find(|row| {
            row.kind == kind
                && row
                    .versions
                    .iter()
                    .any(|served| served.group == group && served.name == version)
        })
    }

    /// A number that is another one after the row was replaced; 0 when there is no such row.
    pub fn serial(&self, group: &str, plural: &str) -> u64 {
        let is_wanted = |row: &Arc<Resource>| row.group == group && row.plural == plural;
        let index = self.rows.iter().position(is_wanted);
        index.map_or(0, |index| self.serials[index])
    }

    /// Raised with every change of the table.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    fn from_rows(rows: Vec<Arc<Resource>>, generation: u64, before: &Self) -> Self {
        let serial = |row: &Arc<Resource>| {
            let known = before.rows.iter().position(|old| Arc::ptr_eq(old, row));
            known.map_or(generation, |index| before.serials[index])
        };
        let serials = rows.iter().map(serial).collect();
        let mut paths = HashMap::new();
        for (index, row) in rows.iter().enumerate() {
            for version in &row.versions {
                let key = (
                    version.group.clone(),
                    version.name.clone(),
                    row.plural.clone(),
                );
                paths.entry(key).or_insert(index);
            }
        }
        Self {
            rows,
            serials,
            paths,
            generation,
        }
    }
}

/// The table as it changes; cheap to clone, all clones are the same table.
#[derive(Clone, Default)]
pub struct Registry {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    table: ArcSwap<Table>,
    /// Serialises writers, so that none loses another's row.
    writing: Mutex<()>,
}

impl Registry {
    /// A table with `rows`.
    pub fn new(rows: Vec<Resource>) -> Self {
        let registry = Self::default();
        let rows = rows.into_iter().map(Arc::new).collect();
        registry
            .shared
            .table
            .store(Arc::new(Table::from_rows(rows, 1, &Table::default())));
        registry
    }

    /// The table as it is now.
    pub fn table(&self) -> Arc<Table> {
        self.shared.table.load_full()
    }

    /// Adds `resource`, or replaces the row of the same group and plural.
    pub fn insert(&self, resource: Resource) {
        self.change(|rows| {
            let added = Arc::new(resource);
            match rows
                .iter_mut()
                .find(|row| row.group == added.group && row.plural == added.plural)
            {
                Some(row) => *row = added,
                None => rows.push(added),
            }
        });
    }

    /// Removes the row of `plural` in `group`; no error when there is none.
    pub fn remove(&self, group: &str, plural: &str) {
        self.change(|rows| rows.retain(|row| row.group != group || row.plural != plural));
    }

    fn change(&self, edit: impl FnOnce(&mut Vec<Arc<Resource>>)) {
        let _writing = self.shared.writing.lock();
        let before = self.shared.table.load();
        let mut rows = before.rows.clone();
        edit(&mut rows);
        self.shared.table.store(Arc::new(Table::from_rows(
            rows,
            before.generation + 1,
            &before,
        )));
    }
}
