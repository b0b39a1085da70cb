//! The first scenario on the project's own sample, from the first command to the last, as an ordinary user and as root.

mod support;

use std::path::PathBuf;
use std::time::Duration;

use support::account::Account;
use support::mesh::Mesh;
use support::session::{Scenario, Session};

fn sample() -> Scenario {
    let folder = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../samples/sticky-sessions"
    ));
    Scenario {
        namespace: "sticky-sessions",
        workload: "deployment",
        replicas: 3,
        gateway: "edge",
        virtual_service: "by-target",
        containers: 2,
        files: vec![folder.join("backends.yaml"), folder.join("routes.yaml")],
    }
}

fn check(account: Account) {
    let scenario = sample();
    let files: Vec<_> = scenario.files.iter().map(PathBuf::as_path).collect();
    let mesh = Mesh::up(account, &files);
    Session {
        mesh: &mesh,
        scenario: &scenario,
    }
    .run();
    mesh.down();
    support::eventually(
        "every process of the mesh ended",
        Duration::from_secs(5),
        || {
            let left = mesh.processes();
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:?}"))
            }
        },
    );
}

#[test]
fn the_sample_works_for_an_ordinary_user() {
    check(Account::ordinary());
}

#[test]
fn the_sample_works_for_root() {
    check(Account::root());
}
