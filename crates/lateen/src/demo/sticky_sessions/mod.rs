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

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::apply::Applier;
use crate::cli::StateArguments;
use crate::exit::{CommandError, Result, chain};
use crate::http_client::HttpClient;
use crate::{manifests, print, up};

/// The sample's files, so that the tour needs nothing but the binary.
const FILES: [(&str, &str); 2] = [
    (
        "backends.yaml",
        include_str!("../../../../../samples/sticky-sessions/backends.yaml"),
    ),
    (
        "routes.yaml",
        include_str!("../../../../../samples/sticky-sessions/routes.yaml"),
    ),
];

const BACKENDS: [&str; 3] = ["backend-1", "backend-2", "backend-3"];
const NAMESPACE: &str = "sticky-sessions";

/// Runs the tour: brings the mesh up where none runs, applies the sample, asks, and judges the answers. `idle` is the
/// time without a call after which a user is free.
pub(crate) fn run(state: StateArguments, idle: Duration) -> Result<()> {
    let started = Instant::now();
    let mesh = up::ensure(
        state,
        &FILES.map(|(name, text)| (format!("sticky-sessions/{name}"), text)),
    )?;
    let gateway = mesh.gateway_address().ok_or_else(|| {
        CommandError::findings("the mesh has no gateway address")
            .advise("see: kubectl -n istio-system get service istio-ingressgateway")
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandError::unavailable(format!("cannot start: {error}")))?;
    let holds = runtime.block_on(async {
        let stage = Stage {
            gateway,
            kubernetes: mesh.client().await?,
            idle,
        };
        stage.tour(started).await
    })?;
    print::heading("The mesh stays up");
    mesh.print_how_to_reach();
    println!(
        "  try: curl -s -X POST -H 'content-type: application/json' -d '{{\"target\": \"backend-2\", \"username\": \"ann\"}}' http://{gateway}/hit_backend"
    );
    println!("  see: kubectl -n {NAMESPACE} get hpa,stickysessions,bodytoheaders");
    println!("  end: lateen down{}", mesh.state_flag());
    if holds {
        Ok(())
    } else {
        Err(CommandError::findings(
            "not every answer was as the scenario promises",
        ))
    }
}

/// What the steps of the tour work with.
struct Stage {
    gateway: SocketAddr,
    kubernetes: kube::Client,
    idle: Duration,
}

impl Stage {
    async fn tour(&self, started: Instant) -> Result<bool> {
        let mut client = HttpClient::new(self.gateway);
        asking::wait_for_routes(&mut client).await.map_err(failed)?;
        print::note(&format!(
            "first routed request {:.1} s after the start",
            started.elapsed().as_secs_f64()
        ));
        let by_header = routing::by_header(&mut client).await.map_err(failed)?;
        let one_user = routing::one_user(&mut client).await.map_err(failed)?;
        let many_users = routing::many_users(&mut client).await.map_err(failed)?;
        let no_rule = routing::no_rule(&mut client).await.map_err(failed)?;
        let by_body = body::run(self, &mut client).await?;
        let scaling = scaling::run(self, &mut client).await?;
        Ok(by_header && one_user && many_users && no_rule && by_body && scaling)
    }

    /// Applies manifests, and shows them.
    async fn apply(&self, name: &str, text: &str) -> Result<()> {
        println!("applied:");
        for line in text.trim_end().lines() {
            println!("  {line}");
        }
        let parsed = manifests::parse(name.as_ref(), text)
            .map_err(|error| CommandError::usage(error.to_string()))?;
        let mut applier = Applier::new(self.kubernetes.clone());
        for manifest in parsed {
            applier.apply(&manifest.object).await.map_err(|error| {
                CommandError::findings(format!("{}: {}", manifest.place, chain(&error)))
            })?;
        }
        Ok(())
    }
}

fn failed(error: impl std::fmt::Display) -> CommandError {
    CommandError::findings(error.to_string())
}
