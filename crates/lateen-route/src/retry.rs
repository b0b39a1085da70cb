//! Retry policies: which failures are tried again, how often, and after which pause.

mod compile;
mod overrides;

use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode};

use crate::RequestView;
use crate::balance::subset::Labels;
use crate::header_match::HeaderMatch;

pub use overrides::per_try_timeout;

/// The set of conditions of `retry_on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOn(u32);

macro_rules! tokens {
    ($($constant:ident = $bit:expr, $token:literal;)*) => {
        impl RetryOn {
            $(#[doc = concat!("`", $token, "`")] pub const $constant: Self = Self(1 << $bit);)*

            fn token(token: &str) -> Option<Self> {
                match token { $($token => Some(Self::$constant),)* _ => None }
            }
        }
    };
}

tokens! {
    SERVER_ERROR = 0, "5xx";
    GATEWAY_ERROR = 1, "gateway-error";
    RESET = 2, "reset";
    RESET_BEFORE_REQUEST = 3, "reset-before-request";
    CONNECT_FAILURE = 4, "connect-failure";
    RATE_LIMITED = 5, "envoy-ratelimited";
    RETRIABLE_CLIENT_ERROR = 6, "retriable-4xx";
    REFUSED_STREAM = 7, "refused-stream";
    STATUS_CODES = 8, "retriable-status-codes";
    GRPC_CANCELLED = 9, "cancelled";
    GRPC_DEADLINE_EXCEEDED = 10, "deadline-exceeded";
    GRPC_INTERNAL = 11, "internal";
    GRPC_RESOURCE_EXHAUSTED = 12, "resource-exhausted";
    GRPC_UNAVAILABLE = 13, "unavailable";
    HEADERS = 14, "retriable-headers";
    HTTP3_POST_CONNECT_FAILURE = 15, "http3-post-connect-failure";
}

impl RetryOn {
    /// Reads a comma-separated list. Unknown tokens are ignored, as Envoy does.
    pub fn parse(list: &str) -> Self {
        Self(
            list.split(',')
                .filter_map(|token| Self::token(token.trim()))
                .fold(0, |all, token| all | token.0),
        )
    }

    /// Whether there is no condition at all.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether any of `other`'s conditions is in the set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Why an attempt gave no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be made.
    Connect,
    /// The peer refused the stream before looking at it.
    RefusedStream,
    /// The connection broke before any byte of the request was sent.
    ResetBeforeRequest,
    /// The connection or stream broke later.
    Reset,
    /// The time of this attempt was over.
    AttemptTimeout {
        /// The request was on its way already.
        sent: bool,
    },
    /// A circuit breaker refused it.
    Overflow,
}

/// A compiled retry policy.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// Conditions.
    pub on: RetryOn,
    /// How many more attempts are made after the first.
    pub retries: u32,
    /// Time for one attempt.
    pub per_try_timeout: Option<Duration>,
    /// Time without any progress of one attempt.
    pub per_try_idle_timeout: Option<Duration>,
    /// Statuses for `retriable-status-codes`.
    pub status_codes: Vec<u16>,
    /// Conditions on the response for `retriable-headers`; any of them suffices.
    pub headers: Vec<HeaderMatch>,
    /// Conditions on the request; when there are any, one must hold, or nothing is tried again.
    pub request_headers: Vec<HeaderMatch>,
    /// Which endpoints retries avoid.
    pub avoid: Vec<HostPredicate>,
    /// Retries turn to other priorities after this many attempts each.
    pub previous_priorities: Option<usize>,
    /// How often a host is chosen again to avoid one.
    pub host_attempts: u32,
    /// Pause before the first retry; doubles each time.
    pub back_off_base: Duration,
    /// Longest pause.
    pub back_off_max: Duration,
    /// Pauses that the response asks for.
    pub rate_limited: Option<RateLimitedBackOff>,
}

/// Endpoints that a retry avoids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPredicate {
    /// Those that were tried already.
    Previous,
    /// Those that are marked as canaries.
    Canary,
    /// Those with all of these labels.
    Labels(Labels),
}

/// Where a response says how long to wait, and how long that may be.
#[derive(Debug, Clone)]
pub struct RateLimitedBackOff {
    /// Headers in the order in which they are looked at.
    pub headers: Vec<(HeaderName, ResetFormat)>,
    /// Longer pauses are not followed.
    pub max: Duration,
}

