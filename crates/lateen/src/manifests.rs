//! Manifest files: reading them as `kubectl` does, so that every object knows the file and line it came from.

use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Largest manifest file, in bytes.
const FILE_LIMIT: u64 = 16 << 20;

/// Suffixes that a folder's files must have; a file that is named itself may have any.
const SUFFIXES: [&str; 3] = ["yaml", "yml", "json"];

/// An object as it stands in a file.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    /// The object.
    pub(crate) object: Value,
    /// Where it stands.
    pub(crate) place: Place,
}

/// A place in a file.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    file: PathBuf,
    /// First line of the document, counted from 1.
    line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.file.display(), self.line)
    }
}

/// Why a manifest cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    /// The file or folder cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// What was asked for.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The folder holds no manifest.
    #[error("{path} holds no .yaml, .yml or .json file")]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// The file is larger than any manifest.
    #[error("{path} is larger than 16 MiB")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The text is not YAML.
    #[error("{path}:{line}: not YAML: {why}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What the parser said.
        why: String,
    },
    /// A document is not a Kubernetes object.
    #[error("{place}: {why}")]
    NotAnObject {
        /// Where it stands.
        place: Place,
        /// What is missing.
        why: &'static str,
    },
}

/// Kinds that others need, in the order in which they are applied.
const FIRST: [&str; 2] = ["Namespace", "CustomResourceDefinition"];

/// Reads files and folders (`-` is standard input), in the order given; files of a folder in the order of their names.
/// Namespaces and definitions come before all that may be in them, whichever file they stand in.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Manifest>, ManifestError> {
    let mut manifests = Vec::new();
    for (file, text) in texts(paths)? {
        manifests.extend(parse(&file, &text)?);
    }
    manifests.sort_by_key(|manifest| {
        let kind = manifest.object["kind"].as_str().unwrap_or_default();
        let first = FIRST.iter().position(|first| *first == kind);
        first.unwrap_or(FIRST.len())
    });
    Ok(manifests)
}

/// The texts of files and folders, in the same order.
pub(crate) fn texts(paths: &[PathBuf]) -> Result<Vec<(PathBuf, String)>, ManifestError> {
    let mut texts = Vec::new();
    for path in paths {
        for file in files(path)? {
            let text = text_of(&file)?;
            texts.push((file, text));
        }
    }
    Ok(texts)
}

/// Reads the objects of one text; `file` is only for messages.
pub(crate) fn parse(file: &Path, text: &str) -> Result<Vec<Manifest>, ManifestError> {
    let mut manifests = Vec::new();
    for (line, document) in documents(text) {
        let values: Vec<Value> = serde_saphyr::from_multiple(document).map_err(|error| {
            let inner = error
                .location()
                .map_or(1, |location| location.line() as usize);
            ManifestError::Parse {
                path: file.to_owned(),
                line: line + inner - 1,
                why: error
                    .to_string()
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            }
        })?;
        for object in values.into_iter().filter(|value| !value.is_null()) {
            let place = Place {
                file: file.to_owned(),
                line,
            };
            collect(object, place, &mut manifests)?;
        }
    }
    Ok(manifests)
}

/// Adds an object, or the items of a `List`.
fn collect(mut object: Value, place: Place, into: &mut Vec<Manifest>) -> Result<(), ManifestError> {
    if !object.is_object() {
        let why = "a document must be an object with apiVersion, kind and metadata";
        return Err(ManifestError::NotAnObject { place, why });
    }
    for (field, why) in [
        (
            "kind",
            "the object has no kind; every object needs apiVersion, kind and metadata.name",
        ),
        (
            "apiVersion",
            "the object has no apiVersion; every object needs apiVersion, kind and metadata.name",
        ),
    ] {
        if object[field].as_str().is_none_or(str::is_empty) {
            return Err(ManifestError::NotAnObject { place, why });
        }
    }
    if object["kind"] == "List" {
        if let Value::Array(items) = object["items"].take() {
            for item in items {
                collect(item, place.clone(), into)?;
            }
        }
        return Ok(());
    }
    into.push(Manifest { object, place });
    Ok(())
}

