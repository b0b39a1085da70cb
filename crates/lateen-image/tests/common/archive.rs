//! Tar archives with whatever is asked for, good or bad.

use tar::{EntryType, Header};

/// An entry.
#[derive(Clone, Debug)]
pub enum Item {
    Dir(String, u32),
    File(String, Vec<u8>, u32),
    Symlink(String, String),
    Hardlink(String, String),
    /// Of any type, without content.
    Other(EntryType, String),
    /// A file of this owner.
    Owned(String, u64, u32),
    /// Bytes as they are.
    Raw(Vec<u8>),
}

impl Item {
    pub fn file(path: &str, text: &str) -> Self {
        Self::File(path.into(), text.into(), 0o644)
    }

    pub fn dir(path: &str) -> Self {
        Self::Dir(path.into(), 0o755)
    }

    pub fn symlink(path: &str, target: &str) -> Self {
        Self::Symlink(path.into(), target.into())
    }

    pub fn hardlink(path: &str, target: &str) -> Self {
        Self::Hardlink(path.into(), target.into())
    }
}

/// An archive of these entries.
pub fn tar(items: &[Item]) -> Vec<u8> {
    let mut archive = Vec::new();
    for item in items {
        match item {
            Item::Dir(path, mode) => {
                entry(&mut archive, EntryType::Directory, path, "", *mode, b"")
            }
            Item::File(path, bytes, mode) => {
                entry(&mut archive, EntryType::Regular, path, "", *mode, bytes);
            }
            Item::Symlink(path, target) => {
                entry(&mut archive, EntryType::Symlink, path, target, 0o777, b"");
            }
            Item::Hardlink(path, target) => {
                entry(&mut archive, EntryType::Link, path, target, 0o644, b"");
            }
            Item::Other(kind, path) => entry(&mut archive, *kind, path, "", 0o644, b""),
            Item::Owned(path, uid, mode) => {
                let mut header = header(EntryType::Regular, path, "", *mode, 0);
                header.set_uid(*uid);
                header.set_gid(*uid);
                header.set_cksum();
                archive.extend_from_slice(header.as_bytes());
            }
            Item::Raw(bytes) => archive.extend_from_slice(bytes),
        }
    }
    archive.extend_from_slice(&[0; 1024]);
    archive
}

fn entry(
    archive: &mut Vec<u8>,
    kind: EntryType,
    path: &str,
    target: &str,
    mode: u32,
    bytes: &[u8],
) {
    if path.len() > 100 {
        let mut long = path.as_bytes().to_vec();
        long.push(0);
        let header = header(EntryType::GNULongName, "././@LongLink", "", 0, long.len());
        content(archive, &header, &long);
    }
    let header = header(kind, path, target, mode, bytes.len());
    content(archive, &header, bytes);
}

/// A header, with names as they are: the library would refuse bad ones.
pub fn header(kind: EntryType, path: &str, target: &str, mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    let fill = |field: &mut [u8], text: &str| {
        let length = text.len().min(field.len());
        field[..length].copy_from_slice(&text.as_bytes()[..length]);
    };
    fill(&mut header.as_old_mut().name, path);
    fill(&mut header.as_old_mut().linkname, target);
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_mtime(1_000_000_000);
    header.set_uid(nix::unistd::getuid().as_raw().into());
    header.set_gid(nix::unistd::getgid().as_raw().into());
    header.set_cksum();
    header
}

fn content(archive: &mut Vec<u8>, header: &Header, bytes: &[u8]) {
    archive.extend_from_slice(header.as_bytes());
    archive.extend_from_slice(bytes);
    archive.resize(archive.len().next_multiple_of(512), 0);
}
