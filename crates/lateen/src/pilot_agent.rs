//! Standing in for Istio's agent: when the program is called `pilot-agent`, as the entry point of Istio's proxy image
//! is, it takes that program's subcommands.

use std::path::Path;
use std::process::ExitCode;

use lateen_proxy::agent::tools::{self, ToolError};

use crate::exit::Failure;
use crate::{failed, log, print};

/// The name of Istio's agent.
const NAME: &str = "pilot-agent";

/// The arguments, when the program was called by the agent's name.
pub(crate) fn called() -> Option<Vec<String>> {
    let mut arguments = std::env::args_os();
    let program = arguments.next()?;
    if Path::new(&program).file_name()? != NAME {
        return None;
    }
    Some(
        arguments
            .map(|one| one.to_string_lossy().into_owned())
            .collect(),
    )
}

/// Runs a subcommand.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    // Two providers could be linked one day; the choice is made here, once.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("", arguments),
    };
    let done = match command {
        "proxy" => {
            log::start();
            return match lateen_proxy::command::main(rest) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    print::error(&failed(&error).to_string());
                    ExitCode::FAILURE
                }
            };
        }
        "istio-iptables" => return lateen_node::redirect::main(rest),
        "wait" => tools::wait(rest),
        "request" => {
            lateen_sys::process::end_on_closed_pipe();
            tools::request(rest)
        }
        "version" => {
            println!(
                "{}-lateen-{}",
                lateen_control::ISTIO_VERSION,
                env!("CARGO_PKG_VERSION")
            );
            Ok(())
        }
        other => Err(ToolError::Usage(format!(
            "unknown command `{other}` of {NAME}; there are proxy, istio-iptables, wait, request and version"
        ))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print::error(&error.to_string());
            match error {
                ToolError::Usage(_) => Failure::Usage.into(),
                _ => ExitCode::FAILURE,
            }
        }
    }
}
