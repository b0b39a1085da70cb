//! `lateen down`: asks the mesh to end and waits until it has.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cli::DownArguments;
use crate::exit::{CommandError, Result};
use crate::state::StateDir;
use crate::{print, purge};

/// How long the mesh may take to end its pods, after which it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// How long a killed mesh may take to be gone.
const KILLED_WITHIN: Duration = Duration::from_secs(5);

/// `lateen down`. That nothing runs is not an error: it is what was asked for.
pub(crate) fn run(arguments: DownArguments) -> Result<()> {
    let state = StateDir::new(arguments.state.state);
    end(&state)?;
    if arguments.purge {
        purge::run(&state)?;
    }
    Ok(())
}

fn end(state: &StateDir) -> Result<()> {
    let Some(info) = state.running().map_err(CommandError::unavailable)? else {
        print::note(&format!(
            "no mesh is running from {}",
            state.root().display()
        ));
        return Ok(());
    };
    ask(info.pid, Signal::SIGTERM)?;
    if gone(state, STOP_WITHIN) {
        print::step("down", "the mesh ended");
        return Ok(());
    }
    ask(info.pid, Signal::SIGKILL)?;
    if !gone(state, KILLED_WITHIN) {
        return Err(CommandError::unavailable(format!(
            "process {} does not end",
            info.pid
        )));
    }
    // A killed process could not do it itself.
    state.withdraw();
    print::step("down", "the mesh did not end in time and was killed");
    Ok(())
}

fn ask(pid: i32, signal: Signal) -> Result<()> {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(
            CommandError::unavailable(format!("cannot end process {pid}: {error}"))
                .advise("end it as the user that started it"),
        ),
    }
}

/// The lock of the state folder tells, as it is held for as long as the mesh runs.
fn gone(state: &StateDir, within: Duration) -> bool {
    let deadline = Instant::now() + within;
    while state.is_running() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}
