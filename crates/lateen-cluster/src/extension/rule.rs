//! Validation rules in a schema (`x-kubernetes-validations`).

use std::sync::Arc;

use kube_cel::cel::Value as Cel;
use kube_cel::cel::objects::OptionalValue;
use serde_json::Value;

use crate::expression::{self, Expression};
use crate::field::{FieldError, FieldErrorKind};

use super::check::NO_FIELD;
use super::correlate;
use super::schema::{Schema, Type};
use super::scope;

/// Longest message that an expression may make, in bytes.
const MAX_MESSAGE: usize = 5 << 10;

/// One rule, parsed.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) source: String,
    message: String,
    message_expression: Option<Result<Expression, String>>,
    /// Field below the rule's place that errors name, without the first dot; may be empty.
    field_path: String,
    reason: String,
    optional_old: bool,
    program: Result<Expression, String>,
}

impl Rule {
    /// Parses an entry of `x-kubernetes-validations`.
    pub(crate) fn parse(source: &Value) -> Self {
        let text = |key: &str| source[key].as_str().unwrap_or_default().trim().to_owned();
        let expression = text("messageExpression");
        Self {
            message: text("message"),
            message_expression: (!expression.is_empty()).then(|| Expression::parse(&expression)),
            field_path: text("fieldPath").trim_start_matches('.').to_owned(),
            reason: text("reason"),
            optional_old: source["optionalOldSelf"].as_bool().unwrap_or(false),
            program: Expression::parse(&text("rule")),
            source: text("rule"),
        }
    }

    /// Why the rule cannot be parsed, or which name in it means nothing for values of `schema`.
    pub(crate) fn fault(&self, schema: &Schema, root: bool) -> Option<String> {
        self.fault_of(&self.program, schema, root)
    }

    /// As [`Rule::fault`], of the expression that makes the message.
    pub(crate) fn message_fault(&self, schema: &Schema, root: bool) -> Option<String> {
        self.fault_of(self.message_expression.as_ref()?, schema, root)
    }

    fn fault_of(
        &self,
        parsed: &Result<Expression, String>,
        schema: &Schema,
        root: bool,
    ) -> Option<String> {
        match parsed {
            Err(fault) => Some(fault.clone()),
            Ok(expression) => scope::fault(expression.tree(), schema, root, self.optional_old)
                .map(|fault| format!("compilation failed: {fault}")),
        }
    }

    /// Whether the rule compares with the value before an update.
    pub(crate) fn reads_old(&self) -> bool {
        self.program
            .as_ref()
            .is_ok_and(|program| program.reads("oldSelf"))
    }

    /// What errors call the rule when it has no message.
    fn title(&self) -> &str {
        if self.message.is_empty() {
            &self.source
        } else {
            &self.message
        }
    }
}

/// What rules of an object are checked with.
struct Run {
    errors: Vec<FieldError>,
}

/// The faults that the rules in `schema` find in `value`, which lies at `path` (empty for a whole object). `old` is the
/// value before an update.
pub(crate) fn broken(
    schema: &Schema,
    value: &Value,
    old: Option<&Value>,
    path: &str,
) -> Vec<FieldError> {
    let mut run = Run { errors: Vec::new() };
    run.walk(schema, value, old, path, path.is_empty() || schema.embedded);
    run.errors
}

impl Run {
    fn walk(
        &mut self,
        schema: &Schema,
        value: &Value,
        old: Option<&Value>,
        path: &str,
        root: bool,
    ) {
        // Null is judged by the rules around it.
        if !schema.has_rules || value.is_null() {
            return;
        }
        if !schema.rules.is_empty() {
            self.node(schema, value, old, path, root);
        }
        match value {
            Value::Object(fields) => {
                let before = |name: &str| old.and_then(|old| old.get(name));
                for (name, below) in &schema.properties {
                    if let Some(value) = fields.get(name) {
                        let place = super::child(path, name);
                        self.walk(below, value, before(name), &place, below.embedded);
                    }
                }
                let Some(values) = schema.values() else {
                    return;
                };
                for (key, value) in fields {
                    if !schema.properties.contains_key(key) {
                        let place = format!("{path}[{key}]");
                        self.walk(values, value, before(key), &place, values.embedded);
                    }
                }
            }
            Value::Array(items) => {
                let Some(below) = &schema.items else { return };
                let before = correlate::Items::new(schema, old);
                for (index, item) in items.iter().enumerate() {
                    let place = format!("{path}[{index}]");
                    self.walk(below, item, before.of(item), &place, below.embedded);
                }
            }
            _ => {}
        }
    }

    fn node(
        &mut self,
        schema: &Schema,
        value: &Value,
        old: Option<&Value>,
        path: &str,
        root: bool,
    ) {
        let old = old.filter(|old| !old.is_null());
        let current = typed(value, schema, root);
        let before = old.map(|old| typed(old, schema, root));
        for rule in &schema.rules {
            let optional = |before: &Option<Cel>| {
                let value = before
                    .clone()
                    .map_or_else(OptionalValue::none, OptionalValue::of);
                Cel::Opaque(Arc::new(value))
            };
            let mut variables = vec![("self", current.clone())];
            match (&before, rule.optional_old) {
                (_, true) => variables.push(("oldSelf", optional(&before))),
                (Some(before), false) => variables.push(("oldSelf", before.clone())),
                // A rule about a change says nothing of a new value.
                (None, false) if rule.reads_old() => continue,
                (None, false) => {}
            }
            let unchanged = !rule.reads_old() && old.is_some_and(|old| old == value);
            if unchanged {
                continue;
            }
            if let Some(error) = judge(rule, schema, value, &variables, path) {
                self.errors.push(error);
            }
        }
    }
}

