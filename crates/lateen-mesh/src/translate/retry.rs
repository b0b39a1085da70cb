//! When requests are repeated.

use lateen_api::networking::http_route::HttpRetry;
use lateen_xds::pb::envoy::{
    config::route::v3::{
        RetryPolicy,
        retry_policy::{
            RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
        },
    },
    extensions::retry::{
        host::previous_hosts::v3::PreviousHostsPredicate,
        priority::previous_priorities::v3::PreviousPrioritiesConfig,
    },
};

use super::build::{any, duration, number};

/// Conditions when nothing is said. Only requests that cannot have been processed are repeated.
const DEFAULT_CONDITIONS: &str =
    "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
/// How often when nothing is said.
const DEFAULT_ATTEMPTS: u32 = 2;
/// How often another endpoint is looked for that was not tried yet.
const HOST_SELECTION_ATTEMPTS: i64 = 5;

/// The retry policy of a route; none when it is switched off. `hashed`: the endpoint is chosen by something in the
/// request, so that looking for another one would defeat the purpose.
pub(super) fn policy(settings: Option<&HttpRetry>, hashed: bool) -> Option<RetryPolicy> {
    let mut policy = RetryPolicy {
        retry_on: DEFAULT_CONDITIONS.to_owned(),
        num_retries: number(DEFAULT_ATTEMPTS),
        host_selection_retry_max_attempts: HOST_SELECTION_ATTEMPTS,
        ..RetryPolicy::default()
    };
    let mut avoid_previous = !hashed;
    if let Some(settings) = settings {
        if settings.attempts <= 0 {
            return None;
        }
        policy.num_retries = number(settings.attempts.unsigned_abs());
        if !settings.retry_on.is_empty() {
            (policy.retry_on, policy.retriable_status_codes) = conditions(&settings.retry_on);
        }
        policy.per_try_timeout = settings.per_try_timeout.and_then(duration);
        policy.retry_back_off = settings.backoff.map(|pause| RetryBackOff {
            base_interval: duration(pause),
            max_interval: None,
        });
        if settings.retry_remote_localities == Some(true) {
            policy.retry_priority = Some(RetryPriority {
                name: "envoy.retry_priorities.previous_priorities".to_owned(),
                config_type: Some(retry_priority::ConfigType::TypedConfig(any(
                    &PreviousPrioritiesConfig {
                        update_frequency: 2,
                    },
                ))),
            });
        }
        if let Some(ignore) = settings.retry_ignore_previous_hosts {
            avoid_previous = ignore;
        }
    }
    if avoid_previous {
        policy.retry_host_predicate = vec![RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: Some(retry_host_predicate::ConfigType::TypedConfig(any(
                &PreviousHostsPredicate {},
            ))),
        }];
    }
    Some(policy)
}

/// Splits conditions and status codes; codes need a condition of their own.
fn conditions(text: &str) -> (String, Vec<u32>) {
    let mut names: Vec<&str> = Vec::new();
    let mut codes = Vec::new();
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        match part.parse::<u32>() {
            Ok(code) => codes.push(code),
            Err(_) => names.push(part),
        }
    }
    if !codes.is_empty() && !names.contains(&"retriable-status-codes") {
        names.push("retriable-status-codes");
    }
    (names.join(","), codes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separates_codes_from_conditions() {
        let check = |text: &str, names: &str, codes: &[u32]| {
            assert_eq!(
                conditions(text),
                (names.to_owned(), codes.to_vec()),
                "{text}"
            );
        };
        check("5xx,gateway-error", "5xx,gateway-error", &[]);
        check("503, reset", "reset,retriable-status-codes", &[503]);
        check(
            "retriable-status-codes,500,502",
            "retriable-status-codes",
            &[500, 502],
        );
    }

    #[test]
    fn no_attempts_mean_no_policy() {
        let settings = HttpRetry {
            attempts: 0,
            ..HttpRetry::default()
        };
        assert_eq!(policy(Some(&settings), false), None);
    }
}
