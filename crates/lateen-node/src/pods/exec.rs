//! Further programs inside a running container: exec probes, hooks, `kubectl exec`.

use std::io;
use std::process::Stdio;

use nix::sys::signal::Signal;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::supervise::Run;
use crate::container::{Launch, ProgramSpec, Running, Spec, Streams, launch_into};

/// Most output that [`output`] keeps, in bytes.
const MOST_OUTPUT: u64 = 64 << 10;

/// Starts a program in the container, with its environment, user and rights.
///
/// # Errors
/// With the reason, when it cannot be started.
pub(crate) async fn start(
    run: &Run,
    command: Vec<String>,
    streams: Streams,
) -> io::Result<Running> {
    let program = ProgramSpec {
        command,
        terminal: streams.terminal.is_some(),
        ..run.program.clone()
    };
    launch_into(
        &run.running,
        Launch {
            executable: run.executable.clone(),
            spec: Spec::Exec { program },
            streams,
        },
    )
    .await
}

/// Runs a program to its end: its exit code, and what it wrote.
///
/// When this is dropped, the program is killed.
///
/// # Errors
/// With the reason, when it cannot be started.
pub(crate) async fn output(run: &Run, command: Vec<String>) -> io::Result<(i32, Vec<u8>)> {
    let (reader, writer) = io::pipe()?;
    let error = writer.try_clone()?;
    let streams = Streams {
        input: Stdio::null(),
        output: writer.into(),
        error: error.into(),
        terminal: None,
    };
    let running = start(run, command, streams).await?;
    let running = KillOnDrop(running);
    let mut output = Vec::new();
    let reader = pipe::Receiver::from_owned_fd(reader.into())?;
    // What goes beyond is not read: the program then gets a broken pipe.
    reader.take(MOST_OUTPUT).read_to_end(&mut output).await?;
    Ok((running.0.ended().await, output))
}

/// Kills the program when nobody waits for it any more.
pub(crate) struct KillOnDrop(pub(crate) Running);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.signal(Signal::SIGKILL);
    }
}
