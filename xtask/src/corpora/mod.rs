//! Istio's own cases.
//!
//! The cases were written for another program: some ask for what is not built yet. They are counted, not required;
//! what a later change wins or loses shows in the counts.

mod proxy;
mod routes;
mod simulation;
mod validation;

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde_json::Value;

/// How a case ended.
pub(crate) enum Outcome {
    /// As expected.
    Passed,
    /// Otherwise: what was expected and what was found.
    Failed(String),
    /// It is about a kind or a function that is not served.
    NotServed,
}

/// A case with a name.
pub(crate) struct Case {
    pub(crate) group: String,
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
}

/// Runs the cases of a corpus.
type Runner = fn(&Value) -> Result<Vec<Case>>;

/// Runs all corpora of a folder and prints how many cases of each pass.
pub(crate) fn run(folder: &Path, failures: Option<&str>) -> Result<bool> {
    let corpora: [(&str, Runner); 3] = [
        ("istio-simulation", simulation::run),
        ("istio-sidecar-routes", routes::run),
        ("istio-validation", validation::run),
    ];
    for (name, run) in corpora {
        let path = folder.join(format!("{name}.json"));
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let corpus: Value =
            serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        let cases = run(&corpus["cases"])?;
        report(name, &cases, failures == Some(name));
    }
    Ok(true)
}

fn report(name: &str, cases: &[Case], show: bool) {
    let count =
        |wanted: fn(&Outcome) -> bool| cases.iter().filter(|case| wanted(&case.outcome)).count();
    let passed = count(|outcome| matches!(outcome, Outcome::Passed));
    let unserved = count(|outcome| matches!(outcome, Outcome::NotServed));
    let failed = cases.len() - passed - unserved;
    println!(
        "{name}: {passed} of {} pass, {failed} fail, {unserved} not served",
        cases.len()
    );
    if !show {
        return;
    }
    let mut groups: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for case in cases {
        let counts = groups.entry(&case.group).or_default();
        counts.0 += usize::from(matches!(case.outcome, Outcome::Passed));
        counts.1 += 1;
        if let Outcome::Failed(why) = &case.outcome {
            println!("  {} / {}: {why}", case.group, case.name);
        }
    }
    for (group, (passed, all)) in groups {
        println!("  {passed:4} of {all:4}  {group}");
    }
}
