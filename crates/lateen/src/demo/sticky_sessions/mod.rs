//! The tour of `samples/sticky-sessions`: what the first scenario promises, in one run.
//!
//! ```text
//! routing  -> the header `target` chooses a service, `x-user` keeps a user on one replica
//! body     -> the same from a body alone
//! scaling  -> a burst scales out and in again while users stay; idle users are free
//! crowd    -> users that call in the background      plot -> what was seen, over time
//! ```

mod asking;
mod body;
mod crowd;
mod plot;
mod routing;
mod scaling;

use std::time::Duration;

use super::stage::{Sample, Stage, failed, play};
use crate::cli::StateArguments;
use crate::exit::Result;
use crate::http_client::HttpClient;
use crate::print;

const SAMPLE: Sample = Sample {
    name: "sticky-sessions",
    files: &[
        (
            "backends.yaml",
            include_str!("../../../../../samples/sticky-sessions/backends.yaml"),
        ),
        (
            "routes.yaml",
            include_str!("../../../../../samples/sticky-sessions/routes.yaml"),
        ),
    ],
};

const BACKENDS: [&str; 3] = ["backend-1", "backend-2", "backend-3"];
const NAMESPACE: &str = "sticky-sessions";

/// Runs the tour. `idle` is the time without a call after which a user is free.
pub(crate) fn run(state: StateArguments, idle: Duration) -> Result<()> {
    let hints = |gateway| {
        vec![
            (
                "try",
                format!(
                    "curl -s -X POST -H 'content-type: application/json' -d '{{\"target\": \"backend-2\", \"username\": \"ann\"}}' http://{gateway}/hit_backend"
                ),
            ),
            (
                "see",
                format!("kubectl -n {NAMESPACE} get hpa,stickysessions,bodytoheaders"),
            ),
        ]
    };
    play(state, &SAMPLE, hints, async |stage| tour(stage, idle).await)
}

async fn tour(stage: &Stage, idle: Duration) -> Result<bool> {
    let mut client = HttpClient::new(stage.gateway);
    asking::wait_for_routes(&mut client).await.map_err(failed)?;
    print::note(&format!(
        "first routed request {:.1} s after the start",
        stage.started.elapsed().as_secs_f64()
    ));
    let by_header = routing::by_header(&mut client).await.map_err(failed)?;
    let one_user = routing::one_user(&mut client).await.map_err(failed)?;
    let many_users = routing::many_users(&mut client).await.map_err(failed)?;
    let no_rule = routing::no_rule(&mut client).await.map_err(failed)?;
    let by_body = body::run(stage, &mut client).await?;
    let scaling = scaling::run(stage, idle, &mut client).await?;
    Ok(by_header && one_user && many_users && no_rule && by_body && scaling)
}
