//! The first scenario on its original manifests, unmodified. Built only with the feature `oracles`, since the manifests
//! are not part of the project: `LATEEN_SEED_MANIFESTS` names their folder.

mod support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use support::account::Account;
use support::burn::{Target, burn, pods, quench};
use support::eventually;
use support::mesh::Mesh;
use support::session::{Scenario, Session};

fn original() -> Scenario {
    let folder = std::env::var_os("LATEEN_SEED_MANIFESTS").expect("LATEEN_SEED_MANIFESTS");
    let folder = PathBuf::from(folder).join("000-001-sticky-header/kube");
    let mut files = Vec::new();
    for n in 1..=3 {
        files.push(folder.join(format!("backend-{n}.yaml")));
        files.push(folder.join(format!("backend-{n}-Destionation-Rule.yaml")));
    }
    files.push(folder.join("backend-gateway.yaml"));
    files.push(folder.join("backend-gateway-virtualservice.yaml"));
    Scenario {
        namespace: "default",
        workload: "replicaset",
        replicas: 2,
        gateway: "hit-backend-gateway",
        virtual_service: "hit-backend-virtual-service",
        containers: 1,
        files,
    }
}

fn check(account: Account) {
    let scenario = original();
    let files: Vec<_> = scenario.files.iter().map(PathBuf::as_path).collect();
    let started = Instant::now();
    let mesh = Mesh::up(account, &files);
    let url = format!("{}/hit_backend", mesh.gateway());
    let answer = mesh.curl(&["-X", "POST", "-H", "target: backend-2", "-d", "{}", &url]);
    println!("first routed request after {:?}", started.elapsed());
    assert_eq!(answer.field("service_name"), "backend-2", "{answer:?}");
    // 3 s on a quiet machine; the gate's machine compiles beside it.
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "{:?}",
        started.elapsed()
    );
    Session {
        mesh: &mesh,
        scenario: &scenario,
    }
    .run();
    mesh.down();
}

#[test]
fn the_original_manifests_work_for_an_ordinary_user() {
    check(Account::ordinary());
}

#[test]
fn the_original_manifests_work_for_root() {
    check(Account::root());
}

/// The scenario names no CPU request, which on Kubernetes would leave its autoscaler without a say.
///
/// F32: CPU scales a backend out to the maximum, never above, and back to the minimum; also without a request for
/// CPU.
#[test]
fn the_original_autoscaler_acts_without_a_cpu_request() {
    let scenario = original();
    let files: Vec<_> = scenario.files.iter().map(PathBuf::as_path).collect();
    let mesh = Mesh::up(Account::root(), &files);
    let backend = Target {
        namespace: "default",
        app: "backend-1",
        container: "backend-1",
    };
    let replicas = |wanted: usize| {
        eventually(
            &format!("{wanted} replicas"),
            Duration::from_secs(120),
            || {
                let now = pods(&mesh, &backend);
                if now.len() == wanted {
                    Ok(now)
                } else {
                    Err(format!("{now:?}"))
                }
            },
        )
    };
    let first = replicas(2);
    eventually("usage is known", Duration::from_secs(60), || {
        let line = mesh.kubectl(&["get", "hpa", "hpas-backend-1", "--no-headers"]);
        if line.contains("/50%") && !line.contains("<unknown>") {
            Ok(())
        } else {
            Err(line)
        }
    });
    // Five minutes is what the scenario would wait before replicas go.
    let quick = r#"{"spec": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}}}}"#;
    mesh.kubectl(&[
        "patch",
        "hpa",
        "hpas-backend-1",
        "--type=merge",
        "-p",
        quick,
    ]);
    let fire = burn(&mesh, &backend, &first);
    replicas(5);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(8) {
        assert!(pods(&mesh, &backend).len() <= 5, "never above the maximum");
    }
    quench(&mesh, &backend, &first);
    drop(fire);
    replicas(2);
    mesh.down();
}
