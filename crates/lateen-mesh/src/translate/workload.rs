//! Ports of a proxy's own workload.

use std::collections::{BTreeMap, BTreeSet};

use lateen_api::security::MutualTlsMode;

use crate::{Index, Proxy, ProxyKind, index::Service, protocol::Protocol};

/// A port that a sidecar accepts connections on.
#[derive(Debug, Clone)]
pub(super) struct InboundPort<'a> {
    /// Port of the workload.
    pub(super) target: u32,
    /// Port of the service.
    pub(super) number: u32,
    /// What is spoken on it.
    pub(super) protocol: Protocol,
    /// The service that declares it; none for ports that a Sidecar declares.
    pub(super) service: Option<&'a Service>,
    /// Host shown in traces.
    pub(super) host: String,
    /// Which connections are accepted.
    pub(super) mode: MutualTlsMode,
}

/// The ports of a proxy's workload, sorted by number. The oldest service that declares a port decides about it.
pub(super) fn inbound_ports<'a>(index: &'a Index, proxy: &'a Proxy) -> Vec<InboundPort<'a>> {
    if proxy.kind != ProxyKind::Sidecar {
        return Vec::new();
    }
    let mode = |port| accepted_mode(index, proxy, port);
    let mut ports: BTreeMap<u32, InboundPort<'a>> = BTreeMap::new();
    if let Some(sidecar) = index
        .sidecar(proxy)
        .filter(|sidecar| !sidecar.spec.ingress.is_empty())
    {
        for listener in &sidecar.spec.ingress {
            let number = listener.port.number;
            ports.entry(number).or_insert_with(|| InboundPort {
                target: number,
                number,
                protocol: Protocol::of_name(&listener.port.protocol),
                service: None,
                host: format!("{}.{}", sidecar.name(), sidecar.namespace()),
                mode: mode(number),
            });
        }
        return ports.into_values().collect();
    }
    for service in index.services_of(proxy) {
        for port in service
            .ports
            .iter()
            .filter(|port| port.protocol != Protocol::Udp)
        {
            let target = index.own_port(proxy, service, port);
            let Some(target) = target else { continue };
            ports.entry(target).or_insert_with(|| InboundPort {
                target,
                number: port.number,
                protocol: port.protocol,
                service: Some(service),
                host: service.host.clone(),
                mode: mode(target),
            });
        }
    }
    ports.into_values().collect()
}

/// Which connections a proxy accepts on a port of its workload (0 stands for undeclared ports). One without TLS accepts
/// plain text where that is allowed; where it is not, it accepts nothing.
pub(super) fn accepted_mode(index: &Index, proxy: &Proxy, port: u32) -> MutualTlsMode {
    match index.mutual_tls_mode(&proxy.namespace, index.labels_of(proxy), port) {
        MutualTlsMode::Strict => MutualTlsMode::Strict,
        mode if proxy.supports_tls() => mode,
        _ => MutualTlsMode::Disable,
    }
}

/// Ports of the workload whose protocol is declared, so that it need not be told from the first bytes.
pub(super) fn declared_ports(ports: &[InboundPort<'_>]) -> BTreeSet<u32> {
    ports
        .iter()
        .filter(|port| port.protocol != Protocol::Auto)
        .map(|port| port.target)
        .collect()
}
