//! Cross-origin requests (the Fetch standard): which origins may read the answers, and what preflights are told.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use lateen_xds::pb::envoy::extensions::filters::http::cors::v3 as pb;

use crate::fraction::Fraction;
use crate::string_match::StringMatch;
use crate::{Invalid, Within, refuse_rest};

const PRIVATE_NETWORK_ASKED: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const PRIVATE_NETWORK_ALLOWED: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");

/// A policy of one level of the routes. What it leaves open, a less specific level may say.
#[derive(Debug, Clone)]
pub struct CorsPolicy {
    origins: Vec<StringMatch>,
    methods: Option<HeaderValue>,
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    max_age: Option<HeaderValue>,
    credentials: Option<bool>,
    private_network: Option<bool>,
    forward_unmatched: Option<bool>,
    enabled: Option<Fraction>,
    shadow: Option<Fraction>,
}

impl CorsPolicy {
    /// Compiles the protobuf form.
    pub fn compile(mut policy: pb::CorsPolicy) -> Result<Self, Invalid> {
        let mut origins = Vec::new();
        let matchers = std::mem::take(&mut policy.allow_origin_string_match);
        for (index, matcher) in matchers.into_iter().enumerate() {
            let origin = StringMatch::compile(matcher);
            origins.push(origin.within_item("allow_origin_string_match", index)?);
        }
        let compiled = Self {
            origins,
            methods: header_value("allow_methods", std::mem::take(&mut policy.allow_methods))?,
            headers: header_value("allow_headers", std::mem::take(&mut policy.allow_headers))?,
            expose: header_value("expose_headers", std::mem::take(&mut policy.expose_headers))?,
            max_age: header_value("max_age", std::mem::take(&mut policy.max_age))?,
            credentials: policy.allow_credentials.take().map(|value| value.value),
            private_network: policy
                .allow_private_network_access
                .take()
                .map(|value| value.value),
            forward_unmatched: policy
                .forward_not_matching_preflights
                .take()
                .map(|value| value.value),
            enabled: policy
                .filter_enabled
                .take()
                .map(Fraction::compile_runtime)
                .transpose()
                .within("filter_enabled")?,
            shadow: policy
                .shadow_enabled
                .take()
                .map(Fraction::compile_runtime)
                .transpose()
                .within("shadow_enabled")?,
        };
        refuse_rest(&policy)?;
        Ok(compiled)
    }
}

/// The value of a header that configuration sets; nothing when the text is empty.
pub(crate) fn header_value(field: &str, text: String) -> Result<Option<HeaderValue>, Invalid> {
    if text.is_empty() {
        return Ok(None);
    }
    HeaderValue::try_from(text)
        .map(Some)
        .map_err(|_| Invalid::new(field, "is not a valid header value"))
}

/// The policies of all levels for one request, the most specific first.
#[derive(Debug, Default)]
pub struct Cors<'p> {
    policies: [Option<&'p CorsPolicy>; 4],
}

/// What is done with a cross-origin request.
#[derive(Debug)]
pub struct Judged {
    /// Whether the origin is one of those allowed.
    pub valid: bool,
    /// What follows from it.
    pub outcome: Outcome,
}

/// What follows for a cross-origin request.
#[derive(Debug)]
pub enum Outcome {
    /// It goes on as if there were no policy.
    Pass,
    /// It goes on, and the answer is opened for this origin.
    Open(HeaderValue),
    /// It was a preflight, which is answered with these headers, and opened for an allowed origin.
    Answer(HeaderMap, Option<HeaderValue>),
}

impl<'p> Cors<'p> {
    /// Collects the policies; nothing when there is none.
    pub fn new(policies: impl Iterator<Item = &'p CorsPolicy>) -> Option<Self> {
        let mut all = Self::default();
        for (place, policy) in all.policies.iter_mut().zip(policies) {
            *place = Some(policy);
        }
        all.policies[0].is_some().then_some(all)
    }

    /// The first level that says something.
    fn first<T>(&self, get: impl Fn(&'p CorsPolicy) -> Option<T>) -> Option<T> {
        self.policies
            .iter()
            .flatten()
            .find_map(|policy| get(policy))
    }

    /// Looks at a request. Nothing when it is not a cross-origin one, or the policy is switched off for it.
    pub fn judge(&self, method: &Method, headers: &HeaderMap, random: u64) -> Option<Judged> {
        let most_specific = self.policies[0]?;
        let enabled = most_specific
            .enabled
            .is_none_or(|share| share.draws(random));
        let shadow = most_specific
            .shadow
            .is_some_and(|share| share.draws(random));
        if !enabled && !shadow {
            return None;
        }
        let origin = headers
            .get(header::ORIGIN)
            .filter(|origin| !origin.is_empty())?;
        let origins = self.first(|policy| (!policy.origins.is_empty()).then_some(&policy.origins));
        let valid = origins.is_some_and(|origins| {
            origins
                .iter()
                .any(|matcher| matcher.matches(origin.as_bytes()))
        });
        let asked = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD);
        let preflight = *method == Method::OPTIONS && asked.is_some_and(|asked| !asked.is_empty());
        let forward = || {
            self.first(|policy| policy.forward_unmatched)
                .unwrap_or(true)
        };
        let outcome = if !enabled {
            Outcome::Pass
        } else if preflight && (valid || !forward()) {
            Outcome::Answer(self.preflight(headers), valid.then(|| origin.clone()))
        } else if valid {
            Outcome::Open(origin.clone())
        } else {
            Outcome::Pass
        };
        Some(Judged { valid, outcome })
    }

    /// What a preflight is told, whoever asks.
    fn preflight(&self, asked: &HeaderMap) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut set = |name, value: Option<&HeaderValue>| {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        };
        let yes = HeaderValue::from_static("true");
        let credentials = self.first(|policy| policy.credentials) == Some(true);
        set(
            header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
            credentials.then_some(&yes),
        );
        // Everything is allowed by what was asked for: to clients with credentials `*` is a name like any other.
        let nothing = HeaderValue::from_static("");
        let echoed = |allowed: Option<&'p HeaderValue>, by: HeaderName| match allowed {
            Some(any) if any == "*" => Some(asked.get(by).unwrap_or(&nothing)),
            allowed => allowed,
        };
        set(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            echoed(
                self.first(|policy| policy.methods.as_ref()),
                header::ACCESS_CONTROL_REQUEST_METHOD,
            ),
        );
        set(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            echoed(
                self.first(|policy| policy.headers.as_ref()),
                header::ACCESS_CONTROL_REQUEST_HEADERS,
            ),
        );
        set(
            header::ACCESS_CONTROL_MAX_AGE,
            self.first(|policy| policy.max_age.as_ref()),
        );
        let private = self.first(|policy| policy.private_network) == Some(true)
            && asked.get(PRIVATE_NETWORK_ASKED) == Some(&yes);
        set(PRIVATE_NETWORK_ALLOWED, private.then_some(&yes));
        headers
    }

    /// Opens an answer for the origin that asked.
    pub fn open(&self, origin: HeaderValue, headers: &mut HeaderMap) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.first(|policy| policy.credentials) == Some(true) {
            let yes = HeaderValue::from_static("true");
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        if let Some(expose) = self.first(|policy| policy.expose.as_ref()) {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }
}