/// The documents of a YAML stream with the line each begins at.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let mut start = (1, 0);
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let marker = line.trim_end();
        if marker == "---" || marker.starts_with("--- ") {
            documents.push((start.0, &text[start.1..offset]));
            start = (index + 2, offset + line.len());
        }
        offset += line.len();
    }
    documents.push((start.0, &text[start.1..]));
    documents
}

/// The manifest files below a path.
fn files(path: &Path) -> Result<Vec<PathBuf>, ManifestError> {
    let read_error = |source| ManifestError::Read {
        path: path.to_owned(),
        source,
    };
    if path == Path::new("-") || !fs::metadata(path).map_err(read_error)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(read_error)? {
        let file = entry.map_err(read_error)?.path();
        let named = file
            .extension()
            .and_then(|suffix| suffix.to_str())
            .is_some_and(|suffix| SUFFIXES.contains(&suffix));
        if named && file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(ManifestError::Empty {
            path: path.to_owned(),
        });
    }
    files.sort();
    Ok(files)
}

fn text_of(file: &Path) -> Result<String, ManifestError> {
    let read_error = |source| ManifestError::Read {
        path: file.to_owned(),
        source,
    };
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin()
            .take(FILE_LIMIT + 1)
            .read_to_string(&mut text)
    } else {
        fs::File::open(file).and_then(|open| open.take(FILE_LIMIT + 1).read_to_string(&mut text))
    };
    read.map_err(read_error)?;
    if text.len() as u64 > FILE_LIMIT {
        return Err(ManifestError::TooLarge {
            path: file.to_owned(),
        });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, usize)]) {
        let manifests = parse(Path::new("x.yaml"), text).expect(text);
        let found: Vec<(String, usize)> = manifests
            .iter()
            .map(|manifest| {
                (
                    manifest.object["kind"].as_str().unwrap_or("?").to_owned(),
                    manifest.place.line,
                )
            })
            .collect();
        let expected: Vec<(String, usize)> = expected
            .iter()
            .map(|(kind, line)| ((*kind).to_owned(), *line))
            .collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn objects_know_the_line_they_stand_at() {
        check("apiVersion: v1\nkind: A\n", &[("A", 1)]);
        check(
            "\nkind: A\napiVersion: v1\n---\n\n---\n# note\nkind: B\napiVersion: v1\n---\n",
            &[("A", 1), ("B", 7)],
        );
        check(
            "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: A}\n- {apiVersion: v1, kind: B}\n",
            &[("A", 1), ("B", 1)],
        );
    }

    #[test]
    fn what_others_need_comes_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, kinds: &[&str]| {
            let one = |kind: &&str| format!("apiVersion: v1\nkind: {kind}\n---\n");
            let text: String = kinds.iter().map(one).collect();
            fs::write(folder.path().join(name), text).expect("written");
        };
        file("a.yaml", &["Service", "CustomResourceDefinition"]);
        file("b.yaml", &["Pod", "Namespace", "ConfigMap"]);
        let read = read(&[folder.path().to_owned()]).expect("manifests");
        let kind = |manifest: &Manifest| manifest.object["kind"].as_str().map(str::to_owned);
        let kinds: Vec<String> = read.iter().filter_map(kind).collect();
        let expected = [
            "Namespace",
            "CustomResourceDefinition",
            "Service",
            "Pod",
            "ConfigMap",
        ];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn errors_name_file_and_line() {
        for (text, expected) in [
            (
                "apiVersion: v1\nkind: A\n---\nkind: B\n",
                "x.yaml:4: the object has no apiVersion",
            ),
            ("- 1\n", "x.yaml:1: a document must be an object"),
            ("apiVersion: v1\nkind: A\n---\na: [1\n", "x.yaml:"),
        ] {
            let error = parse(Path::new("x.yaml"), text)
                .expect_err(text)
                .to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
