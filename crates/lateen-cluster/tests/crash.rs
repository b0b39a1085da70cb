//! A killed server loses nothing that it acknowledged.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use lateen_cluster::store::{Key, Store, revision_of};
use serde_json::json;

/// Where the child of the test finds its store; absent in the test itself.
const FOLDER: &str = "LATEEN_CRASH_TEST_FOLDER";

/// How many acknowledgements the test waits for before it kills.
const ENOUGH: usize = 200;

fn key(name: &str) -> Key {
    Key {
        resource: Arc::from("configmaps"),
        namespace: "default".to_owned(),
        name: name.to_owned(),
    }
}

/// Writes from several tasks for ever, and prints what was acknowledged: the name and the revision.
async fn write(folder: &Path) {
    let store = Store::open(&folder.join("store")).unwrap();
    let writers = (0..4).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 0.. {
                let name = format!("map-{writer}-{number}");
                let object = json!({"metadata": {"name": name}, "data": {"text": "x".repeat(500)}});
                let stored = store.create(key(&name), object).await.unwrap();
                println!("ACKNOWLEDGED {name} {}", revision_of(&stored));
            }
        })
    });
    futures_util::future::join_all(writers.collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_a_kill() {
    if let Ok(folder) = std::env::var(FOLDER) {
        return write(Path::new(&folder)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "acknowledged_writes_survive_a_kill",
            "--nocapture",
        ])
        .env(FOLDER, folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    let note = |acknowledged: &mut Vec<(String, u64)>, line: &str| {
        // The test runner's own output may stand before it on the line.
        let Some((_, told)) = line.split_once("ACKNOWLEDGED ") else {
            return;
        };
        if let Some((name, revision)) = told.split_once(' ')
            && let Ok(revision) = revision.parse()
        {
            acknowledged.push((name.to_owned(), revision));
        }
    };
    while acknowledged.len() < ENOUGH {
        let line = lines.next().expect("the child writes on").unwrap();
        note(&mut acknowledged, &line);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What was printed before the kill is still in the pipe. The last line may be cut short.
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    for line in rest.iter().take(rest.len().saturating_sub(1)) {
        note(&mut acknowledged, line);
    }

    let store = Store::open(&folder.path().join("store")).unwrap();
    for (name, revision) in &acknowledged {
        let found = store
            .get(&key(name))
            .unwrap_or_else(|| panic!("{name} is lost"));
        assert_eq!(revision_of(&found), *revision, "{name}");
        assert!(store.revision() >= *revision);
    }
    assert!(acknowledged.len() >= ENOUGH);
}
