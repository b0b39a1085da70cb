//! The files of an archive or folder, by name.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use tar::{Archive, EntryType};

use super::LoadError;
use crate::{
    ContentStore, Limits,
    manifest::MAX_CONFIG,
    store::BlobWriter,
    unpack::{Gauge, Stream, compression},
};

/// Most files of an archive.
const MAX_MEMBERS: usize = 100_000;
/// Most links from one file of an archive to the next.
const MAX_LINKS: usize = 8;

/// An archive or folder that holds images.
pub(super) struct Source {
    path: PathBuf,
    /// The uncompressed archive and where its files are; `None` is a folder.
    archive: Option<(File, BTreeMap<String, Member>)>,
}

/// A file in an archive.
enum Member {
    File {
        /// Where its content begins, in bytes.
        offset: u64,
        /// Bytes of content.
        size: u64,
    },
    /// Another name of a file, complete. Docker saves equal layers once.
    Link(String),
}

impl Source {
    /// Opens a folder or an archive; a compressed archive or a pipe is copied into the store's folder first.
    pub(super) fn open(
        store: &ContentStore,
        path: &Path,
        limits: &Limits,
    ) -> Result<Self, LoadError> {
        let fail = |source: io::Error| LoadError::Read {
            path: path.to_owned(),
            source,
        };
        if path.is_dir() {
            return Ok(Self {
                path: path.to_owned(),
                archive: None,
            });
        }
        let mut file = File::open(path).map_err(fail)?;
        // A pipe has no positions to read from.
        let mut plain = file.metadata().map_err(fail)?.is_file();
        if plain {
            let mut start = [0; 4];
            let read = file.read_at(&mut start, 0).map_err(fail)?;
            plain = compression(&start[..read]).is_none();
        }
        if !plain {
            let whole = Limits {
                layer_bytes: limits.image_bytes,
                ..limits.clone()
            };
            let mut stream = Stream::new(file, &whole, Gauge::default()).map_err(fail)?;
            let mut copy = store.scratch()?;
            io::copy(&mut stream, &mut copy).map_err(fail)?;
            file = copy;
        }
        file.rewind().map_err(fail)?;
        let members = index(&file).map_err(fail)?;
        Ok(Self {
            path: path.to_owned(),
            archive: Some((file, members)),
        })
    }

    /// The archive or folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn has(&self, name: &str) -> bool {
        match &self.archive {
            None => self.path.join(clean(name)).is_file(),
            Some((_, members)) => find(members, name).is_some(),
        }
    }

    /// The whole of a small file.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, LoadError> {
        let mut bytes = Vec::new();
        let source = match self
            .reader(name)?
            .take(MAX_CONFIG + 1)
            .read_to_end(&mut bytes)
        {
            Ok(_) if bytes.len() as u64 <= MAX_CONFIG => return Ok(bytes),
            Ok(_) => io::Error::other(format!("{name:?} is larger than {MAX_CONFIG} bytes")),
            Err(error) => error,
        };
        Err(LoadError::Read {
            path: self.path.clone(),
            source,
        })
    }

    /// The first bytes of a file.
    pub(super) fn start(&self, name: &str) -> Result<Vec<u8>, LoadError> {
        let mut bytes = Vec::new();
        match self.reader(name)?.take(8).read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(source) => Err(LoadError::Read {
                path: self.path.clone(),
                source,
            }),
        }
    }

    /// Copies a file into a blob.
    pub(super) fn copy(&self, name: &str, writer: &mut BlobWriter) -> Result<(), LoadError> {
        Ok(writer.copy(self.reader(name)?, &self.path)?)
    }

    fn reader(&self, name: &str) -> Result<Box<dyn Read + '_>, LoadError> {
        let missing = || LoadError::Missing {
            path: self.path.clone(),
            member: name.to_owned(),
        };
        match &self.archive {
            // What describes images may come from elsewhere than the folder: its names stay in it.
            None => match File::open(self.path.join(clean(name))) {
                Ok(file) => Ok(Box::new(file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Err(missing()),
                Err(source) => Err(LoadError::Read {
                    path: self.path.join(name),
                    source,
                }),
            },
            Some((file, members)) => {
                let (offset, size) = find(members, name).ok_or_else(missing)?;
                Ok(Box::new(Window { file, offset, size }))
            }
        }
    }
}

/// A part of a file.
struct Window<'a> {
    file: &'a File,
    offset: u64,
    size: u64,
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer
            .len()
            .min(usize::try_from(self.size).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut buffer[..length], self.offset)?;
        if read == 0 && length > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += read as u64;
        self.size -= read as u64;
        Ok(read)
    }
}

/// An archive's bytes, of which only so many may describe an entry.
struct Guarded<'a> {
    file: &'a File,
    gauge: Gauge,
}

impl Read for Guarded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.gauge.spend(read)?;
        Ok(read)
    }
}

impl Seek for Guarded<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

/// Where the files of an archive are.
fn index(file: &File) -> io::Result<BTreeMap<String, Member>> {
    let gauge = Gauge::default();
    let mut archive = Archive::new(Guarded {
        file,
        gauge: gauge.clone(),
    });
    let mut members = BTreeMap::new();
    let mut entries = archive.entries_with_seek()?;
    loop {
        gauge.expect_description();
        let Some(entry) = entries.next() else {
            return Ok(members);
        };
        let entry = entry?;
        let name = clean(&String::from_utf8_lossy(&entry.path_bytes()));
        let member = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => Member::File {
                offset: entry.raw_file_position(),
                size: entry.size(),
            },
            kind @ (EntryType::Symlink | EntryType::Link) => {
                let target = entry.link_name_bytes().unwrap_or_default();
                let target = String::from_utf8_lossy(&target);
                match name.rsplit_once('/') {
                    // A symbolic link starts from its own folder.
                    Some((folder, _)) if kind == EntryType::Symlink => {
                        Member::Link(clean(&format!("{folder}/{target}")))
                    }
                    _ => Member::Link(clean(&target)),
                }
            }
            _ => continue,
        };
        members.insert(name, member);
        if members.len() > MAX_MEMBERS {
            let why = format!("it has more than {MAX_MEMBERS} files");
            return Err(io::Error::other(why));
        }
    }
}

/// Follows links from name to name. They are keys of a map, so there is nothing to break out of.
fn find(members: &BTreeMap<String, Member>, name: &str) -> Option<(u64, u64)> {
    let mut name = clean(name);
    for _ in 0..MAX_LINKS {
        match members.get(&name)? {
            Member::File { offset, size } => return Some((*offset, *size)),
            Member::Link(target) => name.clone_from(target),
        }
    }
    None
}

/// A name without `.`, `..` and empty parts.
fn clean(name: &str) -> String {
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
