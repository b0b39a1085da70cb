//! Expressions in the Common Expression Language, as rules of CustomResourceDefinitions and admission policies use them.
//!
//! Expressions are parsed once. There is no type checker: what Kubernetes refuses when a rule is stored because its
//! types cannot fit fails here when the rule runs. There is no cost budget either; the size of an expression is limited.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use kube_cel::KubeCelExt as _;
use kube_cel::cel::objects::{Key, Map};
use kube_cel::cel::{Context, ExecutionError, IdedExpr, Program, Value};
use serde_json::Value as Json;

/// Longest expression, in bytes.
const MAX_LENGTH: usize = 16 << 10;

/// Deepest nesting of brackets in an expression.
const MAX_NESTING: usize = 100;

/// All functions, without variables. Made once: there are more than a hundred.
static FUNCTIONS: LazyLock<Context<'static>> = LazyLock::new(|| Context::default().with_all());

static TIMESTAMP: LazyLock<Program> =
    LazyLock::new(|| Program::compile("timestamp(text)").expect("the expression is a constant"));
static DURATION: LazyLock<Program> =
    LazyLock::new(|| Program::compile("duration(text)").expect("the expression is a constant"));

/// A parsed expression.
#[derive(Debug)]
pub(crate) struct Expression {
    program: Program,
}

impl Expression {
    /// Parses `source`.
    ///
    /// # Errors
    /// Why it is no expression, worded as Kubernetes does.
    pub(crate) fn parse(source: &str) -> Result<Self, String> {
        if source.len() > MAX_LENGTH {
            return Err(format!(
                "compilation failed: expression is longer than {MAX_LENGTH} bytes"
            ));
        }
        if nesting(source) > MAX_NESTING {
            return Err(format!(
                "compilation failed: expression nests deeper than {MAX_NESTING}"
            ));
        }
        match Program::compile(source) {
            Ok(program) => Ok(Self { program }),
            Err(errors) => Err(format!("compilation failed: {errors}")),
        }
    }

    /// Whether the expression reads the variable `name`.
    pub(crate) fn reads(&self, name: &str) -> bool {
        self.program.references().has_variable(name)
    }

    /// The parsed form.
    pub(crate) fn tree(&self) -> &IdedExpr {
        self.program.expression()
    }

    /// Evaluates with `variables`.
    ///
    /// # Errors
    /// What went wrong, in the words of CEL.
    pub(crate) fn evaluate(&self, variables: &[(&str, Value)]) -> Result<Value, String> {
        let mut context = FUNCTIONS.new_inner_scope();
        for (name, value) in variables {
            context.add_variable_from_value(*name, value.clone());
        }
        self.program
            .execute(&context)
            .map_err(|error| describe(&error))
    }

    /// Evaluates with `variables` to a truth value.
    ///
    /// # Errors
    /// What went wrong, or that the result is no truth value.
    pub(crate) fn holds(&self, variables: &[(&str, Value)]) -> Result<bool, String> {
        match self.evaluate(variables)? {
            Value::Bool(holds) => Ok(holds),
            other => Err(format!("must evaluate to bool, not {}", other.type_of())),
        }
    }
}

/// A JSON value as CEL sees it without a schema.
pub(crate) fn dynamic(value: &Json) -> Value {
    match value {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => Value::Int(whole),
            (None, Some(whole)) => Value::UInt(whole),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(Arc::new(text.clone())),
        Json::Array(items) => Value::List(Arc::new(items.iter().map(dynamic).collect())),
        Json::Object(fields) => map(fields
            .iter()
            .map(|(name, value)| (name.clone(), dynamic(value)))),
    }
}

/// An object as CEL sees it without a schema. Its namespace has a second name, because `namespace` is a reserved word.
pub(crate) fn object(value: &Json) -> Value {
    let Some(namespace) = value["metadata"].get("namespace") else {
        return dynamic(value);
    };
    let mut value = value.clone();
    value["metadata"]["__namespace__"] = namespace.clone();
    dynamic(&value)
}

/// A map with string keys.
pub(crate) fn map(entries: impl IntoIterator<Item = (String, Value)>) -> Value {
    let entries = entries
        .into_iter()
        .map(|(key, value)| (Key::String(Arc::new(key)), value));
    Value::Map(Map {
        map: Arc::new(entries.collect::<HashMap<_, _>>()),
    })
}

/// A point in time in RFC 3339 form, or the text itself when it has another form.
pub(crate) fn timestamp(text: &str) -> Value {
    converted(&TIMESTAMP, text)
}

/// A duration such as `1h30m`, or the text itself when it has another form.
pub(crate) fn duration(text: &str) -> Value {
    converted(&DURATION, text)
}

fn converted(program: &Program, text: &str) -> Value {
    let text = Value::String(Arc::new(text.to_owned()));
    let mut context = FUNCTIONS.new_inner_scope();
    context.add_variable_from_value("text", text.clone());
    program.execute(&context).unwrap_or(text)
}

/// Worded as CEL's reference implementation does, because rules' authors look for these texts.
fn describe(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::NoSuchOverload
        | ExecutionError::UnsupportedBinaryOperator(..)
        | ExecutionError::UnsupportedUnaryOperator(..)
        | ExecutionError::ValuesNotComparable(..) => "no such overload".to_owned(),
        ExecutionError::DivisionByZero(_) => "division by zero".to_owned(),
        ExecutionError::RemainderByZero(_) => "modulus by zero".to_owned(),
        ExecutionError::Overflow(..) => "integer overflow".to_owned(),
        ExecutionError::UndeclaredReference(name) => format!("undeclared reference to '{name}'"),
        ExecutionError::FunctionError { function, message } if message.contains("parse error") => {
            format!("type conversion error from 'string' to '{function}'")
        }
        ExecutionError::FunctionError { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

/// Deepest nesting of brackets; those inside strings count too, which errs on the safe side.
fn nesting(source: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}
