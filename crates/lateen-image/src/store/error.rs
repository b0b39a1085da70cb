//! What can fail in the folder of images.

use std::{
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::{Digest, ManifestError, config::ConfigError, image::IncompleteError};

/// What failed in the folder of images.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The system refused something.
    #[error("cannot {step} {path:?}: {source}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The program ends while content is written.
    #[error("writing of the image was interrupted: {0}")]
    Interrupted(String),
    /// The index is damaged or of a later version.
    #[error("the index of images {path:?} {why}; move the file away to begin with an empty index")]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Content is not what its digest says.
    #[error(
        "content that should be {expected} is {found}; it was damaged or changed on its way, get the image again"
    )]
    Digest {
        /// The digest asked for.
        expected: Digest,
        /// The digest found.
        found: Digest,
    },
    /// Content is longer or shorter than announced.
    #[error("{digest} has {found} bytes instead of the {expected} announced; get the image again")]
    Size {
        /// The content.
        digest: Digest,
        /// Bytes announced.
        expected: u64,
        /// Bytes found, at least.
        found: u64,
    },
    /// Content without an announced size is longer than the limit.
    #[error("{what} has more than {limit} bytes, the limit")]
    TooLarge {
        /// What it is.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// An image lacks content.
    #[error("{what} of {name} is not in {folder:?}; load or pull the image again")]
    Missing {
        /// What is missing.
        what: String,
        /// The image.
        name: String,
        /// The folder of images.
        folder: PathBuf,
    },
    /// The manifest of an image cannot be used.
    #[error("{name}: {source}")]
    Manifest {
        /// The image.
        name: String,
        /// Why.
        source: ManifestError,
    },
    /// The configuration of an image cannot be used.
    #[error("{name}: {source}")]
    Config {
        /// The image.
        name: String,
        /// Why.
        source: ConfigError,
    },
    /// Manifest and configuration contradict each other.
    #[error("{name}: {source}")]
    Contradiction {
        /// The image.
        name: String,
        /// How.
        source: IncompleteError,
    },
}

/// Makes a [`StoreError::Io`] of the system's error.
pub(super) fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { step, path, source }
}
