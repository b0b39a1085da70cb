//! An image in the store.

use thiserror::Error;

use crate::{Digest, ImageConfig, Reference, manifest::Descriptor, manifest::Manifest};

/// An image whose content is all in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Image {
    /// The name it was found by.
    pub name: Reference,
    /// The digest of its manifest: that of this platform, where the name is an index for several.
    pub digest: Digest,
    /// Bytes of its configuration and layers, as they were fetched.
    pub size: u64,
    /// How it runs.
    pub config: ImageConfig,
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layer {
    /// The archive as it was fetched, compressed or not.
    pub blob: Descriptor,
    /// The digest of the uncompressed archive.
    pub diff_id: Digest,
}

/// A manifest and a configuration that do not belong together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the manifest has {layers} layers, but the configuration tells the digests of {diff_ids}; make the image again"
)]
pub struct IncompleteError {
    /// Layers of the manifest.
    pub layers: usize,
    /// Digests in the configuration.
    pub diff_ids: usize,
}

/// The image of a manifest and its configuration.
pub(crate) fn assemble(
    name: &Reference,
    digest: Digest,
    manifest: &Manifest,
    config: ImageConfig,
) -> Result<Image, IncompleteError> {
    if manifest.layers.len() != config.diff_ids.len() {
        return Err(IncompleteError {
            layers: manifest.layers.len(),
            diff_ids: config.diff_ids.len(),
        });
    }
    let layers = manifest.layers.iter().zip(&config.diff_ids);
    let sizes = manifest.layers.iter().map(|layer| layer.size);
    Ok(Image {
        name: name.clone(),
        digest,
        size: sizes.fold(manifest.config.size, u64::saturating_add),
        layers: layers
            .map(|(blob, diff_id)| Layer {
                blob: blob.clone(),
                diff_id: *diff_id,
            })
            .collect(),
        config,
    })
}
