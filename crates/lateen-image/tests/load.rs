//! Loading of archives and folders.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::{
    IMAGE_NAME, INDEX, Item, MANIFEST, Made, Packing, blob, descriptor, image, image_for,
    load_items, made, pack, store, tar,
};
use lateen_image::{Digest, LoadOptions, Platform, load};
use serde_json::{Value, json};

const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// What `docker save` before version 25 writes: a folder for each layer, equal layers as links.
fn docker(images: &[(&Made, Value)]) -> Vec<Item> {
    let mut items = Vec::new();
    let mut list = Vec::new();
    for (made, tags) in images {
        let config = format!("{}.json", Digest::of(&made.config).hex());
        let mut layers = Vec::new();
        for (index, layer) in made.layers.iter().enumerate() {
            let folder = format!("{}-{index}", &Digest::of(&made.manifest).hex()[..8]);
            items.push(Item::dir(&format!("{folder}/")));
            let file = format!("{folder}/layer.tar");
            match made.layers[..index]
                .iter()
                .position(|earlier| earlier == layer)
            {
                Some(earlier) => {
                    let target = format!("../{}-{earlier}/layer.tar", &folder[..8]);
                    items.push(Item::symlink(&file, &target));
                }
                None => items.push(Item::File(file.clone(), layer.clone(), 0o644)),
            }
            layers.push(file);
        }
        items.push(Item::File(config.clone(), made.config.clone(), 0o644));
        list.push(json!({"Config": config, "RepoTags": tags, "Layers": layers}));
    }
    items.push(Item::file("manifest.json", &Value::from(list).to_string()));
    items
}

