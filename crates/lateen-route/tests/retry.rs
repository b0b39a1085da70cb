//! Retry policies: what is tried again, and when.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use lateen_route::RequestView;
use lateen_route::retry::{Failure, RetryOn, RetryPolicy};
use lateen_xds::json;
use lateen_xds::pb::envoy::config::route::v3 as pb;
use prost::Message;
use serde_json::{Value, json};

fn compile(policy: Value) -> Result<RetryPolicy, String> {
    let mut action = json!({ "@type": "type.googleapis.com/envoy.config.route.v3.RetryPolicy" });
    action
        .as_object_mut()
        .unwrap()
        .extend(policy.as_object().unwrap().clone());
    let any = json::to_any(&action).unwrap();
    let message = pb::RetryPolicy::decode(any.value.as_slice()).unwrap();
    RetryPolicy::compile(message).map_err(|error| error.to_string())
}

fn headers(list: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        let name: HeaderName = name.parse().unwrap();
        (name, HeaderValue::from_str(value).unwrap())
    };
    list.iter().map(pair).collect()
}

#[test]
fn conditions_decide_about_responses() {
    for (on, status, response, expected) in [
        ("5xx", 500, &[][..], true),
        ("5xx", 599, &[], true),
        ("5xx", 499, &[], false),
        ("gateway-error", 500, &[], false),
        ("gateway-error", 502, &[], true),
        ("gateway-error", 504, &[], true),
        ("retriable-4xx", 409, &[], true),
        ("retriable-4xx", 404, &[], false),
        ("retriable-status-codes", 418, &[], true),
        ("retriable-status-codes", 419, &[], false),
        ("retriable-headers", 200, &[("x-again", "yes")], true),
        ("retriable-headers", 200, &[("x-again", "no")], false),
        ("5xx", 200, &[("x-again", "yes")], false),
        ("unavailable", 200, &[("grpc-status", "14")], true),
        ("unavailable", 200, &[("grpc-status", "13")], false),
        ("cancelled,internal", 200, &[("grpc-status", "13")], true),
        // What a rate limiter refused is tried again for this condition, and for no other.
        ("5xx", 503, &[("x-envoy-ratelimited", "true")], false),
        (
            "envoy-ratelimited",
            429,
            &[("x-envoy-ratelimited", "true")],
            true,
        ),
        ("envoy-ratelimited", 429, &[], false),
        ("connect-failure, 5xx ,nonsense", 500, &[], true),
        ("", 500, &[], false),
    ] {
        let policy = compile(json!({
            "retryOn": on,
            "retriableStatusCodes": [418],
            "retriableHeaders": [{ "name": "x-again", "stringMatch": { "exact": "yes" } }],
        }))
        .unwrap();
        let status = StatusCode::from_u16(status).unwrap();
        let found = policy.retries_response(status, &headers(response));
        assert_eq!(found, expected, "{on} {status} {response:?}");
    }
}

#[test]
fn conditions_decide_about_failures() {
    let all = [
        Failure::Connect,
        Failure::RefusedStream,
        Failure::ResetBeforeRequest,
        Failure::Reset,
        Failure::AttemptTimeout { sent: false },
        Failure::AttemptTimeout { sent: true },
        Failure::Overflow,
    ];
    for (on, expected) in [
        ("5xx", [true, true, true, true, true, true, false]),
        ("gateway-error", [true, true, true, true, true, true, false]),
        ("reset", [true, true, true, true, true, true, false]),
        (
            "reset-before-request",
            [true, false, true, false, true, false, false],
        ),
        (
            "connect-failure",
            [true, false, false, false, false, false, false],
        ),
        (
            "refused-stream",
            [false, true, false, false, false, false, false],
        ),
        ("retriable-4xx", [false; 7]),
    ] {
        let policy = compile(json!({ "retryOn": on })).unwrap();
        assert_eq!(
            all.map(|failure| policy.retries_failure(failure)),
            expected,
            "{on}"
        );
    }
}

#[test]
fn headers_of_the_request_change_the_policy() {
    let route = compile(json!({ "retryOn": "5xx", "numRetries": 3 })).unwrap();
    for (given, on, retries, codes) in [
        (&[][..], RetryOn::SERVER_ERROR, 3, &[][..]),
        (
            &[("x-envoy-max-retries", "7")],
            RetryOn::SERVER_ERROR,
            7,
            &[],
        ),
        (
            &[("x-envoy-max-retries", "x")],
            RetryOn::SERVER_ERROR,
            3,
            &[],
        ),
        (
            &[
                ("x-envoy-retry-on", "reset"),
                ("x-envoy-retry-grpc-on", "internal"),
            ],
            RetryOn::SERVER_ERROR
                .with(RetryOn::RESET)
                .with(RetryOn::GRPC_INTERNAL),
            3,
            &[],
        ),
        (
            &[("x-envoy-retriable-status-codes", "404, 410,x")],
            RetryOn::SERVER_ERROR,
            3,
            &[404, 410],
        ),
    ] {
        let mut request = headers(given);
        let policy = RetryPolicy::for_request(Some(&route), &mut request).unwrap();
        assert_eq!((policy.on, policy.retries), (on, retries), "{given:?}");
        assert_eq!(policy.status_codes, codes, "{given:?}");
        assert!(request.is_empty(), "{given:?}");
    }
    assert!(RetryPolicy::for_request(None, &mut headers(&[("a", "b")])).is_none());
    let mut request = headers(&[("x-envoy-retry-on", "5xx")]);
    let policy = RetryPolicy::for_request(None, &mut request).unwrap();
    assert_eq!((policy.on, policy.retries), (RetryOn::SERVER_ERROR, 1));
}

