//! One layer's archive, entry by entry.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
};

use nix::{
    fcntl::{AtFlags, OFlag, openat},
    sys::stat::{Mode, SFlag, makedev, mknodat},
    unistd::{linkat, symlinkat},
};
use tar::{Archive, Entry, EntryType};

use super::{
    Limits, UnpackError,
    attributes::{Attributes, make_opaque},
    path::{Components, Meaning, PathError, components, meaning},
    stream::{Gauge, Stream},
    tree::{Kind, Place, Tree, TreeError, failed, kind, make_directory},
};
use crate::image::Layer;

/// Why an entry was not made.
enum EntryError {
    Refused(String),
    Limit(String),
    Read(io::Error),
    System(&'static str, io::Error),
}

/// A layer that is being unpacked.
struct Unpacking<'a> {
    tree: Tree,
    limits: &'a Limits,
    /// Directories get their attributes at the end: their modes may forbid to fill them, and filling changes their
    /// times. In this order parents come before what is in them.
    directories: BTreeMap<Components, Attributes>,
    /// Bytes of content, of which sparse files have more than the archive.
    written: u64,
    /// For the content of files.
    buffer: Vec<u8>,
}

/// Unpacks the archive into an empty folder; returns the bytes that it has unpacked.
pub(super) fn apply(
    file: File,
    layer: &Layer,
    folder: &Path,
    limits: &Limits,
) -> Result<u64, UnpackError> {
    let gauge = Gauge::default();
    // The text of the last path, for errors.
    let mut last = String::new();
    let explain = |path: &str, error: EntryError| {
        let (layer, path) = (layer.blob.digest, path.to_owned());
        // A limit looks like an error of reading to those in between.
        let error = match (gauge.stopped(), error) {
            (Some(why), _) => EntryError::Limit(why),
            (None, error) => error,
        };
        match error {
            EntryError::Refused(why) => UnpackError::Refused { layer, path, why },
            EntryError::Limit(why) => UnpackError::Limit { layer, path, why },
            EntryError::Read(source) => UnpackError::Archive {
                layer,
                path,
                source,
            },
            EntryError::System(step, source) => UnpackError::Entry {
                layer,
                path,
                step,
                source,
            },
        }
    };
    let mut unpacking = Unpacking {
        tree: Tree::open(folder).map_err(|error| explain("", error.into()))?,
        limits,
        directories: BTreeMap::from([(Components::new(), Attributes::IMPLIED)]),
        written: 0,
        buffer: vec![0; 64 << 10],
    };
    let stream = Stream::new(file, limits, gauge.clone())
        .map_err(|error| explain("", EntryError::Read(error)))?;
    let mut archive = Archive::new(stream);
    let mut entries = archive
        .entries()
        .map_err(|error| explain("", EntryError::Read(error)))?;
    let mut count = 0;
    loop {
        gauge.expect_description();
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(|error| explain(&last, EntryError::Read(error)))?;
        gauge.expect_content();
        last = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        count += 1;
        if count > limits.entries {
            let why = format!("it has more than {} entries", limits.entries);
            return Err(explain(&last, EntryError::Limit(why)));
        }
        unpacking
            .entry(&mut entry)
            // What was not wanted is read here, where it counts as content.
            .and_then(|()| unpacking.copy(&mut entry, &mut io::sink()))
            .map_err(|error| explain(&last, error))?;
    }
    let (diff_id, bytes) = archive
        .into_inner()
        .finish()
        .map_err(|error| explain(&last, EntryError::Read(error)))?;
    if diff_id != layer.diff_id {
        return Err(UnpackError::DiffId {
            layer: layer.blob.digest,
            expected: layer.diff_id,
            found: diff_id,
        });
    }
    unpacking
        .finish()
        .map_err(|(path, error)| explain(&path, error.into()))?;
    Ok(bytes)
}

