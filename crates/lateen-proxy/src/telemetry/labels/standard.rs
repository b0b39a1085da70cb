//! The standard labels, in Istio's order and words.

use super::{OVERFLOW, UNKNOWN};
use crate::telemetry::Reporter;
use crate::telemetry::facts::{Facts, Kind};
use crate::telemetry::peer::Workload;
use crate::telemetry::series::Metric;

/// Takes the name and value of a label.
type Writer<'w> = dyn FnMut(&str, &str) + 'w;

/// Names of the standard labels. Tags of other names are added by overrides.
pub(super) const NAMES: [&str; 25] = [
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

/// One side of the traffic, as its labels have it.
struct Side<'f> {
    workload: &'f str,
    service: &'f str,
    revision: &'f str,
    namespace: &'f str,
    principal: &'f str,
    app: &'f str,
    version: &'f str,
    cluster: &'f str,
}

impl<'f> Side<'f> {
    /// `overflow`: what distinguishes it is not told.
    fn new(known: &'f Workload, namespace: &'f str, principal: &'f str, overflow: bool) -> Self {
        let unless_unknown = |text| value(text, UNKNOWN, overflow);
        Self {
            workload: unless_unknown(&known.name),
            service: unless_unknown(&known.service),
            revision: value(&known.revision, "latest", overflow),
            namespace: unless_unknown(namespace),
            principal: unless_unknown(principal),
            app: unless_unknown(&known.app),
            version: unless_unknown(&known.version),
            cluster: unless_unknown(&known.cluster),
        }
    }
}

impl Facts<'_> {
    /// Writes the standard labels of a metric.
    pub(super) fn standard(&self, metric: Metric, overflow: bool, write: &mut Writer<'_>) {
        let is_source = self.filter.reporter == Reporter::Source;
        let none = Workload::default();
        let peer = self.peer.unwrap_or(&none);
        // The certificate is better evidence than what the peer says.
        let peer_namespace = namespace_of(self.peer_principal).unwrap_or(&peer.namespace);
        let peer = Side::new(peer, peer_namespace, self.peer_principal, overflow);
        let own = Side::new(self.own, &self.own.namespace, self.own_principal, false);
        let (source, destination) = if is_source { (own, peer) } else { (peer, own) };
        let service = self.service;
        // An inbound proxy stands for its own service when nothing better is known.
        let or_own = |text| match text {
            "" if !is_source => destination.service,
            text => value(text, UNKNOWN, overflow),
        };
        let service_namespace = match service.namespace {
            namespace if is_source && !namespace.is_empty() => value(namespace, UNKNOWN, overflow),
            _ => destination.namespace,
        };
        for (name, value) in [
            ("reporter", if is_source { "source" } else { "destination" }),
            ("source_workload", source.workload),
            ("source_canonical_service", source.service),
            ("source_canonical_revision", source.revision),
            ("source_workload_namespace", source.namespace),
            ("source_principal", source.principal),
            ("source_app", source.app),
            ("source_version", source.version),
            ("source_cluster", source.cluster),
            ("destination_workload", destination.workload),
            ("destination_workload_namespace", destination.namespace),
            ("destination_principal", destination.principal),
            ("destination_app", destination.app),
            ("destination_version", destination.version),
            ("destination_service", or_own(service.host)),
            ("destination_canonical_service", destination.service),
            ("destination_canonical_revision", destination.revision),
            ("destination_service_name", or_own(service.name)),
            ("destination_service_namespace", service_namespace),
            ("destination_cluster", destination.cluster),
        ] {
            write(name, value);
        }
        if matches!(metric, Metric::RequestMessages | Metric::ResponseMessages) {
            // Reported while the call goes on, when its end is not known.
            return;
        }
        self.outcome(overflow, write);
    }

    /// The labels that say how it went.
    fn outcome(&self, overflow: bool, write: &mut Writer<'_>) {
        let protocol = match self.kind {
            Kind::Connection => "tcp",
            Kind::Request { grpc: Some(_), .. } => "grpc",
            Kind::Request { .. } => "http",
        };
        write(
            "request_protocol",
            if overflow { OVERFLOW } else { protocol },
        );
        if let Kind::Request { status, grpc } = self.kind {
            let (status, grpc) = if overflow {
                (OVERFLOW.to_owned(), OVERFLOW.to_owned())
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
            flags.push_str(OVERFLOW);
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
            if overflow { OVERFLOW } else { policy },
        );
    }
}

/// A text, or what stands for it when it is empty or too much.
fn value<'f>(text: &'f str, default: &'f str, overflow: bool) -> &'f str {
    match text {
        _ if overflow => OVERFLOW,
        "" => default,
        text => text,
    }
}

/// The namespace that a principal (`spiffe://.../ns/NAMESPACE/sa/...`) names.
fn namespace_of(principal: &str) -> Option<&str> {
    let (_, rest) = principal.split_once("/ns/")?;
    rest.split('/').next().filter(|name| !name.is_empty())
}
