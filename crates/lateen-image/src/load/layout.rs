//! The OCI layout (image-spec, image-layout.md): blobs by digest, and an index of images.

use super::{LoadError, LoadOptions, names, shown, source::Source};
use crate::{
    ContentStore, Descriptor, Digest, ImageConfig, ManifestError, Reference, StoreError,
    manifest::{Document, Index, MAX_CONFIG, MAX_MANIFEST, Manifest, refuse},
};

/// The file that lists the images.
const INDEX: &str = "index.json";
/// The whole name of an image, by containerd and Docker.
const IMAGE_NAME: &str = "io.containerd.image.name";
/// A name: whole by Podman and Skopeo, only the tag by Docker.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// How deep indexes may refer to indexes.
const MAX_DEPTH: usize = 4;

/// Entries of the index that are one image: one name for several platforms, or several names for the same content.
pub(super) struct Group {
    /// The image's names; empty when it has none.
    pub(super) names: Vec<Reference>,
    index: Index,
}

/// The images that the index lists; none when there is no index.
pub(super) fn images(source: &Source) -> Result<Vec<Group>, LoadError> {
    if !source.has(INDEX) {
        return Ok(Vec::new());
    }
    let refuse = |why: String| LoadError::Description {
        path: source.path().to_owned(),
        member: INDEX.to_owned(),
        why,
    };
    let index = match Document::parse(&source.read(INDEX)?) {
        Ok(Document::Index(index)) => index,
        Ok(Document::Manifest(_)) => return Err(refuse("it is a manifest".to_owned())),
        Err(error) => return Err(refuse(error.to_string())),
    };
    let mut groups: Vec<Group> = Vec::new();
    for descriptor in index.manifests {
        let name = name(source, &descriptor)?;
        let same_name =
            |group: &&mut Group| name.as_ref().is_some_and(|name| group.names.contains(name));
        if let Some(group) = groups.iter_mut().find(same_name) {
            let listed = &mut group.index.manifests;
            if listed
                .iter()
                .all(|earlier| earlier.digest != descriptor.digest)
            {
                listed.push(descriptor);
            }
            continue;
        }
        let same_content = |group: &&mut Group| matches!(group.index.manifests.as_slice(), [only] if only.digest == descriptor.digest);
        match groups.iter_mut().find(same_content) {
            Some(group) => group.names.extend(name),
            None => groups.push(Group {
                names: name.into_iter().collect(),
                index: Index {
                    manifests: vec![descriptor],
                },
            }),
        }
    }
    Ok(groups)
}

/// Copies the images into the store.
pub(super) fn load(
    store: &ContentStore,
    source: &Source,
    groups: Vec<Group>,
    options: &LoadOptions,
) -> Result<Vec<Reference>, LoadError> {
    let images = groups.len();
    let mut loaded = Vec::new();
    if images == 0 {
        return Err(LoadError::Unnamed(source.path().to_owned()));
    }
    for group in groups {
        let names = names(&group.names, images, source.path(), options)?;
        let (digest, bytes, manifest) = choose(source, &names, group.index, options)?;
        let config = verified(source, &manifest.config, MAX_CONFIG)?;
        check_platform(source, &names, &manifest.config.digest, &config, options)?;
        for layer in &manifest.layers {
            if !store.has(&layer.digest) {
                let mut writer = store.writer(Some((layer.digest, layer.size)), 0)?;
                source.copy(&member(&layer.digest), &mut writer)?;
                writer.commit()?;
            }
        }
        store.put(&config)?;
        store.put(&bytes)?;
        for name in names {
            store.name(&name, digest)?;
            loaded.push(name);
        }
    }
    Ok(loaded)
}

/// Refuses a configuration that cannot be read or is made for another platform.
pub(super) fn check_platform(
    source: &Source,
    names: &[Reference],
    digest: &Digest,
    config: &[u8],
    options: &LoadOptions,
) -> Result<ImageConfig, LoadError> {
    let (path, image) = (source.path().to_owned(), shown(names, digest));
    let config = match ImageConfig::parse(config) {
        Ok(config) => config,
        Err(source) => {
            return Err(LoadError::Config {
                path,
                image,
                source,
            });
        }
    };
    if options.platform.suits(&config.platform).is_none() {
        return Err(LoadError::Manifest {
            path,
            image,
            source: refuse(&options.platform, [&config.platform].into_iter()),
        });
    }
    Ok(config)
}

/// The manifest for the platform: its digest, its bytes, and what they say.
fn choose(
    source: &Source,
    names: &[Reference],
    index: Index,
    options: &LoadOptions,
) -> Result<(Digest, Vec<u8>, Manifest), LoadError> {
    let mut index = index;
    let mut digest = Digest::of(b"");
    let fail = |digest: &Digest, error: ManifestError| LoadError::Manifest {
        path: source.path().to_owned(),
        image: shown(names, digest),
        source: error,
    };
    for _ in 0..MAX_DEPTH {
        let descriptor = index
            .select(&options.platform)
            .map_err(|error| fail(&digest, error))?;
        digest = descriptor.digest;
        let bytes = verified(source, descriptor, MAX_MANIFEST)?;
        match Document::parse(&bytes).map_err(|error| fail(&digest, error))? {
            Document::Manifest(manifest) => return Ok((digest, bytes, manifest)),
            Document::Index(inner) => index = inner,
        }
    }
    let why = format!("indexes refer to indexes more than {MAX_DEPTH} times");
    Err(fail(&digest, ManifestError::Syntax(why)))
}

/// A small blob, verified.
fn verified(source: &Source, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, LoadError> {
    let expected = descriptor.digest;
    let bytes = source.read(&member(&expected))?;
    let found = Digest::of(&bytes);
    if found != expected {
        return Err(StoreError::Digest { expected, found }.into());
    }
    if bytes.len() as u64 != descriptor.size {
        return Err(StoreError::Size {
            digest: expected,
            expected: descriptor.size,
            found: bytes.len() as u64,
        }
        .into());
    }
    if bytes.len() as u64 > limit {
        let what = expected.to_string();
        return Err(StoreError::TooLarge { what, limit }.into());
    }
    Ok(bytes)
}

/// The name that the index gives to an entry.
fn name(source: &Source, descriptor: &Descriptor) -> Result<Option<Reference>, LoadError> {
    let whole = descriptor.annotations.get(IMAGE_NAME);
    // A tag alone would be read as a name of Docker's registry.
    let text = whole.or_else(|| {
        let name = descriptor.annotations.get(REF_NAME);
        name.filter(|name| name.contains([':', '/']))
    });
    text.map(|text| text.parse())
        .transpose()
        .map_err(|error| LoadError::Name {
            path: source.path().to_owned(),
            source: error,
        })
}

/// The file of a blob.
fn member(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