/// The meaning of a number in a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetFormat {
    /// Seconds from now.
    Seconds,
    /// Seconds since 1970.
    UnixTimestamp,
}

impl RetryPolicy {
    /// Whether anything can be tried again for a request.
    pub fn applies(&self, request: &RequestView<'_>) -> bool {
        !self.on.is_empty()
            && self.retries > 0
            && (self.request_headers.is_empty()
                || self
                    .request_headers
                    .iter()
                    .any(|matcher| matcher.matches(request)))
    }

    /// Whether an attempt without a response is tried again.
    pub fn retries_failure(&self, failure: Failure) -> bool {
        // Each of these stands for a response that never came.
        let any = RetryOn::SERVER_ERROR
            .with(RetryOn::GATEWAY_ERROR)
            .with(RetryOn::RESET);
        match failure {
            Failure::Overflow => false,
            Failure::Connect => self.on.has(
                any.with(RetryOn::CONNECT_FAILURE)
                    .with(RetryOn::RESET_BEFORE_REQUEST),
            ),
            Failure::RefusedStream => self.on.has(any.with(RetryOn::REFUSED_STREAM)),
            Failure::ResetBeforeRequest | Failure::AttemptTimeout { sent: false } => {
                self.on.has(any.with(RetryOn::RESET_BEFORE_REQUEST))
            }
            Failure::Reset | Failure::AttemptTimeout { sent: true } => self.on.has(any),
        }
    }

    /// Whether a response is dropped and the request tried again.
    pub fn retries_response(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        if headers.contains_key("x-envoy-ratelimited") {
            return self.on.has(RetryOn::RATE_LIMITED);
        }
        let code = status.as_u16();
        (self.on.has(RetryOn::SERVER_ERROR) && status.is_server_error())
            || (self.on.has(RetryOn::GATEWAY_ERROR) && matches!(code, 502..=504))
            || (self.on.has(RetryOn::RETRIABLE_CLIENT_ERROR) && code == 409)
            || (self.on.has(RetryOn::STATUS_CODES) && self.status_codes.contains(&code))
            || (self.on.has(RetryOn::HEADERS) && self.has_retriable_header(headers))
            || self.retries_grpc_status(headers)
    }

    fn has_retriable_header(&self, headers: &HeaderMap) -> bool {
        let response = RequestView {
            method: "",
            scheme: "",
            authority: "",
            path: "",
            headers,
        };
        self.headers
            .iter()
            .any(|matcher| matcher.matches(&response))
    }

    fn retries_grpc_status(&self, headers: &HeaderMap) -> bool {
        let Some(status) = headers.get("grpc-status") else {
            return false;
        };
        let condition = match status.as_bytes() {
            b"1" => RetryOn::GRPC_CANCELLED,
            b"4" => RetryOn::GRPC_DEADLINE_EXCEEDED,
            b"8" => RetryOn::GRPC_RESOURCE_EXHAUSTED,
            b"13" => RetryOn::GRPC_INTERNAL,
            b"14" => RetryOn::GRPC_UNAVAILABLE,
            _ => return false,
        };
        self.on.has(condition)
    }

    /// The pause before retry number `attempt` (from 1): full jitter under an exponentially growing bound.
    pub fn pause(&self, attempt: u32, random: u64) -> Duration {
        let factor = 1u32
            .checked_shl(attempt.saturating_sub(1))
            .unwrap_or(u32::MAX);
        let bound = self
            .back_off_base
            .saturating_mul(factor)
            .min(self.back_off_max);
        let millis = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX).max(1);
        Duration::from_millis(random % millis)
    }

    /// The pause that a response asks for, up to half longer at random, so that callers do not return all at once.
    /// `now` is the time since 1970.
    pub fn pause_of_response(
        &self,
        headers: &HeaderMap,
        now: Duration,
        random: u64,
    ) -> Option<Duration> {
        let back_off = self.rate_limited.as_ref()?;
        let asked = back_off.headers.iter().find_map(|(name, format)| {
            let number: u64 = headers.get(name)?.to_str().ok()?.trim().parse().ok()?;
            let time = match format {
                ResetFormat::Seconds => Duration::from_secs(number),
                ResetFormat::UnixTimestamp => Duration::from_secs(number).checked_sub(now)?,
            };
            (time <= back_off.max).then_some(time)
        })?;
        let millis = u64::try_from(asked.as_millis()).ok()?;
        (millis > 1).then(|| Duration::from_millis(millis + random % (millis / 2).max(1)))
    }
}
