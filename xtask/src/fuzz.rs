//! Fuzz targets and their corpora: each has both, and no input that breaks a target is left lying about.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// How a target begins, and where its name ends.
const BEGIN: &str = concat!("bolero::check!", "(name = \"");
/// Folder beside the source of targets, with a folder for each.
const FOLDER: &str = "__fuzz__";

/// Complains about targets without a corpus, corpora without a target, and inputs that are to be looked at.
pub(crate) fn check(root: &Path, sources: &[PathBuf], complaints: &mut Vec<String>) -> Result<()> {
    let shown = |path: &Path| {
        let path = path.strip_prefix(root).unwrap_or(path);
        path.display().to_string()
    };
    let (mut names, mut folders) = (BTreeSet::new(), BTreeSet::new());
    for source in sources {
        let Some(beside) = source.parent().map(|folder| folder.join(FOLDER)) else {
            continue;
        };
        let text = fs::read_to_string(source)?;
        for name in text.split(BEGIN).skip(1) {
            let name = name.split('"').next().unwrap_or_default();
            let folder = beside.join(name);
            if !names.insert(name.to_owned()) {
                complaints.push(format!(
                    "{}: there are two fuzz targets {name}",
                    shown(source)
                ));
            }
            if entries(&folder.join("corpus")).is_empty() {
                complaints.push(format!(
                    "{}: fuzz target {name} has no corpus",
                    shown(source)
                ));
            }
            folders.insert(folder);
        }
    }
    let places: BTreeSet<_> = sources
        .iter()
        .filter_map(|source| source.parent())
        .collect();
    for folder in places.iter().flat_map(|place| entries(&place.join(FOLDER))) {
        if !folders.contains(&folder) {
            complaints.push(format!("{}: no fuzz target has this name", shown(&folder)));
        }
        if folder.join("crashes").exists() {
            let what = "what breaks it belongs into the corpus, with the repair";
            complaints.push(format!("{}: {what}", shown(&folder)));
        }
    }
    Ok(())
}

/// What is in a folder; nothing when there is none.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}
