//! Retry policies out of their protobuf form.

use std::time::Duration;

use http::HeaderName;
use lateen_xds::pb::envoy::config::route::v3 as pb;
use lateen_xds::pb::envoy::config::route::v3::retry_policy::{
    RateLimitedRetryBackOff, ResetHeaderFormat, RetryBackOff, RetryHostPredicate, RetryPriority,
    retry_host_predicate, retry_priority,
};
use lateen_xds::pb::envoy::extensions::retry::host::omit_host_metadata::v3::OmitHostMetadataConfig;
use lateen_xds::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use lateen_xds::pb::google::protobuf;
use prost::Message;

use super::{HostPredicate, RateLimitedBackOff, ResetFormat, RetryOn, RetryPolicy};
use crate::balance::subset::labels;
use crate::compile::duration;
use crate::header_match::HeaderMatch;
use crate::{Invalid, Within, refuse_rest};

const PREVIOUS_HOSTS: &str = "envoy.retry_host_predicates.previous_hosts";
const PREVIOUS_HOSTS_TYPE: &str =
    "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";
const OMIT_CANARY: &str = "envoy.retry_host_predicates.omit_canary_hosts";
const OMIT_CANARY_TYPE: &str =
    "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate";
const OMIT_METADATA_TYPE: &str =
    "envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig";
const PREVIOUS_PRIORITIES_TYPE: &str =
    "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig";

const LONGEST_RATE_LIMITED: Duration = Duration::from_secs(300);

impl RetryPolicy {
    /// Compiles the protobuf form.
    pub fn compile(mut policy: pb::RetryPolicy) -> Result<Self, Invalid> {
        let time = |value: Option<protobuf::Duration>, field| {
            let time = value.map(duration).transpose().within(field)?;
            Ok(time.filter(|time| !time.is_zero()))
        };
        let mut compiled = Self {
            on: RetryOn::parse(&std::mem::take(&mut policy.retry_on)),
            retries: policy.num_retries.take().map_or(1, |value| value.value),
            per_try_timeout: time(policy.per_try_timeout.take(), "per_try_timeout")?,
            per_try_idle_timeout: time(policy.per_try_idle_timeout.take(), "per_try_idle_timeout")?,
            status_codes: status_codes(std::mem::take(&mut policy.retriable_status_codes))?,
            headers: matchers(
                std::mem::take(&mut policy.retriable_headers),
                "retriable_headers",
            )?,
            request_headers: matchers(
                std::mem::take(&mut policy.retriable_request_headers),
                "retriable_request_headers",
            )?,
            avoid: Vec::new(),
            previous_priorities: None,
            host_attempts: u32::try_from(
                std::mem::take(&mut policy.host_selection_retry_max_attempts).max(1),
            )
            .unwrap_or(u32::MAX),
            back_off_base: Duration::from_millis(25),
            back_off_max: Duration::from_millis(250),
            rate_limited: None,
        };
        for (index, predicate) in std::mem::take(&mut policy.retry_host_predicate)
            .into_iter()
            .enumerate()
        {
            let predicate = host_predicate(predicate).within_item("retry_host_predicate", index)?;
            compiled.avoid.push(predicate);
        }
        if let Some(priority) = policy.retry_priority.take() {
            let frequency = previous_priorities(priority).within("retry_priority")?;
            compiled.previous_priorities = Some(frequency);
        }
        if let Some(back_off) = policy.retry_back_off.take() {
            let (base, max) = retry_back_off(back_off).within("retry_back_off")?;
            (compiled.back_off_base, compiled.back_off_max) = (base, max);
        }
        if let Some(back_off) = policy.rate_limited_retry_back_off.take() {
            let back_off = rate_limited(back_off).within("rate_limited_retry_back_off")?;
            compiled.rate_limited = Some(back_off);
        }
        refuse_rest(&policy)?;
        Ok(compiled)
    }
}

fn status_codes(codes: Vec<u32>) -> Result<Vec<u16>, Invalid> {
    let code = |code| {
        u16::try_from(code)
            .map_err(|_| Invalid::new("retriable_status_codes", "must be HTTP statuses"))
    };
    codes.into_iter().map(code).collect()
}

