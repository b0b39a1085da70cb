//! Faults that are injected on purpose: delays, aborts and slow responses for a share of the requests.
//!
//! Which requests are meant, and the header forms, follow Envoy's `fault` filter.

use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode};
use lateen_xds::pb::envoy::extensions::filters::common::fault::v3 as common;
use lateen_xds::pb::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
use lateen_xds::pb::envoy::extensions::filters::common::fault::v3::fault_rate_limit::LimitType;
use lateen_xds::pb::envoy::extensions::filters::http::fault::v3 as pb;
use lateen_xds::pb::envoy::extensions::filters::http::fault::v3::fault_abort::ErrorType;
use lateen_xds::pb::envoy::r#type::v3::FractionalPercent;

use crate::compile::duration;
use crate::fraction::Fraction;
use crate::header_match::HeaderMatch;
use crate::{Invalid, RequestView, Within, refuse_rest};

const DELAY: HeaderName = HeaderName::from_static("x-envoy-fault-delay-request");
const DELAY_PERCENTAGE: HeaderName =
    HeaderName::from_static("x-envoy-fault-delay-request-percentage");
const ABORT: HeaderName = HeaderName::from_static("x-envoy-fault-abort-request");
const ABORT_GRPC: HeaderName = HeaderName::from_static("x-envoy-fault-abort-grpc-request");
const ABORT_PERCENTAGE: HeaderName =
    HeaderName::from_static("x-envoy-fault-abort-request-percentage");
const RATE: HeaderName = HeaderName::from_static("x-envoy-fault-throughput-response");
const RATE_PERCENTAGE: HeaderName =
    HeaderName::from_static("x-envoy-fault-throughput-response-percentage");
const DOWNSTREAM_NODE: HeaderName = HeaderName::from_static("x-envoy-downstream-service-node");

/// Faults for the requests that fulfil its conditions. The delay comes first; each kind is drawn independently.
#[derive(Debug, Clone, Default)]
pub struct Fault {
    delay: Option<(Source<Duration>, Fraction)>,
    abort: Option<(Source<Abort>, Fraction)>,
    rate: Option<(Source<u64>, Fraction)>,
    /// Most requests with a fault at a time; nothing: no limit.
    pub max_active: Option<u32>,
    cluster: String,
    headers: Vec<HeaderMatch>,
    nodes: Vec<String>,
}

/// Where the size of a fault is from.
#[derive(Debug, Clone, Copy)]
enum Source<T> {
    Fixed(T),
    /// A header of the request says it; without the header there is no fault.
    Header,
}

/// How a request is aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// With this status.
    Http(StatusCode),
    /// With this gRPC status, whatever the request is.
    Grpc(u32),
}

impl Fault {
    /// Compiles the protobuf form.
    pub fn compile(mut fault: pb::HttpFault) -> Result<Self, Invalid> {
        // There is no runtime layer, so the keys in it are never set, and no statistics per calling cluster.
        fault.delay_percent_runtime.clear();
        fault.abort_percent_runtime.clear();
        fault.delay_duration_runtime.clear();
        fault.abort_http_status_runtime.clear();
        fault.max_active_faults_runtime.clear();
        fault.response_rate_limit_percent_runtime.clear();
        fault.abort_grpc_status_runtime.clear();
        fault.disable_downstream_cluster_stats = false;
        // For filters of others.
        fault.filter_metadata = None;
        let mut headers = Vec::new();
        for (index, matcher) in std::mem::take(&mut fault.headers).into_iter().enumerate() {
            headers.push(HeaderMatch::compile(matcher).within_item("headers", index)?);
        }
        let compiled = Self {
            delay: fault
                .delay
                .take()
                .map(compile_delay)
                .transpose()
                .within("delay")?,
            abort: fault
                .abort
                .take()
                .map(compile_abort)
                .transpose()
                .within("abort")?,
            rate: fault
                .response_rate_limit
                .take()
                .map(compile_rate)
                .transpose()
                .within("response_rate_limit")?,
            max_active: fault.max_active_faults.take().map(|value| value.value),
            cluster: std::mem::take(&mut fault.upstream_cluster),
            headers,
            nodes: std::mem::take(&mut fault.downstream_nodes),
        };
        refuse_rest(&fault)?;
        Ok(compiled)
    }

    /// Whether no request can get a fault from this.
    pub fn is_empty(&self) -> bool {
        self.delay.is_none() && self.abort.is_none() && self.rate.is_none()
    }

    /// Whether a request, which is about to go to `cluster`, is meant.
    pub fn applies(&self, request: &RequestView<'_>, cluster: Option<&str>) -> bool {
        let node = || text(request.headers, &DOWNSTREAM_NODE);
        (self.cluster.is_empty() || cluster == Some(self.cluster.as_str()))
            && (self.nodes.is_empty()
                || node().is_some_and(|node| self.nodes.iter().any(|other| other == node)))
            && self.headers.iter().all(|matcher| matcher.matches(request))
    }

