//! An Istio-compatible service mesh in one binary.
//!
//! This crate wires the parts to the command line and holds none of their logic. The hidden subcommands are what the
//! processes of a mesh run: see `ARCHITECTURE.md`.

mod apply;
mod cli;
mod demo;
mod down;
mod exit;
mod http_client;
mod image;
mod inject;
mod load;
mod log;
mod manifests;
mod pilot_agent;
mod print;
mod purge;
mod state;
mod status;
mod up;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use cli::{Cli, Command};
use exit::{CommandError, Result, chain};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some(arguments) = pilot_agent::called() {
        return pilot_agent::run(&arguments);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are not errors; clap says which stream each belongs to.
            let code = if error.use_stderr() {
                exit::Failure::Usage.into()
            } else {
                ExitCode::SUCCESS
            };
            let _ = error.print();
            return code;
        }
    };
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            print::error(&error.to_string());
            error.failure.into()
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    // Two providers could be linked one day; the choice is made here, once.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    if matches!(
        command,
        Command::Status(_) | Command::Inject(_) | Command::Image(_) | Command::Completion { .. }
    ) {
        lateen_sys::process::end_on_closed_pipe();
    }
    let done = match command {
        Command::Up(arguments) => up::run(arguments),
        Command::Down(arguments) => down::run(arguments),
        Command::Status(arguments) => status::run(arguments),
        Command::Demo(arguments) => demo::run(arguments),
        Command::Inject(arguments) => inject::run(&arguments),
        Command::Image(command) => image::run(command),
        Command::Load(arguments) => load::run(arguments),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "lateen", &mut std::io::stdout());
            Ok(())
        }
        Command::Version => {
            println!("lateen {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Command::Sample { name, arguments } => {
            lateen_samples::run(&name, &arguments).map_err(|error| failed(&error))
        }
        Command::Inside(_) => up::run_inside(),
        Command::Purge(_) => purge::run_inside(),
        // Its exit code is that of the container's program.
        Command::Container(_) => return Ok(lateen_node::container::main()),
        Command::Init(forwarded) => return Ok(lateen_node::redirect::main(&forwarded.arguments)),
        Command::Controlplane(arguments) => {
            log::start();
            lateen_control::command::main(arguments).map_err(|error| failed(&error))
        }
        Command::Proxy(forwarded) => {
            log::start();
            lateen_proxy::command::main(&forwarded.arguments).map_err(|error| failed(&error))
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// The failure of a part that runs in a pod.
pub(crate) fn failed(error: &dyn std::error::Error) -> CommandError {
    CommandError::unavailable(chain(error))
}
