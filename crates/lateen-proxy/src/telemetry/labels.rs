//! The labels of the metrics, in Istio's order and words.

use std::fmt::Write;

use super::peer::Workload;
use super::series::Metric;
use super::{Reporter, StatsFilter};
use crate::flags::Flags;

const UNKNOWN: &str = "unknown";

/// Takes the name and value of a label.
type LabelWriter<'w> = dyn FnMut(&str, &str) + 'w;

/// Where traffic goes, as the labels name it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Service<'f> {
    pub(crate) host: &'f str,
    pub(crate) name: &'f str,
    pub(crate) namespace: &'f str,
}

/// Everything that the labels are made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'f> {
    pub(crate) filter: &'f StatsFilter,
    pub(crate) own: &'f Workload,
    pub(crate) peer: Option<&'f Workload>,
    /// Names in the certificates; empty without mutual TLS.
    pub(crate) own_principal: &'f str,
    pub(crate) peer_principal: &'f str,
    pub(crate) service: Service<'f>,
    pub(crate) kind: Kind,
    pub(crate) flags: Flags,
    /// Values of the filter's expressions.
    pub(crate) values: &'f [String],
}

/// What is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Connection,
    Request {
        status: u16,
        /// For gRPC: the status, if there was one.
        grpc: Option<Option<u16>>,
    },
}

