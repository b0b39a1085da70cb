//! Fault injection of a route: delays and aborts for a share of the requests.

use std::time::Duration;

use http::StatusCode;
use lateen_xds::pb::envoy::config::core::v3::RuntimeFractionalPercent;
use lateen_xds::pb::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
use lateen_xds::pb::envoy::extensions::filters::http::fault::v3 as pb;
use lateen_xds::pb::envoy::r#type::v3::FractionalPercent;
use lateen_xds::pb::envoy::r#type::v3::fractional_percent::DenominatorType;

use crate::compile::duration;
use crate::{Invalid, Within, refuse_rest};

/// A share of all requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fraction {
    numerator: u64,
    denominator: u64,
}

impl Fraction {
    /// Every request.
    pub const ALL: Self = Self {
        numerator: 1,
        denominator: 1,
    };

    /// Compiles the protobuf form.
    pub fn compile(percent: FractionalPercent) -> Result<Self, Invalid> {
        let denominator = match DenominatorType::try_from(percent.denominator) {
            Ok(DenominatorType::Hundred) => 100,
            Ok(DenominatorType::TenThousand) => 10_000,
            Ok(DenominatorType::Million) => 1_000_000,
            Err(_) => return Err(Invalid::new("denominator", "is not a known denominator")),
        };
        Ok(Self {
            numerator: percent.numerator.into(),
            denominator,
        })
    }

    /// A share with a runtime key. There is no runtime layer, so the default always counts.
    pub fn compile_runtime(percent: RuntimeFractionalPercent) -> Result<Self, Invalid> {
        match percent.default_value {
            Some(value) => Self::compile(value).within("default_value"),
            None => Ok(Self {
                numerator: 0,
                denominator: 100,
            }),
        }
    }

    /// Whether a random number falls into the share.
    pub fn draws(self, random: u64) -> bool {
        random % self.denominator < self.numerator
    }
}

/// Faults for a request. The delay comes first; both are drawn independently.
#[derive(Debug, Clone, Default)]
pub struct Fault {
    /// How long the request waits before it is forwarded.
    pub delay: Option<(Duration, Fraction)>,
    /// The status it is answered with instead of being forwarded.
    pub abort: Option<(StatusCode, Fraction)>,
}

impl Fault {
    /// Compiles the protobuf form; a message without a fault is none.
    pub fn compile(mut fault: pb::HttpFault) -> Result<Option<Self>, Invalid> {
        // Runtime keys name overrides in a runtime layer, which does not exist here; the other two change statistics.
        for key in [
            &mut fault.delay_percent_runtime,
            &mut fault.abort_percent_runtime,
            &mut fault.delay_duration_runtime,
            &mut fault.abort_http_status_runtime,
            &mut fault.max_active_faults_runtime,
            &mut fault.response_rate_limit_percent_runtime,
            &mut fault.abort_grpc_status_runtime,
        ] {
            key.clear();
        }
        fault.disable_downstream_cluster_stats = false;
        fault.filter_metadata = None;
        let mut compiled = Self::default();
        if let Some(delay) = fault.delay.take() {
            let fraction = fraction_of(delay.percentage).within("delay")?;
            compiled.delay = match delay.fault_delay_secifier {
                Some(FaultDelaySecifier::FixedDelay(time)) => {
                    Some((duration(time).within("delay.fixed_delay")?, fraction))
                }
                Some(FaultDelaySecifier::HeaderDelay(_)) => {
                    return Err(Invalid::unsupported("delay.header_delay"));
                }
                None => return Err(Invalid::new("delay", "needs fixed_delay")),
            };
        }
        if let Some(abort) = fault.abort.take() {
            let fraction = fraction_of(abort.percentage).within("abort")?;
            if !abort.response_body.is_empty() {
                return Err(Invalid::unsupported("abort.response_body"));
            }
            compiled.abort = match abort.error_type {
                Some(pb::fault_abort::ErrorType::HttpStatus(code)) => {
                    let status = u16::try_from(code)
                        .ok()
                        .filter(|code| (200..600).contains(code))
                        .and_then(|code| StatusCode::from_u16(code).ok())
                        .ok_or_else(|| Invalid::new("abort.http_status", "must be 200 to 599"))?;
                    Some((status, fraction))
                }
                Some(pb::fault_abort::ErrorType::GrpcStatus(_)) => {
                    return Err(Invalid::unsupported("abort.grpc_status"));
                }
                Some(pb::fault_abort::ErrorType::HeaderAbort(_)) => {
                    return Err(Invalid::unsupported("abort.header_abort"));
                }
                None => return Err(Invalid::new("abort", "needs http_status")),
            };
        }
        refuse_rest(&fault)?;
        Ok((compiled.delay.is_some() || compiled.abort.is_some()).then_some(compiled))
    }
}

fn fraction_of(percent: Option<FractionalPercent>) -> Result<Fraction, Invalid> {
    percent
        .map_or(
            Ok(Fraction {
                numerator: 0,
                denominator: 100,
            }),
            Fraction::compile,
        )
        .within("percentage")
}
