//! How pods begin, fail, restart and end.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{ListParams, LogParams};
use serde_json::json;

use super::same;
use crate::world::{Mesh, is_ready, phase, pod, wait};

pub(super) async fn a_script_runs_once_and_its_log_is_kept(mesh: &Mesh) -> Result<(), String> {
    let text = mesh
        .script("once", "echo hello from $(hostname); echo bad >&2; exit 3")
        .await?;
    // The order of the two streams is not kept, here as elsewhere.
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    same(lines, vec!["bad", "hello from once"])?;
    let pod = mesh.wait_pod("once", |pod| phase(pod) == "Failed").await?;
    let statuses = pod
        .status
        .and_then(|status| status.container_statuses)
        .unwrap_or_default();
    let end = statuses[0]
        .state
        .clone()
        .and_then(|state| state.terminated)
        .unwrap();
    same((end.exit_code, end.reason.as_deref()), (3, Some("Error")))?;
    let tail = LogParams {
        tail_lines: Some(1),
        ..LogParams::default()
    };
    same(mesh.logs("once", tail).await?.lines().count(), 1)
}

pub(super) async fn an_unknown_image_says_what_to_do(mesh: &Mesh) -> Result<(), String> {
    let container = json!({"name": "main", "image": "127.0.0.1:9/nothing:1"});
    mesh.create::<Pod>(pod("unknown", json!({"containers": [container]})))
        .await?;
    let pod = mesh
        .wait_pod("unknown", |pod| {
            let text = serde_json::to_string(&pod.status).unwrap();
            text.contains("ErrImagePull") || text.contains("ImagePullBackOff")
        })
        .await?;
    let text = serde_json::to_string(&pod.status).unwrap();
    same(
        (phase(&pod), text.contains("lateen image load")),
        ("Pending", true),
    )?;
    mesh.delete_pod("unknown").await
}

pub(super) async fn a_failing_container_backs_off(mesh: &Mesh) -> Result<(), String> {
    let container =
        json!({"name": "main", "image": "host", "command": ["sh", "-c", "echo run; exit 1"]});
    mesh.create::<Pod>(pod("crash", json!({"containers": [container]})))
        .await?;
    let pod = mesh
        .wait_pod("crash", |pod| {
            serde_json::to_string(&pod.status)
                .unwrap()
                .contains("CrashLoopBackOff")
        })
        .await?;
    let status = pod.status.unwrap().container_statuses.unwrap().remove(0);
    same(status.restart_count, 1)?;
    same(
        status
            .last_state
            .and_then(|state| state.terminated)
            .map(|end| end.exit_code),
        Some(1),
    )?;
    let previous = LogParams {
        previous: true,
        ..LogParams::default()
    };
    same(mesh.logs("crash", previous).await?.as_str(), "run\n")?;
    let events = wait("the back-off event", async || {
        let events = mesh.api::<Event>().list(&ListParams::default()).await;
        let events = events.map_err(|error| error.to_string())?;
        let of_pod = events
            .items
            .into_iter()
            .filter(|e| e.involved_object.name.as_deref() == Some("crash"));
        let mut reasons: Vec<_> = of_pod.filter_map(|event| event.reason).collect();
        reasons.sort();
        reasons.dedup();
        if reasons.contains(&"BackOff".to_owned()) {
            Ok(reasons)
        } else {
            Err(format!("{reasons:?}"))
        }
    })
    .await?;
    same(
        events,
        ["BackOff", "Created", "Pulled", "Scheduled", "Started"]
            .map(String::from)
            .to_vec(),
    )?;
    mesh.delete_pod("crash").await
}

pub(super) async fn init_containers_run_in_order_before_the_rest(
    mesh: &Mesh,
) -> Result<(), String> {
    let mount = json!([{"name": "shared", "mountPath": "/shared"}]);
    let step = |name: &str, script: &str| json!({"name": name, "image": "host", "command": ["sh", "-c", script], "volumeMounts": mount});
    let mut sidecar = step("side", "echo side >> /shared/order; sleep 1000");
    sidecar["restartPolicy"] = json!("Always");
    sidecar["startupProbe"] = json!({"exec": {"command": ["grep", "side", "/shared/order"]}});
    let spec = json!({
        "initContainers": [step("first", "echo first >> /shared/order"), sidecar,
                           step("last", "echo last >> /shared/order")],
        "containers": [step("main", "cat /shared/order; echo $POD $(KUBERNETES_SERVICE_HOST)")],
        "restartPolicy": "Never",
        "volumes": [{"name": "shared", "emptyDir": {}}],
    });
    let mut object = pod("ordered", spec);
    object["spec"]["containers"][0]["env"] = json!([
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "POD", "value": "$(NAME).lab"}]);
    mesh.create::<Pod>(object).await?;
    mesh.wait_pod("ordered", |pod| phase(pod) == "Succeeded")
        .await?;
    let main = LogParams {
        container: Some("main".into()),
        ..LogParams::default()
    };
    same(
        mesh.logs("ordered", main).await?.as_str(),
        "first\nside\nlast\nordered.lab 10.96.0.1\n",
    )
}

pub(super) async fn a_failed_liveness_probe_restarts_the_container(
    mesh: &Mesh,
) -> Result<(), String> {
    let container = json!({
        "name": "main", "image": "host", "command": ["sh", "-c", "touch /tmp/alive; sleep 1; rm /tmp/alive; sleep 1000"],
        "livenessProbe": {"exec": {"command": ["test", "-e", "/tmp/alive"]}, "periodSeconds": 1,
                          "failureThreshold": 1},
    });
    mesh.create::<Pod>(pod("sick", json!({"containers": [container]})))
        .await?;
    let pod = mesh
        .wait_pod("sick", |pod| {
            let statuses = pod
                .status
                .as_ref()
                .and_then(|status| status.container_statuses.as_ref());
            statuses.is_some_and(|statuses| statuses[0].restart_count == 1)
        })
        .await?;
    let status = pod.status.unwrap().container_statuses.unwrap().remove(0);
    let code = status
        .last_state
        .and_then(|state| state.terminated)
        .map(|end| end.exit_code);
    same(code, Some(143))?;
    mesh.delete_pod("sick").await
}

pub(super) async fn deletion_is_graceful_and_complete(mesh: &Mesh) -> Result<(), String> {
    let script = "trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.05; done";
    let container = json!({"name": "main", "image": "host", "command": ["sh", "-c", script],
        "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "echo hook > /proc/1/fd/1"]}}}});
    mesh.create::<Pod>(pod("polite", json!({"containers": [container]})))
        .await?;
    mesh.wait_pod("polite", is_ready).await?;
    wait("its first words", async || {
        let text = mesh.logs("polite", LogParams::default()).await?;
        if text == "up\n" { Ok(()) } else { Err(text) }
    })
    .await?;
    let api = mesh.api::<Pod>();
    let follow = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let mut stream = api
        .log_stream("polite", &follow)
        .await
        .map_err(|error| error.to_string())?;
    mesh.delete_pod("polite").await?;
    let mut text = String::new();
    let reading = futures_util::AsyncReadExt::read_to_string(&mut stream, &mut text);
    tokio::time::timeout(Duration::from_secs(10), reading)
        .await
        .map_err(|_| "the log did not end".to_owned())?
        .map_err(|error| error.to_string())?;
    same(text.as_str(), "up\nhook\nasked\n")?;
    wait("the object's end", async || {
        match api.get_opt("polite").await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}
