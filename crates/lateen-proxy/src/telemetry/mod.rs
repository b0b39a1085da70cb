//! Istio's standard metrics and the exchange of workload metadata that they are made of.
//!
//! [`peer`] knows workloads and how proxies tell each other about them, [`http`] and [`tcp`] collect the [`facts`]
//! of a request or connection, [`labels`] writes them as label sets, [`series`] counts.

pub(crate) mod exchange;
mod facts;
pub(crate) mod http;
mod labels;
pub(crate) mod peer;
pub(crate) mod series;
pub(crate) mod tcp;

use std::time::Duration;

use lateen_route::format::Template;

use series::Metric;

/// Which side of the traffic a proxy reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reporter {
    /// Outbound listeners and gateways.
    Source,
    /// Inbound listeners of a sidecar.
    Destination,
}

/// A compiled `istio.stats` filter.
#[derive(Debug)]
pub(crate) struct StatsFilter {
    /// Hash of the configuration, so that a filter that is sent again goes on with its series.
    pub(crate) id: u64,
    pub(crate) reporter: Reporter,
    /// The request's host is not taken for the service when the control plane names none.
    pub(crate) no_host_fallback: bool,
    /// How often open TCP connections report.
    pub(crate) report_interval: Duration,
    /// Values of tags that are made of expressions, in the order in which overrides refer to them.
    pub(crate) expressions: Vec<Template>,
    pub(crate) overrides: Vec<Override>,
}

/// A change of the metrics.
#[derive(Debug)]
pub(crate) struct Override {
    /// The metric; nothing: every metric.
    pub(crate) metric: Option<Metric>,
    /// The metric is not reported.
    pub(crate) dropped: bool,
    pub(crate) removed: Vec<String>,
    /// Tags with the expressions that they are set to.
    pub(crate) set: Vec<(String, usize)>,
}

impl Override {
    /// Whether it changes this metric.
    pub(crate) fn covers(&self, metric: Metric) -> bool {
        self.metric.is_none_or(|only| only == metric)
    }
}