impl Unpacking<'_> {
    fn entry(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), EntryError> {
        let path = entry.path_bytes().into_owned();
        let kind = match entry.header().entry_type() {
            // Before POSIX a directory was a file whose name ends with a slash.
            EntryType::Regular if path.ends_with(b"/") => EntryType::Directory,
            EntryType::Continuous | EntryType::GNUSparse => EntryType::Regular,
            // Not entries, but remarks on those that follow.
            EntryType::XGlobalHeader => return Ok(()),
            kind => kind,
        };
        let path = components(&path, self.limits)?;
        let Some((name, parent)) = path.split_last() else {
            if kind != EntryType::Directory {
                return Err(EntryError::Refused("replaces the root".to_owned()));
            }
            let attributes = Attributes::of(entry.header());
            self.directories.insert(Components::new(), attributes);
            return Ok(());
        };
        match meaning(&path)? {
            Meaning::Bookkeeping => Ok(()),
            Meaning::Opaque => {
                let parent = self.parent(parent)?;
                Ok(make_opaque(parent)?)
            }
            Meaning::Whiteout(name) => {
                let parent = self.parent(parent)?;
                white_out(&parent, &name)
            }
            Meaning::Entry => self.make(entry, kind, &path, parent, name),
        }
    }

    fn make(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        kind: EntryType,
        path: &Components,
        parent: &[OsString],
        name: &OsStr,
    ) -> Result<(), EntryError> {
        let attributes = Attributes::of(entry.header());
        match kind {
            EntryType::Directory => {
                let parent = self.parent(parent)?;
                match self.tree.free(&parent, name, true)? {
                    Place::Kept => {}
                    place => make_directory(&parent, name, place == Place::WhitedOut)?,
                }
                self.directories.insert(path.clone(), attributes);
            }
            EntryType::Regular => {
                refuse_sparse(entry)?;
                let parent = self.parent(parent)?;
                self.replace(&parent, path, name)?;
                let file = self.file(&parent, name, entry)?;
                attributes.set(&file)?;
            }
            EntryType::Symlink => {
                let target = target(entry)?;
                let parent = self.parent(parent)?;
                self.replace(&parent, path, name)?;
                symlinkat(OsStr::from_bytes(&target), &parent, name)
                    .map_err(failed("make the symbolic link"))?;
                attributes.set_at(&parent, name)?;
            }
            EntryType::Link => {
                let target = components(&target(entry)?, self.limits)?;
                if target != *path {
                    self.link(&target, path, parent, name)?;
                }
            }
            EntryType::Fifo => {
                let parent = self.parent(parent)?;
                self.replace(&parent, path, name)?;
                mknodat(&parent, name, SFlag::S_IFIFO, attributes.plain_mode(), 0)
                    .map_err(failed("make the pipe"))?;
                attributes.set_at(&parent, name)?;
            }
            // Containers get the devices that they may use, not those that images bring.
            EntryType::Char | EntryType::Block => {
                tracing::debug!(path = ?path.join(OsStr::new("/")), "device node left out");
            }
            other => {
                return Err(EntryError::Refused(format!(
                    "has the unknown type {:?}",
                    char::from(other.as_byte())
                )));
            }
        }
        Ok(())
    }

    fn file(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        entry: &mut impl Read,
    ) -> Result<File, EntryError> {
        let flags =
            OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = openat(parent, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map(File::from)
            .map_err(failed("make the file"))?;
        self.copy(entry, &mut file)?;
        Ok(file)
    }

    /// Copies what is left of an entry. All of it counts, also what goes nowhere: a sparse file of no bytes can be read for
    /// years.
    fn copy(&mut self, entry: &mut impl Read, target: &mut impl Write) -> Result<(), EntryError> {
        loop {
            let read = match entry.read(&mut self.buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(EntryError::Read(error)),
            };
            self.written += read as u64;
            if self.written > self.limits.layer_bytes {
                let limit = self.limits.layer_bytes;
                let why = format!("it unpacks to more than {limit} bytes");
                return Err(EntryError::Limit(why));
            }
            target
                .write_all(&self.buffer[..read])
                .map_err(|error| EntryError::System("write the file", error))?;
        }
    }

    /// A hard link, to something that this layer has.
    fn link(
        &mut self,
        target: &Components,
        path: &Components,
        parent: &[OsString],
        name: &OsStr,
    ) -> Result<(), EntryError> {
        let Some((target_name, target_parent)) = target.split_last() else {
            return Err(EntryError::Refused("is a link to the root".to_owned()));
        };
        let target_parent = self.tree.enter(target_parent, false, |_| {})?;
        match kind(&target_parent, target_name)? {
            Some(Kind::Other | Kind::Symlink) => {}
            found => {
                let what = match found {
                    Some(Kind::Directory) => "a folder",
                    _ => "no file of this layer",
                };
                return Err(EntryError::Refused(format!(
                    "is a hard link to {:?}, which is {what}",
                    target.join(OsStr::new("/"))
                )));
            }
        }
        let parent = self.parent(parent)?;
        self.replace(&parent, path, name)?;
        // Without AT_SYMLINK_FOLLOW a link to a symbolic link is a second name of that link.
        let linked = linkat(
            &target_parent,
            target_name.as_os_str(),
            &parent,
            name,
            AtFlags::empty(),
        );
        Ok(linked.map_err(failed("make the hard link"))?)
    }

    fn parent(&mut self, path: &[OsString]) -> Result<OwnedFd, EntryError> {
        let directories = &mut self.directories;
        let made = |path: &[OsString]| {
            directories.insert(path.to_vec(), Attributes::IMPLIED);
        };
        Ok(self.tree.enter(path, true, made)?)
    }

    /// Frees the name for something that is no directory.
    fn replace(
        &mut self,
        parent: &OwnedFd,
        path: &Components,
        name: &OsStr,
    ) -> Result<(), EntryError> {
        self.tree.free(parent, name, false)?;
        // It may have been an empty directory.
        self.directories.remove(path);
        Ok(())
    }

    /// Gives the directories their attributes, the innermost first.
    fn finish(mut self) -> Result<(), (String, TreeError)> {
        for (path, attributes) in self.directories.iter().rev() {
            let set = self
                .tree
                .enter(path, false, |_| {})
                .and_then(|folder| attributes.set(folder));
            set.map_err(|error| {
                let path = path.join(OsStr::new("/"));
                (path.to_string_lossy().into_owned(), error)
            })?;
        }
        Ok(())
    }
}

