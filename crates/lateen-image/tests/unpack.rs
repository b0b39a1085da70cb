//! Layers as folders, as overlayfs is to see them.

mod common;

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use common::{
    Item, Made, Packing, image, pack, stored, tar,
    tree::{tree, unpacked},
    with_config,
};
use lateen_image::{Limits, prune_layers, unpack};
use nix::unistd::getuid;
use tar::EntryType;

fn check(items: &[Item], expected: &[&str]) {
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        let found = unpacked(items, packing, &Limits::default()).unwrap();
        assert_eq!(found, expected, "{items:?} {packing:?}");
    }
}

#[test]
fn entries_become_files() {
    check(
        &[
            Item::dir("./"),
            Item::Dir("bin".into(), 0o555),
            Item::File("bin/run".into(), b"hello".to_vec(), 0o755),
            Item::symlink("bin/sh", "/bin/run"),
            Item::symlink("bin/away", "../../../../etc/passwd"),
            Item::hardlink("bin/again", "bin/run"),
            Item::hardlink("bin/link", "./bin/sh"),
            Item::File("implied/deep/file".into(), b"x".to_vec(), 0o600),
            Item::file("/absolute", "in the root"),
            Item::Other(EntryType::Fifo, "pipe".into()),
            Item::Other(EntryType::Char, "dev/null".into()),
            Item::Other(EntryType::Block, "dev/sda".into()),
            Item::file(&format!("{}/end", "long".repeat(50)), "y"),
        ],
        &[
            "absolute 644 in the root",
            "bin/ 555",
            "bin/again 755 hello",
            "bin/away -> ../../../../etc/passwd",
            "bin/link -> /bin/run",
            "bin/run 755 hello",
            "bin/sh -> /bin/run",
            "implied/ 755",
            "implied/deep/ 755",
            "implied/deep/file 600 x",
            &format!("{}/ 755", "long".repeat(50)),
            &format!("{}/end 644 y", "long".repeat(50)),
            "pipe pipe",
        ],
    );
}

#[test]
fn whiteouts_become_what_overlayfs_reads() {
    check(
        &[
            Item::file("etc/.wh.passwd", ""),
            Item::file("var/.wh..wh..opq", ""),
            Item::file("var/new", "kept"),
            Item::file("srv/.wh..wh.plnk/7", ""),
            Item::file(".wh.gone", ""),
        ],
        &[
            "etc/ 755",
            "etc/passwd gone",
            "gone gone",
            "var/ 755 opaque",
            "var/new 644 kept",
        ],
    );
    // A whiteout is of lower layers only, wherever in the archive it is.
    check(
        &[
            Item::file("a", "1"),
            Item::file(".wh.a", ""),
            Item::file(".wh.b", ""),
            Item::file("b", "2"),
            Item::dir("c"),
            Item::file(".wh.c", ""),
            Item::file(".wh.d", ""),
            Item::dir("d"),
            Item::file(".wh.e", ""),
            Item::file("e/f", "3"),
            Item::file(".wh.e", ""),
        ],
        &[
            "a 644 1",
            "b 644 2",
            "c/ 755 opaque",
            "d/ 755 opaque",
            "e/ 755 opaque",
            "e/f 644 3",
        ],
    );
}

#[test]
fn later_entries_replace_earlier_ones() {
    check(
        &[
            Item::file("a", "old"),
            Item::file("a", "new"),
            Item::symlink("b", "/etc"),
            Item::dir("b"),
            Item::file("b/x", "inside"),
            Item::dir("c"),
            Item::file("c", "file"),
            Item::Dir("d".into(), 0o700),
            Item::Dir("d".into(), 0o711),
            Item::hardlink("a", "a"),
        ],
        &[
            "a 644 new",
            "b/ 755",
            "b/x 644 inside",
            "c 644 file",
            "d/ 711",
        ],
    );
}

#[test]
fn setuid_is_kept_only_with_its_owner() {
    let user = u64::from(getuid().as_raw());
    let own = Item::Owned("own".into(), user, 0o4755);
    let odd = Item::Owned("odd".into(), u64::from(u32::MAX), 0o6755);
    check(&[own, odd], &["odd 755 ", "own 4755 "]);
    let other = [Item::Owned("other".into(), 4242, 0o4755)];
    if getuid().is_root() {
        check(&other, &["other 4755 "]);
    } else {
        check(&other, &["other 755 "]);
    }
}

#[test]
fn layers_are_stacked_top_to_bottom_and_unpacked_once() {
    let low = tar(&[Item::file("a", "low")]);
    let high = tar(&[Item::file("a", "high")]);
    let layers = [
        (low.clone(), Packing::Gzip),
        (high.clone(), Packing::Plain),
        (low.clone(), Packing::Gzip),
    ];
    let (folder, store, image) = stored(&image(&layers));
    let target = folder.path().join("layers");
    let folders = unpack(&store, &image, &target, &Limits::default()).unwrap();
    let name = |bytes: &[u8]| target.join(lateen_image::Digest::of(bytes).hex());
    assert_eq!(folders, [name(&low), name(&high)]);
    assert_eq!(
        fs::metadata(&target).unwrap().permissions().mode() & 0o7777,
        0o700
    );

    // What is there is not made again, not even read.
    fs::write(folders[0].join("mark"), "").unwrap();
    store.remove(&image.name).unwrap();
    assert_eq!(
        unpack(&store, &image, &target, &Limits::default()).unwrap(),
        folders
    );
    assert!(folders[0].join("mark").exists());

    fs::create_dir(target.join(".unfinished-x")).unwrap();
    let keep = BTreeSet::from([lateen_image::Digest::of(&high)]);
    assert_eq!(prune_layers(&target, &keep).unwrap(), 1);
    assert_eq!(fs::read_dir(&target).unwrap().count(), 1);
    let error = unpack(&store, &image, &target, &Limits::default()).unwrap_err();
    assert!(
        error.to_string().contains("load or pull the image again"),
        "{error}"
    );
}

