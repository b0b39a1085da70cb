//! Agreement with the real control plane, leaf by leaf, without a cluster.
//!
//! The recordings say what the real control plane sent for the documents' manifests. Here the same manifests, and the
//! environment that the recording had, are put straight into the index; what the translation makes of them is brought
//! into the form of the recordings and compared with the same measure as `oracles/golden_diff.py`.

mod compare;
mod environment;
mod recording;
mod scenario;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::Value;

use compare::{Agreement, Difference};
use environment::Environment;

/// What is shown and what is demanded.
pub(crate) struct Options {
    pub(crate) show: usize,
    pub(crate) only: Option<String>,
    /// Least agreement of every recording, in percent.
    pub(crate) least: f64,
    /// Folder that the translations are written to.
    pub(crate) write: Option<PathBuf>,
}

/// Compares all recordings; `false` when one agrees less than demanded.
pub(crate) fn run(shared: &Path, options: &Options) -> Result<bool> {
    let recordings = shared.join("golden/istiod-1.31");
    let mut total = Agreement::default();
    let mut differences: BTreeMap<Difference, usize> = BTreeMap::new();
    let (mut compared, mut enough) = (0, true);
    for scenario in scenario::all(&shared.join("oracles/golden-scenarios.yaml"))? {
        let mut environment = Environment::new();
        for path in &scenario.setup {
            environment.apply(path, &scenario.namespace)?;
        }
        for step in &scenario.steps {
            environment.next_step();
            for path in &step.apply {
                environment.apply(path, &scenario.namespace)?;
            }
            for proxy in &scenario.proxies {
                let relative = format!("{}/{}.{proxy}.json", scenario.name, step.name);
                let path = recordings.join(&relative);
                let skipped = options
                    .only
                    .as_ref()
                    .is_some_and(|only| !relative.contains(only.as_str()));
                if skipped || !path.exists() {
                    continue;
                }
                let text = fs::read_to_string(&path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                let expected: Value =
                    serde_json::from_str(&text).with_context(|| path.display().to_string())?;
                let actual = recording::record(
                    &environment,
                    &scenario.namespace,
                    proxy,
                    revision(&expected),
                )?;
                if let Some(folder) = &options.write {
                    let target = folder.join(&relative);
                    fs::create_dir_all(target.parent().unwrap_or(folder))?;
                    fs::write(&target, serde_json::to_string_pretty(&actual)?)?;
                }
                let agreement = compare::compare(&expected, &actual, &mut differences);
                println!("{:7.2}%  {relative}", agreement.percent());
                enough &= agreement.percent() >= options.least;
                total.add(&agreement);
                compared += 1;
            }
            for path in &step.delete {
                environment.delete(path, &scenario.namespace)?;
            }
        }
    }
    let mut frequent: Vec<(&Difference, &usize)> = differences.iter().collect();
    frequent.sort_by_key(|(difference, count)| (std::cmp::Reverse(**count), (*difference).clone()));
    for (difference, count) in frequent.into_iter().take(options.show) {
        println!("{count:6}  {difference}");
    }
    println!(
        "agreement {:.2}%: {} of {} leaves in {compared} recordings",
        total.percent(),
        total.equal,
        total.leaves
    );
    Ok(enough && compared > 0)
}

/// The version of the workload that was asked, where an application has several: the recording's own traces name it.
fn revision(recording: &Value) -> Option<&str> {
    match recording {
        Value::Object(fields)
            if fields.get("tag").and_then(Value::as_str) == Some("istio.canonical_revision") =>
        {
            fields.get("literal")?.get("value")?.as_str()
        }
        Value::Object(fields) => fields.values().find_map(revision),
        Value::Array(values) => values.iter().find_map(revision),
        _ => None,
    }
}
