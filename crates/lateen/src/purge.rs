//! `lateen down --purge`: removes the state of a mesh that has ended.
//!
//! Where containers had users of their own, files of these users are left, which the mesh's user may not remove. Within the
//! mesh's user namespace it may, so that the removal goes on there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use lateen_node::enter::{self, Ended, Plan};
use serde_json::json;

use crate::exit::{CommandError, Result};
use crate::print;
use crate::state::StateDir;

/// Removes the state folder: what a mesh puts there, and the folder when nothing else is in it.
pub(crate) fn run(state: &StateDir) -> Result<()> {
    let shown = state.root().display();
    if !state.exists() {
        print::note(&format!("there is no state of a mesh in {shown}"));
        return Ok(());
    }
    // Nobody may start a mesh from what is being removed.
    let _lock = state.lock().map_err(CommandError::unavailable)?;
    match remove(&state.node()) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            remove_as_mesh(&state.node())?;
        }
        done => done.map_err(|error| failed(&state.node(), &error))?,
    }
    for path in state.content() {
        remove(&path).map_err(|error| failed(&path, &error))?;
    }
    let done = match fs::remove_dir(state.root()).map_err(|error| error.kind()) {
        Ok(()) => "is removed",
        Err(io::ErrorKind::DirectoryNotEmpty) => "holds other files, which are left",
        // The folder may stand in one that belongs to somebody else.
        Err(_) => "is empty",
    };
    print::step("purge", &format!("{shown} {done}"));
    Ok(())
}

/// The hidden subcommand: the removal within the mesh's user namespace.
pub(crate) fn run_inside() -> Result<()> {
    let inner = enter::inside().map_err(|error| CommandError::usage(error.to_string()))?;
    let path = inner.config["path"].as_str().map(PathBuf::from);
    let path = path.ok_or_else(|| CommandError::usage("no folder to remove"))?;
    remove(&path).map_err(|error| failed(&path, &error))
}

fn remove_as_mesh(path: &Path) -> Result<()> {
    let unavailable = |error: &dyn std::error::Error| {
        CommandError::unavailable(format!("cannot remove {}: {error}", path.display()))
    };
    let plan = Plan {
        executable: std::env::current_exe().map_err(|error| unavailable(&error))?,
        arguments: vec!["purge".into()],
        config: json!({ "path": path }),
        output: (Stdio::null(), Stdio::inherit()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| unavailable(&error))?;
    let ended = runtime.block_on(async {
        let (mut inside, _outside) = enter::start(plan).map_err(|error| unavailable(&error))?;
        Ok(inside.ended().await)
    })?;
    match ended {
        Ended::Code(0) => Ok(()),
        _ => Err(failed(path, &io::Error::other("see above"))),
    }
}

/// Removes a file, or a folder with all that is in it; that it is not there is as good.
fn remove(path: &Path) -> io::Result<()> {
    let done = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn failed(path: &Path, error: &io::Error) -> CommandError {
    CommandError::unavailable(format!("cannot remove {}: {error}", path.display()))
}
