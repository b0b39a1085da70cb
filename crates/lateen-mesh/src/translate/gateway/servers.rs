//! The servers of all gateways that apply to a proxy, put together port by port.

use std::collections::{BTreeMap, BTreeSet};

use lateen_api::{
    Gateway,
    common::{ServerTlsMode, labels_match},
    networking::gateway::Server,
};

use crate::{
    Index, Proxy, ProxyKind,
    index::{SERVICE_ANNOTATION, Service, host_matches},
    protocol::Protocol,
};

/// Label of a service whose ports are never translated to those of its pods.
const NO_TRANSLATION_LABEL: &str = "experimental.istio.io/disable-gateway-port-translation";

/// A server of a gateway, on a port of the proxy.
#[derive(Clone)]
pub(super) struct Served<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) server: &'a Server,
    pub(super) protocol: Protocol,
    /// Port that the proxy listens on.
    pub(super) port: u32,
    /// Hosts as `host` or `namespace/host`.
    pub(super) hosts: Vec<String>,
    /// Route configuration of its requests; empty when no requests are looked at.
    pub(super) route_name: String,
}

impl Served<'_> {
    /// `namespace/name` of the gateway.
    pub(super) fn gateway_name(&self) -> String {
        format!("{}/{}", self.gateway.namespace(), self.gateway.name())
    }

    /// Whether plain requests are answered with a redirect to HTTPS.
    pub(super) fn redirects(&self) -> bool {
        let tls = self.server.tls.as_ref();
        tls.is_some_and(|tls| tls.https_redirect)
    }

    fn mode(&self) -> Option<ServerTlsMode> {
        let tls = self.server.tls.as_ref()?;
        Some(tls.mode.unwrap_or_default())
    }

    /// Whether the server's name is itself that of a cluster.
    pub(super) fn is_auto_passthrough(&self) -> bool {
        self.mode() == Some(ServerTlsMode::AutoPassthrough)
    }

    /// Whether TLS passes to the destination untouched.
    pub(super) fn passes_tls(&self) -> bool {
        matches!(
            self.mode(),
            Some(ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough)
        )
    }

    /// Whether TLS is ended here and requests are routed one by one.
    pub(super) fn ends_https(&self) -> bool {
        is_https(self.server) && self.mode().is_some() && !self.passes_tls()
    }

    fn routes_requests(&self) -> bool {
        self.protocol.is_http() || (is_https(self.server) && !self.passes_tls())
    }

    /// Whether connections begin with TLS. A redirect to HTTPS is about plain requests.
    fn is_tls(&self) -> bool {
        self.server.tls.is_some() && !self.protocol.is_http()
    }

    /// Server names of its filter chains.
    pub(super) fn server_names(&self) -> Vec<String> {
        let names: BTreeSet<&str> = self.hosts.iter().map(|host| host_of(host)).collect();
        names.into_iter().map(str::to_owned).collect()
    }

    /// The host under which a host of rules of a namespace is served; `None` when it is not.
    pub(super) fn common_host(&self, pattern: &str, host: &str, namespace: &str) -> Option<String> {
        let pattern = match pattern.split_once('/') {
            Some((wanted, _)) if wanted != namespace => return None,
            Some((_, pattern)) => pattern,
            None => pattern,
        };
        let pattern = pattern.to_ascii_lowercase();
        if host_matches(&pattern, host) {
            Some(host.to_owned())
        } else if host_matches(host, &pattern) {
            Some(pattern)
        } else {
            None
        }
    }

    /// Whether one of its hosts covers one of those of rules for connections.
    pub(super) fn covers_any<'h>(
        &self,
        hosts: impl IntoIterator<Item = &'h String>,
        namespace: &str,
    ) -> bool {
        hosts.into_iter().any(|host| {
            self.hosts.iter().any(|pattern| {
                let pattern = match pattern.split_once('/') {
                    Some((wanted, _)) if wanted != namespace => return false,
                    Some((_, pattern)) => pattern,
                    None => pattern,
                };
                let pattern = pattern.to_ascii_lowercase();
                host_matches(&pattern, host) || host_matches(host, &pattern)
            })
        })
    }
}

/// Servers that share an address, a port and a protocol.
pub(super) struct Shared<'a> {
    pub(super) port: u32,
    pub(super) bind: &'a str,
    protocol: String,
    pub(super) servers: Vec<Served<'a>>,
}

