//! Route configurations and virtual hosts.

use std::collections::BTreeSet;

use lateen_xds::pb::envoy::config::route::v3::{
    DirectResponseAction, Route, RouteAction, RouteConfiguration, VirtualHost, route::Action,
    route_action::ClusterSpecifier,
};

use super::{
    build::{flag, number, seconds},
    http_match,
};

/// Largest body of a fixed response in bytes.
const MAX_DIRECT_RESPONSE: u32 = 1024 * 1024;

/// A route configuration.
pub(super) fn configuration(name: &str, virtual_hosts: Vec<VirtualHost>) -> RouteConfiguration {
    RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts,
        validate_clusters: flag(false),
        max_direct_response_body_size_bytes: number(MAX_DIRECT_RESPONSE),
        ignore_port_in_host_matching: true,
        ..RouteConfiguration::default()
    }
}

/// A virtual host.
pub(super) fn virtual_host(name: String, domains: Vec<String>, routes: Vec<Route>) -> VirtualHost {
    VirtualHost {
        name,
        domains,
        routes,
        include_request_attempt_count: true,
        ..VirtualHost::default()
    }
}

/// Requests to unknown hosts: they pass, or are answered with 502.
#[allow(deprecated)] // `max_grpc_timeout` is what Istio sends to every Envoy
pub(super) fn unknown_hosts(cluster: Option<String>) -> VirtualHost {
    let (name, action) = if let Some(cluster) = cluster {
        let action = RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)),
            timeout: seconds(0),
            max_grpc_timeout: seconds(0),
            ..RouteAction::default()
        };
        ("allow_any", Action::Route(action))
    } else {
        (
            "block_all",
            Action::DirectResponse(DirectResponseAction {
                status: 502,
                ..DirectResponseAction::default()
            }),
        )
    };
    let route = Route {
        name: name.to_owned(),
        r#match: Some(http_match::route_match(
            None,
            http_match::Prefixes::Characters,
        )),
        action: Some(action),
        ..Route::default()
    };
    virtual_host(name.to_owned(), vec!["*".to_owned()], vec![route])
}

/// Takes domains away that an earlier virtual host has, and hosts that have none left: Envoy refuses doubles.
pub(super) fn without_duplicates(hosts: Vec<VirtualHost>) -> Vec<VirtualHost> {
    let mut seen = BTreeSet::new();
    let mut kept = Vec::new();
    for mut host in hosts {
        host.domains.retain(|domain| seen.insert(domain.clone()));
        if !host.domains.is_empty() {
            kept.push(host);
        }
    }
    kept
}
