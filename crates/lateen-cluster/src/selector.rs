//! Label and field selectors of list, watch and deletecollection requests.

use serde_json::Value;

use crate::status::{Result, Status};
use crate::strategy::Strategy;

/// The most requirements that one selector may have; a longer one is not written by hand.
const MAX_REQUIREMENTS: usize = 256;

/// One condition on a label.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

/// A label selector such as `app=web,tier!=front,env in (a, b),!legacy`. The default one selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<Requirement>);

impl LabelSelector {
    /// Reads the query form of a selector.
    pub fn parse(text: &str) -> Result<Self> {
        let mut requirements = Vec::new();
        for part in split_outside_parentheses(text) {
            if part.is_empty() {
                continue;
            }
            let requirement = parse_requirement(part).ok_or_else(|| {
                Status::bad_request(format!(
                    "unable to parse requirement: found {part:?}, expected: !, identifier, or a comparison"
                ))
            })?;
            requirements.push(requirement);
            if requirements.len() > MAX_REQUIREMENTS {
                return Err(Status::bad_request("label selector: too many requirements"));
            }
        }
        Ok(Self(requirements))
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `object` has the labels.
    pub fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => labels[key]
                .as_str()
                .is_some_and(|label| values.iter().any(|value| value == label)),
            Requirement::NotIn(key, values) => !labels[key]
                .as_str()
                .is_some_and(|label| values.iter().any(|value| value == label)),
            Requirement::Exists(key) => labels.get(key).is_some(),
            Requirement::Absent(key) => labels.get(key).is_none(),
        })
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut inside) = (0, false);
    for (index, letter) in text.char_indices() {
        match letter {
            '(' => inside = true,
            ')' => inside = false,
            ',' if !inside => {
                parts.push(text[start..index].trim());
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

fn parse_requirement(part: &str) -> Option<Requirement> {
    if let Some(key) = part.strip_prefix('!') {
        return is_key(key.trim()).then(|| Requirement::Absent(key.trim().to_owned()));
    }
    if let Some(list) = part.strip_suffix(')') {
        let (head, values) = list.split_once('(')?;
        let values = values.split(',').map(|value| value.trim().to_owned());
        let (key, operator) = head.trim().rsplit_once(char::is_whitespace)?;
        let key = key.trim();
        return match operator {
            "in" if is_key(key) => Some(Requirement::In(key.to_owned(), values.collect())),
            "notin" if is_key(key) => Some(Requirement::NotIn(key.to_owned(), values.collect())),
            _ => None,
        };
    }
    let equality = |operator: &str| {
        let (key, value) = part.split_once(operator)?;
        let (key, value) = (key.trim(), value.trim());
        (is_key(key) && is_value(value)).then(|| (key.to_owned(), vec![value.to_owned()]))
    };
    if part.contains("!=") {
        return equality("!=").map(|(key, values)| Requirement::NotIn(key, values));
    }
    if part.contains("==") {
        return equality("==").map(|(key, values)| Requirement::In(key, values));
    }
    if part.contains('=') {
        return equality("=").map(|(key, values)| Requirement::In(key, values));
    }
    is_key(part).then(|| Requirement::Exists(part.to_owned()))
}

fn is_key(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || "-_./".contains(letter))
}

fn is_value(text: &str) -> bool {
    text.chars()
        .all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
}

/// A field selector such as `metadata.name=web,status.phase!=Running`. The default one selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<FieldRequirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct FieldRequirement {
    path: String,
    value: String,
    equal: bool,
}

impl FieldSelector {
    /// Reads the query form; every field must be one that `strategy` can select by.
    pub fn parse(text: &str, strategy: &dyn Strategy) -> Result<Self> {
        let mut requirements = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (path, value, equal) = if let Some((path, value)) = part.split_once("!=") {
                (path, value, false)
            } else if let Some((path, value)) = part.split_once("==") {
                (path, value, true)
            } else if let Some((path, value)) = part.split_once('=') {
                (path, value, true)
            } else {
                return Err(Status::bad_request(format!(
                    "invalid selector: {text:?}; can't understand {part:?}"
                )));
            };
            let known = matches!(path, "metadata.name" | "metadata.namespace")
                || strategy
                    .selectable_field(&Value::Object(serde_json::Map::new()), path)
                    .is_some();
            if !known {
                return Err(unknown_field(path, strategy));
            }
            requirements.push(FieldRequirement {
                path: path.to_owned(),
                value: value.to_owned(),
                equal,
            });
            if requirements.len() > MAX_REQUIREMENTS {
                return Err(Status::bad_request("field selector: too many requirements"));
            }
        }
        Ok(Self(requirements))
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one name that is asked for, if the selector says `metadata.name=...`.
    pub fn name(&self) -> Option<&str> {
        self.0
            .iter()
            .find(|requirement| requirement.equal && requirement.path == "metadata.name")
            .map(|requirement| requirement.value.as_str())
    }

    /// Whether the fields of `object` have the values. An absent field counts as empty.
    pub fn matches(&self, object: &Value, strategy: &dyn Strategy) -> bool {
        self.0.iter().all(|requirement| {
            let metadata = &object["metadata"];
            let actual = match requirement.path.as_str() {
                "metadata.name" => metadata["name"].as_str().unwrap_or_default().to_owned(),
                "metadata.namespace" => metadata["namespace"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
                path => strategy.selectable_field(object, path).unwrap_or_default(),
            };
            (actual == requirement.value) == requirement.equal
        })
    }
}

/// Kinds with selectable fields of their own and kinds without word this differently in Kubernetes.
fn unknown_field(path: &str, strategy: &dyn Strategy) -> Status {
    if strategy.has_selectable_fields() {
        Status::bad_request(format!("field label not supported: {path}"))
    } else {
        Status::bad_request(format!(
            "{path:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn label_selectors_choose_as_kubernetes_does() {
        let object = json!({"metadata": {"labels": {"app": "web", "tier": "front", "a.b/c": ""}}});
        let check = |text: &str, expected: bool| {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!(selector.matches(&object), expected, "{text}");
        };
        check("", true);
        check("app=web", true);
        check("app==web,tier=front", true);
        check("app=web,tier!=front", false);
        check("missing!=x", true);
        check("app in (web, api)", true);
        check("app notin (web)", false);
        check("missing notin (web)", true);
        check("app", true);
        check("!app", false);
        check("! missing", true);
        check("a.b/c=", true);
        check("env in (a,b),app", false);
    }

    #[test]
    fn malformed_label_selectors_are_refused() {
        for text in [
            "app in web",
            "=x",
            "app=(",
            "a b",
            "app within (a)",
            "a=b c",
        ] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }
}
