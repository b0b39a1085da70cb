//! How a mesh begins and ends: what survives, what must not stay behind, and what refuses to start.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use support::account::{Account, public_binary};
use support::eventually;
use support::mesh::{Mesh, finish, kubectl};

const SOON: Duration = Duration::from_secs(10);

/// What a mesh could leave on the host.
#[derive(Debug, PartialEq, Eq)]
struct Host {
    links: BTreeSet<String>,
    mounts: BTreeSet<String>,
    rules: String,
}

impl Host {
    fn look() -> Self {
        let links = fs::read_dir("/sys/class/net").expect("links").flatten();
        let rules = Command::new("nft").args(["list", "ruleset"]).output();
        Self {
            links: links
                .map(|link| link.file_name().to_string_lossy().into_owned())
                .collect(),
            mounts: fs::read_to_string("/proc/self/mountinfo")
                .expect("mounts")
                .lines()
                .filter_map(|line| line.split(' ').nth(4).map(str::to_owned))
                .collect(),
            rules: rules
                .map(|done| String::from_utf8_lossy(&done.stdout).into_owned())
                .unwrap_or_default(),
        }
    }
}

fn assert_gone(mesh: &Mesh) {
    eventually("every process of the mesh ended", SOON, || {
        let left = mesh.processes();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    });
}

fn pid_of(mesh: &Mesh) -> Pid {
    let pid = mesh.status["pid"].as_i64().expect("a process id");
    Pid::from_raw(i32::try_from(pid).expect("a process id"))
}

#[test]
fn state_survives_a_restart_and_a_kill() {
    let mut mesh = Mesh::up(Account::ordinary(), &[]);
    mesh.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]);
    mesh.down();
    assert_gone(&mesh);
    mesh.start(&[]);
    assert_eq!(
        mesh.kubectl(&["get", "configmap", "kept", "-o", "jsonpath={.data.a}"]),
        "b"
    );

    mesh.kubectl(&["create", "configmap", "acknowledged", "--from-literal=a=c"]);
    kill(pid_of(&mesh), Signal::SIGKILL).expect("killed");
    assert_gone(&mesh);
    assert_eq!(mesh.lateen(&["status"]).code, 3);
    mesh.start(&[]);
    assert_eq!(
        mesh.kubectl(&[
            "get",
            "configmap",
            "acknowledged",
            "-o",
            "jsonpath={.data.a}"
        ]),
        "c"
    );
}

#[test]
fn nothing_stays_on_the_host() {
    let before = Host::look();
    let mesh = Mesh::up(Account::root(), &[]);
    let api = mesh.status["api"].as_str().expect("api").to_owned();
    assert_eq!(
        Host::look(),
        before,
        "a running mesh is not seen on the host"
    );
    mesh.down();
    assert_gone(&mesh);
    assert_eq!(Host::look(), before);
    let answer = mesh.curl(&["-k", &api]);
    assert_eq!(answer.status, 0, "the API is closed: {answer:?}");
    assert_eq!(
        mesh.lateen(&["down"]).code,
        0,
        "down is content with nothing to end"
    );
}

#[test]
fn an_interrupt_ends_a_mesh_in_the_foreground() {
    let mesh = Mesh::up(Account::root(), &[]);
    mesh.down();
    let mut command = mesh
        .account
        .command(&mesh.state().parent().expect("a folder").join("lateen"));
    command
        .arg("up")
        .arg("--state")
        .arg(mesh.state())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().expect("started");
    eventually("the mesh is up", Duration::from_secs(30), || {
        let done = mesh.lateen(&["status"]);
        if done.code == 0 {
            Ok(())
        } else {
            Err(done.stderr)
        }
    });
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    kill(pid, Signal::SIGINT).expect("interrupted");
    let output = child.wait_with_output().expect("ended");
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_gone(&mesh);
}

#[test]
fn only_the_owner_gets_in() {
    let mesh = Mesh::up(Account::ordinary(), &[]);
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&mesh.kubeconfig()), 0o600);
    let socket = mesh.status["xds"]
        .as_str()
        .and_then(|xds| xds.strip_prefix("unix:"));
    assert_eq!(mode(Path::new(socket.expect("a discovery socket"))), 0o600);
    let secrets = format!(
        "{}/api/v1/secrets",
        mesh.status["api"].as_str().expect("api")
    );
    for extra in [
        vec![],
        vec!["-H", "authorization: Bearer guess"],
        vec!["-H", "origin: http://example.com"],
    ] {
        let answer = mesh.curl(&[&["-k"], extra.as_slice(), &[secrets.as_str()]].concat());
        assert!(matches!(answer.status, 401 | 403), "{extra:?}: {answer:?}");
    }
}