impl Facts<'_> {
    pub(crate) fn is_request(&self) -> bool {
        self.kind != Kind::Connection
    }

    /// Whether the metric is one of what is reported.
    pub(crate) fn applies(&self, metric: Metric) -> bool {
        use Metric as M;
        match metric {
            M::RequestMessages | M::ResponseMessages => {
                matches!(self.kind, Kind::Request { grpc: Some(_), .. })
            }
            M::Requests | M::Duration | M::RequestBytes | M::ResponseBytes => self.is_request(),
            M::TcpOpened | M::TcpClosed | M::TcpSent | M::TcpReceived => !self.is_request(),
        }
    }

    /// A short form of everything that makes a difference for the labels.
    pub(crate) fn write_key(&self, key: &mut Vec<u8>) {
        self.write_overflow_key(key);
        key.extend(self.peer.map_or(0, |peer| peer.id).to_le_bytes());
        key.extend(self.flags.bits().to_le_bytes());
        if let Kind::Request { status, grpc } = self.kind {
            key.extend(status.to_le_bytes());
            key.extend(
                match grpc {
                    None => 0u32,
                    Some(None) => 1,
                    Some(Some(status)) => 2 + u32::from(status),
                }
                .to_le_bytes(),
            );
        }
        let Service {
            host,
            name,
            namespace,
        } = self.service;
        let texts = [
            self.own_principal,
            self.peer_principal,
            host,
            name,
            namespace,
        ];
        for text in texts
            .into_iter()
            .chain(self.values.iter().map(String::as_str))
        {
            key.extend((text.len() as u32).to_le_bytes());
            key.extend(text.as_bytes());
        }
    }

    /// The key of the series that takes what is too much.
    pub(crate) fn write_overflow_key(&self, key: &mut Vec<u8>) {
        key.extend(self.filter.id.to_le_bytes());
        key.push(u8::from(self.is_request()));
    }

    /// The labels of a metric, without braces; nothing when an override drops the metric.
    pub(crate) fn labels(&self, metric: Metric, overflow: bool) -> Option<String> {
        let overrides = || {
            self.filter
                .overrides
                .iter()
                .filter(move |each| each.covers(metric))
        };
        if overrides().any(|each| each.dropped) {
            return None;
        }
        let mut out = String::with_capacity(768);
        let mut written = |name: &str, value: &str| {
            if overrides().any(|each| each.removed.iter().any(|removed| removed == name)) {
                return;
            }
            let set = overrides()
                .flat_map(|each| &each.set)
                .rfind(|(tag, _)| tag == name);
            let value = match set {
                Some((_, expression)) => {
                    self.values.get(*expression).map_or(UNKNOWN, String::as_str)
                }
                None => value,
            };
            write_label(name, value, &mut out);
        };
        self.standard(metric, overflow, &mut written);
        let mut added: Vec<&(String, usize)> = overrides().flat_map(|each| &each.set).collect();
        added.retain(|(tag, _)| !STANDARD.contains(&tag.as_str()));
        added.sort();
        added.dedup_by(|left, right| left.0 == right.0);
        for (tag, expression) in added {
            let value = self.values.get(*expression).map_or(UNKNOWN, String::as_str);
            write_label(tag, if overflow { "overflow" } else { value }, &mut out);
        }
        Some(out)
    }

    /// The standard labels.
    fn standard(&self, metric: Metric, overflow: bool, write: &mut dyn FnMut(&str, &str)) {
        let none = Workload::default();
        let peer = self.peer.unwrap_or(&none);
        let namespace_of = |principal: &'_ str| -> Option<String> {
            let (_, rest) = principal.split_once("/ns/")?;
            rest.split('/')
                .next()
                .map(str::to_owned)
                .filter(|name| !name.is_empty())
        };
        // The certificate is better evidence than what the peer says.
        let peer_namespace =
            namespace_of(self.peer_principal).unwrap_or_else(|| peer.namespace.clone());
        let is_source = self.filter.reporter == Reporter::Source;
        let limited = |value: &str, default: &'static str| -> String {
            match value {
                _ if overflow => "overflow".to_owned(),
                "" => default.to_owned(),
                value => value.to_owned(),
            }
        };
        let of_own = |value: &str, default: &str| {
            if value.is_empty() {
                default.to_owned()
            } else {
                value.to_owned()
            }
        };
        let own = self.own;
        write("reporter", if is_source { "source" } else { "destination" });
        let mut side = |prefix: &str,
                        is_own: bool,
                        middle: &mut dyn FnMut(&mut LabelWriter<'_>)| {
            let (workload, namespace) = if is_own {
                (own, &own.namespace)
            } else {
                (peer, &peer_namespace)
            };
            let principal = if is_own {
                self.own_principal
            } else {
                self.peer_principal
            };
            let value = |text: &str, default: &'static str| {
                if is_own {
                    of_own(text, default)
                } else {
                    limited(text, default)
                }
            };
            let mut label = |name: &str, value: String| write(&format!("{prefix}_{name}"), &value);
            label("workload", value(&workload.name, UNKNOWN));
            if prefix == "source" {
                label("canonical_service", value(&workload.service, UNKNOWN));
                label("canonical_revision", value(&workload.revision, "latest"));
            }
            label("workload_namespace", value(namespace, UNKNOWN));
            label("principal", value(principal, UNKNOWN));
            label("app", value(&workload.app, UNKNOWN));
            label("version", value(&workload.version, UNKNOWN));
            middle(write);
            write(
                &format!("{prefix}_cluster"),
                &value(&workload.cluster, UNKNOWN),
            );
        };
        let destination = if is_source { peer } else { own };
        let service = self.service;
        let canonical = if is_source {
            limited(&destination.service, UNKNOWN)
        } else {
            of_own(&destination.service, UNKNOWN)
        };
        let revision = if is_source {
            limited(&destination.revision, "latest")
        } else {
            of_own(&destination.revision, "latest")
        };
        // An inbound proxy stands for its own service when nothing better is known.
        let fallback = |value: &str| match value {
            "" if !is_source => canonical.clone(),
            value => limited(value, UNKNOWN),
        };
        let service_namespace = match service.namespace {
            _ if !is_source => of_own(&own.namespace, UNKNOWN),
            "" => limited(&peer_namespace, UNKNOWN),
            namespace => limited(namespace, UNKNOWN),
        };
        side("source", is_source, &mut |_| {});
        side("destination", !is_source, &mut |write| {
            write("destination_service", &fallback(service.host));
            write("destination_canonical_service", &canonical);
            write("destination_canonical_revision", &revision);
            write("destination_service_name", &fallback(service.name));
            write("destination_service_namespace", &service_namespace);
        });
        if matches!(metric, Metric::RequestMessages | Metric::ResponseMessages) {
            // Reported while the call goes on, when its end is not known.
            return;
        }
        self.outcome(overflow, write);
    }

    /// The labels that say how it went.
    fn outcome(&self, overflow: bool, write: &mut dyn FnMut(&str, &str)) {
        let protocol = match self.kind {
            Kind::Connection => "tcp",
            Kind::Request { grpc: Some(_), .. } => "grpc",
            Kind::Request { .. } => "http",
        };
        write(
            "request_protocol",
            if overflow { "overflow" } else { protocol },
        );
        if let Kind::Request { status, grpc } = self.kind {
            let (status, grpc) = if overflow {
                ("overflow".to_owned(), "overflow".to_owned())
            } else {
                let grpc = grpc
                    .flatten()
                    .map_or_else(String::new, |status| status.to_string());
                (status.to_string(), grpc)
            };
            write("response_code", &status);
            write("grpc_response_status", &grpc);
        }
        let mut flags = String::new();
        if overflow {
            flags.push_str("overflow");
        } else if !self.flags.write(&mut flags) {
            flags.push('-');
        }
        write("response_flags", &flags);
        let policy = if self.filter.reporter == Reporter::Source {
            UNKNOWN
        } else if self.own_principal.is_empty() || self.peer_principal.is_empty() {
            "none"
        } else {
            "mutual_tls"
        };
        write(
            "connection_security_policy",
            if overflow { "overflow" } else { policy },
        );
    }
}

