//! Unpacked layers, described.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use lateen_image::{Limits, UnpackError, unpack};

use super::{Item, Packing, image, stored, tar};

/// Everything in a folder, sorted, a line each: `path kind`.
pub fn tree(folder: &Path) -> Vec<String> {
    fn walk(folder: &Path, root: &Path, lines: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let metadata = path.symlink_metadata().unwrap();
            let kind = metadata.file_type();
            let opaque = xattr::get(&path, "user.overlay.opaque");
            lines.push(if kind.is_dir() {
                let mark = if opaque.unwrap().as_deref() == Some(b"y") {
                    " opaque"
                } else {
                    ""
                };
                format!("{name}/ {:o}{mark}", metadata.mode() & 0o7777)
            } else if kind.is_symlink() {
                format!("{name} -> {}", fs::read_link(&path).unwrap().display())
            } else if kind.is_char_device() {
                assert_eq!(metadata.rdev(), 0, "{name}");
                format!("{name} gone")
            } else if kind.is_fifo() {
                format!("{name} pipe")
            } else {
                let text = fs::read_to_string(&path).unwrap();
                format!("{name} {:o} {text}", metadata.mode() & 0o7777)
            });
            if kind.is_dir() {
                walk(&path, root, lines);
            }
        }
    }
    let mut lines = Vec::new();
    walk(folder, folder, &mut lines);
    lines.sort();
    lines
}

pub fn unpacked(
    items: &[Item],
    packing: Packing,
    limits: &Limits,
) -> Result<Vec<String>, UnpackError> {
    let (folder, store, image) = stored(&image(&[(tar(items), packing)]));
    let layers = folder.path().join("layers");
    let found = unpack(&store, &image, &layers, limits);
    let left: Vec<PathBuf> = fs::read_dir(&layers)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    match found {
        Ok(folders) => {
            assert_eq!(folders, left);
            assert_eq!(folders[0].file_name().unwrap().len(), 64);
            Ok(tree(&folders[0]))
        }
        Err(error) => {
            assert!(left.is_empty(), "something is left after {error}");
            Err(error)
        }
    }
}
