//! Names of images, read as Docker and the OCI distribution specification do.
//!
//! The grammar is that of `github.com/distribution/reference`; the lengths are those of the distribution
//! specification ("Pulling manifests"): 128 characters for a tag, 255 for registry and repository together.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::Digest;

/// Longest registry and repository, in bytes.
pub const MAX_NAME: usize = 255;
/// Longest tag, in bytes.
pub const MAX_TAG: usize = 128;
/// The registry of names that give none.
const DEFAULT_REGISTRY: &str = "docker.io";

/// Text that is no name of an image.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not the name of an image: {why}")]
pub struct ReferenceError {
    /// The text, cut to 300 characters.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

/// The name of an image, complete: with its registry, and with a tag or a digest.
///
/// ```
/// # use lateen_image::Reference;
/// let name: Reference = "nginx".parse()?;
/// assert_eq!(name.to_string(), "docker.io/library/nginx:latest");
/// # Ok::<(), lateen_image::ReferenceError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Host, and port where one is given: `docker.io`, `localhost:5000`, `[::1]:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path in the registry: `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `None` only when there is a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest or index. It wins over the tag, which is then only a remark.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        parse(text).map_err(|why| ReferenceError {
            text: text.chars().take(300).collect(),
            why,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(formatter, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(formatter, "@{digest}")?;
        }
        Ok(())
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn parse(text: &str) -> Result<Reference, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            let digest = digest.parse().map_err(|error| format!("{error}"))?;
            (rest, Some(digest))
        }
        None => (text, None),
    };
    // A colon after the last slash starts a tag; one before it belongs to the port.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    if digest.is_none() && name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("64 hexadecimal digits are an id of an image, not a name".to_owned());
    }
    let (registry, path) = match name.split_once('/') {
        Some((first, path)) if is_registry(first) => (first, path),
        _ => (DEFAULT_REGISTRY, name),
    };
    check_registry(registry)?;
    let registry = match registry {
        // The name of the first registry's index, from before registries had a second version.
        "index.docker.io" => DEFAULT_REGISTRY,
        other => other,
    };
    for component in path.split('/') {
        check_component(component)?;
    }
    let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
        format!("library/{path}")
    } else {
        path.to_owned()
    };
    if registry.len() + 1 + repository.len() > MAX_NAME {
        return Err(format!(
            "registry and repository are longer than {MAX_NAME} characters"
        ));
    }
    let tag = match (tag, digest) {
        (None, None) => Some("latest".to_owned()),
        (tag, _) => tag.map(str::to_owned),
    };
    Ok(Reference {
        registry: registry.to_owned(),
        repository,
        tag,
        digest,
    })
}

/// Does the first component name a registry, rather than a folder of Docker's own?
fn is_registry(first: &str) -> bool {
    first == "localhost"
        || first.contains(['.', ':'])
        || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn check_registry(registry: &str) -> Result<(), String> {
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest
                .split_once(']')
                .ok_or_else(|| format!("the registry {registry:?} has no closing bracket"))?;
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(format!(
                    "the registry {registry:?} has no IPv6 address in its brackets"
                ));
            }
            let port = match port.strip_prefix(':') {
                None if port.is_empty() => None,
                Some(port) => Some(port),
                None => return Err(format!("{port:?} follows the registry's address")),
            };
            (None, port)
        }
        None => match registry.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(registry), None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if host.is_some_and(|host| !host.split('.').all(label)) {
        return Err(format!("{registry:?} is not the host of a registry"));
    }
    // u16 alone would take a sign.
    let number = |port: &str| {
        port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    };
    if port.is_some_and(|port| !number(port)) {
        return Err(format!("the port in {registry:?} is not from 1 to 65535"));
    }
    Ok(())
}

fn check_tag(tag: &str) -> Result<(), String> {
    if tag.is_empty() {
        return Err("the tag after the colon is empty".to_owned());
    }
    if tag.len() > MAX_TAG {
        return Err(format!("the tag is longer than {MAX_TAG} characters"));
    }
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let fits = |byte: u8| word(byte) || byte == b'.' || byte == b'-';
    if !word(tag.as_bytes()[0]) || !tag.bytes().all(fits) {
        return Err(format!(
            "the tag {tag:?} must be letters, digits, '_', '.' and '-', and not start with '.' or '-'"
        ));
    }
    Ok(())
}

/// One component of the path: words of `a-z0-9` joined by `.`, `_`, `__` or any number of `-`.
fn check_component(component: &str) -> Result<(), String> {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if component.is_empty() {
        return Err("a part of the path is empty".to_owned());
    }
    if component.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(format!("{component:?} must be lower case"));
    }
    let separators = component.split(|c: char| c.is_ascii() && word(c as u8));
    let edges = word(component.as_bytes()[0]) && word(component.as_bytes()[component.len() - 1]);
    let joined = |separator: &str| {
        matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
    };
    if !edges || !{ separators }.all(joined) {
        return Err(format!(
            "{component:?} must be words of a-z and 0-9 joined by '.', '_', '__' or '-'"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
