//! The outer process's half of entering.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::sync::watch;

use super::check::{EnterError, check_requirements, explain};
use super::identity::{self, Identity};
use crate::outside::message::{FromInside, FromOutside, LONGEST};
use crate::outside::{OutsideServer, decode, encode};
use lateen_sys::socket::{message_pair, receive_with_descriptors, send_with_descriptors};

/// How the inner process is to be run.
#[derive(Debug)]
pub struct Plan {
    /// The program: this one again.
    pub executable: PathBuf,
    /// Its arguments: the hidden subcommand that calls [`super::inside`] first.
    pub arguments: Vec<OsString>,
    /// What [`super::Inner::config`] will hold; at most 128 KiB as JSON.
    pub config: Value,
    /// Where the inner process writes its standard output and error; usually a log file.
    pub output: Output,
}

/// Where standard output and error of the inner process go.
pub type Output = (Stdio, Stdio);

/// How the inner process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this code.
    Code(i32),
    /// It was killed (128 + signal number of the inner process is reported as a code).
    Killed,
}

/// The running inner process.
#[derive(Debug)]
pub struct Inside {
    pid: i32,
    identity: Identity,
    ended: watch::Receiver<Option<Ended>>,
}

/// Starts the inner process in new namespaces and waits until it is inside (some 10 ms, blocking).
///
/// The kernel ends everything inside when the calling process ends, however that happens.
///
/// # Errors
/// When a requirement is missing; nothing is left running then.
pub fn start(plan: Plan) -> Result<(Inside, OutsideServer), EnterError> {
    check_requirements()?;
    let (here, there) = message_pair().map_err(|source| EnterError::Conversation { source })?;
    let hello = FromOutside::Hello {
        parent: pid(),
        config: plan.config,
    };
    send(&here, &hello)?;

    let mut command = Command::new(&plan.executable);
    command
        .args(&plan.arguments)
        .stdin(Stdio::null())
        .stdout(plan.output.0)
        .stderr(plan.output.1);
    lateen_sys::spawn::inherit(&mut command, there, super::CHANNEL);
    lateen_sys::spawn::own_session(&mut command);
    let (pid, ended) = spawn_watched(command).map_err(|source| EnterError::Run {
        program: plan.executable,
        source,
    })?;

    // From here on dropping `inside` kills the child, so that an error leaves nothing behind.
    let mut inside = Inside {
        pid,
        ended,
        identity: Identity {
            users: 0,
            explanation: String::new(),
        },
    };
    inside.identity = accompany(&here, pid)?;
    Ok((inside, OutsideServer::new(here)))
}

impl Inside {
    /// Process id, on the host, of the process that ends when the inner one does.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The user ids that exist inside.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Waits until the inner process and everything it made have ended.
    pub async fn ended(&mut self) -> Ended {
        match self.ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.unwrap_or(Ended::Killed),
            Err(_) => Ended::Killed,
        }
    }

    /// Ends everything inside at once. Prefer [`OutsideServer::stopper`].
    pub fn kill(&self) {
        if self.ended.borrow().is_none() {
            // It may end at this moment; then there is nothing left to kill.
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs the command on a thread that lives as long as the child: the kernel's "kill me with my
/// parent" means the thread that made the child, not the whole process.
fn spawn_watched(mut command: Command) -> io::Result<(i32, watch::Receiver<Option<Ended>>)> {
    let (report, ended) = watch::channel(None);
    let (sender, spawned) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name("inside".into())
        .stack_size(256 * 1024)
        .spawn(move || {
            let child = command.spawn();
            // The command holds the child's end of the channel: close it here, so that the channel
            // closes when the child ends.
            drop(command);
            let (result, child) = match child {
                Ok(child) => (Ok(child.id()), Some(child)),
                Err(error) => (Err(error), None),
            };
            let _ = sender.send(result);
            if let Some(child) = child {
                report.send_replace(Some(wait(child)));
            }
        })?;
    let pid = spawned.recv().map_err(io::Error::other)??;
    Ok((i32::try_from(pid).map_err(io::Error::other)?, ended))
}

fn wait(mut child: Child) -> Ended {
    match child.wait() {
        Ok(status) => status.code().map_or(Ended::Killed, Ended::Code),
        Err(_) => Ended::Killed,
    }
}

/// Follows the child through its set-up.
fn accompany(channel: &OwnedFd, pid: i32) -> Result<Identity, EnterError> {
    let mut identity = None;
    loop {
        match receive(channel)? {
            FromInside::Unshared if identity.is_none() => {
                let mapped =
                    identity::map(pid).map_err(|source| EnterError::IdentityMap { source })?;
                send(
                    channel,
                    &FromOutside::Mapped {
                        users: mapped.users,
                    },
                )?;
                identity = Some(mapped);
            }
            FromInside::Failed { step, errno } => return Err(explain(step, errno)),
            FromInside::Entered => {
                return identity.ok_or_else(|| conversation("it skipped a step"));
            }
            other => return Err(conversation(&format!("it said {other:?}"))),
        }
    }
}

fn send(channel: &OwnedFd, message: &FromOutside) -> Result<(), EnterError> {
    encode(message)
        .and_then(|bytes| send_with_descriptors(channel.as_fd(), &bytes, &[]))
        .map_err(|source| EnterError::Conversation { source })
}

fn receive(channel: &OwnedFd) -> Result<FromInside, EnterError> {
    let mut buffer = vec![0; LONGEST];
    match receive_with_descriptors(channel.as_fd(), &mut buffer) {
        Ok((0, _)) => Err(conversation("it ended before it was ready")),
        Ok((length, _)) => {
            decode(&buffer[..length]).map_err(|source| EnterError::Conversation { source })
        }
        Err(source) => Err(EnterError::Conversation { source }),
    }
}

fn conversation(what: &str) -> EnterError {
    EnterError::Conversation {
        source: io::Error::other(what.to_owned()),
    }
}

fn pid() -> i32 {
    nix::unistd::getpid().as_raw()
}
