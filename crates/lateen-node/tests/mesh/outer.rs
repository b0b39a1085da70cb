//! The outer half: starts meshes as this user and as an ordinary one, and looks for leftovers.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use lateen_node::enter::{self, Ended, Plan};
use serde_json::{Value, json};

/// How long all checks of one mesh may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs everything: here, and as an ordinary user if this is root.
pub(crate) fn run() -> ExitCode {
    let here = run_here();
    if !nix::unistd::geteuid().is_root() {
        return here;
    }
    // With a range of user ids, and as the one user.
    let passed = [true, false].map(|range| {
        let user = OrdinaryUser::make(range);
        // The program may lie in a folder that is closed to others.
        let program = user.home.join("mesh-test");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let status = Command::new(program)
            .arg("as-this-user")
            .env("HOME", &user.home)
            .env("TMPDIR", &user.home)
            .uid(user.id)
            .gid(user.id)
            .current_dir(&user.home)
            .status()
            .unwrap();
        status.success()
    });
    if passed == [true, true] {
        here
    } else {
        ExitCode::FAILURE
    }
}

/// Runs everything as the present user.
pub(crate) fn run_here() -> ExitCode {
    let mut failed = 0;
    let mut report = |name: &str, result: Result<(), String>| match result {
        Ok(()) => println!("test {name} (user {}) ... ok", nix::unistd::geteuid()),
        Err(error) => {
            failed += 1;
            println!(
                "test {name} (user {}) ... FAILED\n    {error}",
                nix::unistd::geteuid()
            );
        }
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(checks_in_a_mesh(&mut report));
    report(
        "a_killed_outer_process_leaves_nothing",
        a_killed_outer_process_leaves_nothing(),
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn checks_in_a_mesh(report: &mut impl FnMut(&str, Result<(), String>)) {
    let state = tempfile::tempdir().unwrap();
    let before = traces();
    let (mut inside, server) = match enter::start(plan(state.path(), "checks")) {
        Ok(started) => started,
        Err(error) => return report("enter", Err(error.to_string())),
    };
    println!("entered: {}", inside.identity().explanation);
    let (sender, mut news) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(server.serve(move |value| {
        let _ = sender.send(value);
    }));
    let deadline = tokio::time::Instant::now() + LIMIT;
    let mut complete = false;
    while let Ok(Some(value)) = tokio::time::timeout_at(deadline, news.recv()).await {
        match &value {
            Value::String(end) if end == "complete" => complete = true,
            value => {
                let name = value["name"].as_str().unwrap_or_default();
                let result = value["error"]
                    .as_str()
                    .map_or(Ok(()), |error| Err(error.to_owned()));
                report(name, result);
            }
        }
    }
    let ended = tokio::time::timeout(Duration::from_secs(10), inside.ended()).await;
    let ended = match ended {
        Ok(Ended::Code(0)) if complete => Ok(()),
        other => Err(format!("{other:?}, complete: {complete}")),
    };
    report("the_mesh_ends_in_good_order", ended);
    report(
        "an_ended_mesh_leaves_nothing",
        nothing_left(&before, state.path()),
    );
}

/// Starts a mesh from another process, kills that one with SIGKILL, and looks for leftovers.
fn a_killed_outer_process_leaves_nothing() -> Result<(), String> {
    let state = tempfile::tempdir().unwrap();
    let before = traces();
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["victim", &state.path().to_string_lossy()])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut line = String::new();
    let output = victim.stdout.take().ok_or("no output")?;
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line)
        .map_err(|error| error.to_string())?;
    if line.trim() != "running" {
        return Err(format!("the mesh did not start: {line:?}"));
    }
    victim.kill().map_err(|error| error.to_string())?;
    victim.wait().map_err(|error| error.to_string())?;
    nothing_left(&before, state.path())
}

/// The process that is to be killed: says when a pod of its mesh runs, then waits.
pub(crate) fn victim(state: &str) -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (mut inside, server) = enter::start(plan(Path::new(state), "idle")).unwrap();
        tokio::spawn(server.serve(|value| {
            if value["error"].is_null() {
                println!("running");
            } else {
                println!("{value}");
            }
        }));
        inside.ended().await;
    });
    ExitCode::SUCCESS
}

fn plan(state: &Path, scenario: &str) -> Plan {
    let executable = std::env::current_exe().unwrap();
    Plan {
        config: json!({"state": state, "executable": executable, "scenario": scenario}),
        executable,
        arguments: vec!["inside".into()],
        output: (Stdio::inherit(), Stdio::inherit()),
    }
}

/// What the host shows of a mesh: mounts, links, and how many processes of this program run.
fn traces() -> (String, Vec<String>, usize) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mut links: Vec<String> = std::fs::read_dir("/sys/class/net")
        .map(|entries| {
            entries
                .flatten()
                .map(|e| e.file_name().to_string_lossy().into())
                .collect()
        })
        .unwrap_or_default();
    links.sort();
    (mounts, links, processes())
}

fn processes() -> usize {
    let own = std::env::current_exe().unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter(|entry| std::fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == own))
        .count()
}

/// Waits until the host looks as before; what is different when it does not.
fn nothing_left(before: &(String, Vec<String>, usize), state: &Path) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let now = traces();
        if now == *before {
            break;
        }
        if Instant::now() > deadline {
            return Err(format!("before: {before:?}\nafter: {now:?}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // The folder itself must be removable: no mount, nothing owned by anyone else.
    std::fs::remove_dir_all(state).map_err(|error| format!("{}: {error}", state.display()))
}

/// A user of the host that exists while this does.
struct OrdinaryUser {
    name: String,
    id: u32,
    home: std::path::PathBuf,
}

impl OrdinaryUser {
    /// Makes the user, with subordinate ids or without.
    fn make(range: bool) -> Self {
        let name = format!("lateen-test-{}", std::process::id());
        let home = std::env::temp_dir().join(&name);
        let made = Command::new("useradd")
            .args(["--create-home", "--home-dir"])
            .arg(&home)
            .args([
                "--key",
                if range {
                    "SUB_UID_COUNT=65536"
                } else {
                    "SUB_UID_COUNT=0"
                },
            ])
            .args([
                "--key",
                if range {
                    "SUB_GID_COUNT=65536"
                } else {
                    "SUB_GID_COUNT=0"
                },
            ])
            .arg(&name)
            .status()
            .unwrap();
        assert!(made.success(), "useradd failed");
        let id = nix::unistd::User::from_name(&name)
            .unwrap()
            .unwrap()
            .uid
            .as_raw();
        Self { name, id, home }
    }
}

impl Drop for OrdinaryUser {
    fn drop(&mut self) {
        let removed = Command::new("userdel")
            .args(["--remove", &self.name])
            .stderr(Stdio::null())
            .status();
        if !removed.is_ok_and(|status| status.success()) {
            eprintln!("user {} could not be removed", self.name);
        }
    }
}
