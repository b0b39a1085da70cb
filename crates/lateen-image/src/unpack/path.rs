//! Paths of archives, taken apart. What comes out has no `..`, and no separator in a component.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
};

use super::Limits;

/// The prefix of whiteouts (OCI image-spec, layer.md, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// The whiteout of everything that lower layers have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// The components of a path, from the root of the layer.
pub(super) type Components = Vec<OsString>;

/// What the last component of an entry's path means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Something to make.
    Entry,
    /// What lower layers have by this name is gone.
    Whiteout(OsString),
    /// What lower layers have in this directory is gone.
    Opaque,
    /// Bookkeeping of AUFS, where whiteouts come from.
    Bookkeeping,
}

/// Why a path is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PathError {
    /// No good archive has it.
    Refused(String),
    /// A limit.
    Limit(String),
}

/// Takes a path apart. One that begins with `/` means the root of the image, as everywhere in an image.
pub(super) fn components(path: &[u8], limits: &Limits) -> Result<Components, PathError> {
    if path.len() > limits.path_length {
        return Err(PathError::Limit(format!(
            "its path is longer than {} bytes",
            limits.path_length
        )));
    }
    if path.contains(&0) {
        return Err(PathError::Refused("has a zero byte in its path".to_owned()));
    }
    let mut components = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                return Err(PathError::Refused(
                    "has \"..\" in its path, which may lead out of the layer".to_owned(),
                ));
            }
            name => components.push(OsStr::from_bytes(name).to_owned()),
        }
    }
    if components.len() > limits.path_depth {
        return Err(PathError::Limit(format!(
            "its path is deeper than {} folders",
            limits.path_depth
        )));
    }
    Ok(components)
}

/// What an entry of this path means.
pub(super) fn meaning(components: &[OsString]) -> Result<Meaning, PathError> {
    let bookkeeping = |name: &OsString| {
        let name = name.as_bytes();
        name.starts_with(b".wh..wh.") && name != OPAQUE
    };
    if components.iter().any(bookkeeping) {
        return Ok(Meaning::Bookkeeping);
    }
    let Some(last) = components.last() else {
        return Ok(Meaning::Entry);
    };
    let Some(name) = last.as_bytes().strip_prefix(WHITEOUT) else {
        return Ok(Meaning::Entry);
    };
    match name {
        _ if last.as_bytes() == OPAQUE => Ok(Meaning::Opaque),
        b"" | b"." | b".." => Err(PathError::Refused(
            "is a whiteout of nothing or of its own folder".to_owned(),
        )),
        name => Ok(Meaning::Whiteout(OsStr::from_bytes(name).to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: Result<(&str, Meaning), &str>) {
        let limits = Limits {
            path_depth: 3,
            path_length: 20,
            ..Limits::default()
        };
        let found = components(path.as_bytes(), &limits)
            .and_then(|components| meaning(&components).map(|meaning| (components, meaning)));
        match (found, expected) {
            (Ok((components, meaning)), Ok((joined, expected))) => {
                assert_eq!(components.join(OsStr::new("/")), joined, "{path}");
                assert_eq!(meaning, expected, "{path}");
            }
            (Err(PathError::Refused(why) | PathError::Limit(why)), Err(part)) => {
                assert!(why.contains(part), "{path}: {why}");
            }
            (found, expected) => panic!("{path}: {found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn paths_stay_in_the_layer() {
        for (path, expected) in [
            ("./a/b", Ok(("a/b", Meaning::Entry))),
            ("a//b/", Ok(("a/b", Meaning::Entry))),
            ("./", Ok(("", Meaning::Entry))),
            ("/etc/x", Ok(("etc/x", Meaning::Entry))),
            ("a/.wh.b", Ok(("a/.wh.b", Meaning::Whiteout("b".into())))),
            ("a/.wh..b", Ok(("a/.wh..b", Meaning::Whiteout(".b".into())))),
            ("a/.wh..wh..opq", Ok(("a/.wh..wh..opq", Meaning::Opaque))),
            (
                ".wh..wh.plnk/1.2",
                Ok((".wh..wh.plnk/1.2", Meaning::Bookkeeping)),
            ),
            ("../x", Err("\"..\"")),
            ("a/../../x", Err("\"..\"")),
            ("/../x", Err("\"..\"")),
            ("a\0b", Err("zero byte")),
            ("a/.wh.", Err("whiteout of nothing")),
            ("a/.wh...", Err("own folder")),
            ("a/.wh..", Err("own folder")),
            ("a/b/c/d", Err("deeper than 3")),
            ("aaaaaaaaaaaaaaaaaaaaa", Err("longer than 20")),
        ] {
            check(path, expected);
        }
    }
}