/// The fault that `rule` finds, if any.
fn judge(
    rule: &Rule,
    schema: &Schema,
    value: &Value,
    variables: &[(&str, Cel)],
    path: &str,
) -> Option<FieldError> {
    let at = if path.is_empty() { NO_FIELD } else { path };
    let type_ = Value::from(schema.type_.map_or("", Type::name));
    let program = match &rule.program {
        Ok(program) => program,
        Err(fault) => {
            return Some(FieldError::invalid(
                at,
                type_,
                format!("rule compile error: {fault}"),
            ));
        }
    };
    match program.holds(variables) {
        Ok(true) => return None,
        Ok(false) => {}
        Err(fault) if fault == "no such overload" => {
            let detail = format!(
                "'{fault}': call arguments did not match a supported operator, function or macro signature for rule: {}",
                rule.title()
            );
            return Some(FieldError::invalid(at, type_, detail));
        }
        Err(fault) => {
            let detail = format!("{fault} evaluating rule: {}", rule.title());
            return Some(FieldError::invalid(at, type_, detail));
        }
    }
    let detail = made_message(rule, variables).unwrap_or_else(|| match rule.message.as_str() {
        "" => format!("failed rule: {}", rule.source),
        message => message.to_owned(),
    });
    let place = match rule.field_path.as_str() {
        "" => at.to_owned(),
        below => super::child(path, below),
    };
    let shown = !matches!(schema.type_, Some(Type::Object | Type::Array));
    Some(match rule.reason.as_str() {
        "FieldValueForbidden" => FieldError::forbidden(place, detail),
        "FieldValueRequired" => FieldError::required(place, detail),
        "FieldValueDuplicate" => FieldError::duplicate(place, value.clone()),
        _ => {
            let mut error = FieldError::invalid(place, value.clone(), detail);
            if !shown {
                error.kind = FieldErrorKind::Rule;
                error.value = Value::Null;
            }
            error
        }
    })
}

/// The message that the rule's expression makes; `None` when there is none that can be shown.
fn made_message(rule: &Rule, variables: &[(&str, Cel)]) -> Option<String> {
    let expression = rule.message_expression.as_ref()?.as_ref().ok()?;
    match expression.evaluate(variables) {
        Ok(Cel::String(text)) => {
            let text = text.trim();
            let fits = !text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n');
            fits.then(|| text.to_owned())
        }
        Ok(_) | Err(_) => None,
    }
}

/// A value as rules see it: fields by their escaped names, numbers by the schema's type, times and durations as such.
/// `root` says that `value` is a whole object, whose type and name rules may read.
fn typed(value: &Value, schema: &Schema, root: bool) -> Cel {
    match value {
        Value::Object(fields) => {
            let is_map = schema.additional.is_some() && schema.properties.is_empty();
            let named = fields.iter().filter_map(|(name, value)| {
                let value = match schema.field(name) {
                    Some(below) => typed(value, below, below.embedded),
                    None => expression::dynamic(value),
                };
                // Keys of a map are data, names of fields must be identifiers.
                let name = if is_map {
                    Some(name.clone())
                } else {
                    escaped(name)
                };
                Some((name?, value))
            });
            let missing = ["apiVersion", "kind"]
                .into_iter()
                .filter(|name| root && !fields.contains_key(*name))
                .map(|name| (name.to_owned(), expression::dynamic(&Value::from(""))));
            expression::map(named.chain(missing))
        }
        Value::Array(items) => Cel::List(Arc::new(
            items
                .iter()
                .map(|item| match &schema.items {
                    Some(below) => typed(item, below, below.embedded),
                    None => expression::dynamic(item),
                })
                .collect(),
        )),
        Value::Number(number) => match schema.type_ {
            Some(Type::Number) => Cel::Float(number.as_f64().unwrap_or(f64::NAN)),
            Some(Type::Integer) if number.is_f64() => {
                Cel::Int(number.as_f64().unwrap_or_default() as i64)
            }
            _ => expression::dynamic(value),
        },
        Value::String(text) if !schema.int_or_string => match schema.format.as_str() {
            "date-time" => expression::timestamp(text),
            "date" => expression::timestamp(&format!("{text}T00:00:00Z")),
            "duration" => expression::duration(text),
            "byte" => {
                use base64::Engine as _;
                match base64::engine::general_purpose::STANDARD.decode(text) {
                    Ok(bytes) => Cel::Bytes(Arc::new(bytes)),
                    Err(_) => expression::dynamic(value),
                }
            }
            _ => expression::dynamic(value),
        },
        _ => expression::dynamic(value),
    }
}

/// Words that CEL does not take as a field name.
const RESERVED: [&str; 20] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
];

/// The name by which rules read a field: `__dot__` and the like for signs that an identifier cannot have. `None` when
/// no rule can name the field.
pub(super) fn escaped(name: &str) -> Option<String> {
    if RESERVED.contains(&name) || name == "while" {
        return Some(format!("__{name}__"));
    }
    if name.starts_with(|char: char| char.is_ascii_digit()) || name.is_empty() {
        return None;
    }
    let mut escaped = String::with_capacity(name.len());
    for (index, char) in name.char_indices() {
        match char {
            '.' => escaped.push_str("__dot__"),
            '-' => escaped.push_str("__dash__"),
            '/' => escaped.push_str("__slash__"),
            '_' if name[..index].ends_with('_') && escaped.ends_with('_') => {
                escaped.pop();
                escaped.push_str("__underscores__");
            }
            '_' => escaped.push('_'),
            _ if char.is_ascii_alphanumeric() => escaped.push(char),
            _ => return None,
        }
    }
    Some(escaped)
}
