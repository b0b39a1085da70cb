//! `kubectl` exec, attach, run, cp and port-forward, over WebSockets and over SPDY.

mod support;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use support::account::Account;
use support::eventually;
use support::forward::{Forward, Speech};
use support::mesh::{Done, Mesh, finish, kubectl};

/// A pod that answers HTTP on port 80, on loopback too, and whose program reads its input.
const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: web, image: lateen.dev/samples/httpbin:1}]
---
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: reader
    image: host
    stdin: true
    command: [sh, -c, 'echo begun; while read line; do echo \"got $line\"; done']
";

#[test]
fn programs_and_ports_are_reached_in_every_way_that_kubectl_knows() {
    let mesh = Mesh::up(Account::ordinary(), &[]);
    mesh.apply("default", PODS);
    mesh.kubectl(&["wait", "--for=condition=Ready", "pod/web", "pod/reader"]);
    for speech in Speech::BOTH {
        programs_run(&mesh, speech);
        much_is_carried_whole(&mesh, speech);
        files_are_copied(&mesh, speech);
        a_pod_of_ones_own_is_attached_to(&mesh, speech);
        a_terminal_has_a_size_and_a_code(&mesh, speech);
        who_attaches_is_heard_and_the_program_goes_on(&mesh, speech);
        ports_are_forwarded(&mesh, speech);
    }
    ports_are_forwarded_over_channels(&mesh);
    mesh.down();
}

fn run(mesh: &Mesh, speech: Speech, arguments: &[&str], input: Option<&str>) -> Done {
    let mut command = speech.kubectl(mesh);
    command.args(arguments);
    finish(command, input)
}

/// F114: programs run in a named container, for old and new kubectl, with their input, outputs and exit code.
fn programs_run(mesh: &Mesh, speech: Speech) {
    let check = |command: &[&str], input: Option<&str>, code: i32, stdout: &str, stderr: &str| {
        let all = [&["exec", "-i", "web", "-c", "web", "--"], command].concat();
        let done = run(mesh, speech, &all, input);
        assert_eq!(
            (done.code, done.stdout.as_str()),
            (code, stdout),
            "{speech:?} {done:?}"
        );
        assert!(done.stderr.starts_with(stderr), "{speech:?} {done:?}");
    };
    check(&["true"], None, 0, "", "");
    let both = ["sh", "-c", "echo out; echo err >&2; exit 3"];
    check(&both, None, 3, "out\n", "err\n");
    check(&["cat"], Some("a\nb\n"), 0, "a\nb\n", "");
    let missing = "error: ";
    check(&["no-such-program"], None, 1, "", missing);
    // Closed outputs are not the end.
    let late = ["sh", "-c", "exec >&- 2>&-; read line; exit 7"];
    check(&late, Some("x\n"), 7, "", "");
}

fn much_is_carried_whole(mesh: &Mesh, speech: Speech) {
    let text = "0123456789abcdef".repeat(1 << 16);
    let all = ["exec", "-i", "web", "--", "cat"];
    let done = run(mesh, speech, &all, Some(&text));
    assert_eq!(done.stdout.len(), text.len(), "{speech:?} {}", done.stderr);
    assert!(done.stdout == text, "{speech:?}: other bytes");
}

fn files_are_copied(mesh: &Mesh, speech: Speech) {
    let folder = tempfile::tempdir().expect("a folder");
    let (there, back) = (folder.path().join("there"), folder.path().join("back"));
    std::fs::write(&there, vec![7; 100_000]).expect("written");
    let [there, back] = [&there, &back].map(|path| path.to_str().expect("a name").to_owned());
    for arguments in [
        ["cp", &there, "web:/tmp/copied"],
        ["cp", "web:/tmp/copied", &back],
    ] {
        let done = run(mesh, speech, &arguments, None);
        assert_eq!(done.code, 0, "{speech:?} {done:?}");
    }
    let copied = std::fs::read(back).expect("copied");
    assert_eq!(copied, vec![7; 100_000], "{speech:?}");
}

fn a_pod_of_ones_own_is_attached_to(mesh: &Mesh, speech: Speech) {
    let script = "read line; echo \"got $line\"; exit 4";
    let all = [
        "run",
        "asked",
        "--image=busybox",
        "-i",
        "--rm",
        "--restart=Never",
        "--command",
        "--",
        "sh",
        "-c",
        script,
    ];
    let done = run(mesh, speech, &all, Some("this\n"));
    assert_eq!(done.code, 4, "{speech:?} {done:?}");
    assert!(done.stdout.contains("got this\n"), "{speech:?} {done:?}");
}

