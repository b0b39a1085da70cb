//! The node's side of a container: starting it, and waiting for its end.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use lateen_sys::namespace::{self, CloneFlags};
use lateen_sys::{process, spawn};
use nix::fcntl::OFlag;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::spec::Spec;

/// Longest reason for a failed start that is read, in bytes.
const LONGEST_REASON: u64 = 4096;

/// Namespaces that each container has for itself, besides that of its files.
const OWN: CloneFlags = CloneFlags::CLONE_NEWPID
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS);

/// What a container process is started with.
#[derive(Debug)]
pub(crate) struct Launch {
    /// The program `lateen`, as the node sees it.
    pub(crate) executable: PathBuf,
    pub(crate) spec: Spec,
    pub(crate) streams: Streams,
}

/// Standard input, output and error of the program.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) input: Stdio,
    pub(crate) output: Stdio,
    pub(crate) error: Stdio,
    /// Where the controlling side of the program's terminal is sent, which takes the place of all three.
    pub(crate) terminal: Option<OwnedFd>,
}

/// A process that was started; clones stand for the same one.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pid: i32,
    ended: watch::Receiver<Option<i32>>,
}

impl Running {
    /// The container's first process, as the node sees it. After the end it may be another one.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for the end; the exit code, 128 + signal number when a signal ended it.
    pub(crate) async fn ended(&self) -> i32 {
        let mut ended = self.ended.clone();
        let code = ended.wait_for(Option::is_some).await;
        code.ok().and_then(|code| *code).unwrap_or(255)
    }

    /// The exit code, if it has ended.
    pub(crate) fn code(&self) -> Option<i32> {
        *self.ended.borrow()
    }

    /// Sends a signal; one that has ended already is left alone.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.code().is_none() {
            // It may end at this very moment, which is what signals are mostly for.
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Joins the namespaces of this container: for [`launch_into`].
    fn pidfd(&self) -> io::Result<OwnedFd> {
        match self.code() {
            Some(_) => Err(io::Error::other("the container is not running")),
            None => process::pidfd(self.pid),
        }
    }
}

/// Starts a container in the pod's network namespace.
///
/// # Errors
/// With the reason, as a user should see it, when the program does not run.
pub(crate) async fn launch(network: OwnedFd, launch: Launch) -> io::Result<Running> {
    start(launch, None, move || {
        namespace::join(&network, CloneFlags::CLONE_NEWNET)?;
        namespace::leave(OWN | CloneFlags::CLONE_NEWNS)
    })
    .await
}

/// Starts another program inside a running container.
///
/// # Errors
/// As [`launch`].
pub(crate) async fn launch_into(container: &Running, launch: Launch) -> io::Result<Running> {
    let pidfd = container.pidfd()?;
    // The program that runs there is started from the node's files, and moves to the container's by itself.
    start(launch, Some(pidfd.try_clone()?), move || {
        namespace::join(&pidfd, OWN | CloneFlags::CLONE_NEWNET)
    })
    .await
}

/// Starts the process on a thread that first moves itself with `enter`; the thread then waits
/// for the process, so it never does anything else in its new namespaces.
async fn start(
    launch: Launch,
    container: Option<OwnedFd>,
    enter: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<Running> {
    let spec = hand_over(&launch.spec)?;
    let (reason, report) = pipe2(OFlag::O_CLOEXEC)?;
    let mut command = Command::new(&launch.executable);
    command
        .arg("container")
        .env_clear()
        .stdin(launch.streams.input)
        .stdout(launch.streams.output)
        .stderr(launch.streams.error);
    spawn::inherit(&mut command, spec, super::SPEC);
    spawn::inherit(&mut command, report, super::REPORT);
    if let Some(container) = container {
        spawn::inherit(&mut command, container, super::CONTAINER);
    }
    if let Some(terminal) = launch.streams.terminal {
        spawn::inherit(&mut command, terminal, super::TERMINAL);
    }

    let (announce, announced) = tokio::sync::oneshot::channel();
    let (finish, ended) = watch::channel(None);
    std::thread::Builder::new()
        .name("container".into())
        .stack_size(128 * 1024)
        .spawn(move || {
            let spawned = enter().and_then(|()| command.spawn());
            // Closes this process's copies of the descriptors that the child got.
            drop(command);
            match spawned {
                Ok(mut child) => {
                    let _ = announce.send(Ok(child.id()));
                    let code = child.wait().map_or(255, exit_code);
                    finish.send_replace(Some(code));
                }
                Err(error) => {
                    let _ = announce.send(Err(error));
                }
            }
        })?;
    let pid = announced.await.map_err(io::Error::other)??;
    let running = Running {
        pid: i32::try_from(pid).map_err(io::Error::other)?,
        ended,
    };

    // Closed without a word when the program runs.
    let mut reason = pipe::Receiver::from_owned_fd(reason)?.take(LONGEST_REASON);
    let mut text = String::new();
    reason.read_to_string(&mut text).await?;
    if text.is_empty() {
        Ok(running)
    } else {
        Err(io::Error::other(text))
    }
}

/// Writes the specification into memory of its own, readable through the descriptor.
fn hand_over(spec: &Spec) -> io::Result<OwnedFd> {
    let mut memory = File::from(memfd_create(c"container", MFdFlags::MFD_CLOEXEC)?);
    serde_json::to_writer(&mut memory, spec).map_err(io::Error::other)?;
    memory.flush()?;
    memory.rewind()?;
    Ok(memory.into())
}

fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(255)
}