#[test]
fn requests_may_have_to_qualify() {
    let policy = compile(json!({
        "retryOn": "5xx",
        "retriableRequestHeaders": [{ "name": ":method", "stringMatch": { "exact": "GET" } }, { "name": "x-safe" }],
    }))
    .unwrap();
    for (method, given, expected) in [
        ("GET", &[][..], true),
        ("POST", &[], false),
        ("POST", &[("x-safe", "1")], true),
    ] {
        let headers = headers(given);
        let request = RequestView {
            method,
            scheme: "http",
            authority: "a",
            path: "/",
            headers: &headers,
        };
        assert_eq!(policy.applies(&request), expected, "{method} {given:?}");
    }
}

#[test]
fn responses_may_say_how_long_to_wait() {
    let policy = compile(json!({
        "retryOn": "5xx",
        "rateLimitedRetryBackOff": {
            "resetHeaders": [{ "name": "Retry-After" }, { "name": "x-reset", "format": "UNIX_TIMESTAMP" }],
            "maxInterval": "10s",
        },
    }))
    .unwrap();
    let now = Duration::from_secs(1000);
    for (given, random, expected) in [
        (&[("retry-after", "2")][..], 0, Some(2000)),
        (&[("retry-after", "2")], 999, Some(2999)),
        (&[("retry-after", "2")], 1000, Some(2000)),
        (&[("retry-after", "11")], 0, None),
        (&[("retry-after", "soon")], 0, None),
        (&[("x-reset", "1005")], 0, Some(5000)),
        (&[("x-reset", "999")], 0, None),
        (&[("retry-after", "11"), ("x-reset", "1005")], 0, Some(5000)),
        (&[], 0, None),
    ] {
        let pause = policy.pause_of_response(&headers(given), now, random);
        assert_eq!(
            pause.map(|pause| pause.as_millis()),
            expected,
            "{given:?} {random}"
        );
    }
}

#[test]
fn pauses_grow_up_to_their_limit() {
    let policy =
        compile(json!({ "retryBackOff": { "baseInterval": "0.1s", "maxInterval": "0.3s" } }))
            .unwrap();
    let bounds = [1, 2, 3, 4].map(|attempt| {
        let pauses = (0..1000).map(|random| policy.pause(attempt, random).as_millis());
        pauses.max().unwrap()
    });
    assert_eq!(bounds, [99, 199, 299, 299]);
}

#[test]
fn what_is_not_supported_is_refused_by_path() {
    let predicate = |config: &str| json!({ "retryHostPredicate": [{ "name": "p", "typedConfig": { "@type": format!("type.googleapis.com/{config}") } }] });
    for (policy, expected) in [
        (
            predicate("envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"),
            None,
        ),
        (
            predicate("envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate"),
            None,
        ),
        (
            predicate("envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig"),
            None,
        ),
        (
            predicate("envoy.config.route.v3.RetryPolicy"),
            Some("retry_host_predicate[0].typed_config"),
        ),
        (
            json!({ "retryHostPredicate": [{ "name": "envoy.retry_host_predicates.previous_hosts" }] }),
            None,
        ),
        (
            json!({ "retryHostPredicate": [{ "name": "other" }] }),
            Some("retry_host_predicate[0].name"),
        ),
        (
            json!({ "retryPriority": { "name": "p" } }),
            Some("retry_priority.typed_config"),
        ),
        (
            json!({ "retryBackOff": {} }),
            Some("retry_back_off.base_interval"),
        ),
        (
            json!({ "retryBackOff": { "baseInterval": "2s", "maxInterval": "1s" } }),
            Some("retry_back_off.max_interval"),
        ),
        (
            json!({ "rateLimitedRetryBackOff": {} }),
            Some("rate_limited_retry_back_off.reset_headers"),
        ),
        (
            json!({ "refreshClusterOnRetry": true }),
            Some("refresh_cluster_on_retry"),
        ),
    ] {
        let refused = compile(policy.clone()).err();
        match expected {
            None => assert_eq!(refused, None, "{policy}"),
            Some(path) => {
                assert!(
                    refused.as_ref().is_some_and(|text| text.starts_with(path)),
                    "{policy}: {refused:?}"
                );
            }
        }
    }
}