fn a_terminal_has_a_size_and_a_code(mesh: &Mesh, speech: Speech) {
    let websockets = if speech == Speech::Spdy {
        "false"
    } else {
        "true"
    };
    // `script` is a terminal around a command.
    let command = format!(
        "stty rows 41 cols 97; KUBECTL_REMOTE_COMMAND_WEBSOCKETS={websockets} {} run terminal --image=busybox -it --rm \
         --restart=Never --command -- sh",
        kubectl().display()
    );
    let mut child = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .env("KUBECONFIG", mesh.kubeconfig())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script");
    // Held until the end: its end would be the terminal's.
    let mut typed = child.stdin.take().expect("input");
    // A size that comes a moment after the shell is waited for.
    let lines = "until stty size | grep 97; do sleep 0.1; done\ntty; exit 5\n";
    typed.write_all(lines.as_bytes()).expect("typed");
    let done = child.wait_with_output().expect("an end");
    let shown = String::from_utf8_lossy(&done.stdout);
    assert!(shown.contains("41 97"), "{speech:?} {shown}");
    assert!(shown.contains("/dev/pts/"), "{speech:?} {shown}");
    assert_eq!(done.status.code(), Some(5), "{speech:?} {shown}");
}

fn who_attaches_is_heard_and_the_program_goes_on(mesh: &Mesh, speech: Speech) {
    for _ in 0..2 {
        let logs = mesh.kubectl(&["logs", "reader"]);
        let before = logs.matches("got hello").count();
        let mut child = speech
            .kubectl(mesh)
            .args(["attach", "-i", "reader"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("kubectl");
        let mut typed = child.stdin.take().expect("input");
        typed.write_all(b"hello\n").expect("typed");
        eventually("a line read", Duration::from_secs(20), || {
            let logs = mesh.kubectl(&["logs", "reader"]);
            match logs.matches("got hello").count() {
                count if count > before => Ok(()),
                _ => Err(logs),
            }
        });
        child.kill().expect("killed");
        let done = child.wait_with_output().expect("an end");
        let shown = String::from_utf8_lossy(&done.stdout);
        assert!(!shown.contains("begun"), "only what is new: {shown}");
    }
    let restarts = "jsonpath={.status.containerStatuses[0].restartCount}";
    assert_eq!(
        mesh.kubectl(&["get", "pod", "reader", "-o", restarts]),
        "0",
        "{speech:?}"
    );
}

fn ports_are_forwarded(mesh: &Mesh, speech: Speech) {
    let forward = Forward::start(mesh, speech, "default", "pod/web", 80);
    let size = 900_000;
    let large = format!("{}/bytes/100000", forward.url);
    let url = format!("{}/status/418", forward.url);
    // Ten connections at once, through the one that kubectl has.
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| assert_eq!(mesh.curl(&[&url]).status, 418, "{speech:?}"));
        }
    });
    let mut command = Command::new("curl");
    command.args(["-s", "--max-time", "20", "-o", "/dev/null", "-w"]);
    command.args(["%{size_download}", &large]);
    let done = finish(command, None);
    assert_eq!(done.stdout, "100000", "{speech:?} {done:?}");
    let mut command = Command::new("curl");
    let target = format!("{}/post", forward.url);
    command.args(["-s", "--max-time", "20", "-o", "/dev/null", "-w"]);
    command.args([
        "%{http_code} %{size_upload}",
        "--data-binary",
        "@-",
        &target,
    ]);
    let done = finish(command, Some(&"x".repeat(size)));
    assert_eq!(done.stdout, format!("200 {size}"), "{speech:?} {done:?}");
    drop(forward);

    let forward = Forward::start(mesh, speech, "default", "pod/web", 9);
    assert_ne!(mesh.curl(&[&forward.url]).exit_code, 0, "{speech:?}");
    assert!(
        forward.ended(),
        "{speech:?}: a port on which nobody listens is told"
    );
}

/// As clients speak that know WebSockets and no SPDY.
#[tokio::main(flavor = "current_thread")]
async fn ports_are_forwarded_over_channels(mesh: &Mesh) {
    let file = Kubeconfig::read_from(mesh.kubeconfig()).expect("a kubeconfig");
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(file, &options);
    let client = Client::try_from(config.await.expect("a configuration")).expect("a client");
    let pods: Api<Pod> = Api::default_namespaced(client);
    let mut forwarder = pods.portforward("web", &[80, 9]).await.expect("forwarded");
    let mut stream = forwarder.take_stream(80).expect("a stream");
    let request = b"GET /status/418 HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 418 "), "{answer}");
    let error = forwarder.take_error(9).expect("a port").await;
    assert!(
        error
            .as_deref()
            .is_some_and(|text| text.contains("refused")),
        "{error:?}"
    );
}