impl Shared<'_> {
    /// Whether one connection manager serves all of them.
    pub(super) fn is_plain_http(&self) -> bool {
        Protocol::of_name(&self.protocol).is_http()
    }
}

/// The servers of a proxy that do not exclude each other, in the order in which the first of each port came.
#[derive(Default)]
pub(super) struct Merged<'a> {
    pub(super) shared: Vec<Shared<'a>>,
    /// Servers by the name of their route configuration.
    pub(super) by_route: BTreeMap<String, Vec<Served<'a>>>,
    /// Ports that are taken, with the plain server that took each.
    ports: BTreeSet<u32>,
    plain: BTreeMap<u32, usize>,
    /// Hosts of TLS servers by port, with the address that each is bound to.
    tls_hosts: BTreeMap<u32, BTreeMap<String, &'a str>>,
    /// Addresses of TLS servers by port.
    tls_binds: BTreeMap<u32, BTreeSet<&'a str>>,
}

/// Puts the servers of all gateways of a proxy together; the older gateway wins where two exclude each other.
pub(super) fn merged<'a>(index: &'a Index, proxy: &'a Proxy) -> Merged<'a> {
    let mut gateways: Vec<&Gateway> = index.gateways().collect();
    gateways.sort_by_key(|gateway| {
        (
            gateway.created(),
            gateway.name().to_owned(),
            gateway.namespace().to_owned(),
        )
    });
    let services = index.services_of(proxy);
    let mut merged = Merged::default();
    for gateway in gateways {
        let Some(translation) = Translation::of(index, proxy, gateway, &services) else {
            continue;
        };
        for server in &gateway.spec.servers {
            for port in translation.ports(server.port.number) {
                merged.add(served(gateway, server, port));
            }
        }
    }
    merged
}

/// Hosts of the servers that pass TLS on by its server name alone.
pub(in crate::translate) fn auto_passthrough_hosts(index: &Index, proxy: &Proxy) -> Vec<String> {
    if proxy.kind != ProxyKind::Router {
        return Vec::new();
    }
    let merged = merged(index, proxy);
    let servers = merged.shared.iter().flat_map(|shared| &shared.servers);
    servers
        .filter(|served| served.is_auto_passthrough())
        .flat_map(|served| served.server_names())
        .collect()
}

fn is_https(server: &Server) -> bool {
    server.port.protocol.eq_ignore_ascii_case("HTTPS")
}

fn served<'a>(gateway: &'a Gateway, server: &'a Server, port: u32) -> Served<'a> {
    let hosts = server.hosts.iter().map(|host| match host.split_once('/') {
        Some((".", host)) => format!("{}/{host}", gateway.namespace()),
        Some(("*", host)) => host.to_owned(),
        _ => host.clone(),
    });
    let mut hosts: Vec<String> = hosts.collect();
    if server.hosts.iter().any(|host| host == "*/*") {
        hosts = vec!["*".to_owned()];
    }
    let mut served = Served {
        gateway,
        server,
        protocol: Protocol::of_name(&server.port.protocol),
        port,
        hosts,
        route_name: String::new(),
    };
    let bind = match server.bind.as_str() {
        "" => String::new(),
        bind => format!(".{bind}"),
    };
    served.route_name = if served.protocol.is_http() {
        format!("http.{port}{bind}")
    } else if served.routes_requests() {
        let (number, name) = (server.port.number, &server.port.name);
        let (gateway, namespace) = (gateway.name(), gateway.namespace());
        format!("https.{number}.{name}.{gateway}.{namespace}{bind}")
    } else {
        String::new()
    };
    served
}

