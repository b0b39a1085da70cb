//! Request headers that change the retry policy: `x-envoy-retry-on` and its kin. Who may send them is decided before.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{RetryOn, RetryPolicy};
use crate::header_match::HeaderMatch;

const RETRY_ON: HeaderName = HeaderName::from_static("x-envoy-retry-on");
const RETRY_GRPC_ON: HeaderName = HeaderName::from_static("x-envoy-retry-grpc-on");
const MAX_RETRIES: HeaderName = HeaderName::from_static("x-envoy-max-retries");
const STATUS_CODES: HeaderName = HeaderName::from_static("x-envoy-retriable-status-codes");
const HEADER_NAMES: HeaderName = HeaderName::from_static("x-envoy-retriable-header-names");
const HEDGE: HeaderName = HeaderName::from_static("x-envoy-hedge-on-per-try-timeout");
const PER_TRY: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms");

/// Takes the time for one attempt out of the headers.
pub fn per_try_timeout(headers: &mut HeaderMap) -> Option<Duration> {
    number(headers.remove(PER_TRY)).map(Duration::from_millis)
}

impl RetryPolicy {
    /// A policy without conditions: it takes headers to retry anything.
    pub fn none() -> Self {
        Self {
            on: RetryOn::default(),
            retries: 1,
            per_try_timeout: None,
            per_try_idle_timeout: None,
            status_codes: Vec::new(),
            headers: Vec::new(),
            request_headers: Vec::new(),
            avoid: Vec::new(),
            previous_priorities: None,
            host_attempts: 1,
            back_off_base: Duration::from_millis(25),
            back_off_max: Duration::from_millis(250),
            rate_limited: None,
        }
    }

    /// The route's policy as the request's headers change it. The headers are taken out.
    pub fn for_request<'p>(
        route: Option<&'p Self>,
        headers: &mut HeaderMap,
    ) -> Option<Cow<'p, Self>> {
        // One look at the names is cheaper than a search for each.
        let changed = headers.keys().any(|name| {
            name.as_str().starts_with("x-envoy-")
                && [
                    &RETRY_ON,
                    &RETRY_GRPC_ON,
                    &MAX_RETRIES,
                    &STATUS_CODES,
                    &HEADER_NAMES,
                    &HEDGE,
                ]
                .contains(&name)
        });
        if !changed {
            return route.map(Cow::Borrowed);
        }
        let mut policy = route.cloned().unwrap_or_else(Self::none);
        for name in [RETRY_ON, RETRY_GRPC_ON] {
            if let Some(list) = text(headers.remove(name)) {
                policy.on = policy.on.with(RetryOn::parse(&list));
            }
        }
        if let Some(most) = number(headers.remove(MAX_RETRIES)) {
            policy.retries = u32::try_from(most).unwrap_or(u32::MAX);
        }
        if let Some(list) = text(headers.remove(STATUS_CODES)) {
            let codes = list
                .split(',')
                .filter_map(|code| code.trim().parse::<u16>().ok());
            policy.status_codes.extend(codes);
        }
        if let Some(list) = text(headers.remove(HEADER_NAMES)) {
            let names = list.split(',').filter_map(|name| name.trim().parse().ok());
            policy.headers.extend(names.map(HeaderMatch::present));
        }
        // No second request is ever sent beside the first.
        headers.remove(HEDGE);
        Some(Cow::Owned(policy))
    }
}

fn text(value: Option<HeaderValue>) -> Option<String> {
    Some(value?.to_str().ok()?.to_owned())
}

fn number(value: Option<HeaderValue>) -> Option<u64> {
    text(value)?.trim().parse().ok()
}
