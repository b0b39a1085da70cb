//! The guided tours as a newcomer runs them: every claim holds, and the mesh stays up.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use support::account::{Account, public_binary};
use support::mesh::{Done, finish};
use tempfile::TempDir;

/// Tours judge times, so they take turns.
static TURN: Mutex<()> = Mutex::new(());

/// A user with a binary and a state folder of its own.
struct Visitor {
    account: Account,
    binary: PathBuf,
    state: PathBuf,
    _folder: TempDir,
}

impl Visitor {
    fn new() -> Self {
        let account = Account::ordinary();
        let folder = tempfile::Builder::new()
            .prefix("lateen-test-")
            .tempdir()
            .expect("a folder");
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("opened");
        Self {
            binary: public_binary(folder.path()),
            state: account.folder(folder.path(), "state"),
            account,
            _folder: folder,
        }
    }

    fn lateen(&self, arguments: &[&str]) -> Done {
        let mut command = self.account.command(&self.binary);
        command.args(arguments).arg("--state").arg(&self.state);
        command.env("LC_ALL", "C");
        finish(command, None)
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        // A tour that fails leaves its mesh up, as one that succeeds does. Where none runs, nothing is to be done.
        let _ = self.lateen(&["down"]);
    }
}

/// Runs a tour, which must succeed within a time, show these texts, and leave the mesh up. Returns what it printed.
fn check(arguments: &[&str], within: Duration, expected: &[&str]) -> String {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let visitor = Visitor::new();
    let started = Instant::now();
    let done = visitor.lateen(&[&["demo"], arguments].concat());
    let took = started.elapsed();
    assert_eq!(done.code, 0, "{done:?}");
    for part in expected {
        assert!(done.stdout.contains(part), "{part}: {}", done.stdout);
    }
    assert!(!done.stdout.contains('✗'), "{}", done.stdout);
    assert!(took < within, "{took:?}");
    assert_eq!(visitor.lateen(&["status"]).code, 0, "the mesh stays up");
    assert_eq!(visitor.lateen(&["down"]).code, 0);
    done.stdout
}

/// Several times what tours take on a quiet machine.
const LONG: Duration = Duration::from_secs(150);

/// F31: a user who calls within the idle time keeps the replica, and is free after it; several gateways agree.
#[test]
fn the_tour_of_sticky_sessions_shows_what_it_claims() {
    let printed = check(
        &["sticky-sessions", "--idle", "4s"],
        LONG,
        &[
            "✓ every request reached the service it named",
            "✓ ann stayed on one replica",
            "✓ the body chose the service, over a header that said otherwise",
            "✓ it scaled from 3 to 5 and back, never above",
            "✓ 0 of 60 users moved while replicas were added",
            "0 for any other reason",
            "answers, none failed",
            "✓ 0 of 20 guests had a session left",
            "began anew on another replica",
            "idleTimeout: 4s",
        ],
    );
    // The plot, without a terminal and in a locale that has ASCII only.
    let plot: Vec<&str> = printed
        .lines()
        .filter(|line| line.starts_with("replicas ") || line.starts_with("moved users"))
        .collect();
    assert!(
        plot.len() == 2 && plot.iter().all(|line| line.is_ascii()),
        "{plot:?}"
    );
    let visitor = Visitor::new();
    let done = visitor.lateen(&["demo", "sticky-sessions", "--idle", "1ms"]);
    assert_eq!(done.code, 2, "{done:?}");
}

#[test]
fn the_tours_of_the_documents_show_what_they_claim() {
    check(
        &["canary"],
        LONG,
        &[
            "✓ about a tenth sees the second version",
            "✓ about half sees the second version",
        ],
    );
    check(
        &["circuit-breaking"],
        LONG,
        &[
            "✓ 40 calls, five at once: all are answered",
            "✓ five at once: ",
        ],
    );
    check(
        &["bookinfo"],
        LONG,
        &[
            "✓ reloading changes the stars",
            "✓ the page gives up after two times three seconds",
            "✓ about half sees red stars",
            "✓ the page tries twice and says what is missing",
        ],
    );
}
