//! Injection into the documents of a file, as `lateen inject -f` does it.

use std::collections::HashMap;

use serde_json::Value;

use super::{InjectConfig, Outcome, Owner, SettingError, Skipped, inject};

/// What became of one workload of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Kind and name, such as `Deployment/web`.
    pub workload: String,
    /// Why it was left alone; `None` when it was injected.
    pub skipped: Option<Skipped>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Why a file cannot be injected.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A document is not YAML.
    #[error("document {number}: {reason}")]
    Parse {
        /// Which document, from 1.
        number: usize,
        /// What the parser says.
        reason: String,
    },
    /// A workload asks for something that cannot be done.
    #[error("document {number}: {workload}: {source}")]
    Setting {
        /// Which document, from 1.
        number: usize,
        /// Kind and name.
        workload: String,
        /// What it asks for.
        source: SettingError,
    },
}

/// Injects every workload of a YAML stream (pods, templates, lists of them). Documents without a workload stay as they
/// are written, comments included.
///
/// # Errors
/// When a document is not YAML, or an annotation cannot be followed.
pub fn inject_documents(
    text: &str,
    config: &InjectConfig,
) -> Result<(String, Vec<Report>), FileError> {
    let mut output = Vec::new();
    let mut reports = Vec::new();
    for (position, document) in split(text).into_iter().enumerate() {
        let number = position + 1;
        let parse = |reason: String| FileError::Parse { number, reason };
        let mut value: Value = if is_blank(&document) {
            Value::Null
        } else {
            serde_saphyr::from_str(&document).map_err(|error| parse(error.to_string()))?
        };
        let before = reports.len();
        inject_object(&mut value, config, &mut reports).map_err(|(workload, source)| {
            FileError::Setting {
                number,
                workload,
                source,
            }
        })?;
        if reports[before..]
            .iter()
            .any(|report| report.skipped.is_none())
        {
            output.push(serde_saphyr::to_string(&value).map_err(|error| parse(error.to_string()))?);
        } else {
            output.push(document);
        }
    }
    Ok((output.join("---\n"), reports))
}

fn inject_object(
    object: &mut Value,
    config: &InjectConfig,
    reports: &mut Vec<Report>,
) -> Result<(), (String, SettingError)> {
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    if kind == "List" {
        for item in object["items"].as_array_mut().into_iter().flatten() {
            inject_object(item, config, reports)?;
        }
        return Ok(());
    }
    let Some(pointer) = template_of(&kind) else {
        return Ok(());
    };
    let metadata = &object["metadata"];
    let name = metadata["name"]
        .as_str()
        .or_else(|| metadata["generateName"].as_str())
        .unwrap_or_default();
    let namespace = metadata["namespace"].as_str().unwrap_or("default");
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let owner = Owner::new(namespace, api_version, &kind, name);
    let workload = format!("{kind}/{name}");
    let Some(template) = object.pointer_mut(pointer) else {
        return Ok(());
    };
    let outcome = inject(template, &owner, config).map_err(|source| (workload.clone(), source))?;
    let (skipped, warnings) = match outcome {
        Outcome::Injected { pod, warnings } => {
            *template = pod;
            (None, warnings)
        }
        Outcome::Skipped(reason) => (Some(reason), Vec::new()),
    };
    reports.push(Report {
        workload,
        skipped,
        warnings,
    });
    Ok(())
}

/// Where a kind keeps its pod, as a JSON pointer.
fn template_of(kind: &str) -> Option<&'static str> {
    let places = HashMap::from([
        ("Pod", ""),
        ("CronJob", "/spec/jobTemplate/spec/template"),
        ("DaemonSet", "/spec/template"),
        ("Deployment", "/spec/template"),
        ("DeploymentConfig", "/spec/template"),
        ("Job", "/spec/template"),
        ("ReplicaSet", "/spec/template"),
        ("ReplicationController", "/spec/template"),
        ("StatefulSet", "/spec/template"),
    ]);
    places.get(kind).copied()
}

/// The documents of a YAML stream. A line of `---` starts one; inside a block scalar such a line would be indented.
fn split(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.split_inclusive('\n') {
        let marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.trim().is_empty() || rest.starts_with([' ', '\t']));
        if marker {
            documents.push(String::new());
            continue;
        }
        if let Some(last) = documents.last_mut() {
            last.push_str(line);
        }
    }
    documents.retain(|document| !document.trim().is_empty());
    for document in &mut documents {
        if !document.ends_with('\n') {
            document.push('\n');
        }
    }
    documents
}

fn is_blank(document: &str) -> bool {
    document
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
}
