//! A folder of images: blobs by digest, and an index of names.
//!
//! ```text
//! blobs/sha256/HEX   content, verified before it got this name
//! partial/           content that is being written
//! index.json         names, each with the digest of a manifest; replaced as a whole
//! index.lock         held while the index is changed
//! blobs.lock         shared by whoever adds blobs that no name refers to yet; exclusive to delete blobs
//! ```
//!
//! Several processes may use one folder at a time. Locks are advisory (`flock`) and end with the process.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File},
    io::{self, Read},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use crate::{
    Digest, Image, ImageConfig, Reference, image,
    manifest::{Document, MAX_CONFIG, MAX_MANIFEST, Manifest, ManifestError},
};

mod error;
mod index;
mod writer;

pub use error::StoreError;
use error::failed;
pub use index::Entry;
pub(crate) use index::Named;
pub(crate) use writer::BlobWriter;

/// What removing a name freed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Removed {
    /// Blobs deleted.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Unused blobs stayed because another process is adding images; the next removal takes them.
    pub deferred: bool,
}

/// A folder of images.
#[derive(Debug, Clone)]
pub struct ContentStore {
    folder: PathBuf,
}

/// The promise that no blob is deleted.
#[derive(Debug)]
pub(crate) struct Hold {
    _locked: File,
}

