//! Settings of HTTP filters for single routes: faults and cross-origin rules.

use lateen_api::common::GRPC_CODES;
use lateen_api::networking::http_route::{
    CorsPolicy, FaultAbort, FaultDelay, HttpFaultInjection, UnmatchedPreflights,
};
use lateen_xds::pb::{
    envoy::{
        config::core::v3::RuntimeFractionalPercent,
        extensions::filters::{
            common::fault::v3::{FaultDelay as DelayMessage, fault_delay::FaultDelaySecifier},
            http::{
                cors::v3::CorsPolicy as CorsMessage,
                fault::v3::{FaultAbort as AbortMessage, HttpFault, fault_abort::ErrorType},
            },
        },
        r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
    },
    google::protobuf::Any,
};

use super::{
    build::{any, duration, flag, per_hundred, per_million},
    http_match,
};

/// The settings of a route, by filter.
pub(super) fn of_route(
    fault: Option<&HttpFaultInjection>,
    cors: Option<&CorsPolicy>,
) -> Vec<(String, Any)> {
    let fault = fault
        .and_then(self::fault)
        .map(|fault| ("envoy.filters.http.fault".to_owned(), any(&fault)));
    let cors = cors.map(|cors| ("envoy.filters.http.cors".to_owned(), any(&self::cors(cors))));
    fault.into_iter().chain(cors).collect()
}

/// Faults without a share never happen, so they are left out.
fn fault(settings: &HttpFaultInjection) -> Option<HttpFault> {
    let fault = HttpFault {
        delay: settings.delay.as_ref().and_then(delay),
        abort: settings.abort.as_ref().and_then(abort),
        ..HttpFault::default()
    };
    (fault.delay.is_some() || fault.abort.is_some()).then_some(fault)
}

fn delay(settings: &FaultDelay) -> Option<DelayMessage> {
    let percentage = match (&settings.percentage, settings.percent) {
        (Some(percent), _) => per_million(percent.value),
        (None, Some(percent)) => per_hundred(u32::try_from(percent).ok()?),
        (None, None) => return None,
    };
    Some(DelayMessage {
        percentage: Some(percentage),
        fault_delay_secifier: Some(FaultDelaySecifier::FixedDelay(duration(
            settings.fixed_delay?,
        )?)),
    })
}

fn abort(settings: &FaultAbort) -> Option<AbortMessage> {
    let error = match (settings.http_status, &settings.grpc_status) {
        (Some(status), _) => ErrorType::HttpStatus(u32::try_from(status).ok()?),
        (None, Some(name)) => {
            let code = GRPC_CODES.iter().position(|code| code == name)?;
            ErrorType::GrpcStatus(u32::try_from(code).ok()?)
        }
        (None, None) => return None,
    };
    Some(AbortMessage {
        percentage: Some(per_million(settings.percentage?.value)),
        error_type: Some(error),
        ..AbortMessage::default()
    })
}

fn cors(settings: &CorsPolicy) -> CorsMessage {
    let exact = |origin: &String| StringMatcher {
        match_pattern: Some(MatchPattern::Exact(origin.clone())),
        ..StringMatcher::default()
    };
    let origins = if settings.allow_origins.is_empty() {
        settings.allow_origin.iter().map(exact).collect()
    } else {
        settings
            .allow_origins
            .iter()
            .filter_map(http_match::text)
            .collect()
    };
    CorsMessage {
        allow_origin_string_match: origins,
        allow_methods: settings.allow_methods.join(","),
        allow_headers: settings.allow_headers.join(","),
        expose_headers: settings.expose_headers.join(","),
        max_age: settings
            .max_age
            .map(|age| age.seconds().to_string())
            .unwrap_or_default(),
        allow_credentials: settings.allow_credentials.and_then(flag),
        filter_enabled: Some(RuntimeFractionalPercent {
            default_value: Some(per_hundred(100)),
            ..RuntimeFractionalPercent::default()
        }),
        forward_not_matching_preflights: flag(
            settings.unmatched_preflights != Some(UnmatchedPreflights::Ignore),
        ),
        ..CorsMessage::default()
    }
}
