//! Translation to Envoy's messages, in Istio's structure and with Istio's names.

mod access_log;
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
mod outbound;
mod policy;
mod retry;
mod route_config;
mod route_filters;
mod sidecar_route;
mod telemetry;
mod tls;
mod workload;

use lateen_xds::pb::envoy::config::core::v3::TrafficDirection;
use lateen_xds::{Names, Resource, ResourceType};
use prost::{Message, Name};
use twox_hash::XxHash64;

use crate::{Index, Proxy, ProxyKind};

/// The resources of a type, unsorted.
pub(crate) fn translate(
    index: &Index,
    proxy: &Proxy,
    kind: ResourceType,
    names: &Names,
) -> Vec<Resource> {
    match kind {
        ResourceType::Cluster => {
            let inbound = workload::inbound_ports(index, proxy);
            let mut clusters = cluster::clusters(index, proxy, &inbound);
            telemetry::clusters(index, proxy, &inbound, &mut clusters);
            select(
                names,
                clusters
                    .into_iter()
                    .map(|cluster| (cluster.name.clone(), cluster)),
            )
        }
        ResourceType::Listener => {
            let mut listeners = match proxy.kind {
                ProxyKind::Sidecar => {
                    let mut listeners = outbound::listeners(index, proxy);
                    let inbound = workload::inbound_ports(index, proxy);
                    listeners.extend(inbound::listeners(index, proxy, &inbound));
                    listeners
                }
                ProxyKind::Router => gateway::listeners(index, proxy),
            };
            for listener in &mut listeners {
                let inbound = listener.traffic_direction == i32::from(TrafficDirection::Inbound);
                telemetry::listener(proxy, inbound, listener);
            }
            select(
                names,
                listeners
                    .into_iter()
                    .map(|listener| (listener.name.clone(), listener)),
            )
        }
        ResourceType::Endpoint => match names {
            // Endpoints are asked for by name; the names are those of clusters.
            Names::All => Vec::new(),
            Names::Only(names) => names
                .iter()
                .filter_map(|name| {
                    Some(resource(
                        name.clone(),
                        &endpoint::of_cluster(index, proxy, name)?,
                    ))
                })
                .collect(),
        },
        ResourceType::Route => match names {
            Names::All => Vec::new(),
            Names::Only(names) => {
                let routes = names.iter().filter_map(|name| {
                    let route = match proxy.kind {
                        ProxyKind::Sidecar => sidecar_route::configuration(index, proxy, name),
                        ProxyKind::Router => gateway::route_configuration(index, proxy, name),
                    };
                    Some((name.clone(), route?))
                });
                routes.map(|(name, route)| resource(name, &route)).collect()
            }
        },
        // Secrets are served by the agent beside the proxy, never by translation.
        ResourceType::Secret => Vec::new(),
    }
}

fn select<M: Message + Name>(
    names: &Names,
    messages: impl Iterator<Item = (String, M)>,
) -> Vec<Resource> {
    messages
        .filter(|(name, _)| names.contains(name))
        .map(|(name, message)| resource(name, &message))
        .collect()
}

fn resource<M: Message + Name>(name: String, message: &M) -> Resource {
    let body = build::any(message);
    let version = format!("{:016x}", XxHash64::oneshot(0, &body.value));
    Resource {
        name,
        version,
        body,
    }
}
