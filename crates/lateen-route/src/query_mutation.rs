//! Changes of query parameters by the filter `header_mutation`.

use std::borrow::Cow;

use lateen_xds::pb::envoy::config::core::v3::key_value_append::KeyValueAppendAction as Action;
use lateen_xds::pb::envoy::config::core::v3::{KeyValueAppend, KeyValueMutation};
use lateen_xds::pb::google::protobuf::value::Kind;

use crate::constraint::not_empty;
use crate::format::Template;
use crate::{Invalid, Within, refuse_rest};

/// Changes in their order.
#[derive(Debug, Default)]
pub struct QueryMutations(Vec<Step>);

#[derive(Debug)]
enum Step {
    Remove(String),
    Set {
        key: String,
        value: Template,
        action: Action,
    },
}

/// A parameter as it stands in a query, with the key that it means.
struct Parameter<'q> {
    key: Cow<'q, str>,
    text: Cow<'q, str>,
}

impl QueryMutations {
    /// Compiles a `query_parameter_mutations`.
    pub(crate) fn compile(messages: Vec<KeyValueMutation>) -> Result<Self, Invalid> {
        let mut steps = Vec::new();
        for (index, message) in messages.into_iter().enumerate() {
            steps.push(step(message).within_item("query_parameter_mutations", index)?);
        }
        Ok(Self(steps))
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The path with its query changed. Its parameters are sorted by their keys, as Envoy writes them. What a client wrote
    /// stays as it wrote it; what is added is escaped. `write` writes a value with commands.
    pub fn apply(&self, path: &str, mut write: impl FnMut(&Template, &mut String)) -> String {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let pairs = query.split('&').filter(|_| !query.is_empty());
        let mut parameters: Vec<Parameter<'_>> = pairs.map(Parameter::read).collect();
        for step in &self.0 {
            match step {
                Step::Remove(key) => parameters.retain(|other| other.key != *key),
                Step::Set { key, value, action } => {
                    let exists = parameters.iter().any(|other| other.key == *key);
                    match action {
                        Action::AddIfAbsent if exists => continue,
                        Action::OverwriteIfExists if !exists => continue,
                        Action::OverwriteIfExists | Action::OverwriteIfExistsOrAdd => {
                            parameters.retain(|other| other.key != *key);
                        }
                        Action::AddIfAbsent | Action::AppendIfExistsOrAdd => {}
                    }
                    let mut text = String::new();
                    write(value, &mut text);
                    let text = format!("{}={}", escaped(key), escaped(&text));
                    parameters.push(Parameter {
                        key: key.into(),
                        text: text.into(),
                    });
                }
            }
        }
        // Those of one key stay in their order.
        parameters.sort_by(|one, two| one.key.cmp(&two.key));
        let mut changed = path.to_owned();
        for (index, parameter) in parameters.iter().enumerate() {
            changed.push(if index == 0 { '?' } else { '&' });
            changed.push_str(&parameter.text);
        }
        changed
    }
}

impl<'q> Parameter<'q> {
    fn read(pair: &'q str) -> Self {
        let key = pair.split('=').next().unwrap_or_default();
        Self {
            key: unescaped(key),
            text: match pair.contains('=') {
                true => pair.into(),
                false => format!("{pair}=").into(),
            },
        }
    }
}

fn step(message: KeyValueMutation) -> Result<Step, Invalid> {
    match (message.append, message.remove) {
        (None, key) if !key.is_empty() => Ok(Step::Remove(key)),
        (Some(append), key) if key.is_empty() => set(append).within("append"),
        _ => Err(Invalid::new(
            "",
            "exactly one of append and remove is required",
        )),
    }
}

fn set(mut message: KeyValueAppend) -> Result<Step, Invalid> {
    let action = Action::try_from(std::mem::take(&mut message.action))
        .map_err(|_| Invalid::new("action", "is not a known action"))?;
    let record = message.record.take();
    let record = record.ok_or_else(|| Invalid::new("record", "is required"))?;
    refuse_rest(&message)?;
    not_empty("record.key", &record.key)?;
    let Some(Kind::StringValue(value)) = record.value.and_then(|value| value.kind) else {
        return Err(Invalid::new("record.value", "must be a string"));
    };
    Ok(Step::Set {
        key: record.key,
        value: Template::parse(&value).within("record.value")?,
        action,
    })
}

/// The text with everything escaped that is not unreserved (RFC 3986 section 2.3).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The text that escapes stand for. What is no text is left as it is.
fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return text.into();
    }
    let bytes = text.as_bytes();
    let (mut out, mut index) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(byte) = bytes.get(index) {
        let digits = text.get(index + 1..index + 3).filter(|_| *byte == b'%');
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(meant) => {
                out.push(meant);
                index += 3;
            }
            None => {
                out.push(*byte);
                index += 1;
            }
        }
    }
    String::from_utf8(out).map_or_else(|_| text.into(), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use lateen_xds::json::to_message;
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(mutations: Value, path: &str, expected: &str) {
        let messages = mutations.as_array().unwrap().iter();
        let messages = messages.map(|message| to_message::<KeyValueMutation>(message).unwrap());
        let mutations = QueryMutations::compile(messages.collect()).unwrap();
        let found = mutations.apply(path, |template, out| {
            out.push_str(template.literal().unwrap_or("written"));
        });
        assert_eq!(found, expected, "{path}");
    }

    #[test]
    fn parameters_are_changed_by_the_keys_that_they_mean() {
        let set = |key: &str, value: &str, action: &str| json!({ "append": { "record": { "key": key, "value": value }, "action": action } });
        check(json!([{ "remove": "a" }]), "/x?a=1&%61=2&b&a", "/x?b=");
        check(json!([{ "remove": "a" }]), "/x?a=1", "/x");
        check(
            json!([set("b", "2", "APPEND_IF_EXISTS_OR_ADD")]),
            "/x?c=%20&b=1",
            "/x?b=1&b=2&c=%20",
        );
        check(json!([set("b", "2", "ADD_IF_ABSENT")]), "/x?b=1", "/x?b=1");
        check(json!([set("b", "2", "OVERWRITE_IF_EXISTS")]), "/x", "/x");
        check(
            json!([set("b", "2", "OVERWRITE_IF_EXISTS_OR_ADD")]),
            "/x?b=1&b=3",
            "/x?b=2",
        );
        check(
            json!([set("a b", "c&d= %%", "ADD_IF_ABSENT")]),
            "/x",
            "/x?a%20b=c%26d%3D%20%25",
        );
        check(
            json!([set("b", "%PROTOCOL%", "ADD_IF_ABSENT")]),
            "/x?%zz=1",
            "/x?%zz=1&b=written",
        );
    }
}
