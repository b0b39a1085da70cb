//! Which resources others refer to: the order of a push follows from it.

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use prost::{Message as _, Name as _};

use crate::{Resource, ResourceType};

/// The endpoint resource that a cluster resource waits for.
pub(super) fn endpoints_of(resource: &Resource) -> Option<String> {
    if ResourceType::from_type_url(&resource.body.type_url) != Some(ResourceType::Cluster) {
        return None;
    }
    let cluster = Cluster::decode(resource.body.value.as_slice()).ok()?;
    let eds = ClusterDiscoveryType::Type(DiscoveryType::Eds.into());
    if cluster.cluster_discovery_type != Some(eds) {
        return None;
    }
    let configured = cluster.eds_cluster_config.map(|config| config.service_name);
    Some(
        configured
            .filter(|name| !name.is_empty())
            .unwrap_or(cluster.name),
    )
}

/// The route tables that a listener resource fetches.
pub(super) fn routes_of(resource: &Resource) -> Vec<String> {
    if ResourceType::from_type_url(&resource.body.type_url) != Some(ResourceType::Listener) {
        return Vec::new();
    }
    let Ok(listener) = Listener::decode(resource.body.value.as_slice()) else {
        return Vec::new();
    };
    let chains = listener
        .filter_chains
        .iter()
        .chain(&listener.default_filter_chain);
    let filters = chains.flat_map(|chain| &chain.filters);
    let fetched = filters.filter_map(|filter| match &filter.config_type {
        Some(ConfigType::TypedConfig(body))
            if body.type_url == HttpConnectionManager::type_url() =>
        {
            let manager = HttpConnectionManager::decode(body.value.as_slice()).ok()?;
            match manager.route_specifier? {
                RouteSpecifier::Rds(rds) => Some(rds.route_config_name),
                _ => None,
            }
        }
        _ => None,
    });
    fetched.collect()
}