/// Writes the items as files.
fn folder(path: &Path, items: &[Item]) {
    for item in items {
        let Item::File(name, bytes, _) = item else {
            panic!("{item:?}")
        };
        let path = path.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// `Ok` are the names, `Err` is a part of the message.
fn check(items: &[Item], options: &LoadOptions, expected: Result<&[&str], &str>) {
    for packing in [Packing::Plain, Packing::Gzip] {
        let (_folder, store) = store();
        match (load_items(&store, items, packing, options), expected) {
            (Ok(names), Ok(expected)) => {
                assert_eq!(names, expected);
                for name in names {
                    let image = store.resolve(&name.parse().unwrap()).unwrap().unwrap();
                    assert_eq!(image.config.cmd, ["/bin/run"], "{name}");
                    assert_eq!(image.layers.len(), image.config.diff_ids.len());
                }
                let left: Vec<PathBuf> = fs::read_dir(store.folder().join("partial"))
                    .unwrap()
                    .map(|entry| entry.unwrap().path())
                    .collect();
                assert!(left.is_empty());
            }
            (Err(error), Err(part)) if error.contains(part) => {}
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }
}

#[test]
fn archives_of_docker_and_of_oci_are_loaded() {
    let (one, two) = (made("one"), made("two"));
    let any = LoadOptions::default();
    let named = LoadOptions {
        name: Some("mine:2".parse().unwrap()),
        ..LoadOptions::default()
    };
    let full = "docker.io/library/one:latest";
    check(&docker(&[(&one, json!(["one"]))]), &any, Ok(&[full]));
    check(
        &docker(&[
            (&one, json!(["one", "a.b/one:1"])),
            (&two, json!(["two:x"])),
        ]),
        &any,
        Ok(&[full, "a.b/one:1", "docker.io/library/two:x"]),
    );
    check(
        &docker(&[(&one, json!(null))]),
        &named,
        Ok(&["docker.io/library/mine:2"]),
    );
    check(
        &docker(&[(&one, json!(["one"]))]),
        &named,
        Ok(&["docker.io/library/mine:2"]),
    );
    check(
        &one.layout(IMAGE_NAME, "docker.io/library/one:latest"),
        &any,
        Ok(&[full]),
    );
    check(&one.layout(REF_NAME, "one:latest"), &any, Ok(&[full]));
    check(
        &one.layout("other", "x"),
        &named,
        Ok(&["docker.io/library/mine:2"]),
    );
    // Docker 25 and later write both; the index may lack the names.
    let mut both = one.layout(REF_NAME, "latest");
    both.extend(docker(&[(&one, json!(["one"]))]));
    check(&both, &any, Ok(&[full]));
    // An image with two names is two entries of the index.
    let mut twice = one.layout(IMAGE_NAME, "one");
    let entries = ["one", "a.b/one:1", "one"].map(|name| {
        let mut entry = descriptor(MANIFEST, &one.manifest);
        entry["annotations"] = json!({IMAGE_NAME: name});
        entry
    });
    let index = json!({"schemaVersion": 2, "manifests": entries});
    twice[1] = Item::file("index.json", &index.to_string());
    check(&twice, &any, Ok(&[full, "a.b/one:1"]));
    check(&twice, &named, Ok(&["docker.io/library/mine:2"]));
    // Equal layers are saved once.
    let layer = (tar(&[Item::file("same", "")]), Packing::Plain);
    let twice = image(&[layer.clone(), layer]);
    check(&docker(&[(&twice, json!(["one"]))]), &any, Ok(&[full]));
}

#[test]
fn archives_without_a_usable_image_are_refused() {
    let any = LoadOptions::default();
    let named = LoadOptions {
        name: Some("mine".parse().unwrap()),
        ..LoadOptions::default()
    };
    let (one, two) = (made("one"), made("two"));
    check(&[Item::file("x", "")], &any, Err("holds no image"));
    check(
        &[Item::file("manifest.json", "[]")],
        &any,
        Err("holds no image"),
    );
    check(
        &[Item::file("manifest.json", "{}")],
        &any,
        Err("\"manifest.json\" in"),
    );
    check(
        &[Item::file("index.json", "{}")],
        &any,
        Err("\"index.json\" in"),
    );
    check(&docker(&[(&one, json!(null))]), &any, Err("give a name"));
    check(&one.layout("other", "x"), &any, Err("give a name"));
    check(
        &docker(&[(&one, json!(["One"]))]),
        &any,
        Err("\"One\" is not the name"),
    );
    check(
        &one.layout(IMAGE_NAME, "One"),
        &any,
        Err("\"One\" is not the name"),
    );
    let several = docker(&[(&one, json!(["one"])), (&two, json!(["two"]))]);
    check(&several, &named, Err("has 2 images"));

    let mut missing = one.layout(IMAGE_NAME, "one");
    missing.remove(2);
    check(&missing, &any, Err("lacks \"blobs/sha256/"));
    for (index, part) in [(2, "is sha256"), (4, "is sha256"), (5, "is sha256")] {
        let mut damaged = one.layout(IMAGE_NAME, "one");
        let Item::File(_, bytes, _) = &mut damaged[index] else {
            panic!()
        };
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        check(&damaged, &any, Err(part));
        let Item::File(_, bytes, _) = &mut damaged[index] else {
            panic!()
        };
        bytes.push(0);
        check(&damaged, &any, Err("sha256"));
    }
    let mut swapped = docker(&[(&one, json!(["one"]))]);
    let Item::File(_, bytes, _) = &mut swapped[3] else {
        panic!()
    };
    *bytes = tar(&[Item::file("text", "another")]);
    check(&swapped, &any, Err("is damaged: layer"));
    let cycle = [
        Item::symlink("a", "b"),
        Item::symlink("b", "a"),
        Item::file(
            "manifest.json",
            r#"[{"Config":"a","RepoTags":["x"],"Layers":[]}]"#,
        ),
    ];
    check(&cycle, &any, Err("lacks \"a\""));
    let passwd = [Item::file(
        "manifest.json",
        r#"[{"Config":"../../../../../../etc/passwd","RepoTags":["x"],"Layers":[]}]"#,
    )];
    check(&passwd, &any, Err("lacks"));
}

#[test]
fn archives_are_read_from_pipes() {
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        let (directory, store) = store();
        let path = directory.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let bytes = pack(&tar(&docker(&[(&made("one"), json!(["one"]))])), packing);
        let writer = std::thread::spawn({
            let path = path.clone();
            move || fs::write(path, bytes).unwrap()
        });
        let names = load(&store, &path, &LoadOptions::default()).unwrap();
        writer.join().unwrap();
        assert_eq!(names.len(), 1);
        assert!(store.resolve(&names[0]).unwrap().is_some());
    }
}

#[test]
fn compressed_archives_have_limits() {
    let items = made("one").layout(IMAGE_NAME, "one");
    for (items, image_bytes, part) in [
        (items, 2000, "unpacks to more than 2000 bytes"),
        (
            vec![Item::File("zeros".into(), vec![0; 80 << 20], 0o644)],
            1 << 30,
            "as bombs do",
        ),
    ] {
        let (_folder, store) = store();
        let mut options = LoadOptions::default();
        options.limits.image_bytes = image_bytes;
        options.limits.ratio = 100;
        let error = load_items(&store, &items, Packing::Gzip, &options).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn the_platform_is_chosen_or_the_offered_ones_are_named() {
    let on = |architecture: &str| {
        let mut platform = Platform::host();
        platform.architecture = architecture.to_owned();
        platform.variant = None;
        platform
    };
    let layers = |text: &str| [(tar(&[Item::file("text", text)]), Packing::Gzip)];
    let images = [
        (on("amd64"), image_for(&on("amd64"), &layers("amd64"))),
        (on("s390x"), image_for(&on("s390x"), &layers("s390x"))),
    ];
    let entries: Vec<Value> = images
        .iter()
        .map(|(platform, made)| {
            let mut entry = descriptor(MANIFEST, &made.manifest);
            entry["platform"] = serde_json::to_value(platform).unwrap();
            entry
        })
        .collect();
    let inner = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string();
    let mut outer = descriptor(INDEX, inner.as_bytes());
    outer["annotations"] = json!({IMAGE_NAME: "multi"});
    let index = json!({"schemaVersion": 2, "manifests": [outer]}).to_string();
    let mut items = vec![Item::file("index.json", &index), blob(inner.as_bytes())];
    for (_, made) in &images {
        items.extend(made.blobs().into_iter().map(blob));
    }
    for (architecture, expected) in [
        ("amd64", Ok(&images[0].1)),
        ("s390x", Ok(&images[1].1)),
        (
            "riscv64",
            Err("not made for linux/riscv64, only for linux/amd64, linux/s390x"),
        ),
    ] {
        let options = LoadOptions {
            platform: on(architecture),
            ..LoadOptions::default()
        };
        let (_folder, store) = store();
        let found = load_items(&store, &items, Packing::Plain, &options);
        match expected {
            Ok(made) => {
                found.unwrap();
                let image = store.resolve(&"multi".parse().unwrap()).unwrap().unwrap();
                assert_eq!(image.digest, Digest::of(&made.manifest));
            }
            Err(part) => assert!(found.clone().is_err_and(|e| e.contains(part)), "{found:?}"),
        }
    }
    // Without an index the configuration tells.
    let options = LoadOptions {
        platform: on("riscv64"),
        ..LoadOptions::default()
    };
    let part = "only for linux/amd64";
    check(&images[0].1.layout(IMAGE_NAME, "one"), &options, Err(part));
    check(
        &docker(&[(&images[0].1, json!(["one"]))]),
        &options,
        Err(part),
    );
}

#[test]
fn folders_with_a_layout_are_loaded() {
    let (directory, store) = store();
    let path = directory.path().join("layout");
    let one = made("one");
    folder(&path, &one.layout(REF_NAME, "a.b/one:1"));
    let names = load(&store, &path, &LoadOptions::default()).unwrap();
    assert_eq!(names, ["a.b/one:1".parse().unwrap()]);
    let list = store.list().unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].digest, Digest::of(&one.manifest));
    let size: usize = one.layers.iter().map(Vec::len).sum();
    assert_eq!(list[0].size as usize, size + one.config.len());
    assert_eq!(list[0].created.as_deref(), Some("2026-01-02T03:04:05Z"));
    // Descriptions do not lead out of the folder.
    let path = directory.path().join("hostile/inner");
    let list = r#"[{"Config":"../secret","RepoTags":["x"],"Layers":[]}]"#;
    folder(&path, &[Item::file("manifest.json", list)]);
    fs::write(directory.path().join("hostile/secret"), &one.config).unwrap();
    let error = load(&store, &path, &LoadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("lacks \"../secret\""), "{error}");
    let error = load(
        &store,
        &directory.path().join("none"),
        &LoadOptions::default(),
    );
    assert!(error.unwrap_err().to_string().contains("none"));
}
