//! One statistic, and the names that Envoy gives it.

use crate::histogram::HistogramSums;
use crate::stats::Kind;

/// One statistic.
pub(super) struct Sample {
    /// Envoy's full name.
    pub(super) name: String,
    /// The same for Prometheus: name without the parts that become labels, and the labels.
    pub(super) family: String,
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) number: Number,
}

/// What a statistic holds.
pub(super) enum Number {
    Counter(u64),
    Gauge(u64),
    Histogram(Box<HistogramSums>),
}

impl Number {
    /// Whether anything was counted.
    pub(super) fn is_used(&self) -> bool {
        match self {
            Self::Counter(value) | Self::Gauge(value) => *value > 0,
            Self::Histogram(sums) => sums.count() > 0,
        }
    }

    /// The kind as the query's `type` names it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Counter(_) => "Counters",
            Self::Gauge(_) => "Gauges",
            Self::Histogram(_) => "Histograms",
        }
    }
}

/// Takes the statistics of one thing: a cluster, a listener, the server.
pub(super) struct Group<'c> {
    samples: &'c mut Vec<Sample>,
    /// What their names begin with: `cluster` for example.
    kind: &'static str,
    /// Name of the thing; empty when there is only one.
    instance: &'c str,
    /// The label that holds the name.
    label: Option<&'static str>,
}

impl<'c> Group<'c> {
    pub(super) fn new(
        samples: &'c mut Vec<Sample>,
        kind: &'static str,
        instance: &'c str,
        label: Option<&'static str>,
    ) -> Self {
        Self {
            samples,
            kind,
            instance,
            label,
        }
    }

    pub(super) fn counter(&mut self, name: &str, value: u64) {
        self.push(name, Number::Counter(value));
    }

    pub(super) fn gauge(&mut self, name: &str, value: u64) {
        self.push(name, Number::Gauge(value));
    }

    pub(super) fn histogram(&mut self, name: &str, sums: HistogramSums) {
        self.push(name, Number::Histogram(Box::new(sums)));
    }

    /// Adds a number of a kind that is not known beforehand.
    pub(super) fn add(&mut self, name: &str, kind: Kind, value: u64) {
        match kind {
            Kind::Counter => self.counter(name, value),
            Kind::Gauge => self.gauge(name, value),
        }
    }

    fn push(&mut self, name: &str, number: Number) {
        let label = self.label.map(|label| (label, self.instance.to_owned()));
        let sample = sample(self.kind, self.instance, label, name, number);
        self.samples.push(sample);
    }
}

/// Names a statistic. As in Envoy, the class or the number of a response code becomes a label, too.
fn sample(
    group: &str,
    instance: &str,
    label: Option<(&'static str, String)>,
    name: &str,
    number: Number,
) -> Sample {
    let full = if instance.is_empty() {
        format!("{group}.{name}")
    } else {
        format!("{group}.{instance}.{name}")
    };
    let mut labels: Vec<_> = label.into_iter().collect();
    let (stem, last) = name.rsplit_once('_').unwrap_or((name, ""));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let family = match last.strip_suffix("xx") {
        Some(class) if stem.ends_with("_rq") && digits(class) => {
            labels.insert(0, ("envoy_response_code_class", class.to_owned()));
            format!("{stem}_xx")
        }
        None if stem.ends_with("_rq") && last.len() == 3 && digits(last) => {
            labels.insert(0, ("envoy_response_code", last.to_owned()));
            stem.to_owned()
        }
        _ => name.to_owned(),
    };
    Sample {
        name: full,
        family: format!("envoy_{group}_{family}").replace(['.', '-', ';'], "_"),
        labels,
        number,
    }
}
