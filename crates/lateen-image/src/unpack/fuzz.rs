//! Any archive, packed in any way: it is unpacked or refused, and nothing leaves the layer.

use std::fs;
use std::io::{Seek, Write};

use serde_json::json;

use super::{Limits, apply};
use crate::Digest;
use crate::image::Layer;

#[test]
fn layers() {
    let limits = Limits {
        layer_bytes: 1 << 20,
        image_bytes: 1 << 20,
        entries: 100,
        ..Limits::default()
    };
    let layer = Layer {
        blob: serde_json::from_value(json!({ "digest": Digest::of(b""), "size": 0 })).unwrap(),
        diff_id: Digest::of(b""),
    };
    bolero::check!(name = "layers")
        .with_iterations(0)
        .for_each(|bytes: &[u8]| {
            let around = tempfile::tempdir().unwrap();
            let outside = around.path().join("outside");
            fs::write(&outside, "untouched").unwrap();
            let folder = around.path().join("layer");
            fs::create_dir(&folder).unwrap();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&signed(bytes)).unwrap();
            file.rewind().unwrap();
            let _ = apply::apply(file, &layer, &folder, &limits);
            assert_eq!(fs::read_to_string(&outside).unwrap(), "untouched");
            assert_eq!(fs::read_dir(around.path()).unwrap().count(), 2);
        });
}

/// The sums of headers made right, without which no reader looks further.
fn signed(archive: &[u8]) -> Vec<u8> {
    let mut archive = archive.to_vec();
    for block in archive.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    archive
}
