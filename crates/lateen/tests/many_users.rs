//! Ten thousand users who call without a pause while their backend scales from three to five replicas and back.

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use support::account::Account;
use support::eventually;
use support::mesh::Mesh;

const NAMESPACE: &str = "sticky-sessions";
const USERS: usize = 10_000;
const CALLERS: usize = 8;

/// Some of the users, who call one after the other over one connection, and the pods that answered each.
struct Caller {
    /// Rounds that every user of this caller has been through.
    rounds: Arc<AtomicUsize>,
    /// Users that were answered by another pod than before, so far.
    moves: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<Vec<String>>>,
}

impl Caller {
    fn start(gateway: SocketAddr, first: usize, stop: Arc<AtomicBool>) -> Self {
        let rounds = Arc::new(AtomicUsize::new(0));
        let moves = Arc::new(AtomicUsize::new(0));
        let (done, moved) = (rounds.clone(), moves.clone());
        let thread = std::thread::spawn(move || {
            let mut pods: Vec<Vec<String>> = vec![Vec::new(); USERS / CALLERS];
            let mut connection = BufReader::new(connect(gateway));
            while !stop.load(Ordering::Relaxed) {
                for (number, pods) in pods.iter_mut().enumerate() {
                    let pod = ask(&mut connection, gateway, first + number);
                    if pods.last() != Some(&pod) {
                        moved.fetch_add(usize::from(!pods.is_empty()), Ordering::Relaxed);
                        pods.push(pod);
                    }
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
            pods
        });
        Self {
            rounds,
            moves,
            thread,
        }
    }
}

fn connect(gateway: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(gateway).expect("connected");
    let patience = Some(Duration::from_secs(20));
    stream.set_read_timeout(patience).expect("a limit");
    stream
}

/// The pod that answers a user; every answer must be one.
fn ask(connection: &mut BufReader<TcpStream>, gateway: SocketAddr, user: usize) -> String {
    let request = format!(
        "POST /hit_backend HTTP/1.1\r\nhost: {gateway}\r\ntarget: backend-1\r\nx-user: user-{user}@example.org\r\n\
         content-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}"
    );
    connection
        .get_mut()
        .write_all(request.as_bytes())
        .expect("sent");
    let (mut status, mut length) = (String::new(), 0);
    connection.read_line(&mut status).expect("an answer");
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).expect("a header");
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).expect("a body");
    assert!(status.contains(" 200 "), "user {user}: {status}");
    let answer: Value = serde_json::from_slice(&body).expect("JSON");
    answer["pod_id"].as_str().expect("a pod").to_owned()
}

fn in_namespace(mesh: &Mesh, arguments: &[&str]) -> String {
    mesh.kubectl(&[&["-n", NAMESPACE], arguments].concat())
}

/// Scales, and waits until the pods are as many.
fn scale(mesh: &Mesh, replicas: usize) -> BTreeSet<String> {
    in_namespace(
        mesh,
        &[
            "scale",
            "deployment",
            "backend-1",
            &format!("--replicas={replicas}"),
        ],
    );
    eventually(&format!("{replicas} pods"), Duration::from_secs(60), || {
        let list = in_namespace(mesh, &["get", "pods", "-l", "app=backend-1", "-o", "json"]);
        let list: Value = serde_json::from_str(&list).expect("JSON");
        let items = list["items"].as_array().expect("a list");
        let ready = items.iter().filter(|pod| {
            let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
            conditions.any(|it| it["type"] == "Ready" && it["status"] == "True")
        });
        let names: BTreeSet<String> = ready
            .filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned))
            .collect();
        if names.len() == replicas && items.len() == replicas {
            Ok(names)
        } else {
            Err(format!("{} of {}", names.len(), items.len()))
        }
    })
}

