//! Outlier detection of a cluster.

use std::time::Duration;

use lateen_route::{Invalid, Within, refuse_rest};
use lateen_xds::pb::envoy::config::cluster::v3 as pb;
use lateen_xds::pb::google::protobuf;

use super::{duration, flag, positive};
use crate::outlier::{Comparison, Consecutive, OutlierConfig, Statistics};

/// Compiles the settings. Defaults are those of Envoy's `OutlierDetection` message.
pub(super) fn compile(mut message: pb::OutlierDetection) -> Result<OutlierConfig, Invalid> {
    let split = std::mem::take(&mut message.split_external_local_origin_errors);
    // Without active health checks, none of them can bring an endpoint back.
    message.successful_active_health_check_uneject_host = None;
    let statistics = statistics(&mut message)?;
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
        statistics,
    };
    refuse_rest(&message)?;
    Ok(config)
}

/// Ejection by comparing the endpoints with each other, and by their share of failures.
fn statistics(message: &mut pb::OutlierDetection) -> Result<Statistics, Invalid> {
    let enforced = |value, default, field| percent(value, default).within(field);
    Ok(Statistics {
        success_rate: Comparison {
            hosts: number(message.success_rate_minimum_hosts.take(), 5) as usize,
            requests: number(message.success_rate_request_volume.take(), 100).into(),
            enforced: [
                enforced(
                    message.enforcing_success_rate.take(),
                    100,
                    "enforcing_success_rate",
                )?,
                enforced(
                    message.enforcing_local_origin_success_rate.take(),
                    100,
                    "enforcing_local_origin_success_rate",
                )?,
            ],
        },
        deviations: f64::from(number(message.success_rate_stdev_factor.take(), 1900)) / 1000.0,
        failures: Comparison {
            hosts: number(message.failure_percentage_minimum_hosts.take(), 5) as usize,
            requests: number(message.failure_percentage_request_volume.take(), 50).into(),
            enforced: [
                enforced(
                    message.enforcing_failure_percentage.take(),
                    0,
                    "enforcing_failure_percentage",
                )?,
                enforced(
                    message.enforcing_failure_percentage_local_origin.take(),
                    0,
                    "enforcing_failure_percentage_local_origin",
                )?,
            ],
        },
        failure_percent: enforced(
            message.failure_percentage_threshold.take(),
            85,
            "failure_percentage_threshold",
        )?
        .into(),
    })
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
    value.map_or_else(|| Ok(Duration::from_secs(default)), positive)
}
