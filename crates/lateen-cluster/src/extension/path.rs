//! The JSON paths of printer columns and selectable fields: the part of kubectl's templates that names one place.
//!
//! Understood are `.name`, `['name']`, `[0]`, `[-1]`, `[*]` and `[?(@.name=="value")]` (also `!=`, and a bare path for
//! "is there"), with `\.` for a dot in a name.

use serde_json::Value;

/// Longest path, in steps.
const MAX_STEPS: usize = 64;

/// A parsed path.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Path {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    Filter { path: Path, test: Test },
}

#[derive(Debug, Clone, PartialEq)]
enum Test {
    Exists,
    Equal(Value),
    Different(Value),
}

impl Path {
    /// Parses `source`, e.g. `.status.conditions[?(@.type=="Ready")].status`.
    pub(crate) fn parse(source: &str) -> Option<Self> {
        let mut steps = Vec::new();
        let mut rest = source.trim();
        while !rest.is_empty() {
            if steps.len() == MAX_STEPS {
                return None;
            }
            if let Some(after) = rest.strip_prefix('[') {
                let end = closing(after)?;
                steps.push(bracket(after[..end].trim())?);
                rest = &after[end + 1..];
            } else {
                let (name, after) = field(rest.strip_prefix('.').unwrap_or(rest));
                match name.as_str() {
                    "" if after.is_empty() && steps.is_empty() => {}
                    // `.['a.b']` and `..`; the latter searches all levels, which no column needs.
                    "" if after.starts_with('[') => {}
                    "" => return None,
                    "*" => steps.push(Step::All),
                    _ => steps.push(Step::Field(name)),
                }
                rest = after;
            }
        }
        Some(Self { steps })
    }

    /// The first value at the path.
    pub(crate) fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        first(&self.steps, value)
    }
}

fn first<'a>(steps: &[Step], value: &'a Value) -> Option<&'a Value> {
    let Some((step, rest)) = steps.split_first() else {
        return Some(value);
    };
    let items = || value.as_array().map(Vec::as_slice).unwrap_or_default();
    match step {
        Step::Field(name) => first(rest, value.get(name)?),
        Step::Index(index) => {
            let index = if *index < 0 {
                items().len() as i64 + index
            } else {
                *index
            };
            first(rest, items().get(usize::try_from(index).ok()?)?)
        }
        Step::All => match value {
            Value::Object(fields) => fields.values().find_map(|value| first(rest, value)),
            _ => items().iter().find_map(|item| first(rest, item)),
        },
        Step::Filter { path, test } => items()
            .iter()
            .filter(|item| test.holds(path.first(item)))
            .find_map(|item| first(rest, item)),
    }
}

impl Test {
    fn holds(&self, found: Option<&Value>) -> bool {
        match self {
            Self::Exists => found.is_some(),
            Self::Equal(wanted) => found == Some(wanted),
            Self::Different(wanted) => found.is_some_and(|found| found != wanted),
        }
    }
}

/// A field's name up to the next `.` or `[`, and what follows.
fn field(source: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = source.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '\\' => name.extend(chars.next().map(|(_, escaped)| escaped)),
            '.' | '[' => return (name, &source[at..]),
            _ => name.push(char),
        }
    }
    (name, "")
}

/// Where the bracket closes that was opened before `source`; those in quotes do not count.
fn closing(source: &str) -> Option<usize> {
    let mut quote = None;
    let mut depth = 0;
    for (at, char) in source.char_indices() {
        match (quote, char) {
            (Some(open), _) if open == char => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(char),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            (None, _) => {}
        }
    }
    None
}

fn bracket(inside: &str) -> Option<Step> {
    if inside == "*" {
        return Some(Step::All);
    }
    if let Some(filter) = inside
        .strip_prefix("?(")
        .and_then(|rest| rest.strip_suffix(')'))
    {
        return filter_step(filter.trim());
    }
    match unquoted(inside) {
        Some(name) => Some(Step::Field(name)),
        None => inside.parse().ok().map(Step::Index),
    }
}

fn filter_step(filter: &str) -> Option<Step> {
    let split = filter.find("==").or_else(|| filter.find("!="));
    let (path, test) = match split {
        None => (filter, Test::Exists),
        Some(at) => {
            let text = filter[at + 2..].trim();
            let value = match unquoted(text) {
                Some(text) => Value::String(text),
                None => serde_json::from_str(text).ok()?,
            };
            let equal = filter[at..].starts_with("==");
            (
                &filter[..at],
                if equal {
                    Test::Equal(value)
                } else {
                    Test::Different(value)
                },
            )
        }
    };
    let path = Path::parse(path.trim().strip_prefix('@')?)?;
    Some(Step::Filter { path, test })
}

fn unquoted(text: &str) -> Option<String> {
    ['\'', '"'].into_iter().find_map(|quote| {
        let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
        Some(inner.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_to_the_first_value() {
        let object = json!({
            "spec": {"hosts": ["a", "b"], "a.b": {"c": 1}},
            "status": {"conditions": [
                {"type": "Ready", "status": "False"},
                {"type": "Accepted", "status": "True"},
            ]},
        });
        let check = |path: &str, expected: Value| {
            let parsed = Path::parse(path).expect(path);
            assert_eq!(
                parsed.first(&object).cloned().unwrap_or_default(),
                expected,
                "{path}"
            );
        };
        check(".spec.hosts", json!(["a", "b"]));
        check(".spec.hosts[1]", json!("b"));
        check(".spec.hosts[-1]", json!("b"));
        check(".spec.hosts[*]", json!("a"));
        check(".spec['a.b'].c", json!(1));
        check(r".spec.a\.b.c", json!(1));
        check(
            ".status.conditions[?(@.type==\"Accepted\")].status",
            json!("True"),
        );
        check(
            ".status.conditions[?(@.type != 'Ready')].status",
            json!("True"),
        );
        check(".status.missing", Value::Null);
        assert!(Path::parse(".spec[").is_none());
    }
}