#[test]
fn folders_that_forbid_it_can_be_pruned() {
    let items = [
        Item::dir("a"),
        Item::Dir("a/b".into(), 0),
        Item::file("a/b/c", ""),
        Item::Dir("a".into(), 0),
    ];
    let (folder, store, image) = stored(&image(&[(tar(&items), Packing::Gzip)]));
    let target = folder.path().join("layers");
    unpack(&store, &image, &target, &Limits::default()).unwrap();
    assert_eq!(prune_layers(&target, &BTreeSet::new()).unwrap(), 1);
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
}

fn check_damaged(made: &Made, damage: impl Fn(&Path), part: &str) {
    let (folder, store, image) = stored(made);
    let blob = store
        .folder()
        .join("blobs/sha256")
        .join(image.layers[0].blob.digest.hex());
    damage(&blob);
    let target = folder.path().join("layers");
    let error = unpack(&store, &image, &target, &Limits::default()).unwrap_err();
    assert!(error.to_string().contains(part), "{error}");
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "{part}");
}

#[test]
fn damaged_layers_are_refused() {
    let layer = tar(&[Item::file("a", "text")]);
    let good = image(&[(layer.clone(), Packing::Gzip)]);
    let damage = |blob: &Path| {
        let mut bytes = fs::read(blob).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(blob, bytes).unwrap();
    };
    check_damaged(&good, damage, "was deleted, load or pull the image again");

    // The configuration tells of another archive.
    let swapped = with_config(
        good.config.clone(),
        vec![pack(&tar(&[Item::file("a", "other")]), Packing::Gzip)],
    );
    check_damaged(&swapped, |_| {}, "do not use the image");
    // Bytes after the archive's end count too.
    let longer = [layer.as_slice(), b"more"].concat();
    let longer = with_config(good.config.clone(), vec![pack(&longer, Packing::Gzip)]);
    check_damaged(&longer, |_| {}, "do not use the image");
    let cut = pack(&layer, Packing::Gzip);
    let cut = with_config(good.config.clone(), vec![cut[..cut.len() - 9].to_vec()]);
    check_damaged(&cut, |_| {}, "cannot be read");
    let noise = with_config(good.config, vec![vec![7; 2048]]);
    check_damaged(&noise, |_| {}, "cannot be read");
}

#[test]
fn archives_of_several_parts_are_read_to_the_end() {
    let layer = tar(&[Item::file("a", "one"), Item::file("b", "two")]);
    let (first, second) = layer.split_at(700);
    let skippable = [0x5f, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    for packed in [
        [pack(first, Packing::Gzip), pack(second, Packing::Gzip)].concat(),
        [
            skippable.to_vec(),
            pack(first, Packing::Zstd),
            skippable.to_vec(),
            pack(second, Packing::Zstd),
            skippable.to_vec(),
        ]
        .concat(),
    ] {
        let config = image(&[(layer.clone(), Packing::Plain)]).config;
        let (folder, store, image) = stored(&with_config(config, vec![packed]));
        let target = folder.path().join("layers");
        let folders = unpack(&store, &image, &target, &Limits::default()).unwrap();
        assert_eq!(tree(&folders[0]), ["a 644 one", "b 644 two"]);
    }
}

#[test]
fn many_may_unpack_one_image() {
    let layers = ["a", "b"].map(|name| (tar(&[Item::file(name, name)]), Packing::Gzip));
    let (folder, store, image) = stored(&image(&layers));
    let target = folder.path().join("layers");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let folders = unpack(&store, &image, &target, &Limits::default()).unwrap();
                assert_eq!(tree(&folders[0]), ["b 644 b"]);
            });
        }
    });
    assert_eq!(fs::read_dir(&target).unwrap().count(), 2);
}

/// Runs a script in a user and mount namespace of its own; `None` where this machine has none for this user.
fn in_namespace(script: &str) -> Option<String> {
    let run = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-ec", script]);
        command.output().ok()
    };
    run("mount -t tmpfs none /mnt").filter(|output| output.status.success())?;
    let output = run(script)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn overlayfs_stacks_the_layers_without_privileges() {
    let low = [
        Item::file("gone", "low"),
        Item::file("both", "low"),
        Item::file("opaque/low", "low"),
        Item::file("merged/low", "low"),
        Item::file("folder/low", "low"),
    ];
    let high = [
        Item::file(".wh.gone", ""),
        Item::file("both", "high"),
        Item::file("opaque/.wh..wh..opq", ""),
        Item::file("opaque/high", "high"),
        Item::file("merged/high", "high"),
        Item::file(".wh.folder", ""),
        Item::file("folder/high", "high"),
    ];
    let layers = [(tar(&low), Packing::Gzip), (tar(&high), Packing::Gzip)];
    let (folder, store, image) = stored(&image(&layers));
    let target = folder.path().join("layers");
    let folders = unpack(&store, &image, &target, &Limits::default()).unwrap();
    let folders: Vec<String> = folders
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let script = format!(
        "mount -t overlay overlay -o userxattr,lowerdir={} /mnt; cd /mnt; find . -type f | sort; cat both",
        folders.join(":")
    );
    let Some(found) = in_namespace(&script) else {
        eprintln!("left out: this user may not make namespaces here");
        return;
    };
    let expected = "./both\n./folder/high\n./merged/high\n./merged/low\n./opaque/high\nhigh";
    assert_eq!(found, expected);
}
