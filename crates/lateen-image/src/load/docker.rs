//! The archive of `docker save`: `manifest.json` lists images, each with the files of its configuration and layers.
//!
//! There is no manifest of a registry in it, so one is made. The layers keep their bytes.

use serde::Deserialize;

use super::{LoadError, LoadOptions, layout::check_platform, names, shown, source::Source};
use crate::{
    ContentStore, Descriptor, Digest, Reference,
    manifest::{MAX_LAYERS, Manifest, ManifestError, OCI_CONFIG, OCI_MANIFEST, nullable},
    unpack::compression,
};

/// The file that lists the images.
pub(super) const MANIFEST: &str = "manifest.json";

/// An image in the list.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default, deserialize_with = "nullable")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    layers: Vec<String>,
}

/// Copies the images into the store.
pub(super) fn load(
    store: &ContentStore,
    source: &Source,
    options: &LoadOptions,
) -> Result<Vec<Reference>, LoadError> {
    let path = source.path();
    let images: Vec<Saved> = serde_json::from_slice(&source.read(MANIFEST)?).map_err(|error| {
        LoadError::Description {
            path: path.to_owned(),
            member: MANIFEST.to_owned(),
            why: error.to_string(),
        }
    })?;
    if images.is_empty() {
        return Err(LoadError::NoImage(path.to_owned()));
    }
    let mut loaded = Vec::new();
    for saved in &images {
        let own: Result<Vec<Reference>, _> =
            saved.repo_tags.iter().map(|tag| tag.parse()).collect();
        let own = own.map_err(|source| LoadError::Name {
            path: path.to_owned(),
            source,
        })?;
        let names = names(&own, images.len(), path, options)?;
        let digest = copy(store, source, saved, &names, options)?;
        for name in names {
            store.name(&name, digest)?;
            loaded.push(name);
        }
    }
    Ok(loaded)
}

/// Copies an image, and returns the digest of its new manifest.
fn copy(
    store: &ContentStore,
    source: &Source,
    saved: &Saved,
    names: &[Reference],
    options: &LoadOptions,
) -> Result<Digest, LoadError> {
    let bytes = source.read(&saved.config)?;
    let config = Descriptor {
        media_type: OCI_CONFIG.to_owned(),
        digest: Digest::of(&bytes),
        size: bytes.len() as u64,
        platform: None,
        annotations: Default::default(),
    };
    let diff_ids = check_platform(source, names, &config.digest, &bytes, options)?.diff_ids;
    let fail = |why: ManifestError| LoadError::Manifest {
        path: source.path().to_owned(),
        image: shown(names, &config.digest),
        source: why,
    };
    if saved.layers.len() > MAX_LAYERS {
        return Err(fail(ManifestError::TooMany {
            what: "layers",
            found: saved.layers.len(),
            limit: MAX_LAYERS,
        }));
    }
    if saved.layers.len() != diff_ids.len() {
        return Err(fail(ManifestError::Syntax(format!(
            "it has {} layers, but the configuration tells the digests of {}",
            saved.layers.len(),
            diff_ids.len()
        ))));
    }
    let mut layers = Vec::new();
    for (member, expected) in saved.layers.iter().zip(diff_ids) {
        let compression = compression(&source.start(member)?);
        let mut writer = store.writer(None, options.limits.image_bytes)?;
        source.copy(member, &mut writer)?;
        // What is compressed is compared when it is unpacked.
        let (digest, size) = match compression {
            None => writer.commit_as(expected).map_err(|found| match found {
                Ok(found) => LoadError::Layer {
                    path: source.path().to_owned(),
                    image: shown(names, &config.digest),
                    member: member.clone(),
                    expected,
                    found,
                },
                Err(error) => error.into(),
            })?,
            Some(_) => writer.commit()?,
        };
        let suffix = compression.map_or_else(String::new, |kind| format!("+{kind}"));
        layers.push(Descriptor {
            media_type: format!("application/vnd.oci.image.layer.v1.tar{suffix}"),
            digest,
            size,
            platform: None,
            annotations: Default::default(),
        });
    }
    store.put(&bytes)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(OCI_MANIFEST.to_owned()),
        config: config.clone(),
        layers,
    };
    let manifest = serde_json::to_vec(&manifest)
        .map_err(|error| fail(ManifestError::Syntax(error.to_string())))?;
    Ok(store.put(&manifest)?)
}
