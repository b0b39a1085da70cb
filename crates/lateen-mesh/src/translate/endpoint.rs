//! Endpoints of clusters, grouped by locality.

use std::collections::BTreeMap;

use lateen_api::{common::labels_match, networking::destination_rule::Subset};
use lateen_xds::pb::envoy::config::{
    core::v3::{
        Address, HealthStatus, Locality as LocalityMessage, Metadata, Pipe,
        address::Address as AddressKind,
    },
    endpoint::v3::{
        ClusterLoadAssignment, Endpoint as EndpointMessage, LbEndpoint, LocalityLbEndpoints,
        lb_endpoint::HostIdentifier,
    },
};

use super::{
    build::{address, fields, metadata, number, text},
    locality::Preference,
    policy::Policy,
};
use crate::{
    Index, Proxy,
    index::{Discovery, Endpoint, Locality, Service, ServicePort},
    names::{ClusterName, Direction},
};

/// Metadata by which the TLS of a connection to an endpoint is chosen.
const SOCKET_MATCH: &str = "envoy.transport_socket_match";

/// The endpoints of a cluster, by the cluster's name; `None` when there is no such cluster.
pub(super) fn of_cluster(
    index: &Index,
    proxy: &Proxy,
    name: &str,
) -> Option<ClusterLoadAssignment> {
    let by_server_name = ClusterName::parse_server_name(name);
    let only_mutual = by_server_name.is_some();
    let cluster = by_server_name
        .or_else(|| ClusterName::parse(name))
        .filter(|cluster| cluster.direction == Direction::Outbound)?;
    let service = index.service_seen_from(cluster.host, &proxy.namespace)?;
    let port = service.port(cluster.port)?;
    let rule = index.destination_rule(proxy, service);
    let subset = match cluster.subset {
        "" => None,
        wanted => Some(
            *rule
                .as_ref()?
                .subsets
                .iter()
                .find(|subset| subset.name == wanted)?,
        ),
    };
    let policy = Policy::of(rule.as_ref(), subset, port.number);
    let preference = Preference::of(index, proxy, &policy);
    let mut assignment = assignment(index, proxy, service, port, subset, &preference);
    if only_mutual {
        keep_mutual(&mut assignment);
    }
    assignment.cluster_name = name.to_owned();
    Some(assignment)
}

/// One address.
pub(super) fn single(cluster: &str, host: &str, port: u32) -> ClusterLoadAssignment {
    let endpoint = LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(EndpointMessage {
            address: endpoint_address(host, port),
            ..EndpointMessage::default()
        })),
        ..LbEndpoint::default()
    };
    ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: vec![endpoint],
            ..LocalityLbEndpoints::default()
        }],
        ..ClusterLoadAssignment::default()
    }
}

/// What TLS of the mesh passes through to must accept it.
fn keep_mutual(assignment: &mut ClusterLoadAssignment) {
    for locality in &mut assignment.endpoints {
        let mutual = |endpoint: &LbEndpoint| {
            let metadata = endpoint.metadata.as_ref();
            metadata.is_some_and(|all| all.filter_metadata.contains_key(SOCKET_MATCH))
        };
        locality.lb_endpoints.retain(mutual);
        locality.load_balancing_weight = number(total_weight(&locality.lb_endpoints));
    }
    let filled = |locality: &LocalityLbEndpoints| !locality.lb_endpoints.is_empty();
    assignment.endpoints.retain(filled);
}

fn total_weight(endpoints: &[LbEndpoint]) -> u32 {
    let weights = endpoints
        .iter()
        .map(|endpoint| endpoint.load_balancing_weight);
    weights
        .map(|weight| weight.map_or(1, |weight| weight.value))
        .fold(0, u32::saturating_add)
}

/// The endpoints of a port of a service, or of a subset of it, without a name.
pub(super) fn assignment(
    index: &Index,
    proxy: &Proxy,
    service: &Service,
    port: &ServicePort,
    subset: Option<&Subset>,
    preference: &Preference<'_>,
) -> ClusterLoadAssignment {
    let looked_up = matches!(service.discovery, Discovery::Dns { .. });
    let mut localities: BTreeMap<(Locality, u32), Vec<LbEndpoint>> = BTreeMap::new();
    for endpoint in index.endpoints(service, port) {
        if subset.is_none_or(|subset| labels_match(&subset.labels, &endpoint.labels)) {
            let message = lb_endpoint(proxy, &endpoint, looked_up);
            let rank = preference.rank(&endpoint);
            localities
                .entry((endpoint.locality, rank))
                .or_default()
                .push(message);
        }
    }
    let endpoints = localities.into_iter().map(|((locality, rank), endpoints)| {
        let weight = total_weight(&endpoints);
        LocalityLbEndpoints {
            locality: Some(LocalityMessage {
                region: locality.region,
                zone: locality.zone,
                sub_zone: locality.sub_zone,
            }),
            lb_endpoints: endpoints,
            load_balancing_weight: number(weight),
            priority: rank,
            ..LocalityLbEndpoints::default()
        }
    });
    let mut endpoints: Vec<LocalityLbEndpoints> = endpoints.collect();
    preference.apply(&mut endpoints);
    ClusterLoadAssignment {
        endpoints,
        ..ClusterLoadAssignment::default()
    }
}

/// An address and port, or a socket of the file system.
fn endpoint_address(host: &str, port: u32) -> Option<Address> {
    match host.strip_prefix("unix:") {
        Some(path) => Some(Address {
            address: Some(AddressKind::Pipe(Pipe {
                path: path.strip_prefix("//").unwrap_or(path).to_owned(),
                mode: 0,
            })),
        }),
        None => address(host, port),
    }
}

fn lb_endpoint(proxy: &Proxy, endpoint: &Endpoint, looked_up: bool) -> LbEndpoint {
    let mutual = endpoint.mutual_tls && proxy.supports_tls();
    LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(EndpointMessage {
            address: endpoint_address(&endpoint.address, endpoint.port),
            ..EndpointMessage::default()
        })),
        // Names are looked up by the proxy; their health is not known here.
        health_status: if looked_up {
            HealthStatus::Unknown
        } else {
            HealthStatus::Healthy
        }
        .into(),
        load_balancing_weight: number(endpoint.weight),
        metadata: if mutual {
            metadata(SOCKET_MATCH, fields([("tlsMode", text("istio"))]))
        } else {
            Some(Metadata::default())
        },
    }
}