/// What lower layers have by this name is gone. What this layer has by it stays, wherever in the archive it comes.
fn white_out(parent: &OwnedFd, name: &OsStr) -> Result<(), EntryError> {
    match kind(parent, name)? {
        None => Ok(
            mknodat(parent, name, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0)).map_err(failed(
                "make the whiteout (Linux 5.8 or later lets every user make one)",
            ))?,
        ),
        Some(Kind::Directory) => {
            let flags = super::tree::DIRECTORY;
            let folder =
                openat(parent, name, flags, Mode::empty()).map_err(failed("open the folder"))?;
            Ok(make_opaque(folder)?)
        }
        Some(_) => Ok(()),
    }
}

/// Refuses GNU tar's sparse files in PAX archives: the archive library would take their maps for content.
fn refuse_sparse(entry: &mut Entry<'_, impl Read>) -> Result<(), EntryError> {
    let extensions = entry.pax_extensions().map_err(EntryError::Read)?;
    for extension in extensions.into_iter().flatten() {
        let extension = extension.map_err(EntryError::Read)?;
        if extension.key_bytes().starts_with(b"GNU.sparse.") {
            return Err(EntryError::Refused(
                "is a sparse file in PAX format, which is not supported; make the layer without --sparse"
                    .to_owned(),
            ));
        }
    }
    Ok(())
}

/// The target of a link, as the archive has it.
fn target(entry: &Entry<'_, impl Read>) -> Result<Vec<u8>, EntryError> {
    match entry.link_name_bytes() {
        Some(target) if !target.is_empty() && !target.contains(&0) => Ok(target.into_owned()),
        _ => Err(EntryError::Refused("is a link without a target".to_owned())),
    }
}

impl From<TreeError> for EntryError {
    fn from(error: TreeError) -> Self {
        match error {
            TreeError::Refused(why) => Self::Refused(why),
            TreeError::System(step, source) => Self::System(step, source),
        }
    }
}

impl From<PathError> for EntryError {
    fn from(error: PathError) -> Self {
        match error {
            PathError::Refused(why) => Self::Refused(why),
            PathError::Limit(why) => Self::Limit(why),
        }
    }
}
