//! Namespaces of Linux: leaving, joining, and the identity maps of a user namespace.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

pub use nix::sched::CloneFlags;
use nix::sched::{setns, unshare};

/// One line of a user namespace's identity map: `count` ids from `inside` on are the ids from
/// `outside` on in the parent namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// First id as processes of the namespace see it.
    pub inside: u32,
    /// First id in the parent namespace.
    pub outside: u32,
    /// How many ids.
    pub count: u32,
}

/// Moves the calling thread (for user namespaces: the single-threaded process) into new
/// namespaces of the given kinds. A new pid namespace starts with the next child.
///
/// # Errors
/// What `unshare(2)` says; `EPERM` when user namespaces are forbidden, `ENOSPC` when the limit
/// (`user.max_user_namespaces`) is reached.
pub fn leave(kinds: CloneFlags) -> io::Result<()> {
    Ok(unshare(kinds)?)
}

/// Moves the calling thread into the namespaces that `descriptor` stands for: one namespace file,
/// or a pidfd with a set of kinds.
///
/// A thread that joins a mount namespace must not share its file-system state with others; this
/// function takes care of that.
///
/// # Errors
/// What `setns(2)` says.
pub fn join<F: AsFd>(descriptor: F, kinds: CloneFlags) -> io::Result<()> {
    if kinds.contains(CloneFlags::CLONE_NEWNS) {
        unshare(CloneFlags::CLONE_FS)?;
    }
    Ok(setns(descriptor, kinds)?)
}

/// A descriptor of the calling thread's network namespace; the namespace lives as long as it.
///
/// # Errors
/// When `/proc` is not mounted or the process is out of descriptors.
pub fn current_network() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// Makes a new network namespace without moving any existing thread into it.
///
/// # Errors
/// What `unshare(2)` says, or that a thread could not be started.
pub fn new_network() -> io::Result<OwnedFd> {
    on_own_thread("new-netns", || {
        leave(CloneFlags::CLONE_NEWNET)?;
        current_network()
    })
}

/// Runs `work` on a short-lived thread of its own that has joined the network namespace.
///
/// Sockets made there keep belonging to that namespace wherever they are used later.
///
/// # Errors
/// What joining or `work` reports.
pub fn in_network<T: Send>(
    network: BorrowedFd<'_>,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    on_own_thread("in-netns", move || {
        join(network, CloneFlags::CLONE_NEWNET)?;
        work()
    })
}

/// Writes the identity maps of process `pid`'s user namespace, for a caller that may: one with
/// `CAP_SETUID` in the parent namespace, or an owner who maps exactly its own id.
///
/// `deny_setgroups` must be set when the caller lacks `CAP_SETGID` in the parent namespace.
///
/// # Errors
/// What the kernel says about the write; `EPERM` when the caller may not map these ids.
pub fn write_id_maps(
    pid: i32,
    users: &[IdRange],
    groups: &[IdRange],
    deny_setgroups: bool,
) -> io::Result<()> {
    let process = Path::new("/proc").join(pid.to_string());
    fs::write(process.join("uid_map"), map_lines(users))?;
    if deny_setgroups {
        fs::write(process.join("setgroups"), "deny")?;
    }
    fs::write(process.join("gid_map"), map_lines(groups))
}

/// The kernel's notation of an identity map.
fn map_lines(ranges: &[IdRange]) -> String {
    let mut lines = String::new();
    for range in ranges {
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "{} {} {}", range.inside, range.outside, range.count);
    }
    lines
}

/// Runs `work` on a thread whose namespaces may be changed, because it ends with `work`.
fn on_own_thread<T: Send>(
    name: &str,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(256 * 1024)
            .spawn_scoped(scope, work)?;
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}