#[test]
fn two_meshes_run_side_by_side() {
    let one = Mesh::up(Account::root(), &[]);
    let two = Mesh::up(Account::root(), &[]);
    assert_ne!(one.status["api"], two.status["api"]);
    one.kubectl(&["create", "configmap", "of-one"]);
    let seen = two.kubectl_with(&["get", "configmap", "of-one"], None);
    assert_eq!(seen.code, 1, "{seen:?}");
    one.down();
    two.kubectl(&["get", "nodes"]);
}

#[test]
fn what_stands_in_the_way_is_named_and_nothing_is_half_started() {
    let mesh = Mesh::up(Account::root(), &[]);
    let second = mesh.lateen(&["up", "--detach"]);
    assert_eq!(second.code, 3, "{second:?}");
    assert!(
        second.stderr.contains("already running") && second.stderr.contains("lateen down"),
        "{second:?}"
    );
    let api = mesh.status["api"]
        .as_str()
        .and_then(|api| api.strip_prefix("https://"))
        .expect("api");

    let folder = tempfile::Builder::new()
        .prefix("lateen-test-")
        .tempdir()
        .expect("a folder");
    let binary = public_binary(folder.path());
    let lateen = format!(
        "{} up --detach --state {}/state",
        binary.display(),
        folder.path().display()
    );
    for (shell, expected) in [
        (
            format!("{lateen} --api-address {api}"),
            vec![api, "--api-address"],
        ),
        (
            format!(
                "unshare --mount sh -c 'for n in $(which -a nft); do mount --bind /dev/null $n; done; {lateen}'"
            ),
            vec!["nft", "install"],
        ),
        (
            format!(
                "unshare --user --map-root-user sh -c 'echo 0 > /proc/sys/user/max_user_namespaces; {lateen}'"
            ),
            vec!["user.max_user_namespaces", "sysctl"],
        ),
        (
            format!("{lateen} -f {}/none.yaml", folder.path().display()),
            vec!["none.yaml"],
        ),
    ] {
        let started = Instant::now();
        let mut command = Command::new("sh");
        command.args(["-c", &shell]);
        let done = finish(command, None);
        let code = if shell.contains("none.yaml") { 2 } else { 3 };
        assert_eq!(done.code, code, "{shell}: {done:?}");
        for part in expected {
            assert!(done.stderr.contains(part), "{part:?} in {done:?}");
        }
        assert!(started.elapsed() < SOON);
        let mut status = Command::new(&binary);
        status
            .args(["status", "--state"])
            .arg(folder.path().join("state"));
        assert_eq!(finish(status, None).code, 3, "nothing runs after: {shell}");
    }
}

#[test]
fn what_is_refused_is_named_with_its_line_and_the_rest_is_applied() {
    let folder = tempfile::Builder::new()
        .prefix("lateen-test-")
        .tempdir()
        .expect("a folder");
    let binary = public_binary(folder.path());
    let file = folder.path().join("app.yaml");
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: good}\n---\napiVersion: v9\nkind: Thing\nmetadata: {name: x}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: Bad_Name}\n";
    fs::write(&file, text).expect("written");
    let state = folder.path().join("state");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&binary);
        command.args(arguments).arg("--state").arg(&state);
        finish(command, None)
    };
    let up = run(&["up", "--detach", "-f", &file.display().to_string()]);
    let mut kubectl = Command::new(kubectl());
    kubectl
        .args(["get", "configmap", "good"])
        .env("KUBECONFIG", state.join("kubeconfig"));
    let good = finish(kubectl, None);
    let down = run(&["down"]);
    assert_eq!(
        (up.code, good.code, down.code),
        (1, 0, 0),
        "{up:?} {good:?} {down:?}"
    );
    let lines: Vec<&str> = up
        .stderr
        .lines()
        .filter(|line| line.contains("app.yaml"))
        .collect();
    assert_eq!(lines.len(), 2, "{up:?}");
    assert!(
        lines[0].contains("app.yaml:5: no kind Thing in v9 is served here"),
        "{}",
        lines[0]
    );
    assert!(
        lines[1].contains("app.yaml:9: ConfigMap \"Bad_Name\" is invalid: metadata.name"),
        "{}",
        lines[1]
    );
    assert!(lines[1].len() < 500, "{}", lines[1]);
}

#[test]
fn a_closed_pipe_ends_a_printing_command_quietly() {
    let sample = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../samples/sticky-sessions/backends.yaml"
    );
    let script = format!(
        "'{}' inject -f '{sample}' | head -n 1",
        env!("CARGO_BIN_EXE_lateen")
    );
    let mut command = Command::new("bash");
    command.args(["-c", &script]);
    let done = finish(command, None);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{done:?}");
}
