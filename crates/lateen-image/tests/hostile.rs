//! What hostile archives do not get.

mod common;

use std::fs;

use common::{
    Item, Made, Packing, archive::header, image, pack, stored, tar, tree::unpacked, with_config,
};
use lateen_image::{Limits, unpack};
use tar::EntryType;

/// The message must name the layer, the path, and the reason.
fn check_refused(items: &[Item], limits: &Limits, path: &str, why: &str) {
    let error = unpacked(items, Packing::Gzip, limits).unwrap_err();
    let shown = error.to_string();
    let layer = lateen_image::Digest::of(&pack(&tar(items), Packing::Gzip)).to_string();
    for part in [layer.as_str(), path, why] {
        assert!(shown.contains(part), "{shown} lacks {part:?}");
    }
}

#[test]
fn nothing_leaves_the_layer() {
    let default = Limits::default();
    for (items, path, why) in [
        (vec![Item::file("../x", "")], "../x", "\"..\" in its path"),
        (
            vec![Item::file("a/../../x", "")],
            "a/../../x",
            "\"..\" in its path",
        ),
        (vec![Item::file("/../x", "")], "/../x", "\"..\" in its path"),
        (
            vec![Item::symlink("a", "/tmp"), Item::file("a/x", "")],
            "a/x",
            "through the symbolic link \"a\"",
        ),
        (
            vec![
                Item::symlink("a", "b"),
                Item::dir("b"),
                Item::file("a/x", ""),
            ],
            "a/x",
            "through the symbolic link \"a\"",
        ),
        (
            vec![
                Item::dir("a"),
                Item::symlink("a/b", "/"),
                Item::dir("a/b/c"),
            ],
            "a/b/c",
            "through the symbolic link \"a/b\"",
        ),
        (
            vec![Item::symlink("a", "/etc"), Item::file("a/.wh.passwd", "")],
            "a/.wh.passwd",
            "through the symbolic link \"a\"",
        ),
        (
            vec![Item::symlink("a", "/etc"), Item::file("a/.wh..wh..opq", "")],
            "a/.wh..wh..opq",
            "through the symbolic link \"a\"",
        ),
        (
            vec![Item::symlink("a", "/etc"), Item::hardlink("b", "a/passwd")],
            "\"b\"",
            "through the symbolic link \"a\"",
        ),
        (
            vec![Item::hardlink("b", "/etc/passwd")],
            "\"b\"",
            "needs \"etc\"",
        ),
        (
            vec![Item::hardlink("b", "../../etc/passwd")],
            "\"b\"",
            "\"..\" in its path",
        ),
        (
            vec![Item::hardlink("b", "gone")],
            "\"b\"",
            "no file of this layer",
        ),
        (
            vec![Item::file(".wh.w", ""), Item::hardlink("b", "w")],
            "\"b\"",
            "no file of this layer",
        ),
        (
            vec![Item::dir("d"), Item::hardlink("b", "d")],
            "\"b\"",
            "a folder",
        ),
        (
            vec![Item::hardlink("b", "")],
            "\"b\"",
            "link without a target",
        ),
        (
            vec![Item::symlink("b", "")],
            "\"b\"",
            "link without a target",
        ),
        (
            vec![Item::file("a", ""), Item::file("a/x", "")],
            "a/x",
            "no folder",
        ),
        (vec![Item::file(".wh...", "")], ".wh...", "whiteout"),
        (vec![Item::file("a/.wh..", "")], "a/.wh..", "whiteout"),
        (
            vec![Item::file("d/x", ""), Item::file("d", "")],
            "\"d\"",
            "replaces a folder",
        ),
        (vec![Item::symlink("./", "/")], "./", "replaces the root"),
        (
            vec![
                Item::Raw(pax("GNU.sparse.major=1")),
                Item::file("sparse", "1\n0\n1\n"),
            ],
            "\"sparse\"",
            "sparse file in PAX format",
        ),
        (
            vec![Item::Raw(pax("path=a/../../x")), Item::file("good", "")],
            "a/../../x",
            "\"..\" in its path",
        ),
        (
            vec![
                Item::Raw(pax("linkpath=../../etc/passwd")),
                Item::hardlink("b", "good"),
            ],
            "\"b\"",
            "\"..\" in its path",
        ),
        (
            vec![Item::Other(EntryType::new(b'Z'), "z".into())],
            "\"z\"",
            "unknown type 'Z'",
        ),
    ] {
        check_refused(&items, &default, path, why);
    }
}

