use std::path::Path;

use serde_json::json;

use super::*;

fn key(name: &str) -> Key {
    Key {
        resource: Arc::from("boats.sail.example"),
        namespace: "default".to_owned(),
        name: name.to_owned(),
    }
}

fn boat(name: &str, crew: u32) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"crew": crew}})
}

fn open(folder: &Path) -> Store {
    Store::open(&folder.join("store.redb")).unwrap()
}

#[tokio::test]
async fn objects_and_revision_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let one = store.create(key("one"), boat("one", 1)).await.unwrap();
    store.create(key("two"), boat("two", 1)).await.unwrap();
    let changed = store
        .update(key("one"), boat("one", 2), revision_of(&one))
        .await
        .unwrap();
    let two = store.get(&key("two")).unwrap();
    store
        .delete(key("two"), (*two).clone(), revision_of(&two))
        .await
        .unwrap();
    store.close();

    let again = open(folder.path());
    assert_eq!(again.revision(), 4);
    assert_eq!(again.get(&key("one")), Some(changed.clone()));
    assert_eq!(again.get(&key("two")), None);
    let next = again.create(key("two"), boat("two", 9)).await.unwrap();
    assert_eq!(revision_of(&next), 5);
    // The ring is not kept: what happened before the restart cannot be watched.
    assert_eq!(
        again.events("boats.sail.example", 3).unwrap_err(),
        Expired {
            asked: 3,
            oldest: 4
        }
    );
    assert_eq!(again.events("boats.sail.example", 4).unwrap().0.len(), 1);
}

#[tokio::test]
async fn a_write_needs_the_revision_that_it_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let one = store.create(key("one"), boat("one", 1)).await.unwrap();
    let again = store.create(key("one"), boat("one", 1)).await;
    assert!(matches!(again, Err(WriteError::Exists)));
    let read = revision_of(&one);
    store
        .update(key("one"), boat("one", 2), read)
        .await
        .unwrap();
    let late = store.update(key("one"), boat("one", 3), read).await;
    assert!(matches!(late, Err(WriteError::Changed)));
    let late = store.delete(key("one"), boat("one", 3), read).await;
    assert!(matches!(late, Err(WriteError::Changed)));
    let none = store.update(key("none"), boat("none", 3), 1).await;
    assert!(matches!(none, Err(WriteError::Missing)));
}

#[tokio::test]
async fn of_many_concurrent_writers_exactly_one_wins() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let one = store.create(key("one"), boat("one", 0)).await.unwrap();
    let writers = (0..64).map(|crew| {
        let store = store.clone();
        let read = revision_of(&one);
        tokio::spawn(async move { store.update(key("one"), boat("one", crew), read).await })
    });
    let mut won = 0;
    for writer in writers.collect::<Vec<_>>() {
        won += usize::from(writer.await.unwrap().is_ok());
    }
    assert_eq!((won, store.revision()), (1, 2));
}

#[tokio::test]
async fn a_watch_sees_every_change_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut changed = store.subscribe("boats.sail.example");
    let one = store.create(key("one"), boat("one", 1)).await.unwrap();
    changed.changed().await.unwrap();
    let last = store
        .delete(key("one"), (*one).clone(), revision_of(&one))
        .await
        .unwrap();
    let (events, revision) = store.events("boats.sail.example", 0).unwrap();
    let seen: Vec<_> = events
        .iter()
        .map(|event| (event.revision, event.removed, event.previous.is_some()))
        .collect();
    assert_eq!(seen, [(1, false, false), (2, true, true)]);
    assert_eq!((revision, revision_of(&last)), (2, 2));
    assert_eq!(store.events("boats.sail.example", 2).unwrap().0.len(), 0);
}

#[tokio::test]
async fn the_ring_forgets_the_oldest_events() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    // Written together, so that they share few commits.
    let writes = (0..5000).map(|number| {
        let name = format!("boat-{number}");
        store.create(key(&name), boat(&name, 1))
    });
    for write in futures_util::future::join_all(writes).await {
        write.unwrap();
    }
    let oldest = store.oldest_watchable("boats.sail.example");
    assert_eq!(oldest, 5000 - 4096);
    assert!(store.events("boats.sail.example", oldest - 1).is_err());
    let (events, _) = store.events("boats.sail.example", oldest).unwrap();
    assert_eq!(events.len(), 4096);
}

#[tokio::test]
async fn lists_are_in_order_and_continue_behind_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for name in ["c", "a", "b"] {
        store.create(key(name), boat(name, 1)).await.unwrap();
    }
    let elsewhere = Key {
        namespace: "other".to_owned(),
        ..key("a")
    };
    store.create(elsewhere, boat("a", 1)).await.unwrap();
    let names = |namespace, after| {
        let (objects, _) = store.list("boats.sail.example", namespace, after);
        objects
            .iter()
            .map(|object| object["metadata"]["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(names(None, None), "a b c a");
    assert_eq!(names(Some("default"), None), "a b c");
    assert_eq!(names(Some("default"), Some(("default", "a"))), "b c");
    assert_eq!(names(None, Some(("default", "c"))), "a");
    assert_eq!(names(Some("missing"), None), "");
}
