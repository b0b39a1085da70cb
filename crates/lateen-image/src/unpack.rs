//! Layers as folders, for overlayfs to stack (OCI image-spec, layer.md).
//!
//! Each layer is unpacked once, into `FOLDER/HEX` by the digest of its uncompressed archive, and is a lower directory of
//! overlayfs mounted with `userxattr` (Linux 5.11): a whiteout is the character device 0:0, which needs no privilege
//! since Linux 5.8, and an opaque directory has the attribute `user.overlay.opaque=y`.
//!
//! Archives are not trusted. No path leaves the layer's folder, nothing is written through a symbolic link (each
//! directory is opened by itself, without following links), and [`Limits`] bound what an archive can grow to.
//!
//! What is not kept: device nodes, extended attributes, access control lists; owners that the system does not let this
//! user set, and with them the setuid and setgid bits. Directories that an archive only implies have mode 755. Layers are
//! not flushed to the disk: when the machine itself crashes while it unpacks, delete the folder.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use thiserror::Error;

use crate::{ContentStore, Digest, Image, StoreError, digest::HashingReader, image::Layer};

mod apply;
mod attributes;
mod frames;
mod path;
mod stream;
mod tree;

pub(crate) use stream::{Gauge, Stream, compression};

/// How long unfinished folders are called; no layer's name starts so.
const UNFINISHED: &str = ".unfinished-";

/// What an archive may grow to. The default takes the largest images in use, and leaves a laptop its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that one layer may unpack to. Default: 16 GiB.
    pub layer_bytes: u64,
    /// Bytes that all layers which one call unpacks may unpack to. Default: 32 GiB.
    pub image_bytes: u64,
    /// Entries of one layer. Default: a million.
    pub entries: u64,
    /// How many times larger a layer may be unpacked than packed, counted from 64 MiB unpacked. Default: 250.
    pub ratio: u64,
    /// Components of a path. Default: 128.
    pub path_depth: usize,
    /// Bytes of a path. Default: 4095, what the kernel takes.
    pub path_length: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            layer_bytes: 16 << 30,
            image_bytes: 32 << 30,
            entries: 1_000_000,
            ratio: 250,
            path_depth: 128,
            path_length: 4095,
        }
    }
}

