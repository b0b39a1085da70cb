//! Outlier detection of a cluster.

use std::time::Duration;

use lateen_route::{Invalid, Within, refuse_rest};
use lateen_xds::pb::envoy::config::cluster::v3 as pb;
use lateen_xds::pb::google::protobuf;

use super::{duration, flag};
use crate::outlier::{Consecutive, OutlierConfig};

/// Compiles the settings. Defaults are those of Envoy's `OutlierDetection` message.
pub(super) fn compile(mut message: pb::OutlierDetection) -> Result<OutlierConfig, Invalid> {
    let split = std::mem::take(&mut message.split_external_local_origin_errors);
    no_statistics(&mut message, split)?;
    let config = OutlierConfig {
        five_xx: Consecutive {
            failures: number(message.consecutive_5xx.take(), 5),
            enforced: percent(message.enforcing_consecutive_5xx.take(), 100)
                .within("enforcing_consecutive_5xx")?,
        },
        gateway: Consecutive {
            failures: number(message.consecutive_gateway_failure.take(), 5),
            enforced: percent(message.enforcing_consecutive_gateway_failure.take(), 0)
                .within("enforcing_consecutive_gateway_failure")?,
        },
        local: Consecutive {
            failures: number(message.consecutive_local_origin_failure.take(), 5),
            enforced: percent(
                message.enforcing_consecutive_local_origin_failure.take(),
                100,
            )
            .within("enforcing_consecutive_local_origin_failure")?,
        },
        split,
        interval: time(message.interval.take(), 10).within("interval")?,
        base: time(message.base_ejection_time.take(), 30).within("base_ejection_time")?,
        longest: time(message.max_ejection_time.take(), 300).within("max_ejection_time")?,
        jitter: message
            .max_ejection_time_jitter
            .take()
            .map_or(Ok(Duration::ZERO), duration)
            .within("max_ejection_time_jitter")?,
        most_percent: percent(message.max_ejection_percent.take(), 10)
            .within("max_ejection_percent")?,
        always_one: flag(message.always_eject_one_host.take(), false),
    };
    refuse_rest(&message)?;
    Ok(config)
}

/// Ejection by comparing success rates must be off. What would tune it has no effect then.
fn no_statistics(message: &mut pb::OutlierDetection, split: bool) -> Result<(), Invalid> {
    message.success_rate_minimum_hosts = None;
    message.success_rate_request_volume = None;
    message.success_rate_stdev_factor = None;
    message.failure_percentage_threshold = None;
    message.failure_percentage_minimum_hosts = None;
    message.failure_percentage_request_volume = None;
    // Failures of local origin are compared only when they are told apart.
    let local_default = if split { 100 } else { 0 };
    let local = message.enforcing_local_origin_success_rate.take();
    let local = local.filter(|_| split);
    for (field, value, default) in [
        (
            "enforcing_success_rate",
            message.enforcing_success_rate.take(),
            100,
        ),
        ("enforcing_local_origin_success_rate", local, local_default),
        (
            "enforcing_failure_percentage",
            message.enforcing_failure_percentage.take(),
            0,
        ),
        (
            "enforcing_failure_percentage_local_origin",
            message.enforcing_failure_percentage_local_origin.take(),
            0,
        ),
    ] {
        let enforced = number(value, default);
        if enforced != 0 {
            return Err(Invalid::new(
                field,
                format!(
                    "must be 0, but is {enforced}: ejection by success rate is not supported by this proxy"
                ),
            ));
        }
    }
    Ok(())
}

fn number(value: Option<protobuf::UInt32Value>, default: u32) -> u32 {
    value.map_or(default, |value| value.value)
}

fn percent(value: Option<protobuf::UInt32Value>, default: u32) -> Result<u32, Invalid> {
    let percent = number(value, default);
    if percent > 100 {
        return Err(Invalid::new("", "must be at most 100"));
    }
    Ok(percent)
}

fn time(value: Option<protobuf::Duration>, default: u64) -> Result<Duration, Invalid> {
    let time = value.map_or_else(|| Ok(Duration::from_secs(default)), duration)?;
    if time.is_zero() {
        return Err(Invalid::new("", "must be more than zero"));
    }
    Ok(time)
}
