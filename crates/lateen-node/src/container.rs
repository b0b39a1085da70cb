//! A container: one process tree in namespaces of its own, below the pod's network.
//!
//! ```text
//! node                       a thread joins the pod's network, makes pid, mount, ipc and uts
//! │                          namespaces, and starts ...
//! └─ lateen container        pid 1 of the container: builds the root file system, gives up rights,
//!    │                       starts the program, forwards signals, reaps orphans, ends as it does
//!    └─ the program
//! ```
//!
//! What a container can reach: its image, or read-only programs and libraries of the host with an `/etc` of its own and
//! in-memory folders of limited size; its volumes. Not the host's files, processes, or network.

mod init;
mod launch;
mod root;
mod spec;

use std::fs::File;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use lateen_sys::namespace::{self, CloneFlags};
use lateen_sys::process;

pub(crate) use launch::{Launch, Running, Streams, launch, launch_into};
pub(crate) use spec::{Base, Bind, ProgramSpec, RootSpec, Spec};

/// Number under which `lateen container` inherits its [`Spec`].
const SPEC: i32 = 3;

/// Number under which `lateen container` inherits the pipe that tells the node why the program
/// could not be started; closed by the kernel when it was.
const REPORT: i32 = 4;

/// Number under which it inherits what stands for the container that a further program is to run in.
const CONTAINER: i32 = 5;

/// Number under which it inherits the socket that the controlling side of the program's terminal is sent over. The
/// terminal is opened in the container, so that it has a name there.
const TERMINAL: i32 = 6;

/// Longest specification that is read, in bytes.
const LONGEST_SPEC: u64 = 16 * 1024 * 1024;

/// Where every container finds the program `lateen`.
pub(crate) const EXECUTABLE: &str = "/.lateen/lateen";

/// Exit code that says the program could not be started (as shells do).
const NOT_STARTED: u8 = 127;

/// The hidden subcommand `lateen container`. Call it before any thread exists, and exit with what
/// it returns: that is the container's exit code.
pub fn main() -> ExitCode {
    let spec = match read_spec() {
        Ok(spec) => spec,
        Err(error) => {
            eprintln!("lateen container is internal to lateen up: {error}");
            return ExitCode::from(2);
        }
    };
    let report = match lateen_sys::spawn::inherited(REPORT) {
        Ok(report) => Report(Some(File::from(report))),
        Err(_) => return ExitCode::from(2),
    };
    let failed = match spec {
        Spec::Container { root, program } => match root::build(&root) {
            Ok(()) => return init::run(&program, report),
            Err(error) => error,
        },
        Spec::Exec { program } => match enter_files() {
            Ok(()) => init::become_program(&program),
            Err(error) => error,
        },
    };
    report.failed(&failed)
}

/// The pipe that tells the node why the program could not be started.
struct Report(Option<File>);

impl Report {
    /// Reports the reason; the exit code to end with.
    fn failed(mut self, reason: &io::Error) -> ExitCode {
        if let Some(mut pipe) = self.0.take() {
            // The node shows this as the reason; if it is gone, so is this process soon.
            let _ = pipe.write_all(reason.to_string().as_bytes());
        }
        ExitCode::from(NOT_STARTED)
    }
}

/// Moves into the files of the container. Not before this program runs: it need not be among them. The container's
/// processes see this one already, and must not reach the node's files through it.
fn enter_files() -> io::Result<()> {
    process::hide()?;
    let container = lateen_sys::spawn::inherited(CONTAINER)?;
    namespace::join(&container, CloneFlags::CLONE_NEWNS)
}

fn read_spec() -> io::Result<Spec> {
    let mut bytes = Vec::new();
    File::from(lateen_sys::spawn::inherited(SPEC)?)
        .take(LONGEST_SPEC)
        .read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).map_err(io::Error::other)
}
