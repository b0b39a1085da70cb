//! Single connections and requests: which listener, filter chain, route and cluster they meet.
//!
//! The translation's own resources are walked the way a proxy walks them; routes are decided by `lateen-route`, the
//! code that decides in the proxy.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context, Result};
use http::HeaderMap;
use lateen_mesh::{Index, MeshConfig, Proxy, resources};
use lateen_route::{Action, Decision, RequestView, RouteTable, route::Target};
use lateen_xds::{
    Names, ResourceType,
    pb::{
        envoy::{
            config::{
                core::v3::{
                    CidrRange, Node, address::Address, socket_address::PortSpecifier,
                    transport_socket::ConfigType,
                },
                listener::v3::{
                    FilterChain, Listener, ListenerFilterChainMatchPredicate, filter,
                    listener_filter_chain_match_predicate::Rule,
                },
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
        google::protobuf::{Struct, Value as Field, value::Kind},
    },
};
use prost::Message;
use serde_json::Value;

use super::{Case, Outcome, routes::index_of};

/// Address of clients and servers that a case does not name.
const SOME_ADDRESS: &str = "1.3.3.7";

/// Runs all calls of all cases.
pub(crate) fn run(cases: &Value) -> Result<Vec<Case>> {
    let mut results = Vec::new();
    for case in cases.as_array().into_iter().flatten() {
        let text = |field: &str| case[field].as_str().unwrap_or_default();
        let group = format!("{} {}", text("test"), text("name"));
        let dynamic =
            case["meshConfig"]["outboundTrafficPolicy"]["mode"] == "ALLOW_ANY_DYNAMIC_DNS";
        let mesh: MeshConfig = match &case["meshConfig"] {
            Value::Object(_) if !dynamic => {
                serde_json::from_value(case["meshConfig"].clone()).with_context(|| group.clone())?
            }
            _ => MeshConfig::default(),
        };
        let index = index_of(&[text("config"), text("kubeConfig")], mesh);
        for call in case["calls"].as_array().into_iter().flatten() {
            let outcome = match &index {
                _ if dynamic => Outcome::NotServed,
                Ok(index) => compare(index, &proxy_of(&case["proxy"])?, call)?,
                Err(error) => Outcome::Failed(format!("{error:#}")),
            };
            let name = call["name"].as_str().unwrap_or_default().to_owned();
            results.push(Case {
                group: group.clone(),
                name,
                outcome,
            });
        }
    }
    Ok(results)
}

/// The proxy of a case.
pub(crate) fn proxy_of(description: &Value) -> Result<Proxy> {
    let text =
        |field: &str, default: &str| description[field].as_str().unwrap_or(default).to_owned();
    let (kind, namespace) = (text("type", "sidecar"), text("namespace", "default"));
    let string = |text: &str| Field {
        kind: Some(Kind::StringValue(text.to_owned())),
    };
    let labels = description["labels"].as_object().into_iter().flatten();
    let labels =
        labels.map(|(key, value)| (key.clone(), string(value.as_str().unwrap_or_default())));
    let labels = Field {
        kind: Some(Kind::StructValue(Struct {
            fields: labels.collect(),
        })),
    };
    let metadata = [
        ("NAMESPACE".to_owned(), string(&namespace)),
        ("LABELS".to_owned(), labels),
    ];
    let node = Node {
        id: format!(
            "{kind}~{}~app.{namespace}~{namespace}.svc.cluster.local",
            text("ip", "1.1.1.1")
        ),
        metadata: Some(Struct {
            fields: metadata.into(),
        }),
        ..Node::default()
    };
    Proxy::from_node(&node).context("the case's proxy")
}

/// A connection or request.
struct Call<'a> {
    address: &'a str,
    port: u32,
    path: &'a str,
    protocol: &'a str,
    tls: &'a str,
    alpn: String,
    host: &'a str,
    server_name: &'a str,
    inbound: bool,
    /// Name of the server's certificate that a client of mutual TLS expects.
    client_secret: &'a str,
}

impl<'a> Call<'a> {
    fn of(call: &'a Value) -> Self {
        let text = |field: &str, default: &'static str| -> &'a str {
            call[field]
                .as_str()
                .filter(|text| !text.is_empty())
                .unwrap_or(default)
        };
        let (protocol, tls, host) = (
            text("Protocol", ""),
            text("TLS", "plaintext"),
            text("HostHeader", ""),
        );
        let alpn = match (text("Alpn", ""), tls, protocol) {
            ("", "plaintext", "http") | ("", "tls", "http") => "http/1.1",
            ("", "plaintext", "http2") => "h2c",
            ("", "tls", "http2") => "h2",
            ("", "mtls", "http") => "istio-http/1.1",
            ("", "mtls", "http2") => "istio-h2",
            ("", "mtls", "tcp") => "istio",
            (given, _, _) => given,
        };
        Self {
            address: text("Address", SOME_ADDRESS),
            port: call["Port"]
                .as_u64()
                .and_then(|port| u32::try_from(port).ok())
                .unwrap_or_default(),
            path: text("Path", "/"),
            alpn: alpn.to_owned(),
            server_name: text("Sni", if tls == "tls" { "-" } else { "" }),
            inbound: text("CallMode", "") == "inbound",
            client_secret: text("MtlsSecretConfigName", "default"),
            protocol,
            tls,
            host,
        }
        .with_server_name()
    }

    /// Clients of TLS name the host that they call.
    fn with_server_name(mut self) -> Self {
        if self.server_name == "-" {
            self.server_name = self.host;
        }
        self
    }
}

/// What a call met.
#[derive(Default)]
struct Met {
    fields: BTreeMap<&'static str, String>,
    error: &'static str,
}

fn compare(index: &Index, proxy: &Proxy, call: &Value) -> Result<Outcome> {
    let met = walk(index, proxy, &Call::of(&call["call"]))?;
    let expected = &call["result"];
    let error = expected["Error"].as_str().unwrap_or_default();
    if error != met.error {
        return Ok(Outcome::Failed(format!(
            "error {:?}, expected {error:?}; met {:?}",
            met.error, met.fields
        )));
    }
    let strict = expected["StrictMatch"] == true;
    for field in [
        "ListenerMatched",
        "FilterChainMatched",
        "RouteConfigMatched",
        "VirtualHostMatched",
        "RouteMatched",
        "ClusterMatched",
    ] {
        let wanted = expected[field].as_str().unwrap_or_default();
        let found = met
            .fields
            .get(field)
            .map(String::as_str)
            .unwrap_or_default();
        if (strict || !wanted.is_empty()) && short(wanted) != short(found) {
            return Ok(Outcome::Failed(format!(
                "{field} {found:?}, expected {wanted:?}"
            )));
        }
    }
    Ok(Outcome::Passed)
}

/// The cases were made in a cluster without a domain.
fn short(name: &str) -> String {
    name.replace(".svc.cluster.local", "")
}

fn walk(index: &Index, proxy: &Proxy, call: &Call<'_>) -> Result<Met> {
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

/// The filter chain that a proxy takes: by port, server name, transport and application protocol, in this order.
fn filter_chain<'a>(listener: &'a Listener, call: &Call<'_>) -> Option<&'a FilterChain> {
    let inspects = |name: &str| {
        let named = listener
            .listener_filters
            .iter()
            .find(|filter| filter.name == name);
        named.is_some_and(|filter| {
            let disabled = filter.filter_disabled.as_ref();
            !disabled.is_some_and(|predicate| met_by(predicate, call.port))
        })
    };
    let reads_tls = inspects("envoy.filters.listener.tls_inspector");
    let encrypted = call.tls != "plaintext" && reads_tls;
    let transport = if encrypted { "tls" } else { "raw_buffer" };
    let reads_http = inspects("envoy.filters.listener.http_inspector") && call.tls == "plaintext";
    let application = if encrypted || reads_http {
        call.alpn.as_str()
    } else {
        ""
    };
    let server_name = if reads_tls { call.server_name } else { "" };

    let matching = |chain: &'a FilterChain| chain.filter_chain_match.as_ref();
    let mut chains: Vec<&FilterChain> = listener.filter_chains.iter().collect();
    let port = |chain: &&FilterChain| {
        chain
            .filter_chain_match
            .as_ref()
            .and_then(|matching| matching.destination_port)
            .map(|port| port.value)
    };
    narrow(
        &mut chains,
        |chain| port(chain) == Some(call.port),
        |chain| port(chain).is_none(),
    );
    let ranges = |chain: &'a FilterChain| {
        matching(chain).map_or(&[][..], |matching| &matching.prefix_ranges)
    };
    let longest = |chain: &&'a FilterChain| {
        let covering = ranges(chain)
            .iter()
            .filter(|range| covers(range, call.address));
        covering
            .map(|range| range.prefix_len.map_or(0, |length| length.value))
            .max()
    };
    let best = chains.iter().filter_map(longest).max();
    narrow(
        &mut chains,
        |chain| best.is_some() && longest(chain) == best,
        |chain| ranges(chain).is_empty(),
    );
    let names =
        |chain: &'a FilterChain| matching(chain).map_or(&[][..], |matching| &matching.server_names);
    let mut candidates = vec![server_name.to_owned()];
    let mut rest = server_name;
    while let Some((_, parent)) = rest.split_once('.') {
        candidates.push(format!("*.{parent}"));
        rest = parent;
    }
    let named = candidates.iter().find_map(|name| {
        let found: Vec<&FilterChain> = chains
            .iter()
            .copied()
            .filter(|chain| names(chain).contains(name))
            .collect();
        (!name.is_empty() && !found.is_empty()).then_some(found)
    });
    chains = named.unwrap_or_else(|| {
        chains
            .iter()
            .copied()
            .filter(|chain| names(chain).is_empty())
            .collect()
    });
    let of = |chain: &'a FilterChain| {
        matching(chain).map_or("", |matching| matching.transport_protocol.as_str())
    };
    narrow(
        &mut chains,
        |chain| of(chain) == transport,
        |chain| of(chain).is_empty(),
    );
    let protocols = |chain: &'a FilterChain| {
        matching(chain).map_or(&[][..], |matching| &matching.application_protocols)
    };
    narrow(
        &mut chains,
        |chain| {
            protocols(chain)
                .iter()
                .any(|protocol| protocol == application)
        },
        |chain| protocols(chain).is_empty(),
    );
    chains
        .first()
        .copied()
        .or(listener.default_filter_chain.as_ref())
}

