//! The process outside the mesh's namespaces: it holds the state folder, opens sockets for the inside, and ends the
//! mesh when it is asked to.

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;
use std::time::Duration;

use lateen_node::enter::{self, Ended, EnterError, Plan};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::UpArguments;
use crate::exit::{CommandError, Result};
use crate::state::{MeshInfo, StateDir, StateError, write_private};

use super::messages::{Message, Reporter};
use super::{Placed, Task};

/// How long the pods may take to end before they are killed.
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// Brings the mesh up and stays with it until it ends.
pub(super) fn run(
    state: &StateDir,
    arguments: &UpArguments,
    manifests: Vec<Placed>,
    reporter: &Reporter,
) -> Result<()> {
    let outcome = bring_up(state, arguments, manifests, reporter);
    match (outcome, reporter) {
        // The command that started this process shows the error.
        (Err(error), Reporter::Starter) => {
            reporter.report(&Message::failed(&error));
            Err(error)
        }
        (outcome, _) => outcome,
    }
}

fn bring_up(
    state: &StateDir,
    arguments: &UpArguments,
    manifests: Vec<Placed>,
    reporter: &Reporter,
) -> Result<()> {
    state.create().map_err(state_error)?;
    let _held = state.lock().map_err(state_error)?;
    state.withdraw();
    let task = Task {
        state: state.root().to_owned(),
        images: crate::image::folder(),
        executable: std::env::current_exe().map_err(|error| start_error(&error))?,
        api_address: arguments.api_address,
        manifests,
    };
    let task_file = state.task();
    let text = serde_json::to_vec(&task).map_err(|error| start_error(&error))?;
    write_private(&task_file, &text).map_err(state_error)?;

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| start_error(&error))?;
    // Handlers first: a signal that comes while the inside process starts must end it in good order too.
    let ended = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let output = log_output(state)?;
        let plan = Plan {
            executable: task.executable.clone(),
            arguments: vec!["inside".into()],
            config: json!({"task": task_file}),
            output,
        };
        let (mut inside, server) = match enter::start(plan) {
            Ok(started) => started,
            Err(error) => return Ok(Err(enter_error(&error))),
        };
        let server = match arguments.nameservers.as_slice() {
            [] => server,
            chosen => server.with_nameservers(chosen.to_vec()),
        };
        let mode = inside.identity().explanation.clone();
        let stopper = server.stopper()?;
        let failure = RefCell::new(None);
        let told = |news: Value| {
            // The first failure is the cause of those that follow.
            if let Err(error) = hear(news, state, &mode, reporter) {
                failure.borrow_mut().get_or_insert(error);
            }
        };
        let mut serving = std::pin::pin!(server.serve(told));
        let over = tokio::select! {
            _ = &mut serving => true,
            _ = interrupt.recv() => false,
            _ = terminate.recv() => false,
        };
        // Gone already is what is wanted.
        let _ = stopper.stop();
        let stopped = tokio::time::timeout(STOP_WITHIN, async {
            if !over {
                // The inside process asks for things, and tells things, until its end.
                let _ = (&mut serving).await;
            }
            inside.ended().await
        });
        let ended = match stopped.await {
            Ok(ended) => ended,
            Err(_) => {
                inside.kill();
                inside.ended().await
            }
        };
        std::io::Result::Ok(match failure.take() {
            Some(error) => Err(error),
            None => Ok(ended),
        })
    });
    state.withdraw();
    // The inside process takes the file away once it has read it.
    let _ = std::fs::remove_file(&task_file);
    match ended.map_err(|error| start_error(&error))?? {
        Ended::Code(0) => Ok(()),
        ended => Err(
            CommandError::findings(format!("the mesh ended unexpectedly ({ended:?})"))
                .advise(format!("its log is {}", state.log().display())),
        ),
    }
}

/// Takes in what the inside process tells; an error is why it failed.
fn hear(news: Value, state: &StateDir, mode: &str, reporter: &Reporter) -> Result<()> {
    if let Some(api) = news["api"].as_str() {
        let info = MeshInfo {
            pid: i32::try_from(std::process::id()).unwrap_or_default(),
            api: api.to_owned(),
            kubeconfig: state.kubeconfig(),
            xds: format!("unix:{}", state.xds_socket().display()),
            mode: mode.to_owned(),
        };
        state.announce(&info).map_err(state_error)?;
        reporter.report(&Message::step("mode", mode));
        return Ok(());
    }
    match serde_json::from_value(news) {
        Ok(Message::Failed { code, message }) => Err(Message::error(code, &message)),
        Ok(message) => {
            reporter.report(&message);
            if let (Message::Ready { .. }, Reporter::Terminal) = (&message, reporter) {
                crate::status::Mesh::find(state)?.print_how_to_reach();
                crate::print::note("ctrl-C ends the mesh");
            }
            Ok(())
        }
        Err(error) => {
            tracing::warn!(%error, "a message from the inside process was not understood");
            Ok(())
        }
    }
}

/// Where the inside process writes its log: the terminal would be full of it.
fn log_output(state: &StateDir) -> std::io::Result<(Stdio, Stdio)> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(state.log())?;
    Ok((log.try_clone()?.into(), log.into()))
}

fn state_error(error: StateError) -> CommandError {
    let running = matches!(error, StateError::Running { .. });
    let error = CommandError::unavailable(error);
    if running {
        error.advise("end it with: lateen down; or give this mesh another folder with --state")
    } else {
        error
    }
}

fn enter_error(error: &EnterError) -> CommandError {
    CommandError::unavailable(crate::exit::chain(error))
}

fn start_error(error: &dyn std::fmt::Display) -> CommandError {
    CommandError::unavailable(format!("cannot start the mesh: {error}"))
}
