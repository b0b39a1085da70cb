//! Label selectors in object form (`matchLabels`, `matchExpressions`).

use serde_json::{Map, Value};

/// A parsed selector.
#[derive(Debug, Default)]
pub(crate) struct Selector {
    requirements: Vec<Requirement>,
}

#[derive(Debug)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
    /// An operator that is not known: nothing matches.
    Never,
}

impl Selector {
    /// Parses a selector; an absent one matches everything.
    pub(crate) fn parse(source: &Value) -> Self {
        let labels = source["matchLabels"].as_object().into_iter().flatten();
        let equal = labels.map(|(key, value)| Requirement {
            key: key.clone(),
            test: Test::In(vec![value.as_str().unwrap_or_default().to_owned()]),
        });
        let expressions = source["matchExpressions"].as_array().into_iter().flatten();
        let tests = expressions.map(|expression| {
            let values = expression["values"].as_array().into_iter().flatten();
            let values = values
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect();
            Requirement {
                key: expression["key"].as_str().unwrap_or_default().to_owned(),
                test: match expression["operator"].as_str() {
                    Some("In") => Test::In(values),
                    Some("NotIn") => Test::NotIn(values),
                    Some("Exists") => Test::Exists,
                    Some("DoesNotExist") => Test::Missing,
                    _ => Test::Never,
                },
            }
        });
        Self {
            requirements: equal.chain(tests).collect(),
        }
    }

    /// Whether the selector matches everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether `labels` fulfil all requirements.
    pub(crate) fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = labels
                .and_then(|labels| labels.get(&requirement.key))
                .and_then(Value::as_str);
            match (&requirement.test, value) {
                (Test::In(values), Some(value)) => values.iter().any(|wanted| wanted == value),
                (Test::NotIn(values), Some(value)) => values.iter().all(|wanted| wanted != value),
                (Test::Exists, value) => value.is_some(),
                (Test::NotIn(_), None) => true,
                (Test::Missing, value) => value.is_none(),
                (Test::In(_), None) | (Test::Never, _) => false,
            }
        })
    }
}
