//! Route configurations of gateways.

use lateen_api::VirtualService;
use lateen_xds::pb::envoy::config::route::v3::{
    Route, RouteConfiguration, VirtualHost, virtual_host::TlsRequirementType,
};

use super::servers::{Served, merged};
use crate::{
    Index, Proxy,
    translate::{
        http_match,
        http_route::{self, Place},
        route_config::{configuration as route_configuration, virtual_host, without_duplicates},
    },
};

/// A route configuration by name, `http.8080` or `https.443.PORT-NAME.GATEWAY.NAMESPACE`.
pub(in crate::translate) fn configuration(
    index: &Index,
    proxy: &Proxy,
    name: &str,
) -> Option<RouteConfiguration> {
    let merged = merged(index, proxy);
    let servers = merged.by_route.get(name)?;
    let first = servers.first()?.server.port.number;
    let mut hosts: Vec<VirtualHost> = Vec::new();
    for served in servers {
        let number = served.server.port.number;
        let gateways = [served.gateway_name()];
        for rules in index.virtual_services(proxy, &gateways[0]) {
            let lookup = |host: &str| index.service_for_rules(host, rules.namespace(), proxy);
            let place = Place {
                index,
                proxy,
                gateways: &gateways,
                port: number,
                tls: !served.protocol.is_http(),
                services: &lookup,
            };
            let wanted = intersections(index, served, rules);
            if wanted.is_empty() || rules.spec.http.is_empty() {
                continue;
            }
            let routes = http_route::routes(&place, rules);
            for host in wanted {
                add_routes(&mut hosts, &host, number, &routes, served.redirects());
            }
        }
        if served.redirects() {
            // Hosts that nothing is routed for are redirected all the same.
            for host in served.server_names() {
                let host = host.to_ascii_lowercase();
                add_routes(&mut hosts, &host, number, &[], true);
            }
        }
    }
    for host in &mut hosts {
        // What takes everything comes last, whichever virtual service it is of.
        host.routes
            .sort_by_key(|route| route.r#match.as_ref().is_some_and(http_match::matches_all));
    }
    if hosts.is_empty() {
        let nothing = virtual_host(
            format!("blackhole:{first}"),
            vec!["*".to_owned()],
            Vec::new(),
        );
        hosts.push(VirtualHost {
            include_request_attempt_count: false,
            ..nothing
        });
    }
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    let hosts = without_duplicates(collapsed(hosts));
    Some(route_configuration(name, hosts))
}

/// Hosts with the same routes become one: a virtual service with many hosts would be sent many times.
fn collapsed(hosts: Vec<VirtualHost>) -> Vec<VirtualHost> {
    let mut kept: Vec<VirtualHost> = Vec::new();
    for host in hosts {
        let same = kept
            .iter_mut()
            .find(|other| other.require_tls == host.require_tls && other.routes == host.routes);
        match same {
            Some(other) => other.domains.extend(host.domains),
            None => kept.push(host),
        }
    }
    kept
}

/// Adds routes to a host. The first server that has it names it.
fn add_routes(
    hosts: &mut Vec<VirtualHost>,
    host: &str,
    port: u32,
    routes: &[Route],
    redirects: bool,
) {
    let same = |candidate: &VirtualHost| candidate.domains.iter().any(|domain| domain == host);
    let index = hosts.iter().position(same).unwrap_or_else(|| {
        let name = format!("{host}:{port}");
        hosts.push(virtual_host(name, vec![host.to_owned()], Vec::new()));
        hosts.len() - 1
    });
    hosts[index].routes.extend_from_slice(routes);
    if redirects {
        hosts[index].require_tls = TlsRequirementType::All.into();
    }
}

/// The hosts that both a server and a virtual service have; the more specific one of each pair.
fn intersections(index: &Index, served: &Served<'_>, rules: &VirtualService) -> Vec<String> {
    let mut found = Vec::new();
    for host in &rules.spec.hosts {
        let host = index.resolve(host, rules.namespace());
        for pattern in &served.hosts {
            let common = served.common_host(pattern, &host, rules.namespace());
            found.extend(common.filter(|host| !found.contains(host)));
        }
    }
    found
}
