//! Requests: the exchange of metadata in headers, and their metrics.

use http::{HeaderMap, HeaderName};
use lateen_route::format::Template;

use super::facts::{Facts, Kind, Service};
use super::peer::{PEER_ID, PEER_METADATA, Workload};
use super::series::Metric;
use super::{Reporter, StatsFilter};
use crate::cluster::Cluster;
use crate::record::Record;
use crate::worker::Worker;

const ID: HeaderName = HeaderName::from_static(PEER_ID);
const METADATA: HeaderName = HeaderName::from_static(PEER_METADATA);

/// A compiled `peer_metadata` filter: what is learnt from headers, and who is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PeerHeaders {
    pub(crate) learn_from_requests: bool,
    pub(crate) learn_from_responses: bool,
    /// Upstreams are told in requests.
    pub(crate) tell_upstreams: bool,
    /// Upstreams outside the mesh are not.
    pub(crate) skip_external: bool,
    /// Clients are told in responses, when they told something themselves.
    pub(crate) tell_clients: bool,
}

impl PeerHeaders {
    /// A request came in.
    pub(crate) fn on_request(&self, worker: &Worker, record: &mut Record, headers: &mut HeaderMap) {
        if self.learn_from_requests {
            learn(worker, record, headers);
        }
    }

    /// A request goes out to a cluster.
    pub(crate) fn on_forward(&self, worker: &Worker, cluster: &Cluster, headers: &mut HeaderMap) {
        let outside = self.skip_external && is_outside(cluster);
        if self.tell_upstreams && !outside {
            tell(worker, headers);
        }
    }

    /// An upstream's response came in.
    pub(crate) fn on_response(
        &self,
        worker: &Worker,
        record: &mut Record,
        headers: &mut HeaderMap,
    ) {
        if self.learn_from_responses {
            learn(worker, record, headers);
        }
    }

    /// A response goes out to the client.
    pub(crate) fn on_answer(&self, worker: &Worker, record: &Record, headers: &mut HeaderMap) {
        if self.tell_clients && record.peer_asked {
            tell(worker, headers);
        }
    }
}

/// Reads what the peer tells; it is meant for this proxy alone.
fn learn(worker: &Worker, record: &mut Record, headers: &mut HeaderMap) {
    let asked = headers.remove(ID).is_some();
    let told = headers.remove(METADATA);
    record.peer_asked = asked || told.is_some();
    if let Some(value) = told {
        record.peer = worker.peers.find(value.as_bytes());
    }
}

fn tell(worker: &Worker, headers: &mut HeaderMap) {
    if let Some((id, metadata)) = &worker.shared.identity.headers {
        headers.insert(ID, id.clone());
        headers.insert(METADATA, metadata.clone());
    }
}

/// Whether a cluster is known to be outside the mesh, as Istio marks it.
fn is_outside(cluster: &Cluster) -> bool {
    cluster.notes.external
        || matches!(
            cluster.name.as_str(),
            "PassthroughCluster" | "BlackHoleCluster"
        )
}

/// Counts a request that is over.
pub(crate) fn report(filter: &StatsFilter, worker: &Worker, record: &Record) {
    let Some(head) = &record.head else { return };
    let grpc = head.is_grpc().then(|| record.grpc_status());
    let kind = Kind::Request {
        status: record.status,
        grpc,
    };
    with_facts(filter, worker, record, kind, |facts| {
        let series = worker.series.find(facts, &worker.shared.names.telemetry);
        series.add(Metric::Requests, 1);
        let duration = record.duration.unwrap_or_default().as_millis();
        series.observe(
            Metric::Duration,
            u64::try_from(duration).unwrap_or(u64::MAX),
        );
        series.observe(
            Metric::RequestBytes,
            record.bytes_received + head_bytes(&head.headers),
        );
        series.observe(
            Metric::ResponseBytes,
            record.bytes_sent + head_bytes(&record.response_headers),
        );
        if grpc.is_some() {
            series.add(Metric::RequestMessages, record.request_messages);
            series.add(Metric::ResponseMessages, record.response_messages);
        }
    });
}

/// Size of a head's fields as they are written in HTTP/1.
fn head_bytes(headers: &HeaderMap) -> u64 {
    let fields = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4);
    fields.sum::<usize>() as u64
}

/// Gathers what the labels are made of.
pub(super) fn with_facts<T>(
    filter: &StatsFilter,
    worker: &Worker,
    record: &Record,
    kind: Kind,
    then: impl FnOnce(&Facts<'_>) -> T,
) -> T {
    let outbound = filter.reporter == Reporter::Source;
    let of_endpoint = || record.upstream.as_ref()?.workload.as_deref();
    let peer: Option<&Workload> = match &record.peer {
        Some(peer) => Some(peer),
        None if outbound => of_endpoint(),
        None => None,
    };
    let (own_principal, peer_principal) = if outbound {
        record.upstream_principals()
    } else {
        record.connection.principals()
    };
    let values: Vec<String> = filter
        .expressions
        .iter()
        .map(|each| value(each, record))
        .collect();
    let host = match &record.head {
        Some(head) if !filter.no_host_fallback => head.authority.as_str(),
        _ => "",
    };
    then(&Facts {
        filter,
        own: &worker.shared.identity.workload,
        peer,
        own_principal,
        peer_principal,
        service: service(record, host),
        kind,
        flags: record.flags,
        values: &values,
    })
}

fn value(template: &Template, record: &Record) -> String {
    let mut out = String::new();
    template.write(record, "unknown", &mut out);
    out
}

/// The service that the traffic is for: what the control plane says about the cluster, Istio's names for traffic
/// without a service, or the host that was asked for.
fn service<'r>(record: &'r Record, host: &'r str) -> Service<'r> {
    let named = |name| Service {
        host,
        name,
        namespace: "",
    };
    match record.route.as_str() {
        "block_all" => return named("BlackHoleCluster"),
        "allow_any" => return named("PassthroughCluster"),
        _ => {}
    }
    let Some(cluster) = &record.cluster else {
        return named(host);
    };
    match cluster.name.as_str() {
        name @ ("BlackHoleCluster"
        | "PassthroughCluster"
        | "InboundPassthroughCluster"
        | "InboundPassthroughClusterIpv4"
        | "InboundPassthroughClusterIpv6") => named(name),
        _ => match &cluster.notes.service {
            Some(service) => Service {
                host: &service.host,
                name: &service.name,
                namespace: &service.namespace,
            },
            None => named(host),
        },
    }
}
