//! One webhook of a configuration, compiled.

use std::time::Duration;

use serde_json::Value;

use crate::admission::Attributes;
use crate::expression::{self, Expression};
use crate::status::{Result, Status};

use super::endpoint::Endpoint;
use super::review::Review;
use super::selector::Selector;

/// Seconds that a webhook has, when its configuration does not say.
const DEFAULT_TIMEOUT: u64 = 10;
/// Most seconds that a configuration can give.
const MAX_TIMEOUT: u64 = 30;

/// The two kinds of configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Mutating,
    Validating,
}

impl Kind {
    /// Name under which configurations are stored.
    pub(crate) fn resource(self) -> &'static str {
        match self {
            Self::Mutating => "mutatingwebhookconfigurations.admissionregistration.k8s.io",
            Self::Validating => "validatingwebhookconfigurations.admissionregistration.k8s.io",
        }
    }
}

/// A webhook.
pub(crate) struct Hook {
    pub(crate) kind: Kind,
    /// Full name, e.g. `rev.namespace.sidecar-injector.istio.io`.
    pub(crate) name: String,
    pub(crate) namespace_selector: Selector,
    pub(crate) object_selector: Selector,
    /// A failed call refuses the request.
    pub(crate) fails_closed: bool,
    /// Requests in other versions of the same resource match too.
    equivalent: bool,
    pub(crate) timeout: Duration,
    /// Is called again when later webhooks changed the object.
    pub(crate) reinvoke: bool,
    /// May be called for requests that are not stored.
    pub(crate) dry_run: bool,
    /// Where to call, or why that cannot be known.
    pub(crate) endpoint: Result<Endpoint, String>,
    rules: Vec<Rule>,
    conditions: Vec<(String, Result<Expression, String>)>,
}

/// Requests that a webhook wants to see.
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    scope: String,
}

impl Hook {
    /// All webhooks of `configuration`, in order.
    pub(crate) fn compile(configuration: &Value, kind: Kind) -> Vec<Self> {
        let webhooks = configuration["webhooks"].as_array().into_iter().flatten();
        webhooks.map(|webhook| Self::new(webhook, kind)).collect()
    }

    fn new(source: &Value, kind: Kind) -> Self {
        let text = |key: &str| source[key].as_str().unwrap_or_default();
        let list = |key: &str| {
            source[key]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default()
        };
        let seconds = source["timeoutSeconds"].as_u64().unwrap_or(DEFAULT_TIMEOUT);
        let known = list("admissionReviewVersions")
            .iter()
            .any(|version| version == "v1");
        let endpoint = if known {
            Endpoint::parse(&source["clientConfig"])
        } else {
            Err("webhook does not accept known AdmissionReview versions (v1)".to_owned())
        };
        Self {
            kind,
            name: text("name").to_owned(),
            namespace_selector: Selector::parse(&source["namespaceSelector"]),
            object_selector: Selector::parse(&source["objectSelector"]),
            fails_closed: text("failurePolicy") != "Ignore",
            equivalent: text("matchPolicy") != "Exact",
            timeout: Duration::from_secs(seconds.clamp(1, MAX_TIMEOUT)),
            reinvoke: text("reinvocationPolicy") == "IfNeeded",
            dry_run: matches!(text("sideEffects"), "None" | "NoneOnDryRun"),
            endpoint,
            rules: list("rules").iter().map(Rule::new).collect(),
            conditions: list("matchConditions")
                .iter()
                .map(|condition| {
                    let part = |key: &str| condition[key].as_str().unwrap_or_default();
                    (
                        part("name").to_owned(),
                        Expression::parse(part("expression")),
                    )
                })
                .collect(),
        }
    }

    /// Group and version in which the webhook wants to see the request; `None` when it does not want to.
    pub(crate) fn version<'a>(&self, attributes: &Attributes<'a>) -> Option<(&'a str, &'a str)> {
        let (group, version) = (attributes.group, attributes.version);
        if self
            .rules
            .iter()
            .any(|rule| rule.matches(attributes, group, version))
        {
            return Some((group, version));
        }
        if !self.equivalent {
            return None;
        }
        // An earlier rule counts more than a better version.
        self.rules.iter().find_map(|rule| {
            let mut versions = attributes.resource.versions.iter();
            let found =
                versions.find(|other| rule.matches(attributes, &other.group, &other.name))?;
            Some((found.group.as_str(), found.name.as_str()))
        })
    }

    /// Whether all of `matchConditions` hold.
    ///
    /// # Errors
    /// One cannot be evaluated, none is false, and the webhook fails closed.
    pub(crate) fn conditions_hold(
        &self,
        review: &Review,
        attributes: &Attributes<'_>,
    ) -> Result<bool> {
        if self.conditions.is_empty() {
            return Ok(true);
        }
        let request = review.request();
        let variables = [
            ("object", expression::dynamic(&request["object"])),
            ("oldObject", expression::dynamic(&request["oldObject"])),
            ("request", expression::dynamic(request)),
        ];
        let mut faults = Vec::new();
        for (name, condition) in &self.conditions {
            let outcome = match condition {
                Ok(condition) => condition.holds(&variables),
                Err(fault) => Err(fault.clone()),
            };
            match outcome {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(fault) => {
                    faults.push(format!("expression '{name}' resulted in error: {fault}"))
                }
            }
        }
        if faults.is_empty() {
            return Ok(true);
        }
        if !self.fails_closed {
            return Ok(false);
        }
        let resource = &attributes.resource;
        Err(Status::forbidden(format!(
            "{} {:?} is forbidden: {}",
            resource.storage_key(),
            attributes.name,
            faults.join(", ")
        )))
    }
}

impl Rule {
    fn new(source: &Value) -> Self {
        let texts = |key: &str| {
            let list = source[key].as_array().into_iter().flatten();
            list.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            operations: texts("operations"),
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            resources: texts("resources"),
            scope: source["scope"].as_str().unwrap_or("*").to_owned(),
        }
    }

    fn matches(&self, attributes: &Attributes<'_>, group: &str, version: &str) -> bool {
        let any =
            |list: &[String], wanted: &str| list.iter().any(|one| one == "*" || one == wanted);
        let in_namespace = !attributes.namespace.is_empty()
            && !(attributes.resource.group.is_empty()
                && attributes.resource.plural == "namespaces");
        let scope = match self.scope.as_str() {
            "Namespaced" => in_namespace,
            "Cluster" => !in_namespace,
            _ => true,
        };
        scope
            && any(&self.operations, attributes.operation.name())
            && any(&self.groups, group)
            && any(&self.versions, version)
            && self.resources.iter().any(|resource| {
                let (plural, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                (plural == "*" || plural == attributes.resource.plural)
                    && (subresource == "*" || subresource == attributes.subresource)
            })
    }
}
