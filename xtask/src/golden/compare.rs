//! Agreement of two recordings: equal leaves over the leaves that either side has.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

use serde_json::Value;

/// Counts of leaves.
#[derive(Default)]
pub(crate) struct Agreement {
    pub(crate) equal: usize,
    pub(crate) leaves: usize,
}

impl Agreement {
    /// Equal leaves in percent.
    pub(crate) fn percent(&self) -> f64 {
        if self.leaves == 0 {
            100.0
        } else {
            100.0 * self.equal as f64 / self.leaves as f64
        }
    }

    /// Adds the counts of another recording.
    pub(crate) fn add(&mut self, other: &Self) {
        self.equal += other.equal;
        self.leaves += other.leaves;
    }
}

/// A kind of difference: what, and at which path without names and positions.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Difference {
    what: &'static str,
    kind: String,
    path: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:8} {} {}", self.what, self.kind, self.path)
    }
}

/// Compares two recordings and counts their differences.
pub(crate) fn compare(
    expected: &Value,
    actual: &Value,
    differences: &mut BTreeMap<Difference, usize>,
) -> Agreement {
    let (left, right) = (flat(expected), flat(actual));
    let all: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let mut equal = 0;
    for &place in &all {
        let what = match (left.get(place), right.get(place)) {
            (Some(a), Some(b)) if same(a, b) => {
                equal += 1;
                continue;
            }
            (Some(_), Some(_)) => "differs",
            (Some(_), None) => "missing",
            _ => "extra",
        };
        let mut parts = place.splitn(3, '\u{1f}');
        let (kind, _, path) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
        let difference = Difference {
            what,
            kind: kind.unwrap_or_default().to_owned(),
            path: without_labels(path),
        };
        *differences.entry(difference).or_default() += 1;
    }
    Agreement {
        equal,
        leaves: all.len(),
    }
}

/// Numbers are equal when their values are: `100` and `100.0` are one number in JSON.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

fn flat(recording: &Value) -> HashMap<String, Value> {
    let mut found = HashMap::new();
    for (kind, resources) in recording.as_object().into_iter().flatten() {
        for resource in resources.as_array().into_iter().flatten() {
            let name = resource["name"]
                .as_str()
                .or_else(|| resource["clusterName"].as_str())
                .unwrap_or_default();
            leaves(resource, String::new(), &mut |path, value| {
                found.insert(format!("{kind}\u{1f}{name}\u{1f}{path}"), value.clone());
            });
        }
    }
    found
}

fn leaves(value: &Value, path: String, found: &mut impl FnMut(String, &Value)) {
    match value {
        Value::Object(fields) => {
            for (key, inner) in fields {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                leaves(inner, path, found);
            }
        }
        Value::Array(values) => {
            let mut seen: HashMap<String, usize> = HashMap::new();
            for (index, inner) in values.iter().enumerate() {
                let label = inner["name"]
                    .as_str()
                    .map_or_else(|| index.to_string(), str::to_owned);
                let count = seen.entry(label.clone()).or_default();
                *count += 1;
                let again = if *count == 1 {
                    String::new()
                } else {
                    format!("#{count}")
                };
                leaves(inner, format!("{path}[{label}{again}]"), found);
            }
        }
        leaf => found(path, leaf),
    }
}

fn without_labels(path: &str) -> String {
    let mut result = String::new();
    let mut inside = false;
    for character in path.chars() {
        match character {
            '[' => {
                inside = true;
                result.push_str("[]");
            }
            ']' if inside => inside = false,
            _ if inside => {}
            other => result.push(other),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_equal_missing_and_extra_leaves() {
        let recording = |fields: Value| json!({"clusters": [fields]});
        let check = |expected: Value, actual: Value, equal: usize, leaves: usize| {
            let mut differences = BTreeMap::new();
            let agreement = compare(&recording(expected), &recording(actual), &mut differences);
            assert_eq!((agreement.equal, agreement.leaves), (equal, leaves));
            assert_eq!(differences.values().sum::<usize>(), leaves - equal);
        };
        check(
            json!({"name": "a", "x": 1}),
            json!({"name": "a", "x": 1.0}),
            2,
            2,
        );
        check(
            json!({"name": "a", "x": 1}),
            json!({"name": "a", "y": 1}),
            1,
            3,
        );
        check(
            json!({"name": "a", "x": [{"name": "b", "y": 1}]}),
            json!({"name": "a", "x": []}),
            1,
            3,
        );
    }
}