/// A remark on the next entry, in PAX format.
fn pax(record: &str) -> Vec<u8> {
    // The length counts itself.
    let mut length = record.len() + 4;
    if length >= 100 {
        length += 1;
    }
    let text = format!("{length} {record}\n");
    assert_eq!(text.len(), length);
    let header = header(EntryType::XHeader, "pax", "", 0o644, text.len());
    let mut bytes = [header.as_bytes().as_slice(), text.as_bytes()].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

#[test]
fn bombs_are_refused_by_each_limit() {
    let limits = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        limits
    };
    let zeros = |size: usize| Item::File("zeros".into(), vec![0; size], 0o644);
    for (items, limits, path, why) in [
        (
            vec![zeros(5000)],
            limits(|l| l.layer_bytes = 4000),
            "zeros",
            "more than 4000 bytes",
        ),
        (
            vec![zeros(5000)],
            limits(|l| l.image_bytes = 4000),
            "zeros",
            "more than 4000 bytes",
        ),
        (
            vec![zeros(80 << 20)],
            limits(|l| l.ratio = 100),
            "zeros",
            "more than 100 times",
        ),
        (
            vec![
                Item::file("a", ""),
                Item::file("b", ""),
                Item::file("c", ""),
            ],
            limits(|l| l.entries = 2),
            "\"c\"",
            "more than 2 entries",
        ),
        (
            vec![Item::dir("a/b/c/d")],
            limits(|l| l.path_depth = 3),
            "a/b/c/d",
            "deeper than 3",
        ),
        (
            vec![Item::file(&"x".repeat(200), "")],
            limits(|l| l.path_length = 100),
            "xxx",
            "longer than 100",
        ),
        (
            // A long name of two megabytes is not read into memory.
            vec![Item::Raw({
                let long = header(EntryType::GNULongName, "././@LongLink", "", 0, 2 << 20);
                [long.as_bytes().as_slice(), &vec![b'a'; 2 << 20]].concat()
            })],
            Limits::default(),
            "",
            "description of an entry",
        ),
        (
            sparse(".wh..wh.plnk"),
            limits(|l| l.layer_bytes = 1 << 20),
            ".wh..wh.plnk",
            "more than 1048576 bytes",
        ),
        (
            sparse("sparse"),
            limits(|l| l.layer_bytes = 1 << 20),
            "sparse",
            "more than 1048576 bytes",
        ),
    ] {
        check_refused(&items, &limits, path, why);
    }
}

/// A sparse file of 8 GiB in a kilobyte.
fn sparse(path: &str) -> Vec<Item> {
    let mut header = header(EntryType::GNUSparse, path, "", 0o644, 0);
    let gnu = header.as_gnu_mut().unwrap();
    // One block of data, right before the end.
    gnu.sparse[0].offset = *b"077777777000";
    gnu.sparse[0].numbytes = *b"000000001000";
    gnu.realsize = *b"100000000000";
    header.set_size(512);
    header.set_cksum();
    vec![Item::Raw(
        [header.as_bytes().as_slice(), &[1; 512]].concat(),
    )]
}

#[test]
fn bombs_are_bombs_in_every_packing() {
    let items = [Item::File("zeros".into(), vec![0; 80 << 20], 0o644)];
    let limits = Limits {
        ratio: 100,
        ..Limits::default()
    };
    for packing in [Packing::Gzip, Packing::Zstd] {
        let error = unpacked(&items, packing, &limits).unwrap_err();
        assert!(
            error.to_string().contains("more than 100 times"),
            "{packing:?}: {error}"
        );
    }
    assert!(unpacked(&items, Packing::Plain, &limits).is_ok());
}

/// Random numbers that are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

#[test]
fn damaged_archives_neither_panic_nor_leave_the_layer() {
    let good = tar(&[
        Item::dir("dir"),
        Item::file("dir/file", &"text".repeat(300)),
        Item::symlink("dir/link", "../../../../outside"),
        Item::hardlink("dir/hard", "dir/file"),
        Item::file("dir/.wh.gone", ""),
        Item::Raw(pax("path=dir/link/x")),
        Item::file(&"long/".repeat(30), "end"),
    ]);
    let mut numbers = Numbers(7);
    for round in 0..120 {
        let packing = [Packing::Plain, Packing::Gzip, Packing::Zstd][round % 3];
        // Damage before packing tries the archive's reader, after it the decompressor.
        let mut bytes = if round % 2 == 0 {
            good.clone()
        } else {
            pack(&good, packing)
        };
        for _ in 0..=numbers.below(4) {
            let position = numbers.below(bytes.len());
            bytes[position] = u8::try_from(numbers.below(256)).unwrap();
        }
        let made = if round % 2 == 0 {
            image(&[(fixed(bytes), packing)])
        } else {
            with_config(image(&[(good.clone(), packing)]).config, vec![bytes])
        };
        check_stays_inside(&made, &Limits::default());
    }
}

/// Any archive, packed in any way, fuzzed: it is unpacked or refused.
#[test]
fn layers() {
    bolero::check!(name = "layers")
        .with_iterations(0)
        .for_each(|bytes: &[u8]| {
            let limits = Limits {
                layer_bytes: 1 << 20,
                image_bytes: 1 << 20,
                entries: 100,
                ..Limits::default()
            };
            let made = image(&[(fixed(bytes.to_vec()), Packing::Plain)]);
            check_stays_inside(&made, &limits);
        });
}

/// Unpacks an image, or not: nothing beside its layers changes.
#[track_caller]
fn check_stays_inside(made: &Made, limits: &Limits) {
    let (folder, store, image) = stored(made);
    fs::write(folder.path().join("outside"), "untouched").unwrap();
    let layers = folder.path().join("deep/layers");
    let _ = unpack(&store, &image, &layers, limits);
    let outside = fs::read_to_string(folder.path().join("outside")).unwrap();
    assert_eq!(outside, "untouched");
    let mut names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["deep", "image.tar", "images", "outside"]);
}

/// Sums of headers made right again, since damage that every reader sees proves little.
fn fixed(mut archive: Vec<u8>) -> Vec<u8> {
    for block in archive.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    archive
}
