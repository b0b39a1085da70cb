//! Repository chores: `cargo xtask golden|corpora|scenarios|check`.

mod check;
mod corpora;
mod fuzz;
mod golden;
mod manifests;
mod scenarios;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Repository chores.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Compares what the translation makes of the documents' manifests with recordings of the real control plane.
    Golden {
        /// Folder with `golden/`, `oracles/` and `seed-manifests/`.
        shared: PathBuf,
        /// How many of the most frequent differences are shown.
        #[arg(long, default_value_t = 20)]
        show: usize,
        /// Only recordings whose path contains this.
        #[arg(long)]
        only: Option<String>,
        /// Least agreement of every recording, in percent.
        #[arg(long, default_value_t = 85.0)]
        least: f64,
        /// Writes what was translated to this folder, in the form of the recordings.
        #[arg(long)]
        write: Option<PathBuf>,
    },
    /// Runs Istio's own cases and counts those that pass.
    Corpora {
        /// Folder with the cases.
        folder: PathBuf,
        /// Shows the cases of this corpus that do not pass.
        #[arg(long)]
        failures: Option<String>,
    },
    /// Writes the tables of `docs/scenarios.md` from the tests.
    Scenarios,
    /// Checks dependency directions, file lengths and generated tables.
    Check,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::Golden {
            shared,
            show,
            only,
            least,
            write,
        } => golden::run(
            &shared,
            &golden::Options {
                show,
                only,
                least,
                write,
            },
        ),
        Chore::Corpora { folder, failures } => corpora::run(&folder, failures.as_deref()),
        Chore::Scenarios => scenarios::run(),
        Chore::Check => check::run(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(3)
        }
    }
}
