//! A blob that is being written: a temporary file that gets its name when its digest was verified.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{StoreError, failed};
use crate::{Digest, digest::Hasher};

/// A blob that is being written. Dropped without `commit`, it leaves nothing.
#[derive(Debug)]
pub(crate) struct BlobWriter {
    file: File,
    path: PathBuf,
    blobs: PathBuf,
    hasher: Hasher,
    written: u64,
    expected: Option<(Digest, u64)>,
    limit: u64,
}

impl BlobWriter {
    pub(super) fn new(
        partial: &Path,
        blobs: &Path,
        expected: Option<(Digest, u64)>,
        limit: u64,
    ) -> Result<Self, StoreError> {
        let (file, path) = temporary(partial)?;
        Ok(Self {
            file,
            path,
            blobs: blobs.to_owned(),
            hasher: Hasher::default(),
            written: 0,
            expected,
            limit,
        })
    }

    /// Bytes written so far: where a broken download goes on.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Adds bytes; refuses the first one beyond the announced size or the limit.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let found = self.written + bytes.len() as u64;
        match self.expected {
            Some((digest, expected)) if found > expected => {
                return Err(StoreError::Size {
                    digest,
                    expected,
                    found,
                });
            }
            None if found > self.limit => {
                return Err(StoreError::TooLarge {
                    what: "a blob".to_owned(),
                    limit: self.limit,
                });
            }
            _ => {}
        }
        self.file
            .write_all(bytes)
            .map_err(failed("write", &self.path))?;
        self.hasher.update(bytes);
        self.written = found;
        Ok(())
    }

    /// Adds everything that the reader gives.
    pub(crate) fn copy(&mut self, mut reader: impl Read, source: &Path) -> Result<(), StoreError> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => self.write(&buffer[..read])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed("read", source)(error)),
            }
        }
    }

    /// Begins again with no bytes.
    pub(crate) fn restart(&mut self) -> Result<(), StoreError> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .map_err(failed("empty", &self.path))?;
        self.hasher = Hasher::default();
        self.written = 0;
        Ok(())
    }

    /// Gives the content its name if its digest is this one; otherwise tells which it is.
    pub(crate) fn commit_as(
        self,
        digest: Digest,
    ) -> Result<(Digest, u64), Result<Digest, StoreError>> {
        let found = self.hasher.clone().finish();
        if found != digest {
            return Err(Ok(found));
        }
        self.commit().map_err(Err)
    }

    /// Verifies the content and gives it its name; returns digest and size.
    pub(crate) fn commit(mut self) -> Result<(Digest, u64), StoreError> {
        let found = std::mem::take(&mut self.hasher).finish();
        if let Some((digest, expected)) = self.expected {
            if self.written != expected {
                return Err(StoreError::Size {
                    digest,
                    expected,
                    found: self.written,
                });
            }
            if found != digest {
                return Err(StoreError::Digest {
                    expected: digest,
                    found,
                });
            }
        }
        // Not flushed to the disk, which may take longer than the download. When the machine crashes, the digest tells
        // what is damaged, which is deleted and comes again with the next pull.
        let path = self.blobs.join(found.hex());
        fs::rename(&self.path, &path).map_err(failed("make", &path))?;
        Ok((found, self.written))
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        // After a commit there is nothing of this name; otherwise the next removal tries again.
        let _ = fs::remove_file(&self.path);
    }
}

/// A new file in the folder that nothing else uses.
pub(super) fn temporary(folder: &Path) -> Result<(File, PathBuf), StoreError> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    loop {
        // Process ids repeat in other pid namespaces, so the name may be taken: then the next one.
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{}-{number}", process::id()));
        let file = OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path);
        match file {
            Ok(file) => return Ok((file, path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed("make", &path)(error)),
        }
    }
}
