//! Rules for names and other short texts, worded as `apimachinery/pkg/util/validation` words them.

use std::sync::LazyLock;

use regex::Regex;

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const LABEL_1035: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const KEY: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const VALUE: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
const CONFIG_KEY: &str = "[-._a-zA-Z0-9]+";
const HEADER: &str = "[-A-Za-z0-9]+";

/// Patterns that match whole texts.
macro_rules! whole {
    ($name:ident, $pattern:expr) => {
        static $name: LazyLock<Option<Regex>> =
            LazyLock::new(|| Regex::new(&format!("^(?:{})$", $pattern)).ok());
    };
}

whole!(LABEL_PATTERN, LABEL);
whole!(SUBDOMAIN_PATTERN, SUBDOMAIN);
whole!(LABEL_1035_PATTERN, LABEL_1035);
whole!(KEY_PATTERN, KEY);
whole!(VALUE_PATTERN, VALUE);
whole!(CONFIG_KEY_PATTERN, CONFIG_KEY);
whole!(HEADER_PATTERN, HEADER);
whole!(PERCENT_PATTERN, "[0-9]+%");

fn matches(pattern: &Option<Regex>, text: &str) -> bool {
    pattern
        .as_ref()
        .is_some_and(|pattern| pattern.is_match(text))
}

fn explained(message: &str, pattern: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples
        .iter()
        .map(|example| format!("'{example}', "))
        .collect();
    format!(
        "{message} (e.g. {}regex used for validation is '{pattern}')",
        examples.join(" or ")
    )
}

/// Kubernetes counts bytes in both cases, and says so only in its newer functions.
fn too_long(limit: usize) -> String {
    format!("must be no more than {limit} characters")
}

fn too_many_bytes(limit: usize) -> String {
    format!("must be no more than {limit} bytes")
}

/// `must be between MIN and MAX, inclusive`.
pub(in crate::builtin) fn range(least: i64, most: i64) -> String {
    format!("must be between {least} and {most}, inclusive")
}

/// A label of a host name: names of namespaces, containers, ports of services.
pub(in crate::builtin) fn dns_label(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > 63 {
        faults.push(too_long(63));
    }
    if !matches(&LABEL_PATTERN, text) {
        if matches(&SUBDOMAIN_PATTERN, text) {
            faults.push("must not contain dots".to_owned());
        } else {
            faults.push(explained(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
                LABEL,
                &["my-name", "123-abc"],
            ));
        }
    }
    faults
}

/// A host name: names of most objects.
pub(crate) fn dns_subdomain(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > 253 {
        faults.push(too_long(253));
    }
    if !matches(&SUBDOMAIN_PATTERN, text) {
        faults.push(explained(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            SUBDOMAIN,
            &["example.com"],
        ));
    }
    faults
}

/// A label of a host name that begins with a letter: names of services.
pub(crate) fn dns_1035_label(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > 63 {
        faults.push(too_long(63));
    }
    if !matches(&LABEL_1035_PATTERN, text) {
        faults.push(explained(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            LABEL_1035,
            &["my-name", "abc-123"],
        ));
    }
    faults
}

/// A name that can stand as one segment of a path: names of roles.
pub(in crate::builtin) fn path_segment(text: &str) -> Vec<String> {
    if matches!(text, "." | "..") {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"]
        .iter()
        .filter(|part| text.contains(**part))
        .map(|part| format!("may not contain '{part}'"))
        .collect()
}

/// A key of a label, annotation or finalizer.
pub(in crate::builtin) fn qualified_name(text: &str) -> Vec<String> {
    const EXPLANATION: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    const EXAMPLES: &[&str] = &["MyName", "my.name", "123-abc"];
    let mut faults = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts.as_slice() {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                faults.push("prefix part must be non-empty".to_owned());
            } else {
                faults.extend(
                    dns_subdomain(prefix)
                        .iter()
                        .map(|fault| format!("prefix part {fault}")),
                );
            }
            name
        }
        _ => {
            return vec![format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                explained(EXPLANATION, KEY, EXAMPLES)
            )];
        }
    };
    if name.is_empty() {
        faults.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        faults.push(format!("name part {}", too_many_bytes(63)));
    }
    if !matches(&KEY_PATTERN, name) {
        faults.push(format!(
            "name part {}",
            explained(EXPLANATION, KEY, EXAMPLES)
        ));
    }
    faults
}

/// The value of a label.
pub(in crate::builtin) fn label_value(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > 63 {
        faults.push(too_many_bytes(63));
    }
    if !matches(&VALUE_PATTERN, text) {
        faults.push(explained(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            VALUE,
            &["MyValue", "my_value", "12345"],
        ));
    }
    faults
}

/// The name of a container port, which may stand where a port number may.
pub(in crate::builtin) fn port_name(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > 15 {
        faults.push(too_long(15));
    }
    if text.is_empty()
        || !text
            .chars()
            .all(|letter| matches!(letter, 'a'..='z' | '0'..='9' | '-'))
    {
        faults.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !text.chars().any(|letter| letter.is_ascii_lowercase()) {
        faults.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        faults.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        faults.push("must not begin or end with a hyphen".to_owned());
    }
    faults
}

/// The number of a port.
pub(in crate::builtin) fn port_number(number: i64) -> Vec<String> {
    if (1..=65_535).contains(&number) {
        Vec::new()
    } else {
        vec![range(1, 65_535)]
    }
}

/// The name of an environment variable.
pub(in crate::builtin) fn variable_name(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.is_empty() {
        faults.push("environment variable name must be non-empty".to_owned());
    }
    if text
        .chars()
        .any(|letter| !(' '..='~').contains(&letter) || letter == '=')
    {
        faults.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned(),
        );
    }
    faults
}

/// A key of a ConfigMap or Secret.
pub(in crate::builtin) fn config_key(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > 253 {
        faults.push(too_long(253));
    }
    if !matches(&CONFIG_KEY_PATTERN, text) {
        faults.push(explained(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            CONFIG_KEY,
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match text {
        "." => faults.push("must not be '.'".to_owned()),
        ".." => faults.push("must not be '..'".to_owned()),
        _ if text.starts_with("..") => faults.push("must not start with '..'".to_owned()),
        _ => {}
    }
    faults
}

/// The name of an HTTP header.
pub(in crate::builtin) fn header_name(text: &str) -> Vec<String> {
    if matches(&HEADER_PATTERN, text) {
        return Vec::new();
    }
    vec![explained(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        HEADER,
        &["X-Header-Name"],
    )]
}

/// A percentage such as `25%`.
pub(in crate::builtin) fn percent(text: &str) -> Vec<String> {
    if matches(&PERCENT_PATTERN, text) {
        return Vec::new();
    }
    vec![explained(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}
