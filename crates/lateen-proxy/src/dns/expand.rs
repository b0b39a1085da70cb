//! Load assignments with names into load assignments with addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lateen_xds::pb::envoy::config::core::v3::SocketAddress;
use lateen_xds::pb::envoy::config::core::v3::address::Address as Kind;
use lateen_xds::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use lateen_xds::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, LbEndpoint};

use super::Addresses;

/// The names among the endpoints.
pub(crate) fn names(assignment: &ClusterLoadAssignment) -> BTreeSet<String> {
    let groups = assignment.endpoints.iter();
    let mut endpoints = groups
        .flat_map(|group| group.lb_endpoints.clone())
        .collect::<Vec<_>>();
    let names = endpoints.iter_mut().filter_map(|endpoint| {
        let address = socket(endpoint)?;
        address
            .address
            .parse::<IpAddr>()
            .is_err()
            .then(|| address.address.clone())
    });
    names.collect()
}

/// Puts the addresses in place of the names. Every address of a name becomes an endpoint with what is said of the name;
/// only the first one when the cluster is `logical`.
pub(crate) fn expand(
    assignment: &ClusterLoadAssignment,
    known: &Addresses,
    logical: bool,
) -> ClusterLoadAssignment {
    let mut expanded = assignment.clone();
    for group in &mut expanded.endpoints {
        let named = std::mem::take(&mut group.lb_endpoints);
        for mut endpoint in named {
            let Some(name) = socket(&mut endpoint).map(|address| address.address.clone()) else {
                // What has no address is refused later.
                group.lb_endpoints.push(endpoint);
                continue;
            };
            let addresses = match name.parse::<IpAddr>() {
                Ok(address) => vec![address],
                Err(_) => known.get(&name).cloned().unwrap_or_default(),
            };
            let most = if logical { 1 } else { usize::MAX };
            for address in addresses.into_iter().take(most) {
                let mut copy = endpoint.clone();
                if let Some(HostIdentifier::Endpoint(inner)) = &mut copy.host_identifier
                    && inner.hostname.is_empty()
                {
                    inner.hostname.clone_from(&name);
                }
                if let Some(socket) = socket(&mut copy) {
                    socket.address = address.to_string();
                    socket.resolver_name.clear();
                }
                group.lb_endpoints.push(copy);
            }
        }
    }
    expanded
}

fn socket(endpoint: &mut LbEndpoint) -> Option<&mut SocketAddress> {
    let Some(HostIdentifier::Endpoint(inner)) = &mut endpoint.host_identifier else {
        return None;
    };
    match &mut inner.address.as_mut()?.address {
        Some(Kind::SocketAddress(address)) => Some(address),
        _ => None,
    }
}
