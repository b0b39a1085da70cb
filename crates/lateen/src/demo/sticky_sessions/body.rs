//! Routing by a field of the body: the scenario's own requests, without a header that says where they go.

use std::time::{Duration, Instant};

use serde_json::json;

use super::asking::hit_by_body;
use super::{BACKENDS, Stage, failed};
use crate::exit::Result;
use crate::http_client::HttpClient;
use crate::print;

const POLICY: &str = include_str!("by-body.yaml");

/// How long the policy may take to reach the gateway.
const WITHIN: Duration = Duration::from_secs(10);

/// Asks with bodies alone, and with a header that says otherwise.
pub(super) async fn run(stage: &Stage, client: &mut HttpClient) -> Result<bool> {
    print::heading("5. Routing by the body alone");
    stage.apply("by-body.yaml", POLICY).await?;
    let request = |target: &str| json!({"target": target, "username": "ann"});
    let deadline = Instant::now() + WITHIN;
    while !hit_by_body(client, None, &request(BACKENDS[0]))
        .await
        .map_err(failed)?
        .is_answer()
        && Instant::now() < deadline
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut rows = Vec::new();
    let (mut follows, mut stays) = (true, true);
    for (header, target) in [
        (None, BACKENDS[0]),
        (None, BACKENDS[1]),
        (None, BACKENDS[2]),
        (Some(BACKENDS[0]), BACKENDS[2]),
    ] {
        let body = request(target);
        let first = hit_by_body(client, header, &body).await.map_err(failed)?;
        let again = hit_by_body(client, header, &body).await.map_err(failed)?;
        follows &= first.service == target;
        stays &= first == again;
        rows.push(vec![
            header.unwrap_or("-").to_owned(),
            body.to_string(),
            first.service,
            first.pod,
        ]);
    }
    println!(
        "{}",
        print::table(&["header target", "body", "answered by", "pod"], rows)
    );
    print::verdict(
        follows,
        "the body chose the service, over a header that said otherwise",
    );
    print::verdict(stays, "the body's username kept its replica");
    Ok(follows && stays)
}
