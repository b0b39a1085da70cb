//! Checks of what goes with an HTTP rule: retries, faults and cross-origin rules.

use super::{Problems, http_route::text, names::is_header};
use crate::{
    Duration,
    common::{GRPC_CODES, Percent},
    networking::http_route::{CorsPolicy, FaultAbort, FaultDelay, HttpFaultInjection, HttpRetry},
};

/// Conditions under which requests may be repeated.
const RETRY_CONDITIONS: [&str; 15] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "retriable-4xx",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

/// Checks retries.
pub fn retry(retry: &HttpRetry, problems: &mut Problems) {
    problems.demand(
        retry.attempts >= 0,
        "attempts",
        "a number of attempts is 0 or more",
    );
    let extra = retry.per_try_timeout.is_some()
        || !retry.retry_on.is_empty()
        || retry.retry_remote_localities.is_some();
    problems.demand(
        retry.attempts != 0 || !extra,
        "attempts",
        "no attempts (0) cannot have further settings",
    );
    if let Some(timeout) = retry.per_try_timeout {
        duration(timeout, "perTryTimeout", problems);
    }
    if let Some(pause) = retry.backoff {
        duration(pause, "backoff", problems);
    }
    for condition in retry
        .retry_on
        .split(',')
        .filter(|_| !retry.retry_on.is_empty())
        .map(str::trim)
    {
        let code = condition
            .parse::<u32>()
            .is_ok_and(|code| (100..600).contains(&code));
        problems.demand(
            code || RETRY_CONDITIONS.contains(&condition),
            "retryOn",
            format!("{condition:?} is neither a condition nor a status code"),
        );
    }
}

/// Checks faults.
pub fn fault(fault: &HttpFaultInjection, problems: &mut Problems) {
    if fault.delay.is_none() && fault.abort.is_none() {
        problems.add("a fault is a delay, an abort or both");
    }
    if let Some(settings) = &fault.delay {
        problems.field("delay", |problems| delay(settings, problems));
    }
    if let Some(settings) = &fault.abort {
        problems.field("abort", |problems| abort(settings, problems));
    }
}

/// Checks a delay.
pub fn delay(delay: &FaultDelay, problems: &mut Problems) {
    let whole = delay
        .percent
        .is_none_or(|percent| (0..=100).contains(&percent));
    problems.demand(whole, "percent", "a share is 0 to 100 percent");
    percentage(delay.percentage, "percentage", problems);
    match (delay.fixed_delay, delay.exponential_delay) {
        (Some(length), _) => duration(length, "fixedDelay", problems),
        (None, Some(length)) => duration(length, "exponentialDelay", problems),
        (None, None) => problems.add_to("fixedDelay", "the length of the delay is missing"),
    }
}

/// Checks an abort.
pub fn abort(abort: &FaultAbort, problems: &mut Problems) {
    percentage(abort.percentage, "percentage", problems);
    match (abort.http_status, &abort.grpc_status) {
        (Some(status), _) => {
            problems.demand(
                (200..600).contains(&status),
                "httpStatus",
                format!("{status} is not from 200 to 599"),
            );
        }
        (None, Some(name)) => problems.demand(
            GRPC_CODES.contains(&name.as_str()),
            "grpcStatus",
            format!("{name:?} is not the name of a gRPC status, such as UNAVAILABLE"),
        ),
        (None, None) if abort.http2_error.is_some() => {
            problems.add_to("http2Error", "HTTP/2 errors cannot be injected")
        }
        (None, None) => problems.add("httpStatus or grpcStatus is missing"),
    }
}

/// Checks cross-origin rules.
pub fn cors(cors: &CorsPolicy, problems: &mut Problems) {
    problems.each("allowOrigins", &cors.allow_origins, |problems, origin| {
        text(origin, problems)
    });
    for (field, names) in [
        ("allowHeaders", &cors.allow_headers),
        ("exposeHeaders", &cors.expose_headers),
    ] {
        problems.each(field, names, |problems, name| {
            if !is_header(name, false) && name != "*" {
                problems.add(format!("{name:?} is not a header name"));
            }
        });
    }
    problems.each("allowMethods", &cors.allow_methods, |problems, method| {
        let known = [
            "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*",
        ];
        if !known.contains(&method.as_str()) {
            problems.add(format!("{method:?} is not a method"));
        }
    });
    if let Some(age) = cors.max_age {
        duration(age, "maxAge", problems);
        problems.demand(
            age.subsecond_nanos() == 0,
            "maxAge",
            "whole seconds are needed",
        );
    }
}

/// Checks a share.
pub(super) fn percentage(percent: Option<Percent>, name: &str, problems: &mut Problems) {
    let valid = percent.is_none_or(|percent| (0.0..=100.0).contains(&percent.value));
    problems.demand(valid, name, "a share is 0 to 100 percent");
}

/// Checks that a duration is at least a millisecond.
pub fn duration(duration: Duration, name: &str, problems: &mut Problems) {
    problems.demand(
        duration >= Duration::from_millis(1),
        name,
        "a duration is at least 1ms",
    );
    problems.demand(
        duration.subsecond_nanos() % 1_000_000 == 0,
        name,
        "a duration is in whole milliseconds",
    );
}
