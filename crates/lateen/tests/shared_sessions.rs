//! Two gateways of the mesh share the sessions of their users in a real Redis server, as root.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::account::Account;
use support::eventually;
use support::mesh::Mesh;

const USERS: usize = 40;

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../samples")
        .join(name)
}

/// The gateways' pods, each with its address.
fn gateways(mesh: &Mesh) -> Vec<String> {
    let path = "jsonpath={.items[*].status.podIP}";
    let arguments = [
        "-n",
        "istio-system",
        "get",
        "pods",
        "-l",
        "istio=ingressgateway",
        "-o",
        path,
    ];
    let addresses = mesh.kubectl(&arguments);
    addresses.split_whitespace().map(str::to_owned).collect()
}

/// The pods that answer each user, asked at every gateway.
fn places(mesh: &Mesh, gateways: &[String]) -> BTreeMap<String, BTreeSet<String>> {
    let script = format!(
        "for user in $(seq {USERS}); do for gateway in {}; do \
         curl -s -X POST -H 'target: backend-2' -H \"x-user: user-$user\" -d '{{}}' http://$gateway:8080/hit_backend \
         | jq -r --arg user $user '\"\\($user) \\(.podIp)\"'; done; done",
        gateways.join(" ")
    );
    let mut places = BTreeMap::<String, BTreeSet<String>>::new();
    for line in mesh.in_pod("default", false, &script).lines() {
        let (user, pod) = line.split_once(' ').expect(line);
        places
            .entry(user.to_owned())
            .or_default()
            .insert(pod.to_owned());
    }
    assert_eq!(places.len(), USERS);
    places
}

fn condition(mesh: &Mesh, status: &str) {
    mesh.kubectl(&[
        "-n",
        "sticky-sessions",
        "wait",
        &format!("--for=condition=StoreReachable={status}"),
        "stickysession/backends",
        "--timeout=60s",
    ]);
}

/// F31: a user who calls within the idle time keeps the replica, and is free after it; several gateways agree.
#[test]
fn gateways_agree_on_every_user_while_replicas_come_and_go() {
    let files = [
        sample("sticky-sessions/backends.yaml"),
        sample("sticky-sessions/routes.yaml"),
        sample("shared-sessions/redis.yaml"),
    ];
    let files: Vec<_> = files.iter().map(PathBuf::as_path).collect();
    let mesh = Mesh::up(Account::root(), &files);
    let policy =
        std::fs::read_to_string(sample("shared-sessions/policy.yaml")).expect("the policy");
    mesh.apply("sticky-sessions", &policy);
    mesh.kubectl(&[
        "-n",
        "sticky-sessions",
        "delete",
        "horizontalpodautoscaler",
        "--all",
    ]);
    mesh.kubectl(&[
        "-n",
        "istio-system",
        "scale",
        "deployment",
        "istio-ingressgateway",
        "--replicas=2",
    ]);
    mesh.kubectl(&[
        "-n",
        "istio-system",
        "rollout",
        "status",
        "deployment",
        "istio-ingressgateway",
    ]);
    condition(&mesh, "true");
    let gateways = gateways(&mesh);
    assert_eq!(gateways.len(), 2);
    // A gateway answers as soon as it is ready; its workers reach the server within milliseconds of that.
    let before = eventually("two gateways that agree", Duration::from_secs(30), || {
        let places = places(&mesh, &gateways);
        let torn = places.values().filter(|pods| pods.len() > 1).count();
        if torn == 0 {
            Ok(places)
        } else {
            Err(format!("{torn} users are torn"))
        }
    });
    mesh.kubectl(&[
        "-n",
        "sticky-sessions",
        "scale",
        "deployment",
        "backend-2",
        "--replicas=5",
    ]);
    mesh.kubectl(&[
        "-n",
        "sticky-sessions",
        "rollout",
        "status",
        "deployment",
        "backend-2",
    ]);
    assert_eq!(
        places(&mesh, &gateways),
        before,
        "nobody moves to new replicas"
    );
    mesh.kubectl(&[
        "-n",
        "sessions",
        "scale",
        "deployment",
        "redis",
        "--replicas=0",
    ]);
    condition(&mesh, "false");
    assert_eq!(
        places(&mesh, &gateways),
        before,
        "nobody moves without the server"
    );
    mesh.kubectl(&[
        "-n",
        "sessions",
        "scale",
        "deployment",
        "redis",
        "--replicas=1",
    ]);
    condition(&mesh, "true");
    assert_eq!(
        places(&mesh, &gateways),
        before,
        "nobody moves when it is back"
    );
    mesh.down();
}