impl ContentStore {
    /// Opens the folder; makes it, for this user alone, when it is not there.
    ///
    /// # Errors
    /// When folders cannot be made in it.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let store = Self {
            folder: folder.into(),
        };
        for path in [store.blobs(), store.partial()] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(failed("make the folder", &path))?;
        }
        Ok(store)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The images, by name.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn list(&self) -> Result<Vec<Entry>, StoreError> {
        index::read(&self.folder).map(index::Names::entries)
    }

    /// The image of this name, if it was loaded or pulled.
    ///
    /// # Errors
    /// When the index or the image's manifest or configuration cannot be read, or content is missing.
    pub fn resolve(&self, name: &Reference) -> Result<Option<Image>, StoreError> {
        match index::read(&self.folder)?.get(name) {
            Some(named) => self.image(name, named.digest).map(Some),
            None => Ok(None),
        }
    }

    /// Forgets a name, and deletes the blobs that no name refers to any more; `None` when there is no such name.
    /// Unpacked layers stay: see [`crate::prune_layers`].
    ///
    /// # Errors
    /// When the index cannot be changed or a blob not be deleted.
    pub fn remove(&self, name: &Reference) -> Result<Option<Removed>, StoreError> {
        if !index::change(&self.folder, |names| names.remove(name))? {
            return Ok(None);
        }
        let (lock, path) = self.lock_file()?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Ok(Some(Removed {
                    deferred: true,
                    ..Removed::default()
                }));
            }
            Err(fs::TryLockError::Error(error)) => return Err(failed("lock", &path)(error)),
        }
        self.collect().map(Some)
    }

    /// Keeps blobs from being deleted until it is dropped. Waits while another process deletes some.
    pub(crate) fn hold(&self) -> Result<Hold, StoreError> {
        let (file, path) = self.lock_file()?;
        file.lock_shared().map_err(failed("lock", &path))?;
        Ok(Hold { _locked: file })
    }

    /// Gives a name to a manifest whose content is all here.
    pub(crate) fn name(&self, name: &Reference, digest: Digest) -> Result<Image, StoreError> {
        let image = self.image(name, digest)?;
        let named = Named {
            digest,
            size: image.size,
            created: image.config.created.clone(),
        };
        index::change(&self.folder, |names| names.insert(name, named))?;
        Ok(image)
    }

    /// A new blob. `expected` is its digest and size where they are known, `limit` bounds it where they are not.
    pub(crate) fn writer(
        &self,
        expected: Option<(Digest, u64)>,
        limit: u64,
    ) -> Result<BlobWriter, StoreError> {
        BlobWriter::new(&self.partial(), &self.blobs(), expected, limit)
    }

    /// Stores bytes that are in memory.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        let mut writer = self.writer(Some((digest, bytes.len() as u64)), 0)?;
        writer.write(bytes)?;
        writer.commit()?;
        Ok(digest)
    }

    /// Opens a blob; `None` when it is not here.
    pub(crate) fn blob(&self, digest: &Digest) -> Result<Option<File>, StoreError> {
        let path = self.blob_path(digest);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("open", &path)(error)),
        }
    }

    /// Is the blob here?
    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.blob_path(digest).is_file()
    }

    /// Deletes a blob that turned out to be damaged, so that the next pull or load brings it again.
    pub(crate) fn discard(&self, digest: &Digest) -> Result<(), StoreError> {
        let path = self.blob_path(digest);
        fs::remove_file(&path).map_err(failed("delete", &path))
    }

    /// The whole of a small blob, verified; `None` when it is not here.
    pub(crate) fn read(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(file) = self.blob(digest)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(failed("read", &self.blob_path(digest)))?;
        if bytes.len() as u64 > limit {
            let what = digest.to_string();
            return Err(StoreError::TooLarge { what, limit });
        }
        let found = Digest::of(&bytes);
        if found != *digest {
            self.discard(digest)?;
            return Err(StoreError::Digest {
                expected: *digest,
                found,
            });
        }
        Ok(Some(bytes))
    }

    /// A file without a name, for something that is needed only for a while.
    pub(crate) fn scratch(&self) -> Result<File, StoreError> {
        let (file, path) = writer::temporary(&self.partial())?;
        fs::remove_file(&path).map_err(failed("delete", &path))?;
        Ok(file)
    }

    fn image(&self, name: &Reference, digest: Digest) -> Result<Image, StoreError> {
        let manifest = self.manifest(name, digest)?;
        let bytes = self
            .read(&manifest.config.digest, MAX_CONFIG)?
            .ok_or_else(|| self.missing("the configuration", name))?;
        let config = ImageConfig::parse(&bytes).map_err(|source| StoreError::Config {
            name: name.to_string(),
            source,
        })?;
        if let Some(layer) = manifest
            .layers
            .iter()
            .find(|layer| !self.has(&layer.digest))
        {
            return Err(self.missing(&format!("layer {}", layer.digest), name));
        }
        image::assemble(name, digest, &manifest, config).map_err(|source| {
            StoreError::Contradiction {
                name: name.to_string(),
                source,
            }
        })
    }

    fn manifest(&self, name: &Reference, digest: Digest) -> Result<Manifest, StoreError> {
        let bytes = self
            .read(&digest, MAX_MANIFEST)?
            .ok_or_else(|| self.missing("the manifest", name))?;
        let source = match Document::parse(&bytes) {
            Ok(Document::Manifest(manifest)) => return Ok(manifest),
            Ok(Document::Index(_)) => ManifestError::Ambiguous,
            Err(error) => error,
        };
        Err(StoreError::Manifest {
            name: name.to_string(),
            source,
        })
    }

    /// Deletes what no name refers to, under the exclusive lock.
    fn collect(&self) -> Result<Removed, StoreError> {
        let mut used = BTreeSet::new();
        for digest in index::read(&self.folder)?.manifests() {
            used.insert(digest.hex());
            // A manifest that cannot be read keeps nothing alive but itself: its image cannot be used anyway.
            let manifest = self.read(&digest, MAX_MANIFEST).ok().flatten();
            if let Some(Ok(Document::Manifest(manifest))) =
                manifest.map(|bytes| Document::parse(&bytes))
            {
                used.insert(manifest.config.digest.hex());
                used.extend(manifest.layers.iter().map(|layer| layer.digest.hex()));
            }
        }
        let mut removed = Removed::default();
        let blobs = self.blobs();
        for folder in [&blobs, &self.partial()] {
            for entry in fs::read_dir(folder).map_err(failed("list", folder))? {
                let entry = entry.map_err(failed("list", folder))?;
                let path = entry.path();
                if folder == &blobs && used.contains(&*entry.file_name().to_string_lossy()) {
                    continue;
                }
                let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
                fs::remove_file(&path).map_err(failed("delete", &path))?;
                removed.blobs += usize::from(folder == &blobs);
                removed.bytes += bytes;
            }
        }
        Ok(removed)
    }

    fn missing(&self, what: &str, name: &Reference) -> StoreError {
        StoreError::Missing {
            what: what.to_owned(),
            name: name.to_string(),
            folder: self.folder.clone(),
        }
    }

    fn lock_file(&self) -> Result<(File, PathBuf), StoreError> {
        let path = self.folder.join("blobs.lock");
        index::open_lock(&path).map(|file| (file, path))
    }

    fn blobs(&self) -> PathBuf {
        self.folder.join("blobs/sha256")
    }

    fn partial(&self) -> PathBuf {
        self.folder.join("partial")
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }
}
