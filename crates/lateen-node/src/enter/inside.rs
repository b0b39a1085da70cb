//! The child's half of entering: from a plain process to one inside all namespaces.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use lateen_sys::namespace::{CloneFlags, leave};
use lateen_sys::process::{Forked, die_with_parent, fork_single_threaded};
use lateen_sys::socket::{receive_with_descriptors, send_with_descriptors};
use lateen_sys::{mount, spawn};
use nix::libc;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, sethostname};
use serde_json::Value;

use crate::outside::message::{FromInside, FromOutside, LONGEST};
use crate::outside::{decode, encode};

/// What the inner process starts with.
#[derive(Debug)]
pub struct Inner {
    /// The configuration that [`super::Plan::config`] held.
    pub config: Value,
    /// The channel to the outer process, for [`crate::Outside::start`].
    pub channel: OwnedFd,
    /// How many user ids exist in here; 1 means that containers cannot have a user of their own.
    pub users: u32,
}

/// Enters the namespaces; to be called first thing by the hidden subcommand that
/// [`super::start`] runs, while the process has one thread.
///
/// Returns in the inner process only; the two helper processes end inside this function.
///
/// # Errors
/// When the process was not started by [`super::start`], or a step fails; the outer process has
/// been told then, so the caller only needs to exit.
pub fn inside() -> io::Result<Inner> {
    let channel = spawn::inherited(super::CHANNEL)?;
    let FromOutside::Hello { parent, config } = receive(&channel)? else {
        return Err(io::Error::other("this subcommand is internal to lateen up"));
    };
    match enter(&channel, parent) {
        Ok(users) => {
            send(&channel, &FromInside::Entered)?;
            Ok(Inner {
                config,
                channel,
                users,
            })
        }
        Err(Failed { step, source }) => {
            let errno = source.raw_os_error().unwrap_or(libc::EIO);
            // If the outer process is gone there is nobody to tell.
            let _ = send(
                &channel,
                &FromInside::Failed {
                    step: step.to_owned(),
                    errno,
                },
            );
            Err(source)
        }
    }
}

/// A step that failed.
struct Failed {
    step: &'static str,
    source: io::Error,
}

/// Names the step that an error belongs to.
fn step<T>(step: &'static str, result: io::Result<T>) -> Result<T, Failed> {
    result.map_err(|source| Failed { step, source })
}

fn enter(channel: &OwnedFd, parent: i32) -> Result<u32, Failed> {
    step("make a user namespace", leave(CloneFlags::CLONE_NEWUSER))?;
    step(
        "report to the outer process",
        send(channel, &FromInside::Unshared),
    )?;
    let waiting = "wait for the identity maps";
    let FromOutside::Mapped { users } = step(waiting, receive(channel))? else {
        return Err(Failed {
            step: waiting,
            source: unexpected(),
        });
    };
    step("tie this process to its parent", die_with_parent(parent))?;
    let kinds = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWPID;
    step(
        "make mount, network, ipc, uts and pid namespaces",
        leave(kinds),
    )?;

    let me = getpid().as_raw();
    if let Forked::Parent { child } = step("fork", fork_single_threaded())? {
        end_with(child);
    }
    // pid 1 of the new namespace.
    step("tie pid 1 to its parent", die_with_parent(me))?;
    step("separate the mounts", mount::make_private())?;
    step("mount /proc", mount::proc(Path::new("/proc")))?;
    step(
        "set the host name",
        sethostname("lateen").map_err(io::Error::from),
    )?;
    if let Forked::Parent { child } = step("fork in the pid namespace", fork_single_threaded())? {
        end_with(child);
    }
    step("tie the inner process to pid 1", die_with_parent(1))?;
    Ok(users)
}

/// Waits for all children, also orphans that become them, and ends as `child` does.
fn end_with(child: i32) -> ! {
    loop {
        let code = match waitpid(None::<Pid>, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid.as_raw() == child => code,
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() == child => {
                128 + signal as i32
            }
            Err(nix::errno::Errno::ECHILD) => 1,
            _ => continue,
        };
        std::process::exit(code);
    }
}

fn send(channel: &OwnedFd, message: &FromInside) -> io::Result<()> {
    send_with_descriptors(channel.as_fd(), &encode(message)?, &[])
}

fn receive(channel: &OwnedFd) -> io::Result<FromOutside> {
    let mut buffer = vec![0; LONGEST];
    match receive_with_descriptors(channel.as_fd(), &mut buffer)? {
        (0, _) => Err(io::ErrorKind::UnexpectedEof.into()),
        (length, _) => decode(&buffer[..length]),
    }
}

fn unexpected() -> io::Error {
    io::Error::other("unexpected answer")
}
