//! The canary on the project's own sample, as root.

mod support;

use std::path::Path;

use support::account::Account;
use support::canary::Canary;
use support::mesh::Mesh;

#[test]
fn the_canary_works_on_the_sample() {
    let sample = |name: &str| {
        let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../samples/canary");
        vec![Path::new(samples).join(name)]
    };
    let mesh = Mesh::up(Account::root(), &[]);
    Canary {
        mesh: &mesh,
        namespace: "canary",
        workloads: sample("app.yaml"),
        gateway: sample("gateway.yaml"),
        tenth: sample("steps/1-canary-10.yaml"),
        half: sample("steps/2-half.yaml"),
    }
    .run();
    mesh.down();
}