impl<'a> Merged<'a> {
    /// Adds a server, unless one that is there already excludes it:
    /// plain HTTP goes with plain HTTP, TLS with TLS of other server names, and nothing else shares a port.
    fn add(&mut self, served: Served<'a>) {
        let bind = served.server.bind.as_str();
        let port = served.port;
        if served.server.tls.is_some() {
            let known = self.tls_hosts.entry(port).or_default();
            let taken = |host: &String| known.get(host) == Some(&bind);
            if served.hosts.iter().any(taken) {
                return;
            }
            known.extend(served.hosts.iter().map(|host| (host.clone(), bind)));
        }
        if self.ports.insert(port) {
            return self.open(served);
        }
        match self.plain.get(&port).copied() {
            Some(current) if self.shared[current].bind == bind => {
                let current = &mut self.shared[current];
                let there = Protocol::of_name(&current.protocol);
                let mergeable = served.protocol.is_http()
                    && (there.is_http() || there == served.protocol)
                    && !served.route_name.is_empty();
                if mergeable {
                    current.servers.push(served.clone());
                    let routed = self.by_route.entry(served.route_name.clone());
                    routed.or_default().push(served);
                }
            }
            Some(_) => self.join_or_open(served),
            None if !served.is_tls() => self.open(served),
            None => {
                if served.routes_requests() {
                    if self.by_route.contains_key(&served.route_name) {
                        return;
                    }
                    let routed = vec![served.clone()];
                    self.by_route.insert(served.route_name.clone(), routed);
                }
                self.tls_binds.entry(port).or_default().insert(bind);
                self.join(served);
            }
        }
    }

    /// The first server of a port, or of an address of it.
    fn open(&mut self, served: Served<'a>) {
        if !served.is_tls() {
            self.plain.insert(served.port, self.shared.len());
        }
        if served.routes_requests() {
            let routed = vec![served.clone()];
            self.by_route.insert(served.route_name.clone(), routed);
        }
        self.shared.push(Shared {
            port: served.port,
            bind: &served.server.bind,
            protocol: served.server.port.protocol.clone(),
            servers: vec![served],
        });
    }

    fn join_or_open(&mut self, served: Served<'a>) {
        if self.position(&served).is_none() {
            return self.open(served);
        }
        let routed = self.by_route.entry(served.route_name.clone());
        routed.or_default().push(served.clone());
        self.join(served);
    }

    fn join(&mut self, served: Served<'a>) {
        match self.position(&served) {
            Some(position) => self.shared[position].servers.push(served),
            None => self.shared.push(Shared {
                port: served.port,
                bind: &served.server.bind,
                protocol: served.server.port.protocol.clone(),
                servers: vec![served],
            }),
        }
    }

    fn position(&self, served: &Served<'_>) -> Option<usize> {
        self.shared.iter().position(|shared| {
            shared.port == served.port
                && shared.bind == served.server.bind
                && shared.protocol == served.server.port.protocol
        })
    }
}

/// How ports of a gateway become ports of the proxy.
struct Translation<'a> {
    index: &'a Index,
    proxy: &'a Proxy,
    services: Vec<&'a Service>,
    /// Whether the gateway names its services, so that other ports do not exist.
    by_service: bool,
}

impl<'a> Translation<'a> {
    /// `None` when the gateway does not apply to the proxy.
    fn of(
        index: &'a Index,
        proxy: &'a Proxy,
        gateway: &Gateway,
        services: &[&'a Service],
    ) -> Option<Self> {
        let annotations = gateway.metadata.annotations.as_ref();
        let named = annotations.and_then(|all| all.get(SERVICE_ANNOTATION));
        let chosen: Vec<&Service> = match named {
            Some(hosts) => {
                let hosts: Vec<&str> = hosts.split(',').collect();
                let own = services.iter().copied().filter(|service| {
                    hosts.contains(&service.host.as_str())
                        && service.namespace == gateway.namespace()
                });
                own.collect()
            }
            None => {
                if !labels_match(&gateway.spec.selector, &proxy.labels) {
                    return None;
                }
                let translated = services
                    .iter()
                    .copied()
                    .filter(|service| !service.labels.contains_key(NO_TRANSLATION_LABEL));
                translated.collect()
            }
        };
        (named.is_none() || !chosen.is_empty()).then_some(Self {
            index,
            proxy,
            services: chosen,
            by_service: named.is_some(),
        })
    }

    fn ports(&self, number: u32) -> Vec<u32> {
        let targets = self.services.iter().filter_map(|service| {
            self.index
                .own_port(self.proxy, service, service.port(number)?)
        });
        if self.by_service {
            let targets: BTreeSet<u32> = targets.collect();
            return targets.into_iter().collect();
        }
        vec![targets.into_iter().next().unwrap_or(number)]
    }
}

/// The host of `namespace/host`.
pub(super) fn host_of(pattern: &str) -> &str {
    pattern.split_once('/').map_or(pattern, |(_, host)| host)
}
