//! Ports of a proxy's own workload.

use std::collections::BTreeMap;

use lateen_api::{
    common::ServerTlsSettings,
    networking::{
        sidecar::{CaptureMode, IngressListener},
        traffic_policy::ConnectionPool,
    },
    security::MutualTlsMode,
};

use crate::{Index, Proxy, ProxyKind, index::Service, protocol::Protocol};

/// Address of ports that services declare.
const ANY_ADDRESS: &str = "0.0.0.0";

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
    /// Address that the port belongs to.
    pub(super) bind: String,
    /// What a Sidecar says about the port.
    pub(super) ingress: Option<&'a IngressListener>,
    /// Limits of connections to the application, as a Sidecar says.
    pub(super) connection_pool: Option<&'a ConnectionPool>,
}

impl InboundPort<'_> {
    /// Whether the proxy itself listens on the port, because nothing redirects connections to it.
    pub(super) fn is_bound(&self) -> bool {
        self.ingress
            .is_some_and(|listener| listener.capture_mode.unwrap_or_default() == CaptureMode::None)
    }

    /// TLS with certificates of the workload's own. The mesh's mutual TLS comes first where it is accepted.
    pub(super) fn own_tls(&self) -> Option<&ServerTlsSettings> {
        let settings = self.ingress?.tls.as_ref()?;
        (self.mode == MutualTlsMode::Disable).then_some(settings)
    }
}

/// The ports of a proxy's workload, sorted by number. The oldest service that declares a port decides about it.
pub(super) fn inbound_ports<'a>(index: &'a Index, proxy: &'a Proxy) -> Vec<InboundPort<'a>> {
    if proxy.kind != ProxyKind::Sidecar {
        return Vec::new();
    }
    let mode = |port| accepted_mode(index, proxy, port);
    let mut ports: BTreeMap<u32, InboundPort<'a>> = BTreeMap::new();
    let sidecar = index.sidecar(proxy);
    let pool = sidecar.and_then(|sidecar| sidecar.spec.inbound_connection_pool.as_ref());
    if let Some(sidecar) = sidecar.filter(|sidecar| !sidecar.spec.ingress.is_empty()) {
        for listener in &sidecar.spec.ingress {
            let number = listener.port.number;
            let declared = Protocol::of_name(&listener.port.protocol);
            ports.entry(number).or_insert_with(|| InboundPort {
                target: number,
                number,
                protocol: match (&listener.tls, declared) {
                    (Some(_), Protocol::Tls) => inside_tls(&listener.port.protocol),
                    _ => declared,
                },
                service: None,
                host: format!("{}.{}", sidecar.name(), sidecar.namespace()),
                mode: mode(number),
                bind: match listener.bind.as_str() {
                    "" => proxy.address.clone(),
                    bind => bind.to_owned(),
                },
                ingress: Some(listener),
                connection_pool: listener.connection_pool.as_ref().or(pool),
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
                bind: ANY_ADDRESS.to_owned(),
                ingress: None,
                connection_pool: pool,
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

/// What is left when TLS has been ended.
fn inside_tls(protocol: &str) -> Protocol {
    if protocol.eq_ignore_ascii_case("HTTPS") {
        Protocol::Http
    } else {
        Protocol::Tcp
    }
}
