//! Bringing a mesh up: the command, the process outside the mesh's namespaces and the one inside.
//!
//! ```text
//! lateen up            takes the state folder, starts the inside process, shows progress     (outer.rs)
//! └─ lateen inside     API server, controllers, node; applies manifests, waits for readiness (inside.rs)
//! ```
//! With `--detach` the command starts itself once more as the outer process, in a session of its own, and follows its
//! messages until everything is ready (detached.rs).

mod detached;
mod discovery_socket;
mod inside;
mod messages;
mod outer;
mod readiness;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::{StateArguments, UpArguments};
use crate::exit::{CommandError, Result};
use crate::manifests::{self, Manifest};
use crate::state::StateDir;
use crate::status::Mesh;

pub(crate) use inside::run as run_inside;
use messages::Reporter;

/// Variable by which a detached outer process knows that it is one.
const DETACHED: &str = "LATEEN_DETACHED";

/// What the inside process is to do; handed over in a private file, as it may be large.
#[derive(Debug, Serialize, Deserialize)]
struct Task {
    state: PathBuf,
    /// Where the user's images are.
    images: PathBuf,
    /// The program itself, for containers.
    executable: PathBuf,
    /// Address of the API on the host; `None` for port 6443 on the mesh's own loopback address.
    api_address: Option<std::net::SocketAddr>,
    /// What to apply, each with the place it came from.
    manifests: Vec<Placed>,
}

/// An object with the place it came from, for messages.
type Placed = (String, Value);

/// `lateen up`.
pub(crate) fn run(arguments: UpArguments) -> Result<()> {
    let state = StateDir::new(arguments.state.state.clone());
    if std::env::var_os(DETACHED).is_some() {
        let manifests = detached::manifests_of_starter()?;
        return outer::run(&state, &arguments, manifests, &Reporter::Starter);
    }
    let manifests = manifests::read(&arguments.files)
        .map_err(|error| CommandError::usage(error.to_string()))?;
    if arguments.detach {
        return detached::start(&state, &arguments, &placed(manifests)).map(drop);
    }
    outer::run(&state, &arguments, placed(manifests), &Reporter::Terminal)
}

/// The running mesh, brought up first where none runs, with these manifests (name and text) applied.
pub(crate) fn ensure(state: StateArguments, manifests: &[(String, &str)]) -> Result<Mesh> {
    let directory = StateDir::new(state.state.clone());
    let mut parsed = Vec::new();
    for (name, text) in manifests {
        let read = manifests::parse(name.as_ref(), text);
        parsed.extend(read.map_err(|error| CommandError::usage(error.to_string()))?);
    }
    if directory.is_running() {
        return Mesh::find(&directory)?.apply(&parsed);
    }
    let arguments = UpArguments {
        files: Vec::new(),
        detach: true,
        api_address: None,
        nameservers: Vec::new(),
        state,
    };
    detached::start(&directory, &arguments, &placed(parsed))
}

fn placed(manifests: Vec<Manifest>) -> Vec<Placed> {
    manifests
        .into_iter()
        .map(|manifest| (manifest.place.to_string(), manifest.object))
        .collect()
}
