//! Which filter chain of a listener takes a connection.

use std::net::IpAddr;

use lateen_xds::pb::envoy::config::{
    core::v3::CidrRange,
    listener::v3::{
        FilterChain, FilterChainMatch, Listener, ListenerFilterChainMatchPredicate,
        listener_filter_chain_match_predicate::Rule,
    },
};

use super::call::Call;

/// The filter chain that a proxy takes: by port, address, server name, transport and application protocol, in this order.
pub(super) fn filter_chain<'a>(listener: &'a Listener, call: &Call<'_>) -> Option<&'a FilterChain> {
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

    let mut chains: Vec<&FilterChain> = listener.filter_chains.iter().collect();
    let port = |chain: &FilterChain| {
        let port = matching(chain)?.destination_port.as_ref()?;
        Some(port.value)
    };
    narrow(
        &mut chains,
        |chain| port(chain) == Some(call.port),
        |chain| port(chain).is_none(),
    );
    narrow_by_address(&mut chains, call.address);
    narrow_by_server_name(&mut chains, server_name);
    let wanted_transport = |chain: &'a FilterChain| {
        matching(chain).map_or("", |matching| matching.transport_protocol.as_str())
    };
    narrow(
        &mut chains,
        |chain| wanted_transport(chain) == transport,
        |chain| wanted_transport(chain).is_empty(),
    );
    let protocols = |chain: &'a FilterChain| {
        matching(chain).map_or(&[][..], |matching| &matching.application_protocols)
    };
    narrow(
        &mut chains,
        |chain| protocols(chain).iter().any(|one| one == application),
        |chain| protocols(chain).is_empty(),
    );
    chains
        .first()
        .copied()
        .or(listener.default_filter_chain.as_ref())
}

/// Keeps the chains with the longest network that has the address.
fn narrow_by_address(chains: &mut Vec<&FilterChain>, address: &str) {
    fn ranges(chain: &FilterChain) -> &[CidrRange] {
        matching(chain).map_or(&[][..], |matching| &matching.prefix_ranges)
    }
    let longest = |chain: &FilterChain| {
        let covering = ranges(chain).iter().filter(|range| covers(range, address));
        covering
            .map(|range| range.prefix_len.map_or(0, |length| length.value))
            .max()
    };
    let best = chains.iter().filter_map(|chain| longest(chain)).max();
    narrow(
        chains,
        |chain| best.is_some() && longest(chain) == best,
        |chain| ranges(chain).is_empty(),
    );
}

/// Keeps the chains for the server name, else for the closest wildcard above it.
fn narrow_by_server_name(chains: &mut Vec<&FilterChain>, server_name: &str) {
    fn names(chain: &FilterChain) -> &[String] {
        matching(chain).map_or(&[][..], |matching| &matching.server_names)
    }
    let mut candidates = Vec::new();
    if !server_name.is_empty() {
        candidates.push(server_name.to_owned());
    }
    let mut rest = server_name;
    while let Some((_, parent)) = rest.split_once('.') {
        candidates.push(format!("*.{parent}"));
        rest = parent;
    }
    let mut candidates = candidates.iter();
    let found = candidates.find(|name| chains.iter().any(|chain| names(chain).contains(name)));
    narrow(
        chains,
        |chain| found.is_some_and(|name| names(chain).contains(name)),
        |chain| names(chain).is_empty(),
    );
}

fn matching(chain: &FilterChain) -> Option<&FilterChainMatch> {
    chain.filter_chain_match.as_ref()
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
    wanted: impl Fn(&'a FilterChain) -> bool,
    indifferent: impl Fn(&'a FilterChain) -> bool,
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
