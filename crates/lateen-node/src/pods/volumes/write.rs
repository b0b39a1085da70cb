//! Writing a volume's files so that readers never see half of a change.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::VolumeError;

/// A file's text and mode, by path below the volume.
pub(super) type Files = BTreeMap<String, (Vec<u8>, u32)>;

/// Writes the files so that readers see either the old set or the new one, as Kubernetes does: a
/// folder of its own for each version, `..data` leading to the present one, and for each file a
/// link through `..data`.
pub(super) fn write_files(volume: &Path, files: &Files) -> Result<(), VolumeError> {
    fs::create_dir_all(volume)?;
    let present = volume.join("..data");
    let old = fs::read_link(&present).ok().map(|name| volume.join(name));
    if old.as_ref().is_some_and(|old| same(old, files)) {
        return Ok(());
    }
    let nanos = k8s_openapi::jiff::Timestamp::now().as_nanosecond();
    let name = format!("..{nanos}");
    let fresh = volume.join(&name);
    for (path, (bytes, mode)) in files {
        let target = fresh.join(path);
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&target, bytes)?;
        fs::set_permissions(&target, fs::Permissions::from_mode(*mode))?;
    }
    fs::create_dir_all(&fresh)?;
    let next = volume.join("..data_tmp");
    symlink(&name, &next)?;
    fs::rename(&next, &present)?;
    for path in files.keys() {
        let Some(top) = Path::new(path).components().next() else {
            continue;
        };
        let link = volume.join(top);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(top), link)?;
        }
    }
    if let Some(old) = old {
        fs::remove_dir_all(old)?;
    }
    Ok(())
}

fn same(folder: &Path, files: &Files) -> bool {
    files.iter().all(|(path, (bytes, _))| {
        fs::read(folder.join(path)).is_ok_and(|present| present == *bytes)
    }) && count(folder) == files.len()
}

fn count(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => count(&entry.path()),
            _ => 1,
        })
        .sum()
}
