//! pid 1 of a container, and turning a process into the container's program.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lateen_sys::process::{self, Capability, Forked};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{
    Gid, Pid, Uid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, fchown, setgid, setgroups,
    setsid, setuid,
};

use super::Report;
use super::spec::ProgramSpec;

/// Starts the program and looks after it until it ends; returns its exit code (128 + signal
/// number when a signal ended it).
pub(super) fn run(program: &ProgramSpec, report: Report) -> ExitCode {
    match start() {
        Ok(None) => report.failed(&become_program(program)),
        Ok(Some(child)) => {
            // Only the child's copy decides when the node sees the pipe close.
            drop(report);
            match look_after(child, program) {
                Ok(code) => ExitCode::from(code),
                Err(error) => {
                    eprintln!("lateen: this container's first process failed: {error}");
                    ExitCode::FAILURE
                }
            }
        }
        Err(error) => report.failed(&error),
    }
}

/// Makes the process that becomes the program: nothing in that process, its id in pid 1.
fn start() -> io::Result<Option<Pid>> {
    // Blocked signals are kept for sigwait; an unblocked one would be dropped, as the kernel
    // gives pid 1 no default actions.
    let all = SigSet::all();
    all.thread_block()?;
    match process::fork_single_threaded()? {
        Forked::Child => {
            all.thread_unblock()?;
            Ok(None)
        }
        Forked::Parent { child } => Ok(Some(Pid::from_raw(child))),
    }
}

fn look_after(child: Pid, program: &ProgramSpec) -> io::Result<u8> {
    // A program that runs as another user, or becomes one, must still get its signals. Otherwise nothing is kept,
    // also because programs like to write to `/proc/1/fd/1`, which a pid 1 with more rights than
    // theirs would not allow.
    let changes = program.user.is_some() || !program.capabilities.is_empty();
    let rights: &[Capability] = if changes { &[Capability::Kill] } else { &[] };
    process::bound_capabilities(rights)?;
    process::keep_capabilities(rights)?;
    loop {
        match SigSet::all().wait()? {
            Signal::SIGCHLD => {
                if let Some(code) = reap(child)? {
                    return Ok(code);
                }
            }
            signal => {
                // It may have just ended; the next SIGCHLD tells.
                let _ = kill(child, signal);
            }
        }
    }
}

/// Collects every child that ended; the program's exit code when it was among them.
fn reap(program: Pid) -> io::Result<Option<u8>> {
    loop {
        match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == program => return Ok(Some(code as u8)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == program => {
                return Ok(Some(128 + signal as u8));
            }
            Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::ECHILD) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Gives up rights and executes the program. Returns only when that failed.
pub(super) fn become_program(program: &ProgramSpec) -> io::Error {
    match prepare(program) {
        Ok((path, arguments, environment)) => {
            let Err(error) = execve(&path, &arguments, &environment);
            io::Error::other(format!("exec {:?}: {}", program.command[0], error.desc()))
        }
        Err(error) => error,
    }
}

type Execution = (CString, Vec<CString>, Vec<CString>);

fn prepare(program: &ProgramSpec) -> io::Result<Execution> {
    let Some(name) = program.command.first() else {
        return Err(io::Error::other("no command given, and the image has none"));
    };
    // A leader of its own, so that signals to groups stay within the container.
    let _ = setsid();
    if program.terminal {
        open_terminal(program)
            .map_err(|error| io::Error::other(format!("open a terminal: {error}")))?;
    }
    process::raise_open_files();
    let rights: Vec<Capability> = program
        .capabilities
        .iter()
        .filter_map(|name| Capability::named(name))
        .collect();
    process::bound_capabilities(&rights)?;
    become_user(program, !rights.is_empty())?;
    process::keep_capabilities(&rights)?;
    process::no_new_privileges()?;
    if let Some(folder) = &program.folder {
        chdir(folder.as_str())
            .map_err(|error| io::Error::other(format!("chdir to {folder:?}: {}", error.desc())))?;
    }
    let path = find(name, program)?;
    let arguments = program
        .command
        .iter()
        .map(|text| c_string(text))
        .collect::<Result<_, _>>()?;
    let environment = program
        .environment
        .iter()
        .map(|(name, value)| c_string(&format!("{name}={value}")))
        .collect::<Result<_, _>>()?;
    Ok((c_string(&path.to_string_lossy())?, arguments, environment))
}

/// Opens a terminal of the container for the program's standard streams; the node gets the side that controls it.
fn open_terminal(program: &ProgramSpec) -> io::Result<()> {
    let node = lateen_sys::spawn::inherited(super::TERMINAL)?;
    let (controller, terminal) = lateen_sys::pty::open()?;
    if let Some(user) = program.user {
        fchown(&terminal, Some(Uid::from_raw(user)), None)?;
    }
    lateen_sys::socket::send_with_descriptors(node.as_fd(), b"terminal", &[controller.as_fd()])?;
    dup2_stdin(&terminal)?;
    dup2_stdout(&terminal)?;
    dup2_stderr(&terminal)?;
    process::take_terminal()
}

fn become_user(program: &ProgramSpec, keeps_rights: bool) -> io::Result<()> {
    if program.user.is_none() && program.group.is_none() {
        return Ok(());
    }
    if keeps_rights {
        process::keep_capabilities_over_user_change()?;
    }
    let groups: Vec<_> = program.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups)?;
    if let Some(group) = program.group {
        setgid(Gid::from_raw(group))?;
    }
    if let Some(user) = program.user {
        setuid(Uid::from_raw(user))?;
    }
    Ok(())
}

/// Looks a program up as a shell does. Where the host's programs stand in for an image's, a path that leads nowhere is that
/// of the image's own program: the one of the same name is taken, wherever it is.
fn find(name: &str, program: &ProgramSpec) -> io::Result<PathBuf> {
    let last = Path::new(name).file_name().unwrap_or_default();
    let as_it_is = !name.starts_with('/') || !program.stand_in || fs::exists(name)?;
    if name.contains('/') && (as_it_is || last.is_empty()) {
        return Ok(PathBuf::from(name));
    }
    let path = program.environment.iter().find(|(key, _)| key == "PATH");
    let path = path.map_or("", |(_, path)| path.as_str());
    path.split(':')
        .map(|folder| Path::new(if folder.is_empty() { "." } else { folder }).join(last))
        .find(|candidate| {
            fs::metadata(candidate)
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })
        // A path that nothing stands in for fails as the system says.
        .or_else(|| name.contains('/').then(|| PathBuf::from(name)))
        .ok_or_else(|| {
            io::Error::other(format!(
                "exec: {name:?}: executable file not found in $PATH"
            ))
        })
}

fn c_string(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(io::Error::other)
}
