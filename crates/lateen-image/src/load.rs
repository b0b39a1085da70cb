//! Images from files: what `docker save`, `podman save`, `buildah`, `skopeo` and build tools write.
//!
//! An archive or folder is read as an OCI layout (image-spec, image-layout.md) when its index names images, otherwise by
//! Docker's `manifest.json`. Docker writes both into one archive.

use std::{io, path::Path, path::PathBuf};

use thiserror::Error;

use crate::{
    ConfigError, ContentStore, Digest, Limits, ManifestError, Platform, Reference, ReferenceError,
    StoreError,
};

mod docker;
mod layout;
mod source;

use source::Source;

/// How to load.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The name for an archive that has exactly one image, instead of the archive's own.
    pub name: Option<Reference>,
    /// The platform to choose where there are several. Default: this machine's.
    pub platform: Platform,
    /// [`Limits::image_bytes`] and [`Limits::ratio`] bound an archive that is compressed or a pipe as a whole.
    pub limits: Limits,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            name: None,
            platform: Platform::host(),
            limits: Limits::default(),
        }
    }
}

/// Why nothing more was loaded. Images before the one that failed stay.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The store failed, or content is not what its digest says.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The archive or folder cannot be read.
    #[error("cannot read {path:?}: {source}")]
    Read {
        /// The archive, or the file in the folder.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The archive or folder holds no image.
    #[error(
        "{0:?} holds no image: it has neither \"manifest.json\" nor \"index.json\"; make it with `docker save` or as \
         an OCI layout"
    )]
    NoImage(PathBuf),
    /// The archive lacks something that it refers to.
    #[error("{path:?} lacks {member:?}; save the image again")]
    Missing {
        /// The archive or folder.
        path: PathBuf,
        /// The file in it.
        member: String,
    },
    /// A file that describes images cannot be read.
    #[error("{member:?} in {path:?} cannot be used: {why}")]
    Description {
        /// The archive or folder.
        path: PathBuf,
        /// The file in it.
        member: String,
        /// What is wrong with it.
        why: String,
    },
    /// A manifest cannot be used, or is for other platforms.
    #[error("{image} in {path:?}: {source}")]
    Manifest {
        /// The archive or folder.
        path: PathBuf,
        /// The image's name, or its digest.
        image: String,
        /// Why.
        source: ManifestError,
    },
    /// A configuration cannot be used.
    #[error("{image} in {path:?}: {source}")]
    Config {
        /// The archive or folder.
        path: PathBuf,
        /// The image's name, or its digest.
        image: String,
        /// Why.
        source: ConfigError,
    },
    /// The archive gives an image a name that is none.
    #[error("{path:?} names an image badly: {source}")]
    Name {
        /// The archive or folder.
        path: PathBuf,
        /// Why.
        source: ReferenceError,
    },
    /// No name is known.
    #[error("{0:?} does not name its image; give a name for it")]
    Unnamed(PathBuf),
    /// A name was given for several images.
    #[error(
        "{path:?} has {images} images, which cannot all be called {name}; load it without a name"
    )]
    Several {
        /// The archive or folder.
        path: PathBuf,
        /// How many images it has.
        images: usize,
        /// The name that was given.
        name: String,
    },
    /// A layer is not the one that the configuration tells of.
    #[error(
        "{image} in {path:?} is damaged: layer {member:?} is {found} instead of {expected}; save the image again"
    )]
    Layer {
        /// The archive or folder.
        path: PathBuf,
        /// The image's name.
        image: String,
        /// The layer's file.
        member: String,
        /// The digest in the configuration.
        expected: Digest,
        /// The digest found.
        found: Digest,
    },
}

/// Loads the images of a tar archive (plain, or compressed with gzip or Zstandard; `/dev/stdin` and other pipes too), or of
/// a folder with an OCI layout; returns their names. Blocks for as long as it copies.
///
/// # Errors
/// When the archive holds no image for this platform, is damaged, or the store cannot be written.
pub fn load(
    store: &ContentStore,
    path: &Path,
    options: &LoadOptions,
) -> Result<Vec<Reference>, LoadError> {
    let _hold = store.hold()?;
    let source = Source::open(store, path, &options.limits)?;
    let mut groups = layout::images(&source)?;
    let has_names = groups.iter().any(|group| !group.names.is_empty());
    if !has_names && source.has(docker::MANIFEST) {
        return docker::load(store, &source, options);
    }
    if groups.is_empty() {
        return Err(LoadError::NoImage(path.to_owned()));
    }
    if options.name.is_none() {
        // An index may also refer to things by digest alone: attestations, parts of other entries.
        groups.retain(|group| !group.names.is_empty());
    }
    layout::load(store, &source, groups, options)
}

/// The names to give to an image that calls itself `own`, in an archive of this many images.
fn names(
    own: &[Reference],
    images: usize,
    path: &Path,
    options: &LoadOptions,
) -> Result<Vec<Reference>, LoadError> {
    match &options.name {
        Some(name) if images > 1 => Err(LoadError::Several {
            path: path.to_owned(),
            images,
            name: name.to_string(),
        }),
        Some(name) => Ok(vec![name.clone()]),
        None if own.is_empty() => Err(LoadError::Unnamed(path.to_owned())),
        None => Ok(own.to_vec()),
    }
}

/// How an error calls an image.
fn shown(names: &[Reference], digest: &Digest) -> String {
    names
        .first()
        .map_or_else(|| digest.to_string(), ToString::to_string)
}
