//! The node in real namespaces, with a real API server: as the user who runs the tests, and, when
//! that is root, also as an ordinary user made for it.
//!
//! This program stands in for `lateen`: it runs itself again as the inner process (`inside`), as
//! containers (`container`), as samples (`sample`) and as redirect rules (`init`).

mod checks;
mod outer;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("inside") => checks::run(),
        Some("container") => lateen_node::container::main(),
        Some("init") => lateen_node::redirect::main(&arguments[1..]),
        Some("sample") => match lateen_samples::run(&arguments[1], &arguments[2..]) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        },
        Some("victim") => outer::victim(&arguments[1]),
        Some("as-this-user") => outer::run_here(),
        // `cargo test` asks for a list before it runs anything in some set-ups.
        Some("--list") => ExitCode::SUCCESS,
        _ => outer::run(),
    }
}
