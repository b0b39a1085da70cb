//! Dependency directions, file lengths, fuzz corpora, and tables that are generated.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// What each crate may depend on, as in `ARCHITECTURE.md`. `*` stands for all.
const ALLOWED: [(&str, &[&str]); 14] = [
    ("lateen-sys", &[]),
    ("lateen-api", &[]),
    ("lateen-xds", &[]),
    ("lateen-identity", &[]),
    ("lateen-image", &[]),
    ("lateen-mesh", &["lateen-api", "lateen-xds"]),
    ("lateen-route", &["lateen-xds"]),
    (
        "lateen-proxy",
        &[
            "lateen-xds",
            "lateen-route",
            "lateen-identity",
            "lateen-sys",
        ],
    ),
    (
        "lateen-control",
        &["lateen-api", "lateen-xds", "lateen-mesh", "lateen-identity"],
    ),
    ("lateen-cluster", &["lateen-api"]),
    ("lateen-node", &["lateen-api", "lateen-image", "lateen-sys"]),
    ("lateen-samples", &[]),
    ("lateen", &["*"]),
    ("xtask", &["*"]),
];
/// External crates that bring input, output or async, and the crates that must do without.
const PURE: [(&str, &[&str]); 4] = [
    (
        "lateen-identity",
        &["kube", "k8s-openapi", "hyper", "tonic"],
    ),
    ("lateen-image", &["kube", "k8s-openapi"]),
    ("lateen-mesh", &["tokio", "kube", "hyper", "tonic"]),
    ("lateen-route", &["tokio", "hyper", "tonic"]),
];
/// Lines from which a file is worth splitting.
const LONG: usize = 400;
/// Lines from which a file must be split.
const TOO_LONG: usize = 800;
/// Marks of unfinished work, spelled so that this file does not hold them.
const MARKS: [&str; 3] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
];

/// Runs all checks; `false` when one fails.
pub(crate) fn run() -> Result<bool> {
    let root = workspace()?;
    let mut failures = dependencies(&root)?;
    crate::scenarios::check(&root, &mut failures)?;
    let mut warnings = Vec::new();
    let sources = sources(&root)?;
    crate::fuzz::check(&root, &sources, &mut failures)?;
    for path in sources {
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let shown = path
            .strip_prefix(&root)
            .unwrap_or(&path)
            .display()
            .to_string();
        let lines = text.lines().count();
        if lines > TOO_LONG {
            failures.push(format!(
                "{shown}: {lines} lines, more than {TOO_LONG}: split it by subject"
            ));
        } else if lines > LONG {
            warnings.push(format!("{shown}: {lines} lines, more than {LONG}"));
        }
        for (number, line) in text.lines().enumerate() {
            if let Some(mark) = MARKS.iter().find(|mark| line.contains(**mark)) {
                failures.push(format!(
                    "{shown}:{}: unfinished work is marked with {mark}",
                    number + 1
                ));
            }
        }
    }
    for warning in &warnings {
        println!("warning: {warning}");
    }
    for failure in &failures {
        println!("error: {failure}");
    }
    println!(
        "check: {} errors, {} warnings",
        failures.len(),
        warnings.len()
    );
    Ok(failures.is_empty())
}

pub(crate) fn workspace() -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = manifest.parent().context("xtask lies in the workspace")?;
    Ok(root.to_owned())
}

/// Dependencies between our crates that the table does not allow.
fn dependencies(root: &Path) -> Result<Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!(
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let allowed: BTreeMap<&str, BTreeSet<&str>> = ALLOWED
        .into_iter()
        .map(|(name, allowed)| (name, allowed.iter().copied().collect()))
        .collect();
    let pure: BTreeMap<&str, &[&str]> = PURE.into_iter().collect();
    let mut failures = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(allowed) = allowed.get(name) else {
            failures.push(format!(
                "{name} is not in the table of crates (ARCHITECTURE.md and xtask check)"
            ));
            continue;
        };
        let declared = package["dependencies"].as_array().into_iter().flatten();
        for dependency in declared.filter(|dependency| dependency["kind"].is_null()) {
            let on = dependency["name"].as_str().unwrap_or_default();
            if on.starts_with("lateen") && !allowed.contains("*") && !allowed.contains(on) {
                failures.push(format!(
                    "{name} depends on {on}, which its row in ARCHITECTURE.md does not allow"
                ));
            }
            if pure.get(name).is_some_and(|never| never.contains(&on)) {
                failures.push(format!(
                    "{name} depends on {on}, but does no input or output"
                ));
            }
        }
    }
    Ok(failures)
}

/// All Rust sources of the workspace.
fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.join("crates"), root.join("xtask")];
    while let Some(folder) = folders.pop() {
        for entry in
            fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?
        {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