/// Whether a network has an address.
fn covers(range: &CidrRange, address: &str) -> bool {
    let bits = |text: &str| match text.parse() {
        Ok(IpAddr::V4(address)) => Some((u128::from(u32::from(address)) << 96, true)),
        Ok(IpAddr::V6(address)) => Some((u128::from(address), false)),
        Err(_) => None,
    };
    let length = range.prefix_len.map_or(0, |length| length.value);
    let kept = u128::MAX
        .checked_shl(128_u32.saturating_sub(length))
        .unwrap_or(0);
    match (bits(&range.address_prefix), bits(address)) {
        (Some((network, four)), Some((address, also_four))) => {
            four == also_four && network & kept == address & kept
        }
        _ => false,
    }
}

/// Keeps the chains that ask for what is there, else those that do not care.
fn narrow<'a>(
    chains: &mut Vec<&'a FilterChain>,
    wanted: impl Fn(&&'a FilterChain) -> bool,
    indifferent: impl Fn(&&'a FilterChain) -> bool,
) {
    let found: Vec<&FilterChain> = chains
        .iter()
        .copied()
        .filter(|chain| wanted(chain))
        .collect();
    if found.is_empty() {
        chains.retain(|chain| indifferent(chain));
    } else {
        *chains = found;
    }
}

/// Whether a connection to a port meets a listener filter's predicate.
fn met_by(predicate: &ListenerFilterChainMatchPredicate, port: u32) -> bool {
    match &predicate.rule {
        Some(Rule::DestinationPortRange(range)) => {
            i64::from(range.start) <= i64::from(port) && i64::from(port) < i64::from(range.end)
        }
        Some(Rule::OrMatch(set)) => set.rules.iter().any(|rule| met_by(rule, port)),
        Some(Rule::AndMatch(set)) => set.rules.iter().all(|rule| met_by(rule, port)),
        Some(Rule::NotMatch(rule)) => !met_by(rule, port),
        Some(Rule::AnyMatch(any)) => *any,
        None => false,
    }
}
