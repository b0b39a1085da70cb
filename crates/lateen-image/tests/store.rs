//! The folder of images: what is kept, what is deleted, and what happens to it from outside.

mod common;

use std::fs;

use common::{IMAGE_NAME, Packing, load_items, made, store, tar};
use lateen_image::{ContentStore, Digest, LoadOptions, load};

#[test]
fn removing_a_name_deletes_what_no_other_name_needs() {
    let (_folder, store) = store();
    let (one, two) = (made("one"), made("two"));
    let any = LoadOptions::default();
    for (made, name) in [(&one, "one"), (&two, "two"), (&two, "two:again")] {
        load_items(&store, &made.layout(IMAGE_NAME, name), Packing::Plain, &any).unwrap();
    }
    let blobs = || {
        fs::read_dir(store.folder().join("blobs/sha256"))
            .unwrap()
            .count()
    };
    // The lower layer is common to both.
    assert_eq!(blobs(), 7);
    for (name, expected, left) in [
        ("three", None, 7),
        ("two", Some(0), 7),
        ("two", None, 7),
        ("two:again", Some(3), 4),
        ("one", Some(4), 0),
    ] {
        let removed = store.remove(&name.parse().unwrap()).unwrap();
        assert_eq!(removed.map(|removed| removed.blobs), expected, "{name}");
        assert!(removed.is_none_or(|removed| !removed.deferred));
        assert_eq!(blobs(), left, "{name}");
    }
    assert_eq!(store.list().unwrap(), []);
}

#[test]
fn a_damaged_store_says_what_to_do() {
    let one = made("one");
    let name = "one".parse().unwrap();
    let blob = |store: &ContentStore, digest: Digest| {
        store.folder().join("blobs/sha256").join(digest.hex())
    };
    let items = one.layout(IMAGE_NAME, "one");
    let check = |damage: &dyn Fn(&ContentStore), part: &str| {
        let (_folder, store) = store();
        let any = LoadOptions::default();
        load_items(&store, &items, Packing::Plain, &any).unwrap();
        damage(&store);
        let error = store.resolve(&name).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
        // Getting the image again repairs all but the index.
        if !part.contains("index") {
            load_items(&store, &items, Packing::Plain, &any).unwrap();
            assert!(store.resolve(&name).unwrap().is_some());
        }
    };
    for content in [&one.manifest, &one.config, &one.layers[1]] {
        let digest = Digest::of(content);
        check(
            &|store| fs::remove_file(blob(store, digest)).unwrap(),
            "load or pull",
        );
    }
    for content in [&one.manifest, &one.config] {
        let digest = Digest::of(content);
        check(
            &|store| fs::write(blob(store, digest), "x").unwrap(),
            "get the image again",
        );
    }
    let index = |text: &'static str| {
        move |store: &ContentStore| fs::write(store.folder().join("index.json"), text).unwrap()
    };
    check(&index("{"), "index of images");
    check(&index(r#"{"version":2,"images":{}}"#), "index of images");
}

#[test]
fn many_writers_lose_no_name() {
    let (directory, store) = store();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (store, path) = (
                store.clone(),
                directory.path().join(format!("{number}.tar")),
            );
            scope.spawn(move || {
                let items = made("one").layout(IMAGE_NAME, &format!("one:{number}"));
                fs::write(&path, tar(&items)).unwrap();
                load(&store, &path, &LoadOptions::default()).unwrap();
                let removed = format!("one:{}", number + 100);
                assert!(store.remove(&removed.parse().unwrap()).unwrap().is_none());
            });
        }
    });
    assert_eq!(store.list().unwrap().len(), 8);
}
