//! Owner, mode, time and the mark of opaque directories.

use std::{
    ffi::OsStr,
    fs::File,
    os::fd::{AsFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::AtFlags,
    sys::{
        stat::{Mode, UtimensatFlags, fchmod, futimens, utimensat},
        time::TimeSpec,
    },
    unistd::{Gid, Uid, fchown, fchownat},
};
use tar::Header;
use xattr::FileExt;

use super::tree::{TreeError, failed};

/// The attribute that overlayfs reads when it is mounted with `userxattr`; `trusted.` ones need privileges.
const OPAQUE: &str = "user.overlay.opaque";
/// The mode of directories that an archive only implies.
const IMPLIED_MODE: u32 = 0o755;

/// What an archive says about an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes {
    owner: Option<(Uid, Gid)>,
    mode: u32,
    /// Seconds since 1970.
    modified: Option<i64>,
}

impl Attributes {
    /// Those of a directory that an archive only implies.
    pub(super) const IMPLIED: Self = Self {
        owner: None,
        mode: IMPLIED_MODE,
        modified: None,
    };

    pub(super) fn of(header: &Header) -> Self {
        // What is no id or time is as good as absent: the entry gets this user's.
        let id = |id: std::io::Result<u64>| {
            id.ok()
                .and_then(|id| u32::try_from(id).ok())
                .filter(|id| *id != u32::MAX)
        };
        let owner = id(header.uid()).zip(id(header.gid()));
        Self {
            owner: owner.map(|(user, group)| (Uid::from_raw(user), Gid::from_raw(group))),
            mode: header.mode().unwrap_or(IMPLIED_MODE),
            modified: header
                .mtime()
                .ok()
                .and_then(|time| i64::try_from(time).ok()),
        }
    }

    /// Sets everything on an open file or directory.
    pub(super) fn set(&self, file: impl AsFd) -> Result<(), TreeError> {
        let owned = match self.owner {
            None => false,
            Some((user, group)) => permitted(fchown(&file, Some(user), Some(group)))?,
        };
        // Setuid would lend this user's rights instead of those of the owner that the image meant.
        let kept = if owned { 0o7777 } else { 0o1777 };
        // After the owner: the system clears setuid bits when that changes.
        fchmod(&file, Mode::from_bits_truncate(self.mode & kept))
            .map_err(failed("set the mode"))?;
        if let Some(seconds) = self.modified {
            let time = TimeSpec::new(seconds, 0);
            futimens(&file, &time, &time).map_err(failed("set the time"))?;
        }
        Ok(())
    }

    /// Sets owner and time of something that is not opened: a symbolic link, a pipe.
    pub(super) fn set_at(&self, folder: &OwnedFd, name: &OsStr) -> Result<(), TreeError> {
        if let Some((user, group)) = self.owner {
            let nofollow = AtFlags::AT_SYMLINK_NOFOLLOW;
            permitted(fchownat(folder, name, Some(user), Some(group), nofollow))?;
        }
        if let Some(seconds) = self.modified {
            let time = TimeSpec::new(seconds, 0);
            utimensat(folder, name, &time, &time, UtimensatFlags::NoFollowSymlink)
                .map_err(failed("set the time"))?;
        }
        Ok(())
    }

    /// The mode without setuid and setgid.
    pub(super) fn plain_mode(&self) -> Mode {
        Mode::from_bits_truncate(self.mode & 0o1777)
    }
}

/// Marks a directory, so that nothing shows that lower layers have in it.
pub(super) fn make_opaque(folder: OwnedFd) -> Result<(), TreeError> {
    File::from(folder).set_xattr(OPAQUE, b"y").map_err(|error| {
        TreeError::System(
            "mark the folder as opaque (the file system must keep extended attributes of users)",
            error,
        )
    })
}

/// Did the change of owner work? Without the right to it, or where the user namespace lacks the id, it did not.
fn permitted(changed: nix::Result<()>) -> Result<bool, TreeError> {
    match changed {
        Ok(()) => Ok(true),
        Err(Errno::EPERM | Errno::EINVAL) => Ok(false),
        Err(error) => Err(failed("set the owner")(error)),
    }
}
