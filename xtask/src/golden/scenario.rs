//! The scenarios that were recorded.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::Deserialize;

/// A scenario: manifests in steps, and the proxies that were asked after each step.
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) setup: Vec<PathBuf>,
    pub(crate) steps: Vec<Step>,
    pub(crate) proxies: Vec<String>,
}

/// Manifests that are applied, and those that are deleted afterwards.
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) apply: Vec<PathBuf>,
    pub(crate) delete: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct RawScenario {
    name: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    base: Option<String>,
    #[serde(default)]
    setup: Vec<String>,
    steps: Vec<RawStep>,
    proxies: Vec<String>,
}

#[derive(Deserialize)]
struct RawStep {
    name: String,
    #[serde(default)]
    apply: Vec<String>,
    #[serde(default)]
    delete: Vec<String>,
}

/// Reads the list of scenarios.
pub(crate) fn all(path: &Path) -> Result<Vec<Scenario>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let raw: Vec<RawScenario> = serde_saphyr::from_str(&text)
        .with_context(|| format!("cannot parse {}", path.display()))?;
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let scenarios = raw.into_iter().map(|raw| {
        let base = folder.join(raw.base.unwrap_or_default());
        let files = |names: Vec<String>| names.into_iter().map(|name| base.join(name)).collect();
        Scenario {
            name: raw.name,
            namespace: raw.namespace.unwrap_or_else(|| "default".to_owned()),
            setup: files(raw.setup),
            steps: raw
                .steps
                .into_iter()
                .map(|step| Step {
                    name: step.name,
                    apply: files(step.apply),
                    delete: files(step.delete),
                })
                .collect(),
            proxies: raw.proxies,
        }
    });
    Ok(scenarios.collect())
}
