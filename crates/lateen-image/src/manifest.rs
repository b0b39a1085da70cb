//! Manifests and indexes, of OCI (image-spec manifest.md, image-index.md) and of Docker (version 2, schema 2).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::{Digest, Platform};

/// Largest manifest or index, in bytes: what registries must at least take (distribution-spec, "Pushing Manifests").
pub(crate) const MAX_MANIFEST: u64 = 4 << 20;
/// Largest configuration of an image, in bytes. Real ones are tens of kilobytes.
pub(crate) const MAX_CONFIG: u64 = 8 << 20;
/// Most layers: what Docker builds at most, and well below the 500 that overlayfs stacks.
pub(crate) const MAX_LAYERS: usize = 128;
/// Most entries of an index.
const MAX_ENTRIES: usize = 1000;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// The types that an image's configuration has. The last four are from old versions of Docker, which accepts them to
/// this day (moby, `distribution/registry.go`, `ImageTypes`).
const CONFIGS: [&str; 6] = [
    OCI_CONFIG,
    "application/vnd.docker.container.image.v1+json",
    "application/octet-stream",
    "application/json",
    "text/html",
    "",
];

/// Why bytes are no manifest of an image that can run here.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Not JSON, or without the fields of a manifest.
    #[error("the manifest cannot be read: {0}")]
    Syntax(String),
    /// Both a manifest and an index, which readers would take for different images (CVE-2021-41190).
    #[error(
        "the manifest is an index as well, so that it is unclear which image is meant; make the image again"
    )]
    Ambiguous,
    /// The form of before 2016, which has no digests of its layers' content.
    #[error(
        "the manifest has Docker's schema 1; push the image again with a current version of Docker"
    )]
    SchemaOne,
    /// An artifact other than an image: a Helm chart, a signature, WebAssembly.
    #[error("the manifest is of {kind:?}, not of an image that can be run")]
    NotAnImage {
        /// The media type of the configuration or layer.
        kind: String,
    },
    /// More layers or entries than the limit.
    #[error("the manifest has {found} {what}, more than {limit}")]
    TooMany {
        /// `layers` or `entries`.
        what: &'static str,
        /// How many it has.
        found: usize,
        /// How many it may have.
        limit: usize,
    },
    /// Nothing in the index runs on this platform.
    #[error(
        "the image is not made for {wanted}, only for {offered}; use an image that is made for several platforms, \
         or build it for {wanted}"
    )]
    Platform {
        /// The platform that was asked for.
        wanted: String,
        /// The platforms offered.
        offered: String,
    },
}

/// A reference to content (OCI image-spec, descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    #[serde(default)]
    pub media_type: String,
    /// The digest that the content must have.
    pub digest: Digest,
    /// The size that the content must have, in bytes.
    pub size: u64,
    /// In an index: the platform that the manifest is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// In the index of a layout: names.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "nullable"
    )]
    pub annotations: BTreeMap<String, String>,
}

/// The manifest of one image: its configuration and its layers, lowest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// Manifests of one image for several platforms, or of several images in a layout.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Index {
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) manifests: Vec<Descriptor>,
}

/// What a reference may lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Index),
}

impl Document {
    /// Reads a manifest or an index.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let syntax = |error: serde_json::Error| ManifestError::Syntax(error.to_string());
        let value: Value = serde_json::from_slice(bytes).map_err(syntax)?;
        let has = |key: &str| value.get(key).is_some_and(|value| !value.is_null());
        if value["schemaVersion"] == 1 || has("fsLayers") {
            return Err(ManifestError::SchemaOne);
        }
        let media_type = value["mediaType"].as_str();
        let is_index = has("manifests");
        let is_manifest = has("layers") || has("config");
        let claims_index = media_type.is_some_and(|kind| kind == OCI_INDEX || kind == DOCKER_INDEX);
        let claims_manifest =
            media_type.is_some_and(|kind| kind == OCI_MANIFEST || kind == DOCKER_MANIFEST);
        if is_index && (is_manifest || claims_manifest) || is_manifest && claims_index {
            return Err(ManifestError::Ambiguous);
        }
        if is_index || claims_index {
            let index: Index = serde_json::from_value(value).map_err(syntax)?;
            limit("entries", index.manifests.len(), MAX_ENTRIES)?;
            return Ok(Self::Index(index));
        }
        let manifest: Manifest = serde_json::from_value(value).map_err(syntax)?;
        manifest.check()?;
        Ok(Self::Manifest(manifest))
    }
}

impl Manifest {
    fn check(&self) -> Result<(), ManifestError> {
        limit("layers", self.layers.len(), MAX_LAYERS)?;
        let foreign = [&self.config]
            .into_iter()
            .filter(|config| !CONFIGS.contains(&config.media_type.as_str()))
            .chain(
                self.layers
                    .iter()
                    .filter(|layer| !is_layer(&layer.media_type)),
            );
        match { foreign }.next() {
            None => Ok(()),
            Some(descriptor) => Err(ManifestError::NotAnImage {
                kind: descriptor.media_type.clone(),
            }),
        }
    }
}

