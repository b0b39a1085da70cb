//! Images made on the spot.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "each test program uses a part of it"
)]

pub mod archive;
pub mod registry;
pub mod tree;

use std::{fs, io::Write};

use flate2::{Compression, write::GzEncoder};
use lateen_image::{ContentStore, Digest, Image, LoadOptions, Platform, load};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::{Value, json};
use tempfile::TempDir;

pub use archive::{Item, tar};

/// An image: its blobs, by digest.
pub struct Made {
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
}

/// How a layer is packed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

pub fn pack(bytes: &[u8], packing: Packing) -> Vec<u8> {
    match packing {
        Packing::Plain => bytes.to_vec(),
        Packing::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Packing::Zstd => compress_to_vec(bytes, CompressionLevel::Fastest),
    }
}

/// An image for this machine of these layers, lowest first.
pub fn image(layers: &[(Vec<u8>, Packing)]) -> Made {
    image_for(&Platform::host(), layers)
}

pub fn image_for(platform: &Platform, layers: &[(Vec<u8>, Packing)]) -> Made {
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|(layer, _)| Digest::of(layer).to_string())
        .collect();
    let config = json!({
        "architecture": platform.architecture, "os": platform.os, "created": "2026-01-02T03:04:05Z",
        "config": {"Cmd": ["/bin/run"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let packed = layers
        .iter()
        .map(|(layer, how)| pack(layer, *how))
        .collect();
    with_config(config.to_string().into_bytes(), packed)
}

/// An image of blobs as they are.
pub fn with_config(config: Vec<u8>, layers: Vec<Vec<u8>>) -> Made {
    let descriptors: Vec<Value> = layers
        .iter()
        .map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", layer))
        .collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": descriptors,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
    });
    Made {
        manifest: manifest.to_string().into_bytes(),
        config,
        layers,
    }
}

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len()})
}

impl Made {
    /// All blobs.
    pub fn blobs(&self) -> Vec<&[u8]> {
        let mut blobs: Vec<&[u8]> = self.layers.iter().map(Vec::as_slice).collect();
        blobs.extend([self.config.as_slice(), self.manifest.as_slice()]);
        blobs
    }

    /// The files of an OCI layout with this image under this name.
    pub fn layout(&self, annotation: &str, name: &str) -> Vec<Item> {
        let mut entry = descriptor(MANIFEST, &self.manifest);
        entry["annotations"] = json!({annotation: name});
        let index = json!({"schemaVersion": 2, "manifests": [entry]});
        let mut items = vec![
            Item::file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#),
            Item::file("index.json", &index.to_string()),
        ];
        items.extend(self.blobs().into_iter().map(blob));
        items
    }
}

/// A blob's file in a layout.
pub fn blob(bytes: &[u8]) -> Item {
    Item::File(
        format!("blobs/sha256/{}", Digest::of(bytes).hex()),
        bytes.to_vec(),
        0o644,
    )
}

pub fn store() -> (TempDir, ContentStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = ContentStore::open(folder.path().join("images")).unwrap();
    (folder, store)
}

/// The image in a store of its own, as `test:latest`.
pub fn stored(made: &Made) -> (TempDir, ContentStore, Image) {
    let (folder, store) = store();
    let path = folder.path().join("image.tar");
    let items = made.layout("io.containerd.image.name", "test");
    fs::write(&path, tar(&items)).unwrap();
    load(&store, &path, &LoadOptions::default()).unwrap();
    let image = store.resolve(&"test".parse().unwrap()).unwrap().unwrap();
    (folder, store, image)
}

/// The annotation with the whole name of an image.
pub const IMAGE_NAME: &str = "io.containerd.image.name";

/// An image of two layers; the lower one is always the same.
pub fn made(text: &str) -> Made {
    image(&[
        (tar(&[Item::file("base", "base")]), Packing::Gzip),
        (tar(&[Item::file("text", text)]), Packing::Plain),
    ])
}

/// Loads an archive; returns the names.
pub fn load_items(
    store: &ContentStore,
    items: &[Item],
    packing: Packing,
    options: &LoadOptions,
) -> Result<Vec<String>, String> {
    let path = store.folder().join("archive");
    fs::write(&path, pack(&tar(items), packing)).unwrap();
    let loaded = load(store, &path, options).map_err(|error| error.to_string());
    loaded.map(|names| names.iter().map(ToString::to_string).collect())
}
