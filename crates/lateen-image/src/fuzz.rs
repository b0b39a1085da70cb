//! Any document of a registry or an archive, any name of an image, and any list of users in one.

use std::str::FromStr;

use crate::manifest::Document;
use crate::{Digest, ImageConfig, Platform, Reference, User};

/// Manifests, indexes and configurations.
#[test]
fn documents() {
    bolero::check!(name = "documents")
        .with_iterations(0)
        .for_each(|bytes: &[u8]| {
            if let Ok(Document::Index(index)) = Document::parse(bytes) {
                let _ = index.select(&Platform::host());
            }
            let _ = ImageConfig::parse(bytes);
        });
}

/// A name that is read means the same when it is written out in full.
#[test]
fn references() {
    bolero::check!(name = "references")
        .with_iterations(0)
        .for_each(|bytes: &[u8]| {
            let Ok(text) = std::str::from_utf8(bytes) else {
                return;
            };
            if let Ok(reference) = Reference::from_str(text) {
                let written = reference.to_string();
                assert_eq!(Ok(reference), Reference::from_str(&written), "{written}");
            }
            if let Ok(digest) = Digest::from_str(text) {
                assert_eq!(digest.to_string(), text);
            }
        });
}

/// The first line is `USER` of the configuration, the rest is `/etc/passwd`, and after an empty line `/etc/group`.
#[test]
fn users() {
    let root = tempfile::tempdir().unwrap();
    let etc = root.path().join("etc");
    std::fs::create_dir(&etc).unwrap();
    bolero::check!(name = "users")
        .with_iterations(0)
        .for_each(|bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            let (user, files) = text.split_once('\n').unwrap_or((&text, ""));
            let (passwd, group) = files.split_once("\n\n").unwrap_or((files, ""));
            std::fs::write(etc.join("passwd"), passwd).unwrap();
            std::fs::write(etc.join("group"), group).unwrap();
            let _ = User::resolve(Some(user), root.path());
        });
}