impl Index {
    /// The manifest that suits the platform best; the first of equals.
    ///
    /// Entries without a platform are left to the caller: the configuration tells what they are for.
    pub(crate) fn select(&self, wanted: &Platform) -> Result<&Descriptor, ManifestError> {
        let mut best: Option<(u32, &Descriptor)> = None;
        for descriptor in &self.manifests {
            let Some(offered) = &descriptor.platform else {
                continue;
            };
            if let Some(score) = wanted.suits(offered)
                && best.is_none_or(|(highest, _)| score > highest)
            {
                best = Some((score, descriptor));
            }
        }
        let unstated = || match self.manifests.as_slice() {
            [only] if only.platform.is_none() => Some(only),
            _ => None,
        };
        best.map(|(_, descriptor)| descriptor)
            .or_else(unstated)
            .ok_or_else(|| refuse(wanted, self.manifests.iter().flat_map(|m| &m.platform)))
    }
}

/// The error for an image that is only for other platforms.
pub(crate) fn refuse<'a>(
    wanted: &Platform,
    offered: impl Iterator<Item = &'a Platform>,
) -> ManifestError {
    // Builders add entries for attestations, which they call `unknown/unknown`.
    let mut names: Vec<String> = offered
        .filter(|platform| platform.os != "unknown")
        .map(ToString::to_string)
        .collect();
    names.dedup();
    ManifestError::Platform {
        wanted: wanted.to_string(),
        offered: match names.as_slice() {
            [] => "no platform at all".to_owned(),
            names => names.join(", "),
        },
    }
}

/// Layers of files: tar, compressed in any way. How is seen from the bytes, since builders mislabel it.
fn is_layer(media_type: &str) -> bool {
    [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
    ]
    .iter()
    .any(|prefix| {
        media_type
            .strip_prefix(prefix)
            .is_some_and(|rest| matches!(rest, "" | "+gzip" | ".gzip" | "+zstd" | ".zstd"))
    })
}

fn limit(what: &'static str, found: usize, limit: usize) -> Result<(), ManifestError> {
    if found > limit {
        return Err(ManifestError::TooMany { what, found, limit });
    }
    Ok(())
}

/// Reads `null`, which Go writes for empty lists and maps, as empty.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn descriptor(media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": Digest::of(b"").to_string(), "size": 0})
    }

    fn check(document: &Value, expected: Result<&str, &str>) {
        let found = Document::parse(document.to_string().as_bytes());
        match (found, expected) {
            (Ok(Document::Manifest(_)), Ok("manifest")) | (Ok(Document::Index(_)), Ok("index")) => {
            }
            (Err(error), Err(part)) if error.to_string().contains(part) => {}
            (found, expected) => panic!("{document}: {found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn documents_are_one_thing_only() {
        let config = descriptor(OCI_CONFIG);
        let layer = descriptor("application/vnd.oci.image.layer.v1.tar+zstd");
        let image = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
        check(&image, Ok("manifest"));
        check(
            &json!({"schemaVersion": 2, "manifests": null, "mediaType": OCI_INDEX}),
            Ok("index"),
        );
        check(&json!({"schemaVersion": 2, "manifests": []}), Ok("index"));
        check(
            &json!({"schemaVersion": 1, "fsLayers": []}),
            Err("schema 1"),
        );
        check(&json!({"schemaVersion": 2}), Err("config"));
        check(&json!([]), Err("cannot be read"));
        for (key, value) in [("manifests", json!([])), ("mediaType", json!(OCI_INDEX))] {
            let mut both = image.clone();
            both[key] = value;
            check(&both, Err("index as well"));
        }
        let mut chart = image.clone();
        chart["config"] = descriptor("application/vnd.cncf.helm.config.v1+json");
        check(&chart, Err("helm"));
        let mut foreign = image.clone();
        foreign["layers"] = json!([descriptor(
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
        )]);
        check(&foreign, Err("foreign"));
        let mut many = image;
        many["layers"] = vec![descriptor("application/vnd.oci.image.layer.v1.tar"); 129].into();
        check(&many, Err("129 layers"));
    }

    #[test]
    fn an_index_without_the_platform_names_those_it_has() {
        let mut arm = descriptor(OCI_MANIFEST);
        arm["platform"] = json!({"os": "linux", "architecture": "arm64"});
        let mut attestation = descriptor(OCI_MANIFEST);
        attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
        let index: Index =
            serde_json::from_value(json!({"manifests": [arm, attestation]})).unwrap();
        let wanted = Platform {
            os: "linux".into(),
            architecture: "amd64".into(),
            variant: None,
        };
        let shown = index.select(&wanted).unwrap_err().to_string();
        assert!(
            shown.contains("not made for linux/amd64, only for linux/arm64;"),
            "{shown}"
        );
    }
}