/// Why an image was not unpacked. Layers that were finished before stay.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// The store failed, or lacks a layer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stored archive is damaged; it was deleted.
    #[error(
        "layer {layer} is damaged: its archive has the digest {found}; it was deleted, load or pull the image again"
    )]
    Blob {
        /// The digest that the archive should have.
        layer: Digest,
        /// The digest that it has.
        found: Digest,
    },
    /// The archive is not the one that the configuration tells of.
    #[error(
        "layer {layer} unpacks to {found} instead of {expected}, which the image's configuration tells; do not use the image"
    )]
    DiffId {
        /// The layer's archive.
        layer: Digest,
        /// The digest in the configuration.
        expected: Digest,
        /// The digest found.
        found: Digest,
    },
    /// The archive cannot be read.
    #[error("layer {layer} cannot be read after {path:?}: {source}")]
    Archive {
        /// The layer's archive.
        layer: Digest,
        /// The last entry that could be read.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The archive asks for something that no good archive does.
    #[error("layer {layer} is refused: {path:?} {why}")]
    Refused {
        /// The layer's archive.
        layer: Digest,
        /// The entry.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The archive is larger than the limits.
    #[error(
        "layer {layer} is refused at {path:?}: {why}; if the image is trusted, raise the limit"
    )]
    Limit {
        /// The layer's archive.
        layer: Digest,
        /// The entry.
        path: String,
        /// Which limit.
        why: String,
    },
    /// The system refused to make an entry.
    #[error("cannot unpack {path:?} of layer {layer}: cannot {step}: {source}")]
    Entry {
        /// The layer's archive.
        layer: Digest,
        /// The entry.
        path: String,
        /// What was tried.
        step: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The system refused something in the folder of layers.
    #[error("cannot {step} {path:?}: {source}")]
    Folder {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Unpacks the layers that are not in the folder yet; returns the folders of all, top to bottom, as overlayfs wants its
/// `lowerdir`. A layer that an image has twice is there once: overlayfs refuses more, and the lower one is hidden.
///
/// Owners are those that the caller's user namespace can set, once for all callers: keep a folder for each mapping of ids.
/// Blocks for as long as it reads and writes; the folder should be on the file system of the upper directories, and
/// must hold extended attributes of users (ext4, xfs, btrfs; tmpfs since Linux 6.6).
///
/// # Errors
/// When a layer is damaged, hostile or too large, or the system refuses to make a file.
pub fn unpack(
    store: &ContentStore,
    image: &Image,
    folder: &Path,
    limits: &Limits,
) -> Result<Vec<PathBuf>, UnpackError> {
    DirBuilder::new()
        .recursive(true)
        // Layers hold setuid programs of others' making: nobody else may reach them.
        .mode(0o700)
        .create(folder)
        .map_err(failed("make the folder", folder))?;
    let _hold = store.hold()?;
    let mut left = limits.image_bytes;
    let mut folders = Vec::new();
    for layer in &image.layers {
        let path = folder.join(layer.diff_id.hex());
        if !path.is_dir() {
            let bytes = unpack_layer(store, layer, folder, &path, limits, left)?;
            left = left.saturating_sub(bytes);
        }
        folders.retain(|earlier| *earlier != path);
        folders.push(path);
    }
    folders.reverse();
    Ok(folders)
}

/// Deletes the unpacked layers that are not among `keep` (by [`Layer::diff_id`]), and what unfinished calls of
/// [`unpack`] left; returns how many layers that were. The caller knows which layers are mounted, and that nobody
/// unpacks meanwhile.
///
/// # Errors
/// When the folder cannot be listed or something in it not be deleted.
pub fn prune_layers(folder: &Path, keep: &BTreeSet<Digest>) -> Result<usize, UnpackError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(failed("list", folder)(error)),
    };
    let keep: BTreeSet<String> = keep.iter().map(Digest::hex).collect();
    let mut pruned = 0;
    for entry in entries {
        let entry = entry.map_err(failed("list", folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_layer = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_layer && !keep.contains(&name) || name.starts_with(UNFINISHED) {
            remove_tree(&entry.path()).map_err(failed("delete", &entry.path()))?;
            pruned += usize::from(is_layer);
        }
    }
    Ok(pruned)
}

/// Unpacks one layer beside its final place and moves it there; returns its bytes.
fn unpack_layer(
    store: &ContentStore,
    layer: &Layer,
    folder: &Path,
    path: &Path,
    limits: &Limits,
    left: u64,
) -> Result<u64, UnpackError> {
    let digest = layer.blob.digest;
    let file = verified(store, layer)?;
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let unfinished = folder.join(format!(
        "{UNFINISHED}{}-{}-{number}",
        &digest.hex()[..12],
        process::id()
    ));
    fs::create_dir(&unfinished).map_err(failed("make the folder", &unfinished))?;
    let finish = || {
        let limits = Limits {
            layer_bytes: limits.layer_bytes.min(left),
            ..limits.clone()
        };
        let bytes = apply::apply(file, layer, &unfinished, &limits)?;
        match fs::rename(&unfinished, path) {
            Ok(()) => Ok(bytes),
            // Another process was faster, with the same content.
            Err(_) if path.is_dir() => remove_tree(&unfinished)
                .map(|()| bytes)
                .map_err(failed("delete", &unfinished)),
            Err(error) => Err(failed("make the folder", path)(error)),
        }
    };
    finish().inspect_err(|_| {
        // The first error is the one that tells something; what stays is pruned later.
        let _ = remove_tree(&unfinished);
    })
}

/// Opens a layer's archive after all of it was verified, so that nothing unverified is even parsed.
fn verified(store: &ContentStore, layer: &Layer) -> Result<File, UnpackError> {
    let digest = layer.blob.digest;
    let open = || {
        store.blob(&digest)?.ok_or_else(|| StoreError::Missing {
            what: "the archive".to_owned(),
            name: format!("layer {digest}"),
            folder: store.folder().to_owned(),
        })
    };
    let mut reader = HashingReader::new(open()?);
    io::copy(&mut reader, &mut io::sink()).map_err(|source| UnpackError::Archive {
        layer: digest,
        path: String::new(),
        source,
    })?;
    let found = reader.digest();
    if found != digest {
        store.discard(&digest)?;
        return Err(UnpackError::Blob {
            layer: digest,
            found,
        });
    }
    Ok(open()?)
}

/// Deletes a folder, also where its directories' modes forbid it to an ordinary user.
fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            fs::remove_dir_all(path)
        }
        other => other,
    }
}

fn open_up(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> UnpackError {
    let path = path.to_owned();
    move |source| UnpackError::Folder { step, path, source }
}
