//! Users and groups of images, looked up in the image's own `/etc/passwd` and `/etc/group`.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::Mode,
};
use thiserror::Error;

/// Largest passwd or group file that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// Why a user was not found.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UserError {
    /// The image does not know the name.
    #[error("the image has no {what} {name:?} in {file}; give a number instead")]
    Unknown {
        /// `user` or `group`.
        what: &'static str,
        /// The name.
        name: String,
        /// Where it was looked for.
        file: &'static str,
    },
    /// The text has no form that is known.
    #[error(
        "{0:?} is no user: it must be USER or USER:GROUP, each a name or a number below 4294967295"
    )]
    Syntax(String),
    /// The image's file cannot be read.
    #[error("cannot read {file} of the image: {source}")]
    Read {
        /// The file.
        file: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

/// Who a container's process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further groups, which the image lists the user in.
    pub groups: Vec<u32>,
    /// Home folder, for `HOME`; `/` when the image does not know the user.
    pub home: String,
}

impl User {
    /// Resolves `USER` or `USER:GROUP`, each a name or a number, as Docker and the OCI configuration do (image-spec,
    /// config.md, "User"); `None` and the empty text are root. `root` is the mounted stack of the image's layers: no
    /// link in it leads out of it.
    ///
    /// Without a group the user's own is taken, or 0 for a number that the image does not know. Further groups are
    /// those of the image only when no group is given.
    ///
    /// # Errors
    /// When a name is not known to the image, or its files cannot be read.
    pub fn resolve(text: Option<&str>, root: &Path) -> Result<Self, UserError> {
        let text = text.filter(|text| !text.is_empty()).unwrap_or("0");
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
            None => (text, None),
        };
        let syntax = || UserError::Syntax(text.to_owned());
        if group.is_some_and(|group| group.contains(':')) {
            return Err(syntax());
        }
        // `:GROUP` is root's.
        let user = if user.is_empty() { "0" } else { user };
        let number = id(user).map_err(|()| syntax())?;
        let passwd = read(root, "etc/passwd")?;
        // A name may consist of digits; as in Docker, it wins over the number.
        let known = lines(&passwd)
            .find(|fields| fields[0] == user)
            .or_else(|| lines(&passwd).find(|f| number.is_some() && field(f, 2) == number));
        let (uid, own_group) = match (&known, number) {
            (Some(fields), _) => (field(fields, 2).ok_or_else(syntax)?, field(fields, 3)),
            (None, Some(number)) => (number, None),
            (None, None) => {
                return Err(UserError::Unknown {
                    what: "user",
                    name: user.to_owned(),
                    file: "/etc/passwd",
                });
            }
        };
        let group_file = read(root, "etc/group")?;
        let gid = match group {
            None => own_group.unwrap_or(0),
            Some(name) => {
                let number = id(name).map_err(|()| syntax())?;
                lines(&group_file)
                    .find(|fields| fields[0] == name)
                    .and_then(|fields| field(&fields, 2))
                    .or(number)
                    .ok_or_else(|| UserError::Unknown {
                        what: "group",
                        name: name.to_owned(),
                        file: "/etc/group",
                    })?
            }
        };
        let name = known.as_ref().map(|fields| fields[0]);
        let member = |fields: &Vec<&str>| {
            let members = fields.get(3).copied().unwrap_or_default();
            name.is_some_and(|name| members.split(',').any(|member| member.trim() == name))
        };
        let mut groups: Vec<u32> = match group {
            Some(_) => Vec::new(),
            None => lines(&group_file)
                .filter(member)
                .filter_map(|fields| field(&fields, 2))
                .collect(),
        };
        groups.sort_unstable();
        groups.dedup();
        let home = known.and_then(|fields| fields.get(5).map(|home| (*home).to_owned()));
        Ok(Self {
            uid,
            gid,
            groups,
            home: home
                .filter(|home| !home.is_empty())
                .unwrap_or_else(|| "/".to_owned()),
        })
    }
}

/// The lines of a passwd or group file that have a name and an id.
fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .filter(|fields| fields.len() >= 3 && !fields[0].is_empty())
}

fn field(fields: &[&str], index: usize) -> Option<u32> {
    id(fields.get(index)?).ok().flatten()
}

/// A number, or `None` for a name; refuses numbers that are no id. The last one means "no change" to the system.
fn id(text: &str) -> Result<Option<u32>, ()> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse() {
        Ok(u32::MAX) | Err(_) => Err(()),
        Ok(id) => Ok(Some(id)),
    }
}

/// A file of the image; empty when there is none. Links in the image, absolute ones too, stay in its root (Linux 5.6).
fn read(root: &Path, file: &'static str) -> Result<String, UserError> {
    let fail = |source: io::Error| UserError::Read { file, source };
    let folder = open(
        root,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| fail(error.into()))?;
    let how = OpenHow::new()
        // A pipe must not make us wait for its writer.
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let opened = match openat2(&folder, file, how) {
        Ok(opened) => File::from(opened),
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(String::new()),
        Err(error) => return Err(fail(error.into())),
    };
    if !opened.metadata().map_err(fail)?.is_file() {
        return Err(fail(io::Error::other("it is no regular file")));
    }
    let mut bytes = Vec::new();
    opened
        .take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(fail)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(fail(io::Error::other("it is larger than 4 MiB")));
    }
    // A name that is not UTF-8 cannot be asked for; the other lines stay readable.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests;
