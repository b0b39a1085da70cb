//! Which user ids exist inside: a range when the system grants one, else the user alone.

use std::fs;
use std::io;
use std::process::{Command, Stdio};

use lateen_sys::namespace::{IdRange, write_id_maps};
use nix::unistd::{Gid, Uid, User, getegid, geteuid};

use super::check::find_program;

/// Where the range of a root-run mesh begins on the host: the first ids that no distribution
/// gives to users of its own.
const ROOT_RANGE: u32 = 100_000;

/// Most ids asked for: what 16-bit ids of container images need.
const MOST_IDS: u32 = 65_536;

/// The user ids of the mesh's user namespace.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// How many user ids exist inside; 1 when the system grants no range.
    pub users: u32,
    /// For people: whose rights the mesh has, and why there is no range if there is none.
    pub explanation: String,
}

impl Identity {
    /// May containers run as a user of their own (`runAsUser`)?
    pub fn has_range(&self) -> bool {
        self.users > 1
    }
}

/// Writes the identity maps of the child's new user namespace, the widest that are granted.
pub(super) fn map(child: i32) -> io::Result<Identity> {
    let (user, group) = (geteuid(), getegid());
    if user.is_root() {
        map_as_root(child)
    } else {
        map_as_user(child, user, group)
    }
}

fn map_as_root(child: i32) -> io::Result<Identity> {
    let alone = [IdRange {
        inside: 0,
        outside: 0,
        count: 1,
    }];
    let count = MOST_IDS - 1;
    let range = [
        alone[0],
        IdRange {
            inside: 1,
            outside: ROOT_RANGE,
            count,
        },
    ];
    if write_id_maps(child, &range, &range, false).is_ok() {
        let explanation = "root, with a range of user ids".to_owned();
        return Ok(Identity {
            users: MOST_IDS,
            explanation,
        });
    }
    // Root without CAP_SETUID, or in a container that has no such ids.
    write_id_maps(child, &alone, &alone, true)?;
    let explanation = "root, alone: it may not map other user ids here".to_owned();
    Ok(Identity {
        users: 1,
        explanation,
    })
}

fn map_as_user(child: i32, user: Uid, group: Gid) -> io::Result<Identity> {
    let name = User::from_uid(user).ok().flatten().map(|user| user.name);
    let shown = name.clone().unwrap_or_else(|| user.to_string());
    match map_range(child, user, group, name.as_deref()) {
        Ok(users) => {
            let explanation = format!("user {shown}, with {users} user ids of /etc/subuid");
            Ok(Identity { users, explanation })
        }
        Err(reason) => {
            let users = [IdRange {
                inside: 0,
                outside: user.as_raw(),
                count: 1,
            }];
            let groups = [IdRange {
                inside: 0,
                outside: group.as_raw(),
                count: 1,
            }];
            write_id_maps(child, &users, &groups, true)?;
            Ok(Identity {
                users: 1,
                explanation: format!("user {shown}, alone: {reason}"),
            })
        }
    }
}

/// Tries the set-user-id helpers `newuidmap` and `newgidmap`.
fn map_range(child: i32, user: Uid, group: Gid, name: Option<&str>) -> Result<u32, String> {
    let user_range = granted("/etc/subuid", name, user.as_raw())?;
    let group_range = granted("/etc/subgid", name, user.as_raw())?;
    // Groups first: when that helper fails, nothing is written and the user alone still works.
    run_helper("newgidmap", child, group.as_raw(), group_range)?;
    run_helper("newuidmap", child, user.as_raw(), user_range)?;
    Ok(user_range.1 + 1)
}

/// The first range (start, count) that a file of subordinate ids grants to the user.
fn granted(file: &str, name: Option<&str>, user: u32) -> Result<(u32, u32), String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    find_range(&text, name, user).ok_or_else(|| format!("{file} has no line for this user"))
}

fn find_range(text: &str, name: Option<&str>, user: u32) -> Option<(u32, u32)> {
    let user = user.to_string();
    text.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        if Some(owner) != name && owner != user {
            return None;
        }
        let start = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        (count > 0).then(|| (start, count.min(MOST_IDS - 1)))
    })
}

fn run_helper(helper: &str, child: i32, own: u32, range: (u32, u32)) -> Result<(), String> {
    let program = find_program(helper)
        .ok_or_else(|| format!("the program {helper} (package uidmap) was not found"))?;
    let (start, count) = range;
    let numbers = [child.unsigned_abs(), 0, own, 1, 1, start, count].map(|n| n.to_string());
    let output = Command::new(program)
        .args(numbers)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{helper}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "{helper} refused: {}",
        said.lines().next().unwrap_or_default()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_found_by_name_or_number_and_cut_to_sixteen_bits() {
        let file = "other:1:5\nana:100000:65536\n1007:300000:10\nnone:1:0\n";
        for (name, user, expected) in [
            (Some("ana"), 1000, Some((100_000, 65_535))),
            (Some("bo"), 1007, Some((300_000, 10))),
            (None, 1007, Some((300_000, 10))),
            (Some("none"), 1, None),
            (Some("an"), 2, None),
        ] {
            assert_eq!(find_range(file, name, user), expected, "{name:?} {user}");
        }
    }
}
