//! Policies and bindings, compiled.

use std::sync::Arc;

use serde_json::Value;

use crate::admission::condition::Conditions;
use crate::admission::matching::Matcher;
use crate::admission::selector::Selector;
use crate::expression::Expression;

/// Reasons that a validation may give.
const REASONS: [&str; 4] = [
    "Forbidden",
    "Invalid",
    "RequestEntityTooLarge",
    "Unauthorized",
];

/// A policy with its bindings.
pub(crate) struct Policy {
    pub(crate) name: String,
    pub(crate) matcher: Matcher,
    pub(crate) conditions: Conditions,
    pub(crate) variables: Vec<(String, Result<Expression, String>)>,
    pub(crate) validations: Vec<Validation>,
    /// An expression that cannot be evaluated refuses the request.
    pub(crate) fails_closed: bool,
    /// `apiVersion` and `kind` of its parameters, if it takes any.
    pub(crate) parameter_kind: Option<(String, String)>,
    pub(crate) bindings: Vec<Binding>,
}

/// One rule of a policy.
pub(crate) struct Validation {
    pub(crate) source: String,
    pub(crate) expression: Result<Expression, String>,
    pub(crate) message: String,
    pub(crate) message_expression: Option<Result<Expression, String>>,
    pub(crate) reason: &'static str,
}

/// Where a policy holds, and with which parameters.
pub(crate) struct Binding {
    pub(crate) name: String,
    pub(crate) matcher: Matcher,
    pub(crate) denies: bool,
    pub(crate) warns: bool,
    pub(crate) parameters: Option<Parameters>,
}

/// Which objects are the parameters.
pub(crate) struct Parameters {
    pub(crate) namespace: String,
    /// Empty when they are chosen by labels.
    pub(crate) name: String,
    pub(crate) selector: Selector,
    /// No parameters means no rule, not a refusal.
    pub(crate) optional: bool,
}

impl Policy {
    /// The policies that have bindings.
    pub(crate) fn compile_all(policies: &[Arc<Value>], bindings: &[Arc<Value>]) -> Vec<Self> {
        let compile = |policy: &Arc<Value>| {
            let name = &policy["metadata"]["name"];
            let bound: Vec<Binding> = bindings
                .iter()
                .filter(|binding| binding["spec"]["policyName"] == *name)
                .map(|binding| Binding::new(binding))
                .collect();
            (!bound.is_empty()).then(|| Self::new(policy, bound))
        };
        policies.iter().filter_map(compile).collect()
    }

    fn new(policy: &Value, bindings: Vec<Binding>) -> Self {
        let spec = &policy["spec"];
        let list = |key: &str| spec[key].as_array().into_iter().flatten();
        let kind = &spec["paramKind"];
        Self {
            name: text(&policy["metadata"]["name"]),
            matcher: Matcher::parse(&spec["matchConstraints"]),
            conditions: Conditions::parse(&spec["matchConditions"]),
            variables: list("variables")
                .map(|variable| {
                    let source = text(&variable["expression"]);
                    (text(&variable["name"]), Expression::parse(&source))
                })
                .collect(),
            validations: list("validations").map(Validation::new).collect(),
            fails_closed: spec["failurePolicy"] != "Ignore",
            parameter_kind: kind
                .is_object()
                .then(|| (text(&kind["apiVersion"]), text(&kind["kind"]))),
            bindings,
        }
    }
}

impl Validation {
    fn new(source: &Value) -> Self {
        let expression = text(&source["expression"]);
        let message = text(&source["messageExpression"]);
        let reason = REASONS.iter().find(|reason| source["reason"] == **reason);
        Self {
            expression: Expression::parse(&expression),
            source: expression.trim().to_owned(),
            message: text(&source["message"]).trim().to_owned(),
            message_expression: (!message.is_empty()).then(|| Expression::parse(&message)),
            reason: reason.unwrap_or(&"Invalid"),
        }
    }
}

impl Binding {
    fn new(binding: &Value) -> Self {
        let spec = &binding["spec"];
        let actions = spec["validationActions"].as_array().into_iter().flatten();
        let has = |wanted: &str| actions.clone().any(|action| action == wanted);
        let reference = &spec["paramRef"];
        Self {
            name: text(&binding["metadata"]["name"]),
            matcher: Matcher::parse(&spec["matchResources"]),
            denies: has("Deny"),
            warns: has("Warn"),
            parameters: reference.is_object().then(|| Parameters {
                namespace: text(&reference["namespace"]),
                name: text(&reference["name"]),
                selector: Selector::parse(&reference["selector"]),
                optional: reference["parameterNotFoundAction"] == "Allow",
            }),
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
