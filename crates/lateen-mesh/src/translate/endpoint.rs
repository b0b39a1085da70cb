//! Endpoints of clusters, grouped by locality.

use std::collections::BTreeMap;

use lateen_api::{common::labels_match, networking::destination_rule::Subset};
use lateen_xds::pb::envoy::config::{
    core::v3::{HealthStatus, Locality as LocalityMessage, Metadata},
    endpoint::v3::{
        ClusterLoadAssignment, Endpoint as EndpointMessage, LbEndpoint, LocalityLbEndpoints,
        lb_endpoint::HostIdentifier,
    },
};

use super::build::{address, fields, metadata, number, text};
use crate::{
    Index, Proxy,
    index::{Discovery, Endpoint, Locality, Service, ServicePort},
    names::{ClusterName, Direction},
};

/// The endpoints of a cluster, by the cluster's name; `None` when there is no such cluster.
pub(super) fn of_cluster(
    index: &Index,
    proxy: &Proxy,
    name: &str,
) -> Option<ClusterLoadAssignment> {
    let cluster =
        ClusterName::parse(name).filter(|cluster| cluster.direction == Direction::Outbound)?;
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
    Some(ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        ..assignment(index, proxy, service, port, subset)
    })
}

/// The endpoints of a port of a service, or of a subset of it, without a name.
pub(super) fn assignment(
    index: &Index,
    proxy: &Proxy,
    service: &Service,
    port: &ServicePort,
    subset: Option<&Subset>,
) -> ClusterLoadAssignment {
    let looked_up = matches!(service.discovery, Discovery::Dns { .. });
    let mut localities: BTreeMap<Locality, Vec<LbEndpoint>> = BTreeMap::new();
    for endpoint in index.endpoints(service, port) {
        if subset.is_none_or(|subset| labels_match(&subset.labels, &endpoint.labels)) {
            let message = lb_endpoint(proxy, &endpoint, looked_up);
            localities
                .entry(endpoint.locality)
                .or_default()
                .push(message);
        }
    }
    let endpoints = localities.into_iter().map(|(locality, endpoints)| {
        let weight: u32 = endpoints
            .iter()
            .map(|endpoint| {
                endpoint
                    .load_balancing_weight
                    .map_or(1, |weight| weight.value)
            })
            .fold(0, u32::saturating_add);
        LocalityLbEndpoints {
            locality: Some(LocalityMessage {
                region: locality.region,
                zone: locality.zone,
                sub_zone: locality.sub_zone,
            }),
            lb_endpoints: endpoints,
            load_balancing_weight: number(weight),
            ..LocalityLbEndpoints::default()
        }
    });
    ClusterLoadAssignment {
        endpoints: endpoints.collect(),
        ..ClusterLoadAssignment::default()
    }
}

fn lb_endpoint(proxy: &Proxy, endpoint: &Endpoint, looked_up: bool) -> LbEndpoint {
    let mutual = endpoint.mutual_tls && proxy.supports_tls();
    LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(EndpointMessage {
            address: address(&endpoint.address, endpoint.port),
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
            metadata(
                "envoy.transport_socket_match",
                fields([("tlsMode", text("istio"))]),
            )
        } else {
            Some(Metadata::default())
        },
    }
}
