//! The way of a call: listener, filter chain, and then cluster, or routes.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use http::HeaderMap;
use lateen_mesh::{Index, Proxy, resources};
use lateen_route::{Action, Decision, RequestView, RouteTable, route::Target};
use lateen_xds::{
    Names, ResourceType,
    pb::envoy::{
        config::{
            core::v3::{
                address::Address, socket_address::PortSpecifier, transport_socket::ConfigType,
            },
            listener::v3::{FilterChain, Listener, filter},
            route::v3::RouteConfiguration,
        },
        extensions::{
            filters::network::{
                http_connection_manager::v3::{
                    HttpConnectionManager, http_connection_manager::RouteSpecifier,
                },
                tcp_proxy::v3::{TcpProxy, tcp_proxy::ClusterSpecifier},
            },
            transport_sockets::tls::v3::DownstreamTlsContext,
        },
    },
};
use prost::Message;

use super::{call::Call, filter_chain::filter_chain};

/// What a call met.
#[derive(Default)]
pub(super) struct Met {
    pub(super) fields: BTreeMap<&'static str, String>,
    /// Why it went no further; empty when it found its way.
    pub(super) error: &'static str,
}

/// Walks the resources of a proxy the way that a call takes.
pub(super) fn walk(index: &Index, proxy: &Proxy, call: &Call<'_>) -> Result<Met> {
    let mut met = Met::default();
    let fail = |mut met: Met, error| {
        met.error = error;
        Ok(met)
    };
    let listeners: BTreeMap<String, Listener> =
        resources(index, proxy, ResourceType::Listener, &Names::All)
            .into_iter()
            .map(|resource| {
                Ok((
                    resource.name,
                    Listener::decode(resource.body.value.as_slice())?,
                ))
            })
            .collect::<Result<_>>()?;
    // Connections are handed over by the address that they were for.
    let at = |host: &str| {
        listeners.values().find(|listener| {
            let address = listener
                .address
                .as_ref()
                .and_then(|one| one.address.as_ref());
            matches!(address, Some(Address::SocketAddress(address))
                if address.address == host
                    && address.port_specifier == Some(PortSpecifier::PortValue(call.port)))
        })
    };
    let found = if call.inbound {
        listeners.get("virtualInbound")
    } else {
        let handed = at(call.address).or_else(|| at("0.0.0.0"));
        handed.or_else(|| listeners.get("virtualOutbound"))
    };
    let Some(listener) = found else {
        return fail(met, "ErrNoListener");
    };
    met.fields.insert("ListenerMatched", listener.name.clone());
    let Some(chain) = filter_chain(listener, call) else {
        return fail(met, "ErrNoFilterChain");
    };
    met.fields.insert("FilterChainMatched", chain.name.clone());
    let ends_tls = chain.transport_socket.is_some();
    if ends_tls && call.tls == "plaintext" {
        return fail(met, "ErrTLSError");
    }
    if ends_tls && demands_client(chain, call.client_secret)? != (call.tls == "mtls") {
        return fail(met, "ErrMTLSError");
    }
    for network_filter in &chain.filters {
        let Some(filter::ConfigType::TypedConfig(config)) = &network_filter.config_type else {
            continue;
        };
        match network_filter.name.as_str() {
            "envoy.filters.network.tcp_proxy" => {
                let tcp = TcpProxy::decode(config.value.as_slice())?;
                if let Some(ClusterSpecifier::Cluster(cluster)) = tcp.cluster_specifier {
                    met.fields.insert("ClusterMatched", cluster);
                }
            }
            "envoy.filters.network.http_connection_manager" => {
                if (call.tls != "plaintext" && !ends_tls) || !call.protocol.starts_with("http") {
                    return fail(met, "ErrProtocolError");
                }
                let manager = HttpConnectionManager::decode(config.value.as_slice())?;
                let error = request(index, proxy, manager, call, &mut met)?;
                return fail(met, error);
            }
            _ => {}
        }
    }
    Ok(met)
}

/// Whether a chain takes only clients with a certificate, and serves the secret that they trust.
fn demands_client(chain: &FilterChain, secret: &str) -> Result<bool> {
    let config = chain.transport_socket.as_ref();
    let Some(ConfigType::TypedConfig(config)) =
        config.and_then(|socket| socket.config_type.as_ref())
    else {
        return Ok(false);
    };
    let context = DownstreamTlsContext::decode(config.value.as_slice())?;
    let required = context
        .require_client_certificate
        .is_some_and(|required| required.value);
    let common = context.common_tls_context.unwrap_or_default();
    let served = common.tls_certificate_sds_secret_configs.first();
    Ok(required && served.is_some_and(|served| served.name == secret))
}

/// Routes a request; the error is empty when it found its way.
fn request(
    index: &Index,
    proxy: &Proxy,
    manager: HttpConnectionManager,
    call: &Call<'_>,
    met: &mut Met,
) -> Result<&'static str> {
    let configuration = match manager.route_specifier {
        Some(RouteSpecifier::RouteConfig(configuration)) => configuration,
        Some(RouteSpecifier::Rds(rds)) => {
            let names = [rds.route_config_name].into_iter().collect();
            let found = resources(index, proxy, ResourceType::Route, &names);
            let resource = found
                .first()
                .context("the listener's routes are not there")?;
            RouteConfiguration::decode(resource.body.value.as_slice())?
        }
        _ => return Ok("ErrNoRoute"),
    };
    met.fields
        .insert("RouteConfigMatched", configuration.name.clone());
    let table = RouteTable::compile(configuration).map_err(|error| anyhow::anyhow!("{error}"))?;
    let headers = HeaderMap::new();
    let view = RequestView {
        method: "GET",
        scheme: if call.tls == "plaintext" {
            "http"
        } else {
            "https"
        },
        authority: call.host,
        path: call.path,
        headers: &headers,
    };
    let Some(host) = table.virtual_host(call.host) else {
        return Ok("ErrNoVirtualHost");
    };
    met.fields.insert("VirtualHostMatched", host.name.clone());
    match table.decide(&view, 0) {
        Decision::NotFound => Ok("ErrNoRoute"),
        Decision::RedirectToHttps(_) => Ok("ErrTLSRedirect"),
        Decision::Route {
            route, weighted, ..
        } => {
            met.fields.insert("RouteMatched", route.name.clone());
            if let Action::Forward(forward) = &route.action {
                let cluster = match (&forward.target, weighted) {
                    (Target::Cluster(name), _) => Some(name.clone()),
                    (Target::Weighted { clusters, .. }, Some(drawn)) => {
                        clusters.get(drawn).map(|one| one.name.clone())
                    }
                    _ => None,
                };
                met.fields
                    .extend(cluster.map(|cluster| ("ClusterMatched", cluster)));
            }
            Ok("")
        }
    }
}
