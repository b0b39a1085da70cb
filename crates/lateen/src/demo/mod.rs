//! Guided tours: each applies a sample, asks the mesh questions, and shows who answered.

mod bookinfo;
mod canary;
mod circuit_breaking;
mod stage;
mod sticky_sessions;
mod visits;

use crate::cli::{DemoArguments, Scenario};
use crate::exit::Result;

/// Runs the tour of one scenario.
pub(crate) fn run(arguments: DemoArguments) -> Result<()> {
    match arguments.scenario {
        Scenario::StickySessions => sticky_sessions::run(arguments.state, arguments.idle.0),
        Scenario::Bookinfo => bookinfo::run(arguments.state),
        Scenario::Canary => canary::run(arguments.state),
        Scenario::CircuitBreaking => circuit_breaking::run(arguments.state),
    }
}
