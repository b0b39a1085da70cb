//! The tour of `samples/canary`: a second version for a tenth of the requests, then for half.

use super::stage::{Sample, Stage, play};
use super::visits::{Expected, Site, change, visit};
use crate::cli::StateArguments;
use crate::exit::Result;
use crate::http_client::Answer;
use crate::print;

const SAMPLE: Sample = Sample {
    name: "canary",
    files: &[
        (
            "app.yaml",
            include_str!("../../../../samples/canary/app.yaml"),
        ),
        (
            "gateway.yaml",
            include_str!("../../../../samples/canary/gateway.yaml"),
        ),
    ],
};

/// Runs the tour.
pub(super) fn run(state: StateArguments) -> Result<()> {
    let hints = |gateway| {
        let call = format!("curl -s -H 'Host: flask.example.com' http://{gateway}/home");
        vec![("try", call)]
    };
    play(state, &SAMPLE, hints, tour)
}

async fn tour(stage: &Stage) -> Result<bool> {
    stage.ready("canary", "flaskfrontend").await?;
    let site = |host: Option<&'static str>| Site {
        path: "/home",
        headers: host
            .map(|host| (http::header::HOST, host))
            .into_iter()
            .collect(),
        shows: version,
    };
    let (ours, other) = (site(Some("flask.example.com")), site(None));
    let mut holds = true;
    print::heading("1. One version, for one host");
    change(stage, &[]).await?;
    holds &= visit(
        stage,
        "flask.example.com",
        &ours,
        20,
        &Expected::All("v1"),
        "everybody sees the first version",
    )
    .await?;
    holds &= visit(
        stage,
        "another host",
        &other,
        5,
        &Expected::All("404"),
        "a host that the gateway does not know gets 404",
    )
    .await?;

    print::heading("2. One request in ten goes to the second version");
    let step = include_str!("../../../../samples/canary/steps/1-canary-10.yaml");
    change(stage, &[("steps/1-canary-10.yaml", step)]).await?;
    stage.ready("canary", "flaskfrontend-v2").await?;
    change(stage, &[]).await?;
    holds &= visit(
        stage,
        "flask.example.com",
        &ours,
        300,
        &Expected::Share("v2", 3..=19),
        "about a tenth sees the second version, on one connection",
    )
    .await?;

    print::heading("3. Half each");
    let step = include_str!("../../../../samples/canary/steps/2-half.yaml");
    change(stage, &[("steps/2-half.yaml", step)]).await?;
    holds &= visit(
        stage,
        "flask.example.com",
        &ours,
        300,
        &Expected::Share("v2", 38..=62),
        "about half sees the second version",
    )
    .await?;
    Ok(holds)
}

/// The version that a page names; the status of what is no page.
fn version(answer: &Answer) -> String {
    let text = String::from_utf8_lossy(&answer.body);
    let found = text
        .split_once("testing ")
        .and_then(|(_, rest)| rest.get(..2));
    found.map_or_else(|| answer.status.as_u16().to_string(), str::to_owned)
}
