//! Processes: fork, parents, capabilities, limits.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, fork, getppid};

/// What [`fork_single_threaded`] returns in each of the two processes.
#[derive(Debug, PartialEq, Eq)]
pub enum Forked {
    /// In the original process: the child's id, in the original's pid namespace.
    Parent {
        /// Process id of the child.
        child: i32,
    },
    /// In the new process.
    Child,
}

/// The capabilities (`capabilities(7)`) that a container can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Capability {
    /// Give files away.
    Chown = 0,
    /// Pass over the modes of files.
    DacOverride = 1,
    /// Do with files of others what their owners may.
    Fowner = 3,
    /// Keep set-user-id bits of files that are written.
    Fsetid = 4,
    /// Send signals to processes of other users.
    Kill = 5,
    /// Become other groups.
    Setgid = 6,
    /// Become other users.
    Setuid = 7,
    /// Give up capabilities for good.
    Setpcap = 8,
    /// Bind to ports below 1024 (where the namespace asks for it).
    NetBindService = 10,
    /// Change rules, addresses and routes; set packet marks.
    NetAdmin = 12,
    /// Raw sockets; set packet marks.
    NetRaw = 13,
    /// Keep memory from being swapped out.
    IpcLock = 14,
    /// Change the root folder.
    SysChroot = 18,
    /// Raise priorities.
    SysNice = 23,
    /// Make special files.
    Mknod = 27,
    /// Write to the kernel's audit log.
    AuditWrite = 29,
    /// Set capabilities of files.
    Setfcap = 31,
}

impl Capability {
    /// All of them, by the names that they have in manifests.
    pub const NAMED: [(&str, Self); 17] = [
        ("CHOWN", Self::Chown),
        ("DAC_OVERRIDE", Self::DacOverride),
        ("FOWNER", Self::Fowner),
        ("FSETID", Self::Fsetid),
        ("KILL", Self::Kill),
        ("SETGID", Self::Setgid),
        ("SETUID", Self::Setuid),
        ("SETPCAP", Self::Setpcap),
        ("NET_BIND_SERVICE", Self::NetBindService),
        ("NET_ADMIN", Self::NetAdmin),
        ("NET_RAW", Self::NetRaw),
        ("IPC_LOCK", Self::IpcLock),
        ("SYS_CHROOT", Self::SysChroot),
        ("SYS_NICE", Self::SysNice),
        ("MKNOD", Self::Mknod),
        ("AUDIT_WRITE", Self::AuditWrite),
        ("SETFCAP", Self::Setfcap),
    ];

    /// The capability of this name, with or without `CAP_`.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.strip_prefix("CAP_").unwrap_or(name);
        let found = Self::NAMED.iter().find(|(known, _)| *known == name);
        found.map(|(_, capability)| *capability)
    }

    /// Its name in manifests.
    pub fn name(self) -> &'static str {
        let found = Self::NAMED.iter().find(|(_, known)| *known == self);
        found.map_or("", |(name, _)| name)
    }
}

/// Splits the process in two.
///
/// # Errors
/// When the process has more than one thread (the copy of such a process could not safely do
/// anything but exec), or what `fork(2)` says.
pub fn fork_single_threaded() -> io::Result<Forked> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!(
            "fork asked for in a process of {threads} threads"
        )));
    }
    // SAFETY: the process has exactly one thread, checked above, so no lock can be held by a
    // thread that does not exist in the child.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Forked::Parent {
            child: child.as_raw(),
        }),
        ForkResult::Child => Ok(Forked::Child),
    }
}

/// Asks the kernel to kill this process when the thread that made it ends, and checks that the
/// parent is still `parent` (it may have died before the request).
///
/// The request is lost when the process changes its user id: call it afterwards.
///
/// # Errors
/// `NotFound` when the parent is already gone.
pub fn die_with_parent(parent: i32) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // Seen from inside a new pid namespace the parent has the id 0.
    let now = getppid().as_raw();
    if now != parent && now != 0 {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the parent process is gone",
        ));
    }
    Ok(())
}

