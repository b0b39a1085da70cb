//! Formats whose output is a JSON object.

use std::collections::BTreeMap;

use lateen_xds::pb::google::protobuf::{Struct, Value, value::Kind};
use serde_json::Value as Json;

use super::{Operator, Piece, Template, Values};
use crate::{Invalid, Within};

/// How deep objects and lists may nest.
const MAX_DEPTH: usize = 16;

/// A parsed object. Keys are written in order.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonTemplate {
    fields: BTreeMap<String, Node>,
    /// Keys without a value are left out instead of `null`.
    omit_empty: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Text(Template),
    Constant(Json),
    Object(BTreeMap<String, Self>),
    List(Vec<Self>),
}

impl JsonTemplate {
    /// Parses an object whose texts are formats.
    ///
    /// # Errors
    /// When one of the texts is no format; the path names its key.
    pub fn parse(object: Struct, omit_empty: bool) -> Result<Self, Invalid> {
        let fields = object_node(object, 0)?;
        Ok(Self { fields, omit_empty })
    }

    /// Writes the object and a line feed.
    pub fn write(&self, values: &dyn Values, out: &mut String) {
        self.object(&self.fields, values, out);
        out.push('\n');
    }

    fn object(&self, fields: &BTreeMap<String, Node>, values: &dyn Values, out: &mut String) {
        out.push('{');
        let mut first = true;
        for (key, node) in fields {
            first &= !self.member(first, Some(key), node, values, out);
        }
        out.push('}');
    }

    /// Writes a field of an object or an item of a list; false when it has no value and such are left out.
    fn member(
        &self,
        first: bool,
        key: Option<&str>,
        node: &Node,
        values: &dyn Values,
        out: &mut String,
    ) -> bool {
        let start = out.len();
        if !first {
            out.push(',');
        }
        if let Some(key) = key {
            push_text(key, out);
            out.push(':');
        }
        if !self.node(node, values, out) {
            if self.omit_empty {
                out.truncate(start);
                return false;
            }
            out.push_str("null");
        }
        true
    }

    /// Writes a value; false when there is none, and nothing was written.
    fn node(&self, node: &Node, values: &dyn Values, out: &mut String) -> bool {
        match node {
            Node::Constant(Json::Null) => return false,
            Node::Constant(value) => out.push_str(&value.to_string()),
            Node::Object(fields) => {
                let start = out.len();
                self.object(fields, values, out);
                // An object that lost all of its keys has no value either.
                if self.omit_empty && out.len() == start + "{}".len() {
                    out.truncate(start);
                    return false;
                }
            }
            Node::List(nodes) => {
                out.push('[');
                let mut first = true;
                for node in nodes {
                    first &= !self.member(first, None, node, values, out);
                }
                out.push(']');
            }
            Node::Text(template) => return self.text(template, values, out),
        }
        true
    }

    /// A command that stands alone keeps the type of its value.
    fn text(&self, template: &Template, values: &dyn Values, out: &mut String) -> bool {
        let mut text = String::new();
        let [Piece::Command { operator, limit }] = template.pieces.as_slice() else {
            let missing = if self.omit_empty { "" } else { "-" };
            template.write(values, missing, &mut text);
            push_text(&text, out);
            return true;
        };
        if !values.write(operator, &mut text) {
            return false;
        }
        if limit.is_none() && is_number(operator) && text.parse::<i64>().is_ok() {
            out.push_str(&text);
        } else {
            Template::shorten(&mut text, 0, *limit);
            push_text(&text, out);
        }
        true
    }
}

/// Operators whose values are numbers.
fn is_number(operator: &Operator) -> bool {
    use super::operator::GrpcForm;
    matches!(
        operator,
        Operator::ResponseCode
            | Operator::BytesReceived
            | Operator::BytesSent
            | Operator::RequestHeadersBytes
            | Operator::ResponseHeadersBytes
            | Operator::ResponseTrailersBytes
            | Operator::Duration
            | Operator::RequestDuration
            | Operator::RequestTxDuration
            | Operator::ResponseDuration
            | Operator::ResponseTxDuration
            | Operator::UpstreamRequestAttemptCount
            | Operator::UpstreamRemotePort
            | Operator::UpstreamLocalPort
            | Operator::DownstreamLocalPort
            | Operator::DownstreamDirectLocalPort
            | Operator::DownstreamRemotePort
            | Operator::DownstreamDirectRemotePort
            | Operator::ConnectionId
            | Operator::GrpcStatus(GrpcForm::Number)
    )
}

