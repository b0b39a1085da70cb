//! Manifests of a registry, and the way through an index to the one for a platform.

use http::{
    HeaderMap, StatusCode,
    header::{ACCEPT, HeaderValue},
};

use super::{PullError, PullOptions, pause, session::Session};
use crate::{
    Digest, Reference, StoreError,
    manifest::{
        DOCKER_INDEX, DOCKER_MANIFEST, Document, MAX_MANIFEST, Manifest, ManifestError, OCI_INDEX,
        OCI_MANIFEST,
    },
};

/// How deep indexes may refer to indexes.
const MAX_DEPTH: usize = 4;

/// The manifest of an image for the platform, verified: its digest, its bytes, and what they say.
pub(super) async fn find(
    session: &Session<'_>,
    name: &Reference,
    options: &PullOptions,
) -> Result<(Digest, Vec<u8>, Manifest), PullError> {
    let fail = |source: ManifestError| PullError::Manifest {
        name: name.to_string(),
        source,
    };
    let (mut expected, mut size) = (name.digest(), None);
    for _ in 0..MAX_DEPTH {
        let (digest, bytes) = fetch(session, name, expected, options).await?;
        if let Some(size) = size.filter(|size| *size != bytes.len() as u64) {
            return Err(StoreError::Size {
                digest,
                expected: size,
                found: bytes.len() as u64,
            }
            .into());
        }
        match Document::parse(&bytes).map_err(fail)? {
            Document::Manifest(manifest) => return Ok((digest, bytes, manifest)),
            Document::Index(index) => {
                let chosen = index.select(&options.platform).map_err(fail)?;
                (expected, size) = (Some(chosen.digest), Some(chosen.size));
            }
        }
    }
    let why = format!("indexes refer to indexes more than {MAX_DEPTH} times");
    Err(fail(ManifestError::Syntax(why)))
}

/// A manifest or index by digest, or by the name's tag.
async fn fetch(
    session: &Session<'_>,
    name: &Reference,
    expected: Option<Digest>,
    options: &PullOptions,
) -> Result<(Digest, Vec<u8>), PullError> {
    let mut attempt = 0;
    loop {
        let error = match once(session, name, expected).await {
            Err(error) if error.is_transient() => error,
            other => return other,
        };
        attempt += 1;
        if attempt >= options.attempts {
            return Err(error);
        }
        pause(options, attempt, &error).await;
    }
}

async fn once(
    session: &Session<'_>,
    name: &Reference,
    expected: Option<Digest>,
) -> Result<(Digest, Vec<u8>), PullError> {
    let wanted = match (expected, name.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    };
    let mut headers = HeaderMap::new();
    for kind in [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST] {
        headers.append(ACCEPT, HeaderValue::from_static(kind));
    }
    let answer = session
        .get(&format!("manifests/{wanted}"), &headers)
        .await?;
    match answer.status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => {
            return Err(PullError::Unknown {
                name: name.to_string(),
                registry: name.registry().to_owned(),
            });
        }
        _ => return Err(answer.into_error().await),
    }
    let told = answer.headers.get("docker-content-digest");
    let told = told.and_then(|digest| digest.to_str().ok()?.parse().ok());
    let bytes = answer
        .read(MAX_MANIFEST)
        .await?
        .ok_or_else(|| PullError::TooLarge {
            name: name.to_string(),
            what: "its manifest",
            bytes: MAX_MANIFEST + 1,
            limit: MAX_MANIFEST,
        })?;
    let found = Digest::of(&bytes);
    // Pulled by tag, what the registry tells at least shows that nothing changed on its way (distribution-spec).
    match expected.or(told) {
        Some(expected) if expected != found => Err(StoreError::Digest { expected, found }.into()),
        _ => Ok((found, bytes)),
    }
}
