//! The guided tour as a newcomer runs it: every claim holds, in the time that it promises, and the mesh stays up.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use support::account::{Account, public_binary};
use support::mesh::finish;

#[test]
fn the_tour_of_sticky_sessions_shows_what_it_claims() {
    let account = Account::ordinary();
    let folder = tempfile::Builder::new()
        .prefix("lateen-test-")
        .tempdir()
        .expect("a folder");
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("opened");
    let binary = public_binary(folder.path());
    let state = account.folder(folder.path(), "state");
    let lateen = |arguments: &[&str]| {
        let mut command = account.command(&binary);
        command.args(arguments).arg("--state").arg(&state);
        command.env("LC_ALL", "C");
        finish(command, None)
    };
    let started = Instant::now();
    let done = lateen(&["demo", "sticky-sessions", "--idle", "4s"]);
    let took = started.elapsed();
    assert_eq!(done.code, 0, "{done:?}");
    for claim in [
        "✓ every request reached the service it named",
        "✓ ann stayed on one replica",
        "✓ the body chose the service, over a header that said otherwise",
        "✓ it scaled from 3 to 5 and back, never above",
        "✓ 0 of 60 users moved while replicas were added",
        "0 for any other reason",
        "answers, none failed",
        "idle for longer, began anew on another replica",
        "idleTimeout: 4s",
    ] {
        assert!(done.stdout.contains(claim), "{claim}: {}", done.stdout);
    }
    assert!(!done.stdout.contains('✗'), "{}", done.stdout);
    // The plot, without a terminal and in a locale that has ASCII only.
    let plot: Vec<&str> = done
        .stdout
        .lines()
        .filter(|line| line.starts_with("replicas ") || line.starts_with("moved users"))
        .collect();
    assert!(
        plot.len() == 2 && plot.iter().all(|line| line.is_ascii()),
        "{plot:?}"
    );
    // Half of it on a quiet machine.
    assert!(took < Duration::from_secs(150), "{took:?}");
    assert_eq!(lateen(&["status"]).code, 0, "the mesh stays up");
    assert_eq!(lateen(&["down"]).code, 0);
    assert_eq!(
        lateen(&["demo", "sticky-sessions", "--idle", "1ms"]).code,
        2
    );
}
