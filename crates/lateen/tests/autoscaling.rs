//! Autoscaling on what pods really use: a burn scales out to the most and never above, and the end of it back to the
//! least, while sticky users stay where they are.

mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use support::account::Account;
use support::burn::{Target, burn, pods, quench};
use support::eventually;
use support::mesh::Mesh;

const NAMESPACE: &str = "sticky-sessions";

const BACKEND: Target<'_> = Target {
    namespace: NAMESPACE,
    app: "backend-1",
    container: "backend",
};

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../samples/sticky-sessions")
        .join(name)
}

fn in_namespace(mesh: &Mesh, arguments: &[&str]) -> String {
    mesh.kubectl(&[&["-n", NAMESPACE], arguments].concat())
}

fn places(mesh: &Mesh, users: usize) -> Vec<String> {
    let url = format!("{}/hit_backend", mesh.gateway());
    let place = |user: usize| {
        let user = format!("x-user: user-{user}");
        let json = "content-type: application/json";
        let arguments = [
            "-X",
            "POST",
            "-H",
            "target: backend-1",
            "-H",
            &user,
            "-H",
            json,
            "-d",
            "{}",
            &url,
        ];
        mesh.curl(&arguments).field("pod_id")
    };
    (0..users).map(place).collect()
}

/// F32: CPU scales a backend out to the maximum, never above, and back to the minimum; also without a request for
/// CPU.
#[test]
fn a_burn_scales_out_and_its_end_back_while_users_stay() {
    let files = [sample("backends.yaml"), sample("routes.yaml")];
    let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    let mesh = Mesh::up(Account::ordinary(), &files);
    let wait = [
        "wait",
        "--for=condition=Ready",
        "pod",
        "--all",
        "--timeout=60s",
    ];
    in_namespace(&mesh, &wait);
    // Faster than the five minutes of the default.
    let quick = json!({"spec": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}}}});
    in_namespace(
        &mesh,
        &[
            "patch",
            "hpa",
            "backend-1",
            "--type=merge",
            "-p",
            &quick.to_string(),
        ],
    );
    eventually("usage is known", Duration::from_secs(60), || {
        let done = mesh.kubectl_with(&["-n", NAMESPACE, "top", "pod"], None);
        let known = done
            .stdout
            .lines()
            .filter(|line| line.starts_with("backend-1"))
            .count();
        if known == 3 {
            Ok(())
        } else {
            Err(format!("{done:?}"))
        }
    });
    assert!(mesh.kubectl(&["top", "node"]).contains("lateen"));
    let before = places(&mesh, 30);

    let first = pods(&mesh, &BACKEND);
    assert_eq!(first.len(), 3);
    let fire = burn(&mesh, &BACKEND, &first);
    let mut most = 0;
    eventually("five replicas", Duration::from_secs(90), || {
        most = most.max(pods(&mesh, &BACKEND).len());
        // Who calls within the minute stays.
        assert_eq!(places(&mesh, 30), before);
        if most >= 5 {
            Ok(())
        } else {
            Err(format!("{most} replicas"))
        }
    });
    // Never above, however long it burns.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(12) {
        most = most.max(pods(&mesh, &BACKEND).len());
        assert_eq!(places(&mesh, 30), before, "users stay");
    }
    assert_eq!(most, 5);
    let said = in_namespace(&mesh, &["describe", "hpa", "backend-1"]);
    assert!(
        said.contains("SuccessfulRescale") && said.contains("above target"),
        "{said}"
    );

    quench(&mesh, &BACKEND, &first);
    drop(fire);
    eventually("three replicas again", Duration::from_secs(120), || {
        // Users that call stay; the younger pods go.
        let after = places(&mesh, 30);
        // Looked at last: a pod that went in between has sent its users away.
        let now = pods(&mesh, &BACKEND);
        let gone: Vec<&String> = before.iter().filter(|pod| !now.contains(pod)).collect();
        for (before, after) in before.iter().zip(&after) {
            assert!(
                before == after || gone.contains(&before),
                "{before} to {after}"
            );
        }
        if now.len() == 3 {
            Ok(())
        } else {
            Err(format!("{} replicas", now.len()))
        }
    });
    mesh.down();
}
