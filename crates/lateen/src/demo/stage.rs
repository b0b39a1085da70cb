//! What every tour stands on: a mesh with the sample applied, a gateway to ask, and a Kubernetes API to change things by.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, AttachParams, ListParams};
use tokio::io::AsyncReadExt as _;
use tokio::task::LocalSet;

use crate::apply::Applier;
use crate::cli::StateArguments;
use crate::exit::{CommandError, Result, chain};
use crate::{manifests, print, up};

/// How long workloads that a step adds may take to get ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// What the steps of a tour work with.
pub(super) struct Stage {
    /// The gateway's address for plain HTTP.
    pub(super) gateway: SocketAddr,
    pub(super) kubernetes: kube::Client,
    /// When the command began.
    pub(super) started: Instant,
}

/// A sample: the folder's name, and its files with their texts, so that tours need nothing but the binary.
pub(super) struct Sample {
    pub(super) name: &'static str,
    pub(super) files: &'static [(&'static str, &'static str)],
}

/// Brings the mesh up where none runs, applies the sample, runs the tour, and leaves the mesh up with `hints` of what to
/// try. The tour says whether everything was as promised.
pub(super) fn play(
    state: StateArguments,
    sample: &Sample,
    hints: impl FnOnce(SocketAddr) -> Vec<(&'static str, String)>,
    tour: impl AsyncFnOnce(&Stage) -> Result<bool>,
) -> Result<()> {
    let started = Instant::now();
    let files: Vec<_> = sample
        .files
        .iter()
        .map(|(file, text)| (format!("{}/{file}", sample.name), *text))
        .collect();
    let mesh = up::ensure(state, &files)?;
    let gateway = mesh.gateway_address().ok_or_else(|| {
        CommandError::findings("the mesh has no gateway address")
            .advise("see: kubectl -n istio-system get service istio-ingressgateway")
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandError::unavailable(format!("cannot start: {error}")))?;
    let holds = LocalSet::new().block_on(&runtime, async {
        let stage = Stage {
            gateway,
            kubernetes: mesh.client().await?,
            started,
        };
        tour(&stage).await
    })?;
    print::heading("The mesh stays up");
    mesh.print_how_to_reach();
    for (name, text) in hints(gateway) {
        println!("  {name}: {text}");
    }
    println!("  end: lateen down{}", mesh.state_flag());
    if holds {
        Ok(())
    } else {
        Err(CommandError::findings(
            "not every answer was as the scenario promises",
        ))
    }
}

impl Stage {
    /// Applies manifests, and shows them.
    pub(super) async fn apply(&self, name: &str, text: &str) -> Result<()> {
        println!("applied: {name}");
        // What begins a file is for its readers.
        for line in text
            .trim_end()
            .lines()
            .skip_while(|line| line.starts_with('#'))
        {
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

impl Stage {
    /// Waits until a Deployment has all its replicas.
    pub(super) async fn ready(&self, namespace: &str, deployment: &str) -> Result<()> {
        let api: Api<Deployment> = Api::namespaced(self.kubernetes.clone(), namespace);
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let found = api.get(deployment).await.map_err(failed)?;
            let wanted = found.spec.and_then(|spec| spec.replicas).unwrap_or(1);
            let status = found.status.unwrap_or_default();
            let current = status.observed_generation >= found.metadata.generation;
            if current && status.ready_replicas.unwrap_or(0) >= wanted {
                return Ok(());
            }
            if Instant::now() > deadline {
                let text = format!("deployment/{deployment} in {namespace} does not get ready");
                return Err(CommandError::findings(text).advise(format!(
                    "see: kubectl -n {namespace} describe pods -l app={deployment}"
                )));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Runs a shell command in a container of the first pod with a label, and returns what it prints.
    pub(super) async fn run(
        &self,
        (namespace, label, container): (&str, &str, &str),
        command: &str,
    ) -> Result<String> {
        let api: Api<Pod> = Api::namespaced(self.kubernetes.clone(), namespace);
        let pods = api.list(&ListParams::default().labels(label)).await;
        let pods = pods.map_err(failed)?;
        let pod = pods
            .iter()
            .find(|pod| pod.metadata.deletion_timestamp.is_none())
            .ok_or_else(|| failed(format!("no pod with {label} in {namespace}")))?;
        let parameters = AttachParams::default().container(container).stderr(false);
        let mut process = api
            .exec(&pod.name_any(), ["sh", "-c", command], &parameters)
            .await
            .map_err(failed)?;
        let mut printed = String::new();
        if let Some(mut stdout) = process.stdout() {
            stdout.read_to_string(&mut printed).await.map_err(failed)?;
        }
        process.join().await.map_err(failed)?;
        Ok(printed)
    }
}

/// An error of a step, for the command's end.
pub(super) fn failed(error: impl std::fmt::Display) -> CommandError {
    CommandError::findings(error.to_string())
}