fn matchers(matchers: Vec<pb::HeaderMatcher>, field: &str) -> Result<Vec<HeaderMatch>, Invalid> {
    let compile = |(index, matcher)| HeaderMatch::compile(matcher).within_item(field, index);
    matchers.into_iter().enumerate().map(compile).collect()
}

/// What a type URL names, behind its last slash.
fn type_name(any: &protobuf::Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

fn undecodable(any: &protobuf::Any) -> Invalid {
    Invalid::new(
        "typed_config",
        format!("`{}` cannot be decoded", any.type_url),
    )
}

fn host_predicate(predicate: RetryHostPredicate) -> Result<HostPredicate, Invalid> {
    let Some(retry_host_predicate::ConfigType::TypedConfig(any)) = predicate.config_type else {
        return match predicate.name.as_str() {
            PREVIOUS_HOSTS => Ok(HostPredicate::Previous),
            OMIT_CANARY => Ok(HostPredicate::Canary),
            _ => Err(Invalid::unsupported("name")),
        };
    };
    match type_name(&any) {
        PREVIOUS_HOSTS_TYPE => Ok(HostPredicate::Previous),
        OMIT_CANARY_TYPE => Ok(HostPredicate::Canary),
        OMIT_METADATA_TYPE => {
            let config = OmitHostMetadataConfig::decode(any.value.as_slice())
                .map_err(|_| undecodable(&any))?;
            Ok(HostPredicate::Labels(labels(
                config.metadata_match.as_ref(),
            )))
        }
        _ => Err(Invalid::unsupported("typed_config")),
    }
}

fn previous_priorities(priority: RetryPriority) -> Result<usize, Invalid> {
    let Some(retry_priority::ConfigType::TypedConfig(any)) = priority.config_type else {
        return Err(Invalid::new("typed_config", "is required"));
    };
    if type_name(&any) != PREVIOUS_PRIORITIES_TYPE {
        return Err(Invalid::unsupported("typed_config"));
    }
    let config =
        PreviousPrioritiesConfig::decode(any.value.as_slice()).map_err(|_| undecodable(&any))?;
    usize::try_from(config.update_frequency)
        .ok()
        .filter(|frequency| *frequency > 0)
        .ok_or_else(|| Invalid::new("typed_config.update_frequency", "must be positive"))
}

fn retry_back_off(back_off: RetryBackOff) -> Result<(Duration, Duration), Invalid> {
    let base = back_off.base_interval.map(duration).transpose();
    let base = base.within("base_interval")?;
    let Some(base) = base.filter(|base| !base.is_zero()) else {
        return Err(Invalid::new("base_interval", "must be more than zero"));
    };
    let max = back_off.max_interval.map(duration).transpose();
    let max = max
        .within("max_interval")?
        .unwrap_or_else(|| base.saturating_mul(10));
    if max < base {
        return Err(Invalid::new(
            "max_interval",
            "must be at least base_interval",
        ));
    }
    Ok((base, max))
}

fn rate_limited(back_off: RateLimitedRetryBackOff) -> Result<RateLimitedBackOff, Invalid> {
    let mut headers = Vec::new();
    for (index, header) in back_off.reset_headers.into_iter().enumerate() {
        let name = HeaderName::from_bytes(header.name.as_bytes())
            .map_err(|_| Invalid::new("name", "is not a valid header name"))
            .within_item("reset_headers", index)?;
        let format = match ResetHeaderFormat::try_from(header.format) {
            Ok(ResetHeaderFormat::Seconds) => ResetFormat::Seconds,
            Ok(ResetHeaderFormat::UnixTimestamp) => ResetFormat::UnixTimestamp,
            Err(_) => {
                return Err(Invalid::unsupported("format")).within_item("reset_headers", index);
            }
        };
        headers.push((name, format));
    }
    if headers.is_empty() {
        return Err(Invalid::new("reset_headers", "must not be empty"));
    }
    let max = back_off.max_interval.map(duration).transpose();
    let max = max.within("max_interval")?.unwrap_or(LONGEST_RATE_LIMITED);
    if max.is_zero() {
        return Err(Invalid::new("max_interval", "must be more than zero"));
    }
    Ok(RateLimitedBackOff { headers, max })
}
