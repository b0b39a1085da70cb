//! Child processes that inherit chosen descriptors.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::libc;

/// Lets the child of `command` have `descriptor` under the number `number`, which must be above
/// 2 and below 16; everything else stays close-on-exec.
///
/// # Panics
/// When `number` is out of that range: a mistake of the caller.
pub fn inherit(command: &mut Command, descriptor: OwnedFd, number: RawFd) {
    assert!(
        (3..16).contains(&number),
        "descriptor number {number} out of range"
    );
    // SAFETY: the closure runs between fork and exec and only calls dup2 and fcntl, which are
    // async-signal-safe; it allocates nothing.
    unsafe {
        command.pre_exec(move || {
            let fd = descriptor.as_raw_fd();
            let result = if fd == number {
                libc::fcntl(fd, libc::F_SETFD, 0)
            } else {
                libc::dup2(fd, number)
            };
            if result < 0 {
                Err(io::Error::last_os_error())
            } else {
                Ok(())
            }
        });
    }
}

/// Puts the child of `command` into a session of its own, so that signals of the terminal do not
/// reach it.
pub fn own_session(command: &mut Command) {
    // SAFETY: setsid is async-signal-safe and takes no memory.
    unsafe {
        command.pre_exec(|| {
            // A refusal means that it leads a group already, which is as good.
            libc::setsid();
            Ok(())
        });
    }
}

/// Takes over the descriptor `number` that the parent left for this process by [`inherit`].
///
/// Call it once for each number, at the start of the process.
///
/// # Errors
/// When nothing is open under that number.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_SETFD takes integers only.
    let result = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open (checked above) and was left for us by the parent under a
    // number agreed for this one purpose, so no other owner exists in this process.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
