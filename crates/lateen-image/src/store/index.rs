//! The index of names: one JSON file, replaced as a whole.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{StoreError, failed};
use crate::{Digest, Reference};

/// The version of the format that this program writes and reads.
const VERSION: u32 = 1;
/// Largest index, in bytes: more than a hundred thousand names.
const MAX_INDEX: u64 = 64 << 20;

/// An image in the list of images.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Its name.
    pub name: Reference,
    /// The digest of its manifest.
    pub digest: Digest,
    /// Bytes of its configuration and layers, as they were fetched.
    pub size: u64,
    /// When it was made, as RFC 3339 text, if it says so.
    pub created: Option<String>,
}

/// What the index knows of a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) created: Option<String>,
}

/// All names.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Names {
    version: u32,
    images: BTreeMap<Reference, Named>,
}

impl Names {
    pub(super) fn get(&self, name: &Reference) -> Option<&Named> {
        self.images.get(name)
    }

    pub(super) fn insert(&mut self, name: &Reference, named: Named) -> bool {
        self.images.insert(name.clone(), named);
        true
    }

    pub(super) fn remove(&mut self, name: &Reference) -> bool {
        self.images.remove(name).is_some()
    }

    pub(super) fn manifests(&self) -> impl Iterator<Item = Digest> {
        self.images.values().map(|named| named.digest)
    }

    pub(super) fn entries(self) -> Vec<Entry> {
        let entry = |(name, named): (Reference, Named)| Entry {
            name,
            digest: named.digest,
            size: named.size,
            created: named.created,
        };
        self.images.into_iter().map(entry).collect()
    }
}

/// The names as they are now.
pub(super) fn read(folder: &Path) -> Result<Names, StoreError> {
    let path = folder.join("index.json");
    let mut bytes = Vec::new();
    match File::open(&path) {
        Ok(file) => file
            .take(MAX_INDEX)
            .read_to_end(&mut bytes)
            .map_err(failed("read", &path))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Names {
                version: VERSION,
                images: BTreeMap::new(),
            });
        }
        Err(error) => return Err(failed("open", &path)(error)),
    };
    let refuse = |why: String| StoreError::Index {
        path: path.clone(),
        why,
    };
    let names: Names =
        serde_json::from_slice(&bytes).map_err(|error| refuse(format!("is damaged ({error})")))?;
    if names.version != VERSION {
        return Err(refuse(format!(
            "has version {} instead of {VERSION}",
            names.version
        )));
    }
    Ok(names)
}

/// Changes the names as one step among all processes; `false` from the change leaves the file as it is.
pub(super) fn change(
    folder: &Path,
    change: impl FnOnce(&mut Names) -> bool,
) -> Result<bool, StoreError> {
    let lock_path = folder.join("index.lock");
    let lock = open_lock(&lock_path)?;
    lock.lock().map_err(failed("lock", &lock_path))?;
    let mut names = read(folder)?;
    if !change(&mut names) {
        return Ok(false);
    }
    // The lock makes one fixed name for the new file enough.
    let new = folder.join("index.json.new");
    let bytes = serde_json::to_vec_pretty(&names).map_err(|error| StoreError::Index {
        path: new.clone(),
        why: format!("cannot be written ({error})"),
    })?;
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        file.sync_data()
    };
    write().map_err(failed("write", &new))?;
    let path = folder.join("index.json");
    fs::rename(&new, &path).map_err(failed("replace", &path))?;
    Ok(true)
}

/// A file to lock; it stays empty.
pub(super) fn open_lock(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(failed("open", path))
}