fn push_text(text: &str, out: &mut String) {
    out.push_str(&Json::from(text).to_string());
}

fn object_node(object: Struct, depth: usize) -> Result<BTreeMap<String, Node>, Invalid> {
    object
        .fields
        .into_iter()
        .map(|(key, value)| {
            let node = node(value, depth).within(&key)?;
            Ok((key, node))
        })
        .collect()
}

fn node(value: Value, depth: usize) -> Result<Node, Invalid> {
    if depth >= MAX_DEPTH {
        return Err(Invalid::new("", "nests too deep"));
    }
    Ok(match value.kind {
        None | Some(Kind::NullValue(_)) => Node::Constant(Json::Null),
        Some(Kind::BoolValue(value)) => Node::Constant(value.into()),
        Some(Kind::NumberValue(value)) => Node::Constant(number(value)),
        Some(Kind::StringValue(text)) => Node::Text(Template::parse(&text)?),
        Some(Kind::StructValue(object)) => Node::Object(object_node(object, depth + 1)?),
        Some(Kind::ListValue(list)) => {
            let nodes = list.values.into_iter().map(|value| node(value, depth + 1));
            Node::List(nodes.collect::<Result<_, _>>()?)
        }
    })
}

/// Whole numbers are written without a fraction.
fn number(value: f64) -> Json {
    if value.fract() == 0.0 && value.abs() < 9e15 {
        Json::from(value as i64)
    } else {
        Json::from(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;
    impl Values for Fixed {
        fn write(&self, operator: &Operator, out: &mut String) -> bool {
            match operator {
                Operator::ResponseCode => out.push_str("200"),
                Operator::RouteName => out.push_str("a \"b\"\n"),
                _ => return false,
            }
            true
        }
    }

    fn value(json: &Json) -> Value {
        let kind = match json {
            Json::Null => Kind::NullValue(0),
            Json::Bool(value) => Kind::BoolValue(*value),
            Json::Number(value) => Kind::NumberValue(value.as_f64().unwrap()),
            Json::String(text) => Kind::StringValue(text.clone()),
            Json::Array(values) => Kind::ListValue(lateen_xds::pb::google::protobuf::ListValue {
                values: values.iter().map(value).collect(),
            }),
            Json::Object(_) => Kind::StructValue(structure(json)),
        };
        Value { kind: Some(kind) }
    }

    fn structure(json: &Json) -> Struct {
        let fields = json.as_object().unwrap();
        Struct {
            fields: fields
                .iter()
                .map(|(key, json)| (key.clone(), value(json)))
                .collect(),
        }
    }

    #[test]
    fn values_keep_their_types_and_missing_ones_are_null_or_left_out() {
        let format = serde_json::json!({
            "z": "%RESPONSE_CODE%",
            "code": "code %RESPONSE_CODE%",
            "cut": "%RESPONSE_CODE:1%",
            "missing": "%UPSTREAM_HOST%",
            "mixed": "%UPSTREAM_HOST%:%ROUTE_NAME%",
            "nested": { "list": ["%UPSTREAM_HOST%", 1, true, "%RESPONSE_CODE%"], "empty": {} },
        });
        for (omit, written) in [
            (
                false,
                "{\"code\":\"code 200\",\"cut\":\"2\",\"missing\":null,\"mixed\":\"-:a \\\"b\\\"\\n\",\
                \"nested\":{\"empty\":{},\"list\":[null,1,true,200]},\"z\":200}\n",
            ),
            (
                true,
                "{\"code\":\"code 200\",\"cut\":\"2\",\"mixed\":\":a \\\"b\\\"\\n\",\
                \"nested\":{\"list\":[1,true,200]},\"z\":200}\n",
            ),
        ] {
            let mut out = String::new();
            JsonTemplate::parse(structure(&format), omit)
                .unwrap()
                .write(&Fixed, &mut out);
            assert_eq!(out, written);
        }
    }

    #[test]
    fn errors_name_the_key() {
        let format = serde_json::json!({ "a": { "b": "%NOPE%" } });
        let error = JsonTemplate::parse(structure(&format), false).unwrap_err();
        assert_eq!(error.path, "a.b");
    }
}
