//! The inner half: what is checked in a running mesh.

mod containers;
mod lifecycle;
mod network;

use std::process::ExitCode;
use std::time::Instant;

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use containers::*;
use lifecycle::*;
use network::*;

use crate::world::{Mesh, is_ready, pod};

pub(crate) fn run() -> ExitCode {
    let Ok(inner) = lateen_node::enter::inside() else {
        return ExitCode::FAILURE;
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let scenario = inner.config["scenario"].as_str().unwrap().to_owned();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mesh = Mesh::start(inner).await;
        match scenario.as_str() {
            "checks" => all(&mesh).await,
            _ => idle(&mesh).await,
        }
        mesh.stop().await;
    });
    ExitCode::SUCCESS
}

/// Runs a pod and waits to be killed.
async fn idle(mesh: &Mesh) {
    let container = json!({"name": "main", "image": "host", "command": ["sleep", "1000"]});
    let made = mesh
        .create::<Pod>(pod("idle", json!({"containers": [container]})))
        .await;
    let ready = mesh.wait_pod("idle", is_ready).await;
    let error = made.and(ready).err();
    mesh.outside.tell(json!({"error": error})).await.unwrap();
    mesh.outside.asked_to_stop().await;
}

async fn all(mesh: &Mesh) {
    macro_rules! check {
        ($($name:ident),* $(,)?) => {$(
            let begun = Instant::now();
            let error = $name(mesh).await.err();
            let name = format!("{} [{} ms]", stringify!($name), begun.elapsed().as_millis());
            mesh.outside.tell(json!({"name": name, "error": error})).await.unwrap();
        )*};
    }
    check!(
        a_script_runs_once_and_its_log_is_kept,
        services_work_by_every_address,
        a_load_balancer_works_from_the_host,
        containers_cannot_reach_the_host,
        an_unknown_image_says_what_to_do,
        a_failing_container_backs_off,
        init_containers_run_in_order_before_the_rest,
        a_failed_liveness_probe_restarts_the_container,
        deletion_is_graceful_and_complete,
        a_program_runs_in_a_running_container,
        redirected_traffic_reaches_the_proxy_except_its_own,
    );
    mesh.outside.tell(json!("complete")).await.unwrap();
}

fn same<T: PartialEq + std::fmt::Debug>(seen: T, expected: T) -> Result<(), String> {
    if seen == expected {
        Ok(())
    } else {
        Err(format!("saw {seen:?}, expected {expected:?}"))
    }
}
