//! Retry policies: which failures are tried again, how often, and after which pause.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use lateen_xds::pb::envoy::config::route::v3 as pb;

use crate::compile::duration;
use crate::{Invalid, Within, refuse_rest};

const PREVIOUS_HOSTS: &str = "envoy.retry_host_predicates.previous_hosts";

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
    AttemptTimeout,
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
    /// Statuses for `retriable-status-codes`.
    pub status_codes: Vec<u16>,
    /// Hosts that were tried already are avoided.
    pub avoid_previous_hosts: bool,
    /// How often a host is chosen again to avoid one.
    pub host_attempts: u32,
    /// Pause before the first retry; doubles each time.
    pub back_off_base: Duration,
    /// Longest pause.
    pub back_off_max: Duration,
}

impl RetryPolicy {
    /// Compiles the protobuf form.
    pub fn compile(mut policy: pb::RetryPolicy) -> Result<Self, Invalid> {
        let on = RetryOn::parse(&std::mem::take(&mut policy.retry_on));
        let retries = policy.num_retries.take().map_or(1, |value| value.value);
        let per_try_timeout = policy
            .per_try_timeout
            .take()
            .map(duration)
            .transpose()
            .within("per_try_timeout")?
            .filter(|time| !time.is_zero());
        let status_codes = std::mem::take(&mut policy.retriable_status_codes)
            .into_iter()
            .map(|code| {
                u16::try_from(code)
                    .map_err(|_| Invalid::new("retriable_status_codes", "must be HTTP statuses"))
            })
            .collect::<Result<_, _>>()?;
        let mut avoid_previous_hosts = false;
        for (index, predicate) in std::mem::take(&mut policy.retry_host_predicate)
            .into_iter()
            .enumerate()
        {
            if predicate.name != PREVIOUS_HOSTS {
                return Err(Invalid::unsupported("name"))
                    .within_item("retry_host_predicate", index);
            }
            avoid_previous_hosts = true;
        }
        let host_attempts =
            u32::try_from(std::mem::take(&mut policy.host_selection_retry_max_attempts).max(1))
                .unwrap_or(u32::MAX);
        let mut back_off_base = Duration::from_millis(25);
        let mut back_off_max = None;
        if let Some(back_off) = policy.retry_back_off.take() {
            if let Some(base) = back_off.base_interval {
                back_off_base = duration(base).within("retry_back_off.base_interval")?;
            }
            if let Some(max) = back_off.max_interval {
                back_off_max = Some(duration(max).within("retry_back_off.max_interval")?);
            }
            if back_off_base.is_zero() || back_off_max.is_some_and(|max| max < back_off_base) {
                return Err(Invalid::new(
                    "retry_back_off",
                    "base_interval must be positive and at most max_interval",
                ));
            }
        }
        refuse_rest(&policy)?;
        Ok(Self {
            on,
            retries,
            per_try_timeout,
            status_codes,
            avoid_previous_hosts,
            host_attempts,
            back_off_base,
            back_off_max: back_off_max.unwrap_or(back_off_base * 10),
        })
    }

    /// Whether an attempt without a response is tried again.
    pub fn retries_failure(&self, failure: Failure) -> bool {
        let any_reset = RetryOn::SERVER_ERROR
            .with(RetryOn::GATEWAY_ERROR)
            .with(RetryOn::RESET);
        match failure {
            Failure::Overflow => false,
            Failure::Connect => self.on.has(any_reset.with(RetryOn::CONNECT_FAILURE)),
            Failure::RefusedStream => self.on.has(any_reset.with(RetryOn::REFUSED_STREAM)),
            Failure::ResetBeforeRequest => {
                self.on.has(any_reset.with(RetryOn::RESET_BEFORE_REQUEST))
            }
            Failure::Reset => self.on.has(any_reset),
            Failure::AttemptTimeout => self
                .on
                .has(RetryOn::SERVER_ERROR.with(RetryOn::GATEWAY_ERROR)),
        }
    }

    /// Whether a response is dropped and the request tried again.
    pub fn retries_response(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        if headers.contains_key("x-envoy-ratelimited") && !self.on.has(RetryOn::RATE_LIMITED) {
            return false;
        }
        let code = status.as_u16();
        (self.on.has(RetryOn::SERVER_ERROR) && status.is_server_error())
            || (self.on.has(RetryOn::GATEWAY_ERROR) && matches!(code, 502..=504))
            || (self.on.has(RetryOn::RETRIABLE_CLIENT_ERROR) && code == 409)
            || (self.on.has(RetryOn::STATUS_CODES) && self.status_codes.contains(&code))
            || self.retries_grpc_status(headers)
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
}
