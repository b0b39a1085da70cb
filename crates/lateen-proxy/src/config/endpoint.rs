//! Load assignments: the endpoints of a cluster.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use lateen_route::balance::subset::labels;
use lateen_route::balance::{Health, Member};
use lateen_route::{Invalid, Within, refuse_rest};
use lateen_xds::pb::envoy::config::core::v3::{HealthStatus, Metadata};
use lateen_xds::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use lateen_xds::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints,
};
use lateen_xds::pb::google::protobuf::value::Kind;

use super::socket_address;
use crate::cluster::{Host, HostShared};
use crate::telemetry::peer::Workload;
use crate::upstream::MATCH_METADATA;

/// A compiled load assignment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Assignment {
    pub(crate) hosts: Vec<Arc<Host>>,
    pub(crate) members: Vec<Member>,
    pub(crate) locality_weights: Vec<u32>,
    pub(crate) overprovisioning: Option<u32>,
    /// Percent of the requests that are refused, from 0 to 100.
    pub(crate) drop_percent: f64,
}

impl Assignment {
    /// Consistent choices hash host names instead of addresses, where there are any.
    pub(crate) fn hash_host_names(&mut self) {
        for (member, host) in self.members.iter_mut().zip(&self.hosts) {
            if !host.hostname.is_empty() {
                member.key.clone_from(&host.hostname);
            }
        }
    }
}

/// Compiles a load assignment. Live numbers of endpoints that stay are taken over from `previous`.
pub(crate) fn compile(
    mut message: ClusterLoadAssignment,
    previous: &[Arc<Host>],
) -> Result<Assignment, Invalid> {
    let known: HashMap<SocketAddr, &Arc<HostShared>> = previous
        .iter()
        .map(|host| (host.address, &host.shared))
        .collect();
    message.cluster_name.clear();
    let mut assignment = Assignment::default();
    if let Some(mut policy) = message.policy.take() {
        let factor = policy
            .overprovisioning_factor
            .take()
            .map(|value| value.value);
        if factor == Some(0) {
            return Err(Invalid::new(
                "policy.overprovisioning_factor",
                "must be positive",
            ));
        }
        assignment.overprovisioning = factor;
        for (index, drop) in std::mem::take(&mut policy.drop_overloads)
            .into_iter()
            .enumerate()
        {
            let percent = drop.drop_percentage.map_or(0.0, |share| {
                let scale = match share.denominator {
                    0 => 1.0,
                    1 => 100.0,
                    _ => 10_000.0,
                };
                f64::from(share.numerator) / scale
            });
            if percent > 100.0 || index > 0 {
                return Err(Invalid::new(
                    "policy.drop_overloads",
                    "must be one category of at most 100 percent",
                ));
            }
            assignment.drop_percent = percent;
        }
        refuse_rest(&policy).within("policy")?;
    }
    for (index, group) in std::mem::take(&mut message.endpoints)
        .into_iter()
        .enumerate()
    {
        locality(group, &known, &mut assignment).within_item("endpoints", index)?;
    }
    refuse_rest(&message)?;
    Ok(assignment)
}

fn locality(
    mut group: LocalityLbEndpoints,
    known: &HashMap<SocketAddr, &Arc<HostShared>>,
    assignment: &mut Assignment,
) -> Result<(), Invalid> {
    group.metadata = None;
    let place = group.locality.take().unwrap_or_default();
    let place = [place.region, place.zone, place.sub_zone];
    let position = assignment.locality_weights.len();
    assignment.locality_weights.push(
        group
            .load_balancing_weight
            .take()
            .map_or(0, |value| value.value),
    );
    let priority = std::mem::take(&mut group.priority);
    if priority > 128 {
        return Err(Invalid::new("priority", "must be at most 128"));
    }
    for (index, endpoint) in std::mem::take(&mut group.lb_endpoints)
        .into_iter()
        .enumerate()
    {
        let (host, key) =
            host(endpoint, &place, priority, known).within_item("lb_endpoints", index)?;
        assignment.members.push(Member {
            key: key.unwrap_or_else(|| host.text.clone()),
            weight: host.weight,
            health: host.health,
            priority,
            locality: position,
        });
        assignment.hosts.push(Arc::new(host));
    }
    refuse_rest(&group)
}

/// An endpoint and its configured hash key.
fn host(
    mut endpoint: LbEndpoint,
    place: &[String; 3],
    priority: u32,
    known: &HashMap<SocketAddr, &Arc<HostShared>>,
) -> Result<(Host, Option<String>), Invalid> {
    let mut metadata = endpoint.metadata.take().unwrap_or_default();
    let workload = Workload::from_endpoint(&metadata).map(Arc::new);
    let transport_metadata = metadata
        .filter_metadata
        .remove(MATCH_METADATA)
        .map(Box::new);
    let labels = labels(Some(&metadata));
    let key = hash_key(metadata);
    let health = match HealthStatus::try_from(std::mem::take(&mut endpoint.health_status)) {
        Ok(HealthStatus::Unknown | HealthStatus::Healthy) => Health::Healthy,
        Ok(HealthStatus::Degraded) => Health::Degraded,
        _ => Health::Unhealthy,
    };
    let weight = endpoint
        .load_balancing_weight
        .take()
        .map_or(1, |value| value.value);
    if weight == 0 {
        return Err(Invalid::new("load_balancing_weight", "must be positive"));
    }
    let Some(HostIdentifier::Endpoint(mut inner)) = endpoint.host_identifier.take() else {
        return Err(Invalid::new("endpoint", "is required"));
    };
    refuse_rest(&endpoint)?;
    let address = socket_address(inner.address.take()).within("endpoint.address")?;
    let hostname = std::mem::take(&mut inner.hostname);
    inner.observability_name.clear();
    refuse_rest(&inner).within("endpoint")?;
    let shared = known
        .get(&address)
        .map_or_else(Arc::default, |shared| (*shared).clone());
    let host = Host {
        address,
        text: address.to_string(),
        hostname,
        health,
        weight,
        priority,
        locality: place.clone(),
        workload,
        transport_metadata,
        canary: labels.get("canary").is_some_and(|canary| canary == "true"),
        labels,
        shared,
    };
    Ok((host, key))
}

/// `envoy.lb` / `hash_key` of the metadata; the rest of it describes workloads.
fn hash_key(mut metadata: Metadata) -> Option<String> {
    let value = metadata
        .filter_metadata
        .remove("envoy.lb")?
        .fields
        .remove("hash_key")?;
    match value.kind {
        Some(Kind::StringValue(key)) => Some(key),
        _ => None,
    }
}