/// Names of the standard labels: what overrides of others adds.
pub(crate) const STANDARD: [&str; 25] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service_name",
    "destination_service_namespace",
    "destination_cluster",
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
];

fn write_label(name: &str, value: &str, out: &mut String) {
    if !out.is_empty() {
        out.push(',');
    }
    let _ = write!(out, "{name}=\"");
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Override;
    use crate::telemetry::series::{Registry, WorkerSeries};

    fn filter(reporter: Reporter, overrides: Vec<Override>) -> StatsFilter {
        StatsFilter {
            id: 1,
            reporter,
            no_host_fallback: false,
            report_interval: std::time::Duration::from_secs(5),
            expressions: Vec::new(),
            overrides,
        }
    }

    fn workload(name: &str) -> Workload {
        Workload {
            id: name.len() as u64,
            name: format!("{name}-v1"),
            namespace: "shop".to_owned(),
            service: name.to_owned(),
            revision: "v1".to_owned(),
            app: name.to_owned(),
            version: "v1".to_owned(),
            cluster: "Kubernetes".to_owned(),
        }
    }

    fn facts<'f>(
        filter: &'f StatsFilter,
        own: &'f Workload,
        peer: Option<&'f Workload>,
    ) -> Facts<'f> {
        Facts {
            filter,
            own,
            peer,
            own_principal: "",
            peer_principal: "",
            service: Service {
                host: "web.shop.svc.cluster.local",
                name: "web",
                namespace: "shop",
            },
            kind: Kind::Request {
                status: 200,
                grpc: None,
            },
            flags: Flags::default(),
            values: &[],
        }
    }

    /// The whole set, as Istio's own recordings of its metrics have it.
    #[test]
    fn requests_have_istios_labels_in_istios_order() {
        let (client, server) = (workload("client"), workload("web"));
        let filter = filter(Reporter::Source, Vec::new());
        let mut known = facts(&filter, &client, Some(&server));
        known.peer_principal = "spiffe://cluster.local/ns/store/sa/web";
        known.own_principal = "spiffe://cluster.local/ns/shop/sa/client";
        let expected = "reporter=\"source\",source_workload=\"client-v1\",source_canonical_service=\"client\",\
            source_canonical_revision=\"v1\",source_workload_namespace=\"shop\",\
            source_principal=\"spiffe://cluster.local/ns/shop/sa/client\",source_app=\"client\",source_version=\"v1\",\
            source_cluster=\"Kubernetes\",destination_workload=\"web-v1\",destination_workload_namespace=\"store\",\
            destination_principal=\"spiffe://cluster.local/ns/store/sa/web\",destination_app=\"web\",\
            destination_version=\"v1\",destination_service=\"web.shop.svc.cluster.local\",\
            destination_canonical_service=\"web\",destination_canonical_revision=\"v1\",destination_service_name=\"web\",\
            destination_service_namespace=\"shop\",destination_cluster=\"Kubernetes\",request_protocol=\"http\",\
            response_code=\"200\",grpc_response_status=\"\",response_flags=\"-\",connection_security_policy=\"unknown\"";
        assert_eq!(known.labels(Metric::Requests, false).unwrap(), expected);
        let names: Vec<_> = expected
            .split(',')
            .map(|label| label.split('=').next().unwrap())
            .collect();
        assert_eq!(names, STANDARD);
    }

    #[test]
    fn what_is_unknown_says_so() {
        let own = workload("web");
        for (reporter, parts) in [
            (
                Reporter::Source,
                &[
                    "destination_workload=\"unknown\"",
                    "destination_canonical_revision=\"latest\"",
                    "destination_service=\"web.shop.svc.cluster.local\"",
                    "connection_security_policy=\"unknown\"",
                ][..],
            ),
            (
                Reporter::Destination,
                &[
                    "source_workload=\"unknown\"",
                    "source_canonical_revision=\"latest\"",
                    "source_principal=\"unknown\"",
                    "destination_workload=\"web-v1\"",
                    "connection_security_policy=\"none\"",
                ],
            ),
        ] {
            let filter = filter(reporter, Vec::new());
            let labels = facts(&filter, &own, None)
                .labels(Metric::Requests, false)
                .unwrap();
            for part in parts {
                assert!(labels.contains(part), "{part}: {labels}");
            }
        }
    }

    #[test]
    fn overrides_drop_metrics_and_remove_set_and_add_tags() {
        let own = workload("web");
        let change = |metric, dropped, removed: &[&str], set: &[(&str, usize)]| Override {
            metric,
            dropped,
            removed: removed.iter().map(|tag| (*tag).to_owned()).collect(),
            set: set
                .iter()
                .map(|(tag, index)| ((*tag).to_owned(), *index))
                .collect(),
        };
        let filter = filter(
            Reporter::Destination,
            vec![
                change(Some(Metric::RequestBytes), true, &[], &[]),
                change(
                    None,
                    false,
                    &["source_app"],
                    &[("destination_app", 0), ("zone", 1)],
                ),
                change(Some(Metric::Requests), false, &[], &[("method", 0)]),
            ],
        );
        let values = ["GET".to_owned(), "a\"b".to_owned()];
        let mut known = facts(&filter, &own, None);
        known.values = &values;
        assert_eq!(known.labels(Metric::RequestBytes, false), None);
        let labels = known.labels(Metric::Requests, false).unwrap();
        assert!(!labels.contains("source_app"), "{labels}");
        assert!(labels.contains("destination_app=\"GET\""), "{labels}");
        assert!(
            labels.ends_with(",method=\"GET\",zone=\"a\\\"b\""),
            "{labels}"
        );
        assert!(
            !known
                .labels(Metric::Duration, false)
                .unwrap()
                .contains("method")
        );
    }

    #[test]
    fn too_many_label_sets_are_counted_together() {
        let own = workload("web");
        let (registry, series) = (Registry::default(), WorkerSeries::default());
        let filter = registry.filter(filter(Reporter::Destination, Vec::new()));
        let hosts: Vec<String> = (0..9000).map(|number| format!("host-{number}")).collect();
        for host in &hosts {
            let mut known = facts(&filter, &own, None);
            known.service.host = host;
            series.find(&known, &registry).add(Metric::Requests, 1);
        }
        let mut text = String::new();
        registry.write("1.31.0", &mut text);
        let lines: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("istio_requests_total"))
            .collect();
        assert_eq!(lines.len(), 8193);
        let overflow = lines
            .iter()
            .find(|line| line.contains("destination_service=\"overflow\""))
            .unwrap();
        assert!(
            overflow.ends_with(&format!(" {}", 9000 - 8192)),
            "{overflow}"
        );
        assert!(text.starts_with(
            "# TYPE istio_build gauge\nistio_build{component=\"proxy\",tag=\"1.31.0\"} 1\n"
        ));
    }
}
