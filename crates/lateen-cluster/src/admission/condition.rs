//! Conditions on a request, in CEL (`matchConditions`).

use kube_cel::cel::Value as Cel;
use serde_json::Value;

use crate::expression::{self, Expression};

/// Conditions that must all hold.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    list: Vec<(String, Result<Expression, String>)>,
}

impl Conditions {
    /// Parses a list of `matchConditions`.
    pub(crate) fn parse(source: &Value) -> Self {
        let list = source.as_array().into_iter().flatten();
        let parse = |condition: &Value| {
            let text = |key: &str| condition[key].as_str().unwrap_or_default();
            (
                text("name").to_owned(),
                Expression::parse(text("expression")),
            )
        };
        Self {
            list: list.map(parse).collect(),
        }
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether all conditions hold. One that is false settles it, whatever the others say.
    ///
    /// # Errors
    /// Why some cannot be evaluated.
    pub(crate) fn hold(&self, variables: &[(&str, Cel)]) -> Result<bool, String> {
        let mut faults = Vec::new();
        for (name, condition) in &self.list {
            let outcome = condition.as_ref().map_err(Clone::clone);
            match outcome.and_then(|condition| condition.holds(variables)) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(fault) => {
                    faults.push(format!("expression '{name}' resulted in error: {fault}"))
                }
            }
        }
        if faults.is_empty() {
            Ok(true)
        } else {
            Err(faults.join(", "))
        }
    }
}

/// What expressions see of an admission request.
pub(crate) fn variables(request: &Value) -> Vec<(&'static str, Cel)> {
    vec![
        ("object", expression::object(&request["object"])),
        ("oldObject", expression::object(&request["oldObject"])),
        ("request", expression::dynamic(request)),
    ]
}
