//! `lateen up --detach`: the outer process in a session of its own, followed until everything is ready.

use std::fs::OpenOptions;
use std::io::BufReader;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};

use crate::cli::UpArguments;
use crate::exit::{CommandError, Result};
use crate::print;
use crate::state::StateDir;
use crate::status::Mesh;

use super::messages::Message;
use super::{DETACHED, Placed};

/// Starts the outer process and returns when the mesh is ready.
pub(super) fn start(
    state: &StateDir,
    arguments: &UpArguments,
    manifests: &[Placed],
) -> Result<Mesh> {
    let cannot = |error: &dyn std::fmt::Display| {
        CommandError::unavailable(format!("cannot start the mesh in the background: {error}"))
    };
    state.create().map_err(|error| cannot(&error))?;
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(state.log())
        .map_err(|error| cannot(&error))?;
    let executable = std::env::current_exe().map_err(|error| cannot(&error))?;
    let mut command = Command::new(executable);
    command
        .arg("up")
        .arg("--filename=-")
        .arg("--state")
        .arg(state.root());
    if let Some(address) = arguments.api_address {
        command.arg("--api-address").arg(address.to_string());
    }
    for nameserver in &arguments.nameservers {
        command.arg("--nameserver").arg(nameserver.to_string());
    }
    command
        .env(DETACHED, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log);
    lateen_sys::spawn::own_session(&mut command);
    let mut child = command.spawn().map_err(|error| cannot(&error))?;
    // The manifests were read here, where errors can still be shown with their place.
    if let Some(input) = child.stdin.take() {
        serde_json::to_writer(input, manifests).map_err(|error| cannot(&error))?;
    }
    let mut messages = BufReader::new(child.stdout.take().ok_or_else(|| cannot(&"no output"))?);
    loop {
        match Message::read(&mut messages).map_err(|error| cannot(&error))? {
            Some(Message::Step { name, detail }) => print::step(&name, &detail),
            Some(Message::Ready { warnings }) => {
                let mesh = Mesh::find(state)?;
                if warnings.is_empty() {
                    return Ok(mesh);
                }
                return Err(CommandError::findings(warnings.join("\n")).advise(
                    "the mesh is up; look at the pods with kubectl, or end it with: lateen down",
                ));
            }
            Some(Message::Failed { code, message }) => return Err(Message::error(code, &message)),
            None => {
                return Err(
                    CommandError::unavailable("the mesh ended before it was ready")
                        .advise(format!("its log is {}", state.log().display())),
                );
            }
        }
    }
}

/// What the starting command handed over to this, the detached process.
pub(super) fn manifests_of_starter() -> Result<Vec<Placed>> {
    serde_json::from_reader(std::io::stdin().lock())
        .map_err(|error| CommandError::usage(format!("cannot read what is to be applied: {error}")))
}