/// F31: a user who calls within the idle time keeps the replica, and is free after it; several gateways agree.
///
/// F33: who has a session does not move when replicas come; when one goes, only its users do.
#[test]
fn ten_thousand_users_stay_while_replicas_come_and_go() {
    let sample = |name: &str| -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../samples/sticky-sessions")
            .join(name)
    };
    let files = [sample("backends.yaml"), sample("routes.yaml")];
    let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    let mesh = Mesh::up(Account::ordinary(), &files);
    in_namespace(&mesh, &["delete", "horizontalpodautoscaler", "--all"]);
    // Nobody is to become idle by accident on a slow machine.
    let idle = json!({"spec": {"idleTimeout": "10m"}}).to_string();
    in_namespace(
        &mesh,
        &[
            "patch",
            "stickysession",
            "backends",
            "--type=merge",
            "-p",
            &idle,
        ],
    );
    let first = scale(&mesh, 3);

    let gateway: SocketAddr = mesh
        .gateway()
        .trim_start_matches("http://")
        .parse()
        .expect("an address");
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<Caller> = (0..CALLERS)
        .map(|caller| Caller::start(gateway, caller * USERS / CALLERS, stop.clone()))
        .collect();
    let rounds = || {
        callers
            .iter()
            .map(|caller| caller.rounds.load(Ordering::Relaxed))
            .min()
    };
    let every_user_calls = |what: &str| {
        let before = rounds().unwrap_or(0);
        eventually(what, Duration::from_secs(120), || {
            assert!(
                !callers.iter().any(|caller| caller.thread.is_finished()),
                "a caller failed"
            );
            // One round may have begun before.
            let now = rounds().unwrap_or(0);
            if now >= before + 2 {
                Ok(())
            } else {
                Err(format!("{now} rounds"))
            }
        });
    };
    every_user_calls("every user's first calls");
    scale(&mesh, 5);
    every_user_calls("calls with five replicas");
    let moves = callers
        .iter()
        .map(|caller| caller.moves.load(Ordering::Relaxed));
    assert_eq!(moves.sum::<usize>(), 0, "nobody moves to new replicas");
    let last = scale(&mesh, 3);
    every_user_calls("calls with three replicas again");
    stop.store(true, Ordering::Relaxed);

    let pods: Vec<Vec<String>> = callers
        .into_iter()
        .flat_map(|caller| caller.thread.join().expect("every call was answered"))
        .collect();
    assert_eq!(pods.len(), USERS);
    let homes: BTreeSet<&String> = pods.iter().filter_map(|pods| pods.first()).collect();
    assert_eq!(
        homes,
        first.iter().collect(),
        "users spread over all replicas"
    );
    let mut moved = 0;
    for (user, pods) in pods.iter().enumerate() {
        for left in &pods[..pods.len() - 1] {
            assert!(
                !last.contains(left),
                "user {user} left {left}, which is still there: {pods:?}"
            );
            moved += 1;
        }
    }
    println!("{moved} of {USERS} users moved, all from removed pods");
    users_of_a_sidecar_stay(&mesh);
    mesh.down();
}

/// Sessions of a client inside the mesh, in its own sidecar.
fn users_of_a_sidecar_stay(mesh: &Mesh) {
    let script = "\
        call() { curl -s -X POST -H 'content-type: application/json' -d '{}' \"$@\" http://backend-1:8080/hit_backend | jq -r .pod_id; }
        users() { for user in $(seq 20); do call -H \"x-user: $user\"; done; }
        before=$(users)
        until [ \"$(for i in $(seq 40); do call; done | sort -u | wc -l)\" = 5 ]; do :; done
        if [ \"$before\" = \"$(users)\" ]; then echo all stayed; else echo some moved; fi";
    std::thread::scope(|scope| {
        let client = scope.spawn(|| mesh.in_pod(NAMESPACE, true, script));
        eventually(
            "20 sessions in the client's sidecar",
            Duration::from_secs(60),
            || {
                let pods = in_namespace(mesh, &["get", "pods", "-o", "name"]);
                let pod = pods.lines().find(|name| name.starts_with("pod/client-"));
                let pod = pod.ok_or_else(|| format!("no client in {pods}"))?;
                let ask = "curl -s localhost:15000/sticky_sessions";
                let exec = [
                    "-n",
                    NAMESPACE,
                    "exec",
                    pod,
                    "-c",
                    "istio-proxy",
                    "--",
                    "sh",
                    "-c",
                    ask,
                ];
                let shown = mesh.kubectl_with(&exec, None).stdout;
                if shown.contains("::sessions::20\n") {
                    Ok(())
                } else {
                    Err(shown)
                }
            },
        );
        scale(mesh, 5);
        let said = client.join().expect("the client ran");
        assert!(said.contains("all stayed"), "{said}");
    });
}
