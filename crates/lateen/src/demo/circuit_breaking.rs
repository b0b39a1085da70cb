//! The tour of circuit breaking on `samples/httpbin`: one connection, one waiting request, and what is beyond them.

use std::collections::BTreeMap;

use super::stage::{Sample, Stage, play};
use super::visits::change;
use crate::cli::StateArguments;
use crate::exit::Result;
use crate::print;

const SAMPLE: Sample = Sample {
    name: "httpbin",
    files: &[(
        "httpbin.yaml",
        include_str!("../../../../samples/httpbin/httpbin.yaml"),
    )],
};

/// Calls of a round, and how many at once.
const CALLS: usize = 40;

/// Runs the tour.
pub(super) fn run(state: StateArguments) -> Result<()> {
    let hints = |_| {
        let call = "kubectl -n httpbin exec deployment/sleep -c sleep -- curl -s -i http://httpbin:8000/get";
        vec![("try", call.to_owned())]
    };
    play(state, &SAMPLE, hints, tour)
}

async fn tour(stage: &Stage) -> Result<bool> {
    for deployment in ["httpbin-v1", "httpbin-v2", "sleep"] {
        stage.ready("httpbin", deployment).await?;
    }
    let mut holds = true;
    print::heading("1. No limits");
    change(stage, &[]).await?;
    let (codes, _) = round(stage, 5).await?;
    let all = codes.get("200") == Some(&CALLS);
    print::verdict(
        all,
        &format!("{CALLS} calls, five at once: all are answered"),
    );
    holds &= all;

    print::heading("2. One connection, one waiting request");
    let step = include_str!("../../../../samples/httpbin/steps/1-circuit-breaker.yaml");
    change(stage, &[("steps/1-circuit-breaker.yaml", step)]).await?;
    for (at_once, title) in [(1, "one"), (2, "two"), (5, "five")] {
        let before = overflow(stage).await?;
        let (codes, refused) = round(stage, at_once).await?;
        let counted = overflow(stage).await? - before;
        let answered = codes.get("200").copied().unwrap_or(0);
        let as_expected = match at_once {
            1 => refused == 0,
            // Two at once are one with a connection and one that waits, or, while one is opened, one too many.
            2 => answered > 0,
            _ => refused > 0 && answered > 0,
        };
        let holds_now = as_expected && answered + refused == CALLS && counted == refused;
        print::verdict(
            holds_now,
            &format!(
                "{title} at once: {answered} answered, {refused} refused with 503 by the caller's own sidecar, which counted {counted}"
            ),
        );
        holds &= holds_now;
    }
    Ok(holds)
}

/// Calls from a pod of the mesh: answers by code, and how many were 503.
async fn round(stage: &Stage, at_once: usize) -> Result<(BTreeMap<String, usize>, usize)> {
    let command = format!(
        "curl -s -Z --parallel-immediate --parallel-max {at_once} -o /dev/null -w '%{{http_code}}\\n' 'http://httpbin:8000/delay/0.02?[1-{CALLS}]'"
    );
    let printed = stage
        .run(("httpbin", "app=sleep", "sleep"), &command)
        .await?;
    let mut codes = BTreeMap::new();
    for code in printed.lines().filter(|line| !line.is_empty()) {
        *codes.entry(code.to_owned()).or_default() += 1;
    }
    let rows = codes.iter().map(|(code, count): (&String, &usize)| {
        vec![
            format!("{at_once} at once"),
            code.clone(),
            count.to_string(),
            "▇".repeat(count / 2),
        ]
    });
    println!("{}", print::table(&["calls", "code", "answers", ""], rows));
    let refused = codes.get("503").copied().unwrap_or(0);
    Ok((codes, refused))
}

/// Requests that the caller's sidecar has refused for want of room.
async fn overflow(stage: &Stage) -> Result<usize> {
    let command = "curl -s 'localhost:15000/stats?filter=httpbin.*upstream_rq_pending_overflow'";
    let printed = stage
        .run(("httpbin", "app=sleep", "istio-proxy"), command)
        .await?;
    let counts = printed
        .lines()
        .filter_map(|line| line.rsplit_once(": ")?.1.trim().parse::<usize>().ok());
    Ok(counts.sum())
}
