//! The labels of the metrics: the standard ones, changed as overrides say.

mod standard;

use super::facts::Facts;
use super::series::Metric;
use crate::prometheus::write_label;

/// What is not known.
const UNKNOWN: &str = "unknown";
/// What stands for what was too much to count one by one.
const OVERFLOW: &str = "overflow";

impl Facts<'_> {
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
        let of_expression = |index: usize| self.values.get(index).map_or(UNKNOWN, String::as_str);
        let mut out = String::with_capacity(768);
        let mut written = |name: &str, value: &str| {
            if overrides().any(|each| each.removed.iter().any(|removed| removed == name)) {
                return;
            }
            let set = overrides()
                .flat_map(|each| &each.set)
                .rfind(|(tag, _)| tag == name);
            let value = set.map_or(value, |(_, expression)| of_expression(*expression));
            write_label(name, value, &mut out);
        };
        self.standard(metric, overflow, &mut written);
        let mut added: Vec<&(String, usize)> = overrides().flat_map(|each| &each.set).collect();
        added.retain(|(tag, _)| !standard::NAMES.contains(&tag.as_str()));
        added.sort();
        added.dedup_by(|left, right| left.0 == right.0);
        for (tag, expression) in added {
            let value = of_expression(*expression);
            write_label(tag, if overflow { OVERFLOW } else { value }, &mut out);
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::Flags;
    use crate::telemetry::facts::{Kind, Service};
    use crate::telemetry::peer::Workload;
    use crate::telemetry::series::{Registry, WorkerSeries};
    use crate::telemetry::{Override, Reporter, StatsFilter};

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
        assert_eq!(names, standard::NAMES);
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