    /// The delay that is drawn for a request.
    pub fn delay(&self, headers: &HeaderMap, random: u64) -> Option<Duration> {
        let (source, fraction) = self.delay?;
        if !share(fraction, source, headers, &DELAY_PERCENTAGE).draws(random) {
            return None;
        }
        let delay = match source {
            Source::Fixed(delay) => delay,
            Source::Header => Duration::from_millis(number(headers, &DELAY)?),
        };
        (!delay.is_zero()).then_some(delay)
    }

    /// The abort that is drawn for a request.
    pub fn abort(&self, headers: &HeaderMap, random: u64) -> Option<Abort> {
        let (source, fraction) = self.abort?;
        if !share(fraction, source, headers, &ABORT_PERCENTAGE).draws(random) {
            return None;
        }
        match source {
            Source::Fixed(abort) => Some(abort),
            Source::Header => {
                let status = number(headers, &ABORT).and_then(http_status);
                let grpc = || u32::try_from(number(headers, &ABORT_GRPC)?).ok();
                status.map(Abort::Http).or_else(|| grpc().map(Abort::Grpc))
            }
        }
    }

    /// The bytes per second that are drawn for a response.
    pub fn rate(&self, headers: &HeaderMap, random: u64) -> Option<u64> {
        let (source, fraction) = self.rate?;
        if !share(fraction, source, headers, &RATE_PERCENTAGE).draws(random) {
            return None;
        }
        let kilobytes = match source {
            Source::Fixed(rate) => rate,
            Source::Header => number(headers, &RATE).filter(|rate| *rate > 0)?,
        };
        Some(kilobytes.saturating_mul(1024))
    }
}

/// The share of requests; those that say the size of a fault may lower it.
fn share<T>(
    fraction: Fraction,
    source: Source<T>,
    headers: &HeaderMap,
    name: &HeaderName,
) -> Fraction {
    match source {
        Source::Fixed(_) => fraction,
        Source::Header => number(headers, name).map_or(fraction, |most| fraction.at_most(most)),
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    text(headers, name)?.parse().ok()
}

fn http_status(code: u64) -> Option<StatusCode> {
    let code = u16::try_from(code)
        .ok()
        .filter(|code| (200..600).contains(code))?;
    StatusCode::from_u16(code).ok()
}

fn compile_delay(mut delay: common::FaultDelay) -> Result<(Source<Duration>, Fraction), Invalid> {
    let fraction = fraction_of(delay.percentage.take())?;
    let source = match delay.fault_delay_secifier.take() {
        Some(FaultDelaySecifier::FixedDelay(time)) => {
            let time = duration(time).within("fixed_delay")?;
            if time.is_zero() {
                return Err(Invalid::new("fixed_delay", "must be greater than zero"));
            }
            Source::Fixed(time)
        }
        Some(FaultDelaySecifier::HeaderDelay(_)) => Source::Header,
        None => return Err(Invalid::new("fault_delay_secifier", "is required")),
    };
    refuse_rest(&delay)?;
    Ok((source, fraction))
}

fn compile_abort(mut abort: pb::FaultAbort) -> Result<(Source<Abort>, Fraction), Invalid> {
    let fraction = fraction_of(abort.percentage.take())?;
    let source = match abort.error_type.take() {
        Some(ErrorType::HttpStatus(code)) => Source::Fixed(Abort::Http(
            http_status(code.into())
                .ok_or_else(|| Invalid::new("http_status", "must be 200 to 599"))?,
        )),
        Some(ErrorType::GrpcStatus(code)) => Source::Fixed(Abort::Grpc(code)),
        Some(ErrorType::HeaderAbort(_)) => Source::Header,
        None => return Err(Invalid::new("error_type", "is required")),
    };
    refuse_rest(&abort)?;
    Ok((source, fraction))
}

fn compile_rate(mut limit: common::FaultRateLimit) -> Result<(Source<u64>, Fraction), Invalid> {
    let fraction = fraction_of(limit.percentage.take())?;
    let source = match limit.limit_type.take() {
        Some(LimitType::FixedLimit(fixed)) if fixed.limit_kbps > 0 => {
            Source::Fixed(fixed.limit_kbps)
        }
        Some(LimitType::FixedLimit(_)) => {
            return Err(Invalid::new("fixed_limit.limit_kbps", "must be at least 1"));
        }
        Some(LimitType::HeaderLimit(_)) => Source::Header,
        None => return Err(Invalid::new("limit_type", "is required")),
    };
    refuse_rest(&limit)?;
    Ok((source, fraction))
}

fn fraction_of(percent: Option<FractionalPercent>) -> Result<Fraction, Invalid> {
    percent
        .map_or(Ok(Fraction::NONE), Fraction::compile)
        .within("percentage")
}
