//! A mesh under test: `lateen up --detach` as some user, and the commands a person would give.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::account::{Account, public_binary};
use super::eventually;

/// Names the configuration file of a mesh that runs on a Kubernetes already, and that the tests use in the place of one
/// that they bring up: the original, to compare with.
const RUNNING: &str = "LATEEN_TEST_KUBECONFIG";

/// A running mesh; ends with the value, if it was brought up for it.
pub struct Mesh {
    pub account: Account,
    binary: PathBuf,
    state: PathBuf,
    /// Output of `status -o json`.
    pub status: Value,
    /// How long `up` took.
    pub took: Duration,
    options: Vec<String>,
    /// Holds the binary and the state.
    _folder: TempDir,
}

/// What a command did.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Mesh {
    /// Brings a mesh up with `files`, and fails when that fails.
    pub fn up(account: Account, files: &[&Path]) -> Self {
        Self::up_with(account, files, &[])
    }

    /// The same with further options of `lateen up`.
    pub fn up_with(account: Account, files: &[&Path], options: &[&str]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("lateen-test-")
            .tempdir()
            .expect("a folder");
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("opened");
        let binary = public_binary(folder.path());
        let state = account.folder(folder.path(), "state");
        let mut mesh = Self {
            account,
            binary,
            state,
            status: Value::Null,
            took: Duration::ZERO,
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            _folder: folder,
        };
        match std::env::var(RUNNING) {
            Ok(kubeconfig) => mesh.join(&kubeconfig, files),
            Err(_) => mesh.start(files),
        }
        mesh
    }

    /// Takes the mesh of a Kubernetes that runs already.
    fn join(&mut self, kubeconfig: &str, files: &[&Path]) {
        self.status = serde_json::json!({ "kubeconfig": kubeconfig });
        for file in files {
            self.apply("default", &fs::read_to_string(file).expect("a manifest"));
        }
        self.kubectl(&[
            "wait",
            "--for=condition=Ready",
            "pod",
            "--all",
            "-A",
            "--timeout=60s",
        ]);
        let address = "jsonpath={.status.loadBalancer.ingress[0].ip}";
        let service = [
            "-n",
            "istio-system",
            "get",
            "service",
            "istio-ingressgateway",
        ];
        let address = self.kubectl(&[&service[..], &["-o", address]].concat());
        self.status["gateways"] = serde_json::json!([{ "urls": [format!("http://{address}")] }]);
    }

    fn is_joined() -> bool {
        std::env::var_os(RUNNING).is_some()
    }

    /// Starts the mesh from its state folder.
    pub fn start(&mut self, files: &[&Path]) {
        // The user may not be able to read the checkout.
        let copies = self._folder.path().join("manifests");
        let _ = fs::remove_dir_all(&copies);
        fs::create_dir(&copies).expect("a folder");
        let mut arguments = vec!["up".to_owned(), "--detach".to_owned()];
        for (index, file) in files.iter().enumerate() {
            let name = file.file_name().expect("a file name").to_string_lossy();
            let copy = copies.join(format!("{index}-{name}"));
            fs::copy(file, &copy).expect("manifest copied");
            fs::set_permissions(&copy, PermissionsExt::from_mode(0o644)).expect("opened");
            arguments.extend(["-f".to_owned(), copy.display().to_string()]);
        }
        arguments.extend(self.options.clone());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let started = Instant::now();
        let done = self.lateen(&arguments);
        self.took = started.elapsed();
        assert_eq!(done.code, 0, "lateen up: {done:?}\n{}", self.log());
        let status = self.lateen(&["status", "-o", "json"]);
        assert_eq!(status.code, 0, "lateen status: {status:?}");
        self.status = serde_json::from_str(&status.stdout).expect("status is JSON");
    }

    /// Runs a `lateen` command on this mesh.
    pub fn lateen(&self, arguments: &[&str]) -> Done {
        let mut command = self.program();
        command.args(arguments).arg("--state").arg(&self.state);
        finish(command, None)
    }

    /// Runs `lateen image` with the images that this mesh's pods see.
    pub fn image(&self, arguments: &[&str]) -> Done {
        let mut command = self.program();
        command.arg("image").args(arguments);
        finish(command, None)
    }

    /// The program, as the mesh's user, with images of this mesh's own.
    fn program(&self) -> Command {
        let data = self.account.folder(self._folder.path(), "data");
        let data = format!("XDG_DATA_HOME={}", data.display());
        let mut command = self.account.command(Path::new("env"));
        command.arg(data).arg(&self.binary);
        command
    }

    /// Runs `kubectl`, with `input` on standard input.
    pub fn kubectl_with(&self, arguments: &[&str], input: Option<&str>) -> Done {
        let mut command = Command::new(kubectl());
        command.args(arguments).env("KUBECONFIG", self.kubeconfig());
        finish(command, input)
    }

    /// Runs `kubectl`, which must succeed, and returns what it prints.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let done = self.kubectl_with(arguments, None);
        assert_eq!(done.code, 0, "kubectl {arguments:?}: {done:?}");
        done.stdout
    }

    /// Applies a manifest text, which must succeed, and returns what `kubectl` prints.
    pub fn apply(&self, namespace: &str, text: &str) -> String {
        let done = self.kubectl_with(&["-n", namespace, "apply", "-f", "-"], Some(text));
        assert_eq!(done.code, 0, "kubectl apply: {done:?}\n{text}");
        done.stdout
    }

    pub fn kubeconfig(&self) -> PathBuf {
        PathBuf::from(self.status["kubeconfig"].as_str().expect("a kubeconfig"))
    }

    /// The first URL of the ingress gateway.
    pub fn gateway(&self) -> String {
        let url = &self.status["gateways"][0]["urls"][0];
        url.as_str()
            .unwrap_or_else(|| panic!("no gateway URL: {}", self.status))
            .to_owned()
    }

    /// Sends a request with the real `curl` and returns status code, headers and body.
    pub fn curl(&self, arguments: &[&str]) -> Answer {
        let mut command = Command::new("curl");
        command
            .args(["-s", "-i", "--max-time", "10"])
            .args(arguments);
        let done = finish(command, None);
        Answer::parse(&done)
    }

    /// Runs a shell script in a pod of its own with the host's programs, and returns what it prints.
    pub fn in_pod(&self, namespace: &str, injected: bool, script: &str) -> String {
        let name = format!("client-{:x}", fastrand_like());
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "namespace": namespace,
                "labels": {"app": "client", "sidecar.istio.io/inject": injected.to_string()},
            },
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "client", "image": "host",
                    "command": ["/bin/sh", "-c", format!("{}{script}\necho; echo '== end'; sleep 600", if injected { WAIT_FOR_SIDECAR } else { "" })],
                }],
            },
        });
        self.apply(namespace, &pod.to_string());
        let printed = eventually(&format!("pod {name}"), Duration::from_secs(60), || {
            let done = self.kubectl_with(&["-n", namespace, "logs", &name, "-c", "client"], None);
            match done.stdout.split_once("\n== end") {
                Some((printed, _)) => Ok(printed.to_owned()),
                None => {
                    let pod = self.kubectl_with(&["-n", namespace, "get", "pod", &name], None);
                    Err(format!("{done:?} {}", pod.stdout))
                }
            }
        });
        self.kubectl(&["-n", namespace, "delete", "pod", &name, "--wait=false"]);
        printed
    }

    /// Ends the mesh, which must succeed.
    pub fn down(&self) {
        if Self::is_joined() {
            return;
        }
        let done = self.lateen(&["down"]);
        assert_eq!(done.code, 0, "lateen down: {done:?}\n{}", self.log());
    }

    /// Processes that run the test's copy of the binary or anything else of this mesh.
    pub fn processes(&self) -> Vec<String> {
        let folder = self._folder.path().display().to_string();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let Ok(command) = fs::read(entry.path().join("cmdline")) else {
                continue;
            };
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            let executable = fs::read_link(entry.path().join("exe")).unwrap_or_default();
            if command.contains(&folder) || executable.starts_with(&folder) {
                found.push(format!("{} {command}", entry.file_name().to_string_lossy()));
            }
        }
        found
    }

    pub fn state(&self) -> &Path {
        &self.state
    }

    /// What the mesh logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.state.join("lateen.log")).unwrap_or_default()
    }
}

