//! Translation to Envoy's messages, in Istio's structure and with Istio's names.

mod access_log;
mod alpn;
mod body_to_headers;
mod build;
mod cluster;
mod cluster_policy;
mod destination;
mod endpoint;
mod filter;
mod gateway;
mod hash_policy;
mod header_operations;
mod http_answer;
mod http_manager;
mod http_match;
mod http_route;
mod inbound;
mod locality;
mod outbound;
mod policy;
mod retry;
mod route_config;
mod route_filters;
mod sidecar_route;
mod sticky_session;
mod telemetry;
mod tls;
mod workload;

use std::{collections::BTreeSet, sync::Arc};

use lateen_xds::{
    Names, Resource, ResourceType,
    pb::envoy::config::{core::v3::TrafficDirection, route::v3::RouteConfiguration},
};
use prost::{Message, Name};
use twox_hash::XxHash64;

use crate::{Index, Proxy, ProxyKind, index::Service, names::ClusterName};

/// The resources of a type, unsorted.
pub(crate) fn translate(
    index: &Index,
    proxy: &Proxy,
    kind: ResourceType,
    names: &Names,
) -> Vec<Resource> {
    match kind {
        ResourceType::Cluster => {
            let mut found = shared_clusters(index, proxy, names);
            let inbound = workload::inbound_ports(index, proxy);
            let mut own = cluster::own(index, proxy, &inbound);
            telemetry::clusters(index, proxy, &inbound, &mut own);
            let named = own.into_iter().map(|one| (one.name.clone(), one));
            found.extend(select(index, names, named));
            found
        }
        ResourceType::Listener => {
            let mut listeners = match proxy.kind {
                ProxyKind::Sidecar => {
                    let mut listeners = outbound::listeners(index, proxy, names);
                    if outbound::may_be_inbound(index, proxy, names) {
                        let inbound = workload::inbound_ports(index, proxy);
                        listeners.extend(inbound::listeners(index, proxy, &inbound));
                    }
                    listeners
                }
                ProxyKind::Router => gateway::listeners(index, proxy),
            };
            for listener in &mut listeners {
                let inbound = listener.traffic_direction == i32::from(TrafficDirection::Inbound);
                telemetry::listener(proxy, inbound, listener);
            }
            let named = listeners.into_iter().map(|one| (one.name.clone(), one));
            select(index, names, named)
        }
        // Endpoints and routes are asked for by name; the names are those of clusters and listeners.
        ResourceType::Endpoint => {
            let class = index.class_of(proxy);
            by_name(names, |name| {
                let assignment = || {
                    let assignment = endpoint::of_cluster(index, proxy, name);
                    let made = assignment.map(|one| resource(index, name.to_owned(), &one));
                    made.into_iter().collect()
                };
                let found = index.cache().get(&class, kind, name, assignment);
                found.first().cloned()
            })
        }
        ResourceType::Route => {
            let class = index.class_of(proxy);
            let made = |name: &str, route: Option<RouteConfiguration>| {
                route.map(|route| resource(index, name.to_owned(), &route))
            };
            by_name(names, |name| match proxy.kind {
                ProxyKind::Sidecar => {
                    let route = || {
                        let route = sidecar_route::configuration(index, proxy, name);
                        made(name, route).into_iter().collect()
                    };
                    let found = index.cache().get(&class, kind, name, route);
                    found.first().cloned()
                }
                ProxyKind::Router => made(name, gateway::route_configuration(index, proxy, name)),
            })
        }
        // Secrets are served by the agent beside the proxy, never by translation.
        ResourceType::Secret => Vec::new(),
    }
}

/// The clusters of services: of all that a proxy sees, or of those that are named.
fn shared_clusters(index: &Index, proxy: &Proxy, names: &Names) -> Vec<Resource> {
    let services: Vec<&Service> = match names {
        Names::All => index.reachable_services(proxy),
        Names::Only(names) => {
            let parsed = names.iter().filter_map(|name| {
                ClusterName::parse(name).or_else(|| ClusterName::parse_server_name(name))
            });
            let hosts: BTreeSet<&str> = parsed.map(|cluster| cluster.host).collect();
            hosts
                .into_iter()
                .filter_map(|host| index.reachable_service(proxy, host))
                .collect()
        }
    };
    let class = index.class_of(proxy);
    let by_server_name = gateway::auto_passthrough_hosts(index, proxy);
    let mut found = Vec::new();
    for service in services {
        let make = || {
            let mut clusters = cluster::of_service(index, proxy, service, &by_server_name);
            telemetry::clusters(index, proxy, &[], &mut clusters);
            clusters
                .into_iter()
                .map(|one| resource(index, one.name.clone(), &one))
                .collect()
        };
        let clusters = if by_server_name.is_empty() {
            let cache = index.cache();
            cache.get(&class, ResourceType::Cluster, &service.host, make)
        } else {
            // Of one gateway only.
            Arc::new(make())
        };
        let wanted = clusters.iter().filter(|one| names.contains(&one.name));
        found.extend(wanted.cloned());
    }
    found
}

fn by_name(names: &Names, find: impl Fn(&str) -> Option<Resource>) -> Vec<Resource> {
    match names {
        Names::All => Vec::new(),
        Names::Only(names) => names.iter().filter_map(|name| find(name)).collect(),
    }
}

fn select<M: Message + Name>(
    index: &Index,
    names: &Names,
    messages: impl Iterator<Item = (String, M)>,
) -> Vec<Resource> {
    messages
        .filter(|(name, _)| names.contains(name))
        .map(|(name, message)| resource(index, name, &message))
        .collect()
}

fn resource<M: Message + Name>(index: &Index, name: String, message: &M) -> Resource {
    index.cache().count();
    let body = build::any(message);
    let version = format!("{:016x}", XxHash64::oneshot(0, &body.value));
    Resource {
        name,
        version,
        body,
    }
}
