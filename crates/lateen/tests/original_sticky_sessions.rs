//! The first scenario on its original manifests, unmodified. Built only with the feature `oracles`, since the manifests
//! are not part of the project: `LATEEN_SEED_MANIFESTS` names their folder.

mod support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use support::account::Account;
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