/// Lets a write to a closed pipe end the process quietly, as users of `command | head` expect. Rust programs start with
/// that signal ignored, which servers want and printing commands do not.
pub fn end_on_closed_pipe() {
    let default = nix::sys::signal::SigHandler::SigDfl;
    // SAFETY: SIG_DFL installs no handler, so nothing of ours runs in signal context.
    // A refusal leaves the command as it was: it works, and complains about the closed pipe.
    let _ = unsafe { nix::sys::signal::signal(Signal::SIGPIPE, default) };
}

/// From now on no program that this process executes gains rights (set-user-id bits, file
/// capabilities).
///
/// # Errors
/// What `prctl(2)` says.
pub fn no_new_privileges() -> io::Result<()> {
    Ok(prctl::set_no_new_privs()?)
}

/// Bounds what this process and all it will execute can ever have to `keep`.
///
/// Needs CAP_SETPCAP, which a change of the user id takes away: call it before one.
///
/// # Errors
/// What `prctl(2)` says.
pub fn bound_capabilities(keep: &[Capability]) -> io::Result<()> {
    let mask = capability_mask(keep);
    for number in 0..64u8 {
        if mask & (1 << number) == 0 {
            // SAFETY: PR_CAPBSET_DROP takes one integer and touches no memory of ours.
            let result =
                unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) };
            let error = io::Error::last_os_error();
            // EINVAL: this kernel has no capability of that number.
            if result != 0 && error.raw_os_error() != Some(libc::EINVAL) {
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Gives up every capability but `keep`; to give them up for good, [`bound_capabilities`] first.
///
/// Those kept become ambient, so they survive an `exec` as a user other than 0.
///
/// # Errors
/// What `capset(2)` or `prctl(2)` says.
pub fn keep_capabilities(keep: &[Capability]) -> io::Result<()> {
    let mask = capability_mask(keep);
    set_capabilities(mask)?;
    for capability in keep {
        // SAFETY: PR_CAP_AMBIENT takes integers and touches no memory of ours.
        let result = unsafe {
            libc::prctl(
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_RAISE,
                *capability as libc::c_ulong,
                0,
                0,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Keeps the process's capabilities over the change of its user id that follows.
///
/// # Errors
/// What `prctl(2)` says.
pub fn keep_capabilities_over_user_change() -> io::Result<()> {
    Ok(prctl::set_keepcaps(true)?)
}

/// Lets no other process look into this one (its files, its root), until it executes another program.
///
/// # Errors
/// What `prctl(2)` says.
pub fn hide() -> io::Result<()> {
    Ok(prctl::set_dumpable(false)?)
}

/// Makes the terminal on standard input the controlling one of this session.
///
/// # Errors
/// When standard input is no terminal, or another session has it.
pub fn take_terminal() -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer and touches no memory of ours.
    let result = unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A descriptor that stands for the process `pid`, readable when it ends.
///
/// # Errors
/// `NotFound`-like (`ESRCH`) when there is no such process.
pub fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just opened this descriptor for us alone; it is close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets the soft limit of open files to the hard one. A refusal is normal and ignored.
pub fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// How many files this process may have open. Nothing when the system does not say.
pub fn most_open_files() -> Option<usize> {
    use nix::sys::resource::{Resource, getrlimit};
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    // No limit is a number that nobody reaches.
    Some(usize::try_from(soft).unwrap_or(usize::MAX))
}

fn capability_mask(capabilities: &[Capability]) -> u64 {
    capabilities
        .iter()
        .fold(0, |mask, capability| mask | (1 << (*capability as u8)))
}

/// Sets effective, permitted and inheritable sets to `mask`.
fn set_capabilities(mask: u64) -> io::Result<()> {
    /// `struct __user_cap_header_struct`.
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    /// `struct __user_cap_data_struct`.
    #[repr(C)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    // Version 3: two words a set.
    let header = Header {
        version: 0x2008_0522,
        pid: 0,
    };
    let data = [mask as u32, (mask >> 32) as u32].map(|word| Data {
        effective: word,
        permitted: word,
        inheritable: word,
    });
    // SAFETY: header and data are laid out as the kernel defines for version 3 (two data
    // elements) and live through the call; the kernel only reads them.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
