//! What converters of resources need beside the message: the direction of the listener, the clusters that routes may go to,
//! and what is found by name.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use lateen_route::{Invalid, RouteTable};
use lateen_xds::pb::envoy::config::core::v3::TrafficDirection;

use super::cluster::ClusterSpec;
use crate::access_log::LogFiles;
use crate::secret::Secrets;
use crate::shared::{Named, RouteSlot, Shared, find_or_make};
use crate::stats::{HttpStats, ListenerStats, PerWorker, ProxyProtocolStats, SslStats, TcpStats};
use crate::telemetry::series::Registry;

/// What converters need beside the message.
pub(crate) struct Context<'s> {
    shared: &'s Shared,
    pub(crate) logs: &'s LogFiles,
    pub(crate) node_ip: Option<IpAddr>,
    /// Traffic comes in for the workload beside the proxy.
    pub(crate) inbound: bool,
    /// Traffic goes out from the workload beside the proxy, or through a gateway.
    pub(crate) outbound: bool,
    /// Clusters that wait for their endpoints.
    warming: Option<&'s HashMap<String, ClusterSpec>>,
}

impl<'s> Context<'s> {
    pub(crate) fn new(shared: &'s Shared) -> Self {
        Self {
            shared,
            logs: &shared.names.logs,
            node_ip: shared.node_ip,
            inbound: false,
            outbound: false,
            warming: None,
        }
    }

    /// The same with the clusters that wait for their endpoints.
    pub(super) fn with_warming(self, warming: &'s HashMap<String, ClusterSpec>) -> Self {
        Self {
            warming: Some(warming),
            ..self
        }
    }

    /// The same for a listener of this direction.
    pub(crate) fn of_direction(&self, direction: i32) -> Self {
        Self {
            inbound: direction == i32::from(TrafficDirection::Inbound),
            outbound: direction == i32::from(TrafficDirection::Outbound),
            ..*self
        }
    }

    pub(crate) fn telemetry(&self) -> &Registry {
        &self.shared.names.telemetry
    }

    /// The secrets that contexts can refer to.
    pub(crate) fn secrets(&self) -> &Secrets {
        &self.shared.secrets
    }

    /// Refuses routes to clusters that do not exist.
    pub(crate) fn check_clusters(&self, table: &RouteTable) -> Result<(), Invalid> {
        let clusters = self.shared.clusters.load();
        let warming = self.warming;
        let known = |name: &str| {
            clusters.contains_key(name) || warming.is_some_and(|all| all.contains_key(name))
        };
        match table.clusters().find(|name| !known(name)) {
            Some(name) => {
                let reason = format!("a route goes to the unknown cluster `{name}`");
                Err(Invalid::new("virtual_hosts", reason))
            }
            None => Ok(()),
        }
    }

    pub(crate) fn route_slot(&self, name: &str) -> Arc<RouteSlot> {
        find_or_make(&self.shared.names.routes, name, || RouteSlot {
            name: name.to_owned(),
            table: Default::default(),
        })
    }

    pub(crate) fn http_stats(&self, prefix: &str) -> Arc<PerWorker<HttpStats>> {
        self.stats(&self.shared.names.http, prefix)
    }

    pub(crate) fn tcp_stats(&self, prefix: &str) -> Arc<PerWorker<TcpStats>> {
        self.stats(&self.shared.names.tcp, prefix)
    }

    pub(crate) fn proxy_protocol_stats(&self, prefix: &str) -> Arc<PerWorker<ProxyProtocolStats>> {
        self.stats(&self.shared.names.proxy_protocol, prefix)
    }

    pub(crate) fn listener_stats(&self, address: &str) -> Arc<PerWorker<ListenerStats>> {
        self.stats(&self.shared.names.listeners, address)
    }

    pub(crate) fn ssl_stats(&self, address: &str) -> Arc<PerWorker<SslStats>> {
        self.stats(&self.shared.names.listeners_ssl, address)
    }

    fn stats<T: Default>(&self, all: &Named<PerWorker<T>>, name: &str) -> Arc<PerWorker<T>> {
        find_or_make(all, name, || PerWorker::new(self.shared.names.workers))
    }
}
