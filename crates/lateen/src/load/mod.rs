//! `lateen load`: calls a URL many times and says how long the answers took.
//!
//! ```text
//! plan -> worker (one a connection) -> connection (HTTP/1.1, HTTP/2, TLS) -> report
//! ```
//!
//! At a fixed rate a request's time begins when it was due, not when a connection was free for it: a server that stops for
//! a second is seen to, however many requests could not be sent meanwhile (no coordinated omission).

mod connection;
mod plan;
mod report;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{LoadArguments, OutputFormat};
use crate::exit::{CommandError, Result};
use plan::Plan;
use report::Report;
use worker::Shared;

/// How often progress is shown.
const TICK: Duration = Duration::from_millis(200);

/// Runs the load and prints the report.
pub(crate) fn run(arguments: LoadArguments) -> Result<()> {
    let output = arguments.output;
    let plan = Plan::of(arguments).map_err(|error| CommandError::usage(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandError::unavailable(format!("cannot start: {error}")))?;
    let report = runtime.block_on(all(plan))?;
    match output {
        OutputFormat::Table => print!("{}", report.text()),
        OutputFormat::Json => println!("{:#}", report.json()),
        OutputFormat::Yaml => {
            let text = serde_saphyr::to_string(&report.json())
                .map_err(|error| CommandError::unavailable(error.to_string()))?;
            print!("{text}");
        }
    }
    if report.has_answers() {
        Ok(())
    } else {
        Err(CommandError::findings("no request was answered"))
    }
}

async fn all(plan: Plan) -> Result<Report> {
    let plan = Arc::new(plan);
    let shared = Arc::new(Shared::new(plan.clone()));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..plan.connections {
        workers.spawn(worker::run(shared.clone()));
    }
    let bar = bar(&plan);
    let mut report = Report::new(plan);
    let mut ticks = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            done = workers.join_next() => match done {
                None => break,
                Some(Ok(outcome)) => report.add(outcome),
                Some(Err(error)) => return Err(CommandError::unavailable(error.to_string())),
            },
            _ = ticks.tick() => bar.set_position(shared.position()),
            // What was done until then is told.
            _ = tokio::signal::ctrl_c() => shared.stop(),
        }
    }
    bar.finish_and_clear();
    report.took(shared.elapsed());
    Ok(report)
}

/// A bar on standard error, shown only on a terminal.
fn bar(plan: &Plan) -> ProgressBar {
    let (length, unit) = match plan.requests {
        Some(requests) => (requests, "requests"),
        None => (plan.time.as_secs(), "s"),
    };
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template(&format!("{{bar:40}} {{pos}}/{{len}} {unit}")) {
        bar.set_style(style);
    }
    bar
}
