//! The store's file: one redb table of objects, one of counters.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::Value;

use super::Key;

/// `resource \0 namespace \0 name` -> JSON.
const OBJECTS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("objects");

/// Counters by name.
const COUNTERS: TableDefinition<'static, &str, u64> = TableDefinition::new("counters");

const REVISION: &str = "revision";

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The file cannot be opened; another process may be using it.
    #[error("cannot open {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What redb says.
        source: Box<redb::Error>,
    },
    /// The file cannot be read or written.
    #[error("cannot use the store: {0}")]
    Use(Box<redb::Error>),
    /// An entry is not what this program writes.
    #[error("the store's entry {key:?} is damaged")]
    Damaged {
        /// The entry's key.
        key: String,
    },
}

impl<E: Into<redb::Error>> From<E> for DiskError {
    fn from(error: E) -> Self {
        Self::Use(Box::new(error.into()))
    }
}

/// One change of the file: the new JSON, or `None` for a removal.
pub(super) type Put = (Key, Option<Vec<u8>>);

/// What the file holds.
pub(super) type Objects = Vec<(Key, Arc<Value>)>;

/// The open file.
pub(super) struct Disk {
    database: Database,
}

impl Disk {
    /// Opens or makes the file; returns what it holds and the revision of its last write.
    pub(super) fn open(path: &Path) -> Result<(Self, Objects, u64), DiskError> {
        let refused = |source: redb::Error| DiskError::Open {
            path: path.to_owned(),
            source: Box::new(source),
        };
        // Secrets are in it: nobody else may read it, whatever the umask says.
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|source| refused(source.into()))?;
        let database = Database::create(path).map_err(|source| refused(source.into()))?;
        let making = database.begin_write()?;
        making.open_table(OBJECTS)?;
        making.open_table(COUNTERS)?;
        making.commit()?;
        let reading = database.begin_read()?;
        let revision = reading
            .open_table(COUNTERS)?
            .get(REVISION)?
            .map_or(0, |value| value.value());
        let mut objects = Vec::new();
        for entry in reading.open_table(OBJECTS)?.iter()? {
            let (key, bytes) = entry?;
            let damaged = || DiskError::Damaged {
                key: key.value().to_owned(),
            };
            let parsed = parse_key(key.value()).ok_or_else(damaged)?;
            let object = serde_json::from_slice(bytes.value()).map_err(|_error| damaged())?;
            objects.push((parsed, Arc::new(object)));
        }
        Ok((Self { database }, objects, revision))
    }

    /// Writes all of `puts` and the revision, or nothing. When it returns, a crash no longer loses them.
    pub(super) fn commit(&self, puts: &[Put], revision: u64) -> Result<(), DiskError> {
        let writing = self.database.begin_write()?;
        {
            let mut objects = writing.open_table(OBJECTS)?;
            for (key, bytes) in puts {
                let key = format!("{}\0{}\0{}", key.resource, key.namespace, key.name);
                match bytes {
                    Some(bytes) => objects.insert(key.as_str(), bytes.as_slice())?,
                    None => objects.remove(key.as_str())?,
                };
            }
            writing.open_table(COUNTERS)?.insert(REVISION, revision)?;
        }
        writing.commit()?;
        Ok(())
    }
}

fn parse_key(text: &str) -> Option<Key> {
    let mut parts = text.split('\0');
    Some(Key {
        resource: Arc::from(parts.next()?),
        namespace: parts.next()?.to_owned(),
        name: parts.next()?.to_owned(),
    })
}
