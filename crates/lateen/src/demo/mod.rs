//! Guided tours: each applies a sample, asks the mesh questions, and shows who answered.

mod sticky_sessions;

use crate::cli::{DemoArguments, Scenario};
use crate::exit::Result;

/// Runs the tour of one scenario.
pub(crate) fn run(arguments: DemoArguments) -> Result<()> {
    match arguments.scenario {
        Scenario::StickySessions => sticky_sessions::run(arguments.state, arguments.idle.0),
    }
}
