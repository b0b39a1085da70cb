//! Volumes of a pod.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{invalid, text};
use crate::builtin::read::{list, text as text_at};
use crate::field::FieldError;

/// Checks volumes and returns the names of those that containers can mount.
pub(super) fn volumes(errors: &mut Vec<FieldError>, spec: &Value, path: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (index, volume) in list(spec, "/volumes").iter().enumerate() {
        let path = format!("{path}.volumes[{index}]");
        let before = errors.len();
        sources(errors, volume, &path);
        let name = text_at(volume, "/name");
        if name.is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else {
            invalid(errors, &format!("{path}.name"), name, text::dns_label(name));
        }
        if names.contains(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), json!(name)));
        }
        if errors.len() == before {
            names.insert(name.to_owned());
        }
    }
    names
}

fn sources(errors: &mut Vec<FieldError>, volume: &Value, path: &str) {
    let mut count = 0;
    let Some(members) = volume.as_object() else {
        return;
    };
    for (name, source) in members.iter().filter(|(name, _)| *name != "name") {
        let path = format!("{path}.{name}");
        count += 1;
        if count > 1 {
            errors.push(FieldError::forbidden(
                path,
                "may not specify more than 1 volume type",
            ));
            continue;
        }
        match name.as_str() {
            "secret" => {
                required(errors, source, "secretName", &path);
                files(errors, source, &path);
            }
            "configMap" => {
                required(errors, source, "name", &path);
                files(errors, source, &path);
            }
            "persistentVolumeClaim" => required(errors, source, "claimName", &path),
            "hostPath" => host_path(errors, source, &path),
            "projected" => {
                mode(
                    errors,
                    &source["defaultMode"],
                    &format!("{path}.defaultMode"),
                );
                for (index, projection) in list(source, "/sources").iter().enumerate() {
                    projected(errors, projection, &format!("{path}.sources[{index}]"));
                }
            }
            _ => {}
        }
    }
    if count == 0 {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
}

fn projected(errors: &mut Vec<FieldError>, source: &Value, path: &str) {
    for name in ["secret", "configMap"] {
        if source[name].is_object() {
            required(errors, &source[name], "name", &format!("{path}.{name}"));
            files(errors, &source[name], &format!("{path}.{name}"));
        }
    }
    let token = &source["serviceAccountToken"];
    if token.is_object() {
        let path = format!("{path}.serviceAccountToken");
        let seconds = token["expirationSeconds"].as_i64().unwrap_or(0);
        if seconds < 600 {
            errors.push(FieldError::invalid(
                format!("{path}.expirationSeconds"),
                json!(seconds),
                "may not specify a duration less than 10 minutes",
            ));
        }
        required(errors, token, "path", &path);
    }
}

fn host_path(errors: &mut Vec<FieldError>, source: &Value, path: &str) {
    let target = text_at(source, "/path");
    if target.is_empty() {
        errors.push(FieldError::required(format!("{path}.path"), ""));
        return;
    }
    if target.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(
            format!("{path}.path"),
            json!(target),
            "must not contain '..'",
        ));
    }
    const TYPES: &[&str] = &[
        "",
        "BlockDevice",
        "CharDevice",
        "Directory",
        "DirectoryOrCreate",
        "File",
        "FileOrCreate",
        "Socket",
    ];
    let type_ = text_at(source, "/type");
    if !TYPES.contains(&type_) {
        errors.push(FieldError::not_supported(
            format!("{path}.type"),
            json!(type_),
            TYPES,
        ));
    }
}

fn files(errors: &mut Vec<FieldError>, source: &Value, path: &str) {
    mode(
        errors,
        &source["defaultMode"],
        &format!("{path}.defaultMode"),
    );
    for (index, item) in list(source, "/items").iter().enumerate() {
        let path = format!("{path}.items[{index}]");
        required(errors, item, "key", &path);
        let target = text_at(item, "/path");
        required(errors, item, "path", &path);
        if target.starts_with('/') {
            errors.push(FieldError::invalid(
                format!("{path}.path"),
                json!(target),
                "must be a relative path",
            ));
        }
        if target.split('/').any(|part| part == "..") {
            errors.push(FieldError::invalid(
                format!("{path}.path"),
                json!(target),
                "must not contain '..'",
            ));
        }
        mode(errors, &item["mode"], &format!("{path}.mode"));
    }
}

fn mode(errors: &mut Vec<FieldError>, mode: &Value, path: &str) {
    if let Some(bits) = mode.as_i64().filter(|bits| !(0..=0o777).contains(bits)) {
        errors.push(FieldError::invalid(
            path,
            json!(bits),
            "must be a number between 0 and 0777 (octal), both inclusive",
        ));
    }
}

fn required(errors: &mut Vec<FieldError>, source: &Value, name: &str, path: &str) {
    if source[name].as_str().unwrap_or_default().is_empty() {
        errors.push(FieldError::required(format!("{path}.{name}"), ""));
    }
}
