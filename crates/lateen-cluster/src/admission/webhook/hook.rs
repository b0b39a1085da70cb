//! One webhook of a configuration, compiled.

use std::time::Duration;

use serde_json::Value;

use crate::admission::condition::Conditions;
use crate::admission::matching::Matcher;

use super::endpoint::Endpoint;

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

/// A webhook.
pub(crate) struct Hook {
    pub(crate) kind: Kind,
    /// Full name, e.g. `rev.namespace.sidecar-injector.istio.io`.
    pub(crate) name: String,
    pub(crate) matcher: Matcher,
    pub(crate) conditions: Conditions,
    /// A failed call refuses the request.
    pub(crate) fails_closed: bool,
    pub(crate) timeout: Duration,
    /// Is called again when later webhooks changed the object.
    pub(crate) reinvoke: bool,
    /// May be called for requests that are not stored.
    pub(crate) dry_run: bool,
    /// Where to call, or why that cannot be known.
    pub(crate) endpoint: Result<Endpoint, String>,
}

impl Hook {
    /// All webhooks of `configuration`, in order.
    pub(crate) fn compile(configuration: &Value, kind: Kind) -> Vec<Self> {
        let webhooks = configuration["webhooks"].as_array().into_iter().flatten();
        webhooks.map(|webhook| Self::new(webhook, kind)).collect()
    }

    fn new(source: &Value, kind: Kind) -> Self {
        let text = |key: &str| source[key].as_str().unwrap_or_default();
        let seconds = source["timeoutSeconds"].as_u64().unwrap_or(DEFAULT_TIMEOUT);
        let mut reviews = source["admissionReviewVersions"]
            .as_array()
            .into_iter()
            .flatten();
        let endpoint = if reviews.any(|version| version == "v1") {
            Endpoint::parse(&source["clientConfig"])
        } else {
            Err("webhook does not accept known AdmissionReview versions (v1)".to_owned())
        };
        Self {
            kind,
            name: text("name").to_owned(),
            matcher: Matcher::parse(source),
            conditions: Conditions::parse(&source["matchConditions"]),
            fails_closed: text("failurePolicy") != "Ignore",
            timeout: Duration::from_secs(seconds.clamp(1, MAX_TIMEOUT)),
            reinvoke: text("reinvocationPolicy") == "IfNeeded",
            dry_run: matches!(text("sideEffects"), "None" | "NoneOnDryRun"),
            endpoint,
        }
    }
}
