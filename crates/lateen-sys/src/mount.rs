//! Mounts: what a container's root file system is put together from.
#![allow(unsafe_code)]

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, pivot_root};

const NOTHING: Option<&str> = None;

/// Stops every mount of this namespace from spreading to, or arriving from, other namespaces.
///
/// # Errors
/// What `mount(2)` says.
pub fn make_private() -> io::Result<()> {
    Ok(mount(
        NOTHING,
        "/",
        NOTHING,
        MsFlags::MS_PRIVATE | MsFlags::MS_REC,
        NOTHING,
    )?)
}

/// Mounts an empty in-memory file system of at most `size` bytes at `target` (made if missing).
///
/// # Errors
/// What making the folder or `mount(2)` says.
pub fn tmpfs(target: &Path, size: u64, mode: u32) -> io::Result<()> {
    fs::create_dir_all(target)?;
    let options = format!("size={size},mode={mode:o},nr_inodes=65536");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(
        Some("tmpfs"),
        target,
        Some("tmpfs"),
        flags,
        Some(options.as_str()),
    )?)
}

/// Longest text of options that `mount(2)` takes, in bytes: a page, with the zero at its end.
const LONGEST_OPTIONS: usize = 4095;

/// Stacks the folders `lower`, top to bottom, at `target` (made if missing). Changes go to `writable`, which is emptied of
/// nothing and gets two folders; without it the stack cannot be written.
///
/// Works in a user namespace (Linux 5.11). Lower folders that are all in one folder may be many: their names are given
/// relative to it, which changes the calling thread's working folder.
///
/// # Errors
/// What making the folders or `mount(2)` says; `InvalidInput` for more layers than the kernel takes.
pub fn overlay(target: &Path, lower: &[PathBuf], writable: Option<&Path>) -> io::Result<()> {
    fs::create_dir_all(target)?;
    let common = lower.first().and_then(|first| first.parent());
    let together = common.filter(|common| lower.iter().all(|path| path.parent() == Some(common)));
    if let Some(common) = together {
        chdir(common)?;
    }
    let mut options = b"userxattr,lowerdir=".to_vec();
    for (index, path) in lower.iter().enumerate() {
        if index > 0 {
            options.push(b':');
        }
        let name = together.and_then(|common| path.strip_prefix(common).ok());
        push_escaped(&mut options, name.unwrap_or(path));
    }
    if let Some(writable) = writable {
        for (option, name) in [("upperdir", "upper"), ("workdir", "work")] {
            let folder = writable.join(name);
            fs::create_dir_all(&folder)?;
            options.extend_from_slice(format!(",{option}=").as_bytes());
            push_escaped(&mut options, &folder);
        }
    }
    if options.len() > LONGEST_OPTIONS {
        let message = format!("{} layers are more than the kernel takes", lower.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = Some(OsStr::from_bytes(&options));
    Ok(mount(
        Some("overlay"),
        target,
        Some("overlay"),
        flags,
        options,
    )?)
}

/// Appends a path as overlayfs reads it: colons and commas separate, a backslash takes that away.
fn push_escaped(options: &mut Vec<u8>, path: &Path) {
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b':' | b',' | b'\\') {
            options.push(b'\\');
        }
        options.push(*byte);
    }
}

/// Mounts `/proc` of the calling process's pid namespace at `target` (made if missing).
///
/// # Errors
/// What making the folder or `mount(2)` says; `EPERM` when the parent's `/proc` is partly hidden.
pub fn proc(target: &Path) -> io::Result<()> {
    fs::create_dir_all(target)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(Some("proc"), target, Some("proc"), flags, NOTHING)?)
}

/// Mounts a fresh set of pseudo terminals at `target` (made if missing).
///
/// # Errors
/// What making the folder or `mount(2)` says.
pub fn devpts(target: &Path) -> io::Result<()> {
    fs::create_dir_all(target)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let options = Some("newinstance,ptmxmode=0666,mode=0620");
    Ok(mount(
        Some("devpts"),
        target,
        Some("devpts"),
        flags,
        options,
    )?)
}

/// Shows the file or folder `source`, with everything mounted below it, at `target` as well.
/// The target is made if missing. With `read_only` the whole tree cannot be written there, and
/// set-user-id bits and device files have no effect.
///
/// # Errors
/// What making the target or `mount(2)` says.
pub fn bind(source: &Path, target: &Path, read_only: bool) -> io::Result<()> {
    if fs::metadata(source)?.is_dir() {
        fs::create_dir_all(target)?;
    } else if !target.exists() {
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder)?;
        }
        File::create(target)?;
    }
    // Recursive: in a user namespace the mounts of the parent are locked together, and a plain
    // bind of a folder that has others below it is refused.
    mount(
        Some(source),
        target,
        NOTHING,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        NOTHING,
    )?;
    if read_only {
        set_read_only(target)
    } else {
        Ok(())
    }
}

/// Makes the mount at `target` and all below it read-only, without set-user-id and devices.
///
/// # Errors
/// What `mount_setattr(2)` says; on kernels before 5.12, what a remount of `target` alone says.
pub fn set_read_only(target: &Path) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let path = CString::new(target.as_os_str().as_bytes())?;
    // SAFETY: `path` is a terminated string and `attributes` a live structure of the size given;
    // the kernel only reads both during the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() != Some(libc::ENOSYS) {
        return Err(error);
    }
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
    Ok(mount(
        NOTHING,
        target,
        NOTHING,
        flags | MsFlags::MS_NODEV,
        NOTHING,
    )?)
}

/// Makes the mount at `target` read-only, but nothing that is mounted below it.
///
/// # Errors
/// What `mount(2)` says.
pub fn set_read_only_alone(target: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
    Ok(mount(
        NOTHING,
        target,
        NOTHING,
        flags | MsFlags::MS_NODEV,
        NOTHING,
    )?)
}

/// Makes the mount point `new_root` the root of this mount namespace and lets go of the old one.
///
/// # Errors
/// What `pivot_root(2)` says; `new_root` must be a mount point.
pub fn change_root(new_root: &Path) -> io::Result<()> {
    chdir(new_root)?;
    // The old root is stacked below the new one at the same place, then taken away: no folder
    // for it is needed (pivot_root(2), "pivot_root(".", ".")").
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    Ok(chdir("/")?)
}

/// Takes the mount at `target` away, even while something still uses it.
///
/// # Errors
/// What `umount2(2)` says.
pub fn unmount(target: &Path) -> io::Result<()> {
    Ok(umount2(target, MntFlags::MNT_DETACH)?)
}