/// A sidecar takes all traffic from the start, so a client waits until it serves.
const WAIT_FOR_SIDECAR: &str =
    "until curl -sf -o /dev/null http://127.0.0.1:15021/healthz/ready; do sleep 0.05; done\n";

impl Drop for Mesh {
    fn drop(&mut self) {
        if Self::is_joined() {
            return;
        }
        let _ = self.lateen(&["down"]);
        if std::thread::panicking() {
            eprintln!("--- log of the mesh\n{}", self.log());
        }
    }
}

/// An answer as `curl -i` prints it.
#[derive(Debug)]
pub struct Answer {
    /// 0 when there was no answer.
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub exit_code: i32,
}

impl Answer {
    fn parse(done: &Done) -> Self {
        let text = done.stdout.replace("\r\n", "\n");
        let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
        let mut lines = head.lines();
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1)?.parse().ok())
            .unwrap_or(0);
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        Self {
            status,
            headers,
            body: body.to_owned(),
            exit_code: done.code,
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// A field of a JSON body.
    pub fn field(&self, name: &str) -> String {
        let value: Value = serde_json::from_str(&self.body).unwrap_or_default();
        value[name].as_str().unwrap_or_default().to_owned()
    }
}

/// Runs a command to its end.
pub fn finish(mut command: Command, input: Option<&str>) -> Done {
    command.stdin(if input.is_some() {
        Stdio::piped()
    } else {
        Stdio::null()
    });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(input.as_bytes()).expect("input written");
    }
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().expect("output");
    Done {
        code: status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// The `kubectl` to test with: `LATEEN_KUBECTL`, else the one on the path, else the one that the set-up built.
pub fn kubectl() -> PathBuf {
    if let Some(chosen) = std::env::var_os("LATEEN_KUBECTL") {
        return chosen.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path)
        .map(|folder| folder.join("kubectl"))
        .find(|file| file.exists());
    on_path.unwrap_or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .unwrap_or_else(|| {
                PathBuf::from(std::env::var_os("HOME").expect("HOME")).join(".cache")
            });
        cache.join("lateen/tools/kubectl")
    })
}

/// A number that differs from call to call.
fn fastrand_like() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(Instant::now()) >> 24
}
