//! Runs the control plane alone, beside any Kubernetes API server:
//! `cargo run -p lateen-control --example controlplane -- --kubeconfig FILE --xds-address 127.0.0.1:15010 ...`

use clap::Parser;
use lateen_control::command::{Arguments, main as control_plane};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    arguments: Arguments,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    control_plane(Command::parse().arguments)?;
    Ok(())
}
