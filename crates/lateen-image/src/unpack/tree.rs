//! The folder of a layer, entered one directory at a time and never through a symbolic link.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, open, openat},
    sys::stat::{FileStat, Mode, SFlag, fstatat, mkdirat},
    unistd::{UnlinkatFlags, unlinkat},
};

use super::path::Components;

/// Why a place in the tree cannot be had.
#[derive(Debug)]
pub(super) enum TreeError {
    /// The archive asks for something that no good archive does.
    Refused(String),
    /// The system refused: what was tried, and its reason.
    System(&'static str, io::Error),
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    Whiteout,
    Symlink,
    Other,
}

/// The folder of a layer.
pub(super) struct Tree {
    root: OwnedFd,
    /// The folder entered last: the entries of a folder follow each other in nearly all archives.
    last: Option<(Components, OwnedFd)>,
}

impl Tree {
    pub(super) fn open(path: &Path) -> Result<Self, TreeError> {
        let root = open(path, DIRECTORY, Mode::empty()).map_err(failed("open the folder"))?;
        Ok(Self { root, last: None })
    }

    /// Enters a folder; `make` tells whether missing ones are made. Calls `made` with the path of each.
    pub(super) fn enter(
        &mut self,
        path: &[OsString],
        make: bool,
        mut made: impl FnMut(&[OsString]),
    ) -> Result<OwnedFd, TreeError> {
        if let Some((last, folder)) = &self.last
            && last == path
        {
            return duplicate(folder);
        }
        let mut folder = duplicate(&self.root)?;
        for (depth, name) in path.iter().enumerate() {
            let here = &path[..=depth];
            folder = match openat(&folder, name.as_os_str(), DIRECTORY, Mode::empty()) {
                Ok(next) => next,
                Err(Errno::ENOENT) if make => {
                    make_directory(&folder, name, false)?;
                    made(here);
                    openat(&folder, name.as_os_str(), DIRECTORY, Mode::empty())
                        .map_err(failed("open the folder"))?
                }
                Err(error) => match kind(&folder, name)? {
                    // A whiteout and then something below it: a directory that hides what lower layers have.
                    Some(Kind::Whiteout) if make => {
                        self.forget();
                        unlink(&folder, name)?;
                        make_directory(&folder, name, true)?;
                        made(here);
                        openat(&folder, name.as_os_str(), DIRECTORY, Mode::empty())
                            .map_err(failed("open the folder"))?
                    }
                    Some(Kind::Symlink) => {
                        return Err(TreeError::Refused(format!(
                            "leads through the symbolic link {:?}, which may point anywhere",
                            shown(here)
                        )));
                    }
                    None => {
                        return Err(TreeError::Refused(format!(
                            "needs {:?}, which the layer does not have",
                            shown(here)
                        )));
                    }
                    Some(Kind::Whiteout | Kind::Other) => {
                        return Err(TreeError::Refused(format!(
                            "needs the folder {:?}, which is no folder",
                            shown(here)
                        )));
                    }
                    Some(Kind::Directory) => {
                        return Err(failed("open the folder")(error));
                    }
                },
            };
        }
        self.last = Some((path.to_vec(), duplicate(&folder)?));
        Ok(folder)
    }

    /// Frees a name for a new entry: later entries of an archive may replace earlier ones. A directory stays where one is
    /// wanted.
    pub(super) fn free(
        &mut self,
        folder: &OwnedFd,
        name: &OsStr,
        directory: bool,
    ) -> Result<Place, TreeError> {
        match kind(folder, name)? {
            None => Ok(Place::Free),
            Some(Kind::Directory) if directory => Ok(Place::Kept),
            Some(Kind::Directory) => {
                self.forget();
                match unlinkat(folder, name, UnlinkatFlags::RemoveDir) {
                    Ok(()) => Ok(Place::Free),
                    Err(Errno::ENOTEMPTY | Errno::EEXIST) => Err(TreeError::Refused(
                        "replaces a folder that the layer has put entries into".to_owned(),
                    )),
                    Err(error) => Err(failed("replace the folder")(error)),
                }
            }
            Some(Kind::Whiteout) => unlink(folder, name).map(|()| Place::WhitedOut),
            Some(Kind::Symlink | Kind::Other) => unlink(folder, name).map(|()| Place::Free),
        }
    }

    /// Forgets the folder entered last, since it may be gone.
    fn forget(&mut self) {
        self.last = None;
    }
}

/// What was at a name that is to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing any more.
    Free,
    /// The directory that is wanted.
    Kept,
    /// Nothing any more, and lower layers' content must not show.
    WhitedOut,
}

/// What the name stands for in the folder; `None` is nothing.
pub(super) fn kind(folder: &OwnedFd, name: &OsStr) -> Result<Option<Kind>, TreeError> {
    let stat: FileStat = match fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::ENOENT) => return Ok(None),
        Err(error) => return Err(failed("look at it")(error)),
    };
    Ok(Some(
        match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFDIR => Kind::Directory,
            SFlag::S_IFLNK => Kind::Symlink,
            // Archives' own devices are never made.
            SFlag::S_IFCHR => Kind::Whiteout,
            _ => Kind::Other,
        },
    ))
}

/// Makes a directory that only this user can enter until its final mode is set.
pub(super) fn make_directory(
    folder: &OwnedFd,
    name: &OsStr,
    opaque: bool,
) -> Result<(), TreeError> {
    mkdirat(folder, name, Mode::S_IRWXU).map_err(failed("make the folder"))?;
    if opaque {
        let made =
            openat(folder, name, DIRECTORY, Mode::empty()).map_err(failed("open the folder"))?;
        super::attributes::make_opaque(made)?;
    }
    Ok(())
}

/// Makes a [`TreeError`] of the system's error.
pub(super) fn failed(step: &'static str) -> impl FnOnce(Errno) -> TreeError {
    move |error| TreeError::System(step, error.into())
}

/// How directories are opened: never through a link, not inherited by programs.
pub(super) const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

fn unlink(folder: &OwnedFd, name: &OsStr) -> Result<(), TreeError> {
    unlinkat(folder, name, UnlinkatFlags::NoRemoveDir).map_err(failed("replace it"))
}

fn duplicate(folder: &OwnedFd) -> Result<OwnedFd, TreeError> {
    folder
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| TreeError::System("open the folder", error))
}

fn shown(path: &[OsString]) -> OsString {
    path.join(OsStr::new("/"))
}
