//! Filter chain matching with Envoy's order: each step keeps the chains with the most specific value that fits, and
//! never goes back.

use std::net::IpAddr;

use lateen_route::{Invalid, Within, refuse_rest};
use lateen_xds::pb::envoy::config::core::v3::CidrRange;
use lateen_xds::pb::envoy::config::listener::v3::FilterChainMatch;
use lateen_xds::pb::envoy::config::listener::v3::filter_chain_match::ConnectionSourceType;

/// The conditions of every chain of a listener, in order.
#[derive(Debug, Default)]
pub(crate) struct ChainMatcher {
    conditions: Vec<Conditions>,
}

/// The conditions of one chain.
#[derive(Debug, Default, PartialEq, Eq)]
struct Conditions {
    port: Option<u16>,
    destinations: Vec<(IpAddr, u8)>,
    /// Lower case; `*.suffix` is kept as `.suffix`.
    server_names: Vec<String>,
    transport: String,
    protocols: Vec<String>,
    direct_sources: Vec<(IpAddr, u8)>,
    origin: Origin,
    sources: Vec<(IpAddr, u8)>,
    source_ports: Vec<u16>,
}

/// Where clients are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Origin {
    #[default]
    Any,
    /// On the same host: by a loopback address, or the address that they connect to.
    Local,
    Elsewhere,
}

/// What is known of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'f> {
    pub(crate) destination: std::net::SocketAddr,
    pub(crate) source: std::net::SocketAddr,
    /// Server name of a TLS client hello, lower case; empty when there is none.
    pub(crate) server_name: &'f str,
    /// `tls` or `raw_buffer`.
    pub(crate) transport: &'f str,
    /// Protocols in the order of the client's preference.
    pub(crate) protocols: &'f [String],
}

impl ChainMatcher {
    /// Adds the conditions of the next chain.
    pub(crate) fn push(&mut self, message: Option<FilterChainMatch>) -> Result<(), Invalid> {
        let mut message = message.unwrap_or_default();
        let mut conditions = Conditions::default();
        if let Some(port) = message.destination_port.take() {
            let port = u16::try_from(port.value)
                .map_err(|_| Invalid::new("destination_port", "must be at most 65535"))?;
            conditions.port = Some(port);
        }
        conditions.destinations =
            ranges(std::mem::take(&mut message.prefix_ranges), "prefix_ranges")?;
        conditions.sources = ranges(
            std::mem::take(&mut message.source_prefix_ranges),
            "source_prefix_ranges",
        )?;
        conditions.direct_sources = ranges(
            std::mem::take(&mut message.direct_source_prefix_ranges),
            "direct_source_prefix_ranges",
        )?;
        conditions.origin =
            match ConnectionSourceType::try_from(std::mem::take(&mut message.source_type)) {
                Ok(ConnectionSourceType::Any) => Origin::Any,
                Ok(ConnectionSourceType::SameIpOrLoopback) => Origin::Local,
                Ok(ConnectionSourceType::External) => Origin::Elsewhere,
                Err(_) => return Err(Invalid::unsupported("source_type")),
            };
        for (index, port) in std::mem::take(&mut message.source_ports)
            .into_iter()
            .enumerate()
        {
            let port = u16::try_from(port).ok().filter(|port| *port > 0);
            let port = port.ok_or_else(|| Invalid::new("", "must be between 1 and 65535"));
            conditions
                .source_ports
                .push(port.within_item("source_ports", index)?);
        }
        for (index, name) in std::mem::take(&mut message.server_names)
            .into_iter()
            .enumerate()
        {
            let name = name.to_ascii_lowercase();
            let stored = if name == "*" {
                continue;
            } else if let Some(suffix) = name.strip_prefix('*') {
                suffix.to_owned()
            } else {
                name.clone()
            };
            if stored.contains('*') || (name.starts_with('*') && !stored.starts_with('.')) {
                return Err(Invalid::new(
                    "",
                    format!("`{name}` is not a valid server name"),
                ))
                .within_item("server_names", index);
            }
            conditions.server_names.push(stored);
        }
        conditions.transport = std::mem::take(&mut message.transport_protocol);
        conditions.protocols = std::mem::take(&mut message.application_protocols);
        refuse_rest(&message)?;
        if self.conditions.contains(&conditions) {
            return Err(Invalid::new(
                "",
                "has the same matching rules as another filter chain",
            ));
        }
        self.conditions.push(conditions);
        Ok(())
    }

    /// The position of the chain that serves a connection.
    pub(crate) fn find(&self, facts: &Facts<'_>) -> Option<usize> {
        let mut left: Vec<usize> = (0..self.conditions.len()).collect();
        let all = &self.conditions;
        keep_best(&mut left, |chain| match all[chain].port {
            None => Some(0),
            Some(port) => (port == facts.destination.port()).then_some(1),
        });
        keep_best(&mut left, |chain| {
            longest(&all[chain].destinations, facts.destination.ip())
        });
        keep_best(&mut left, |chain| {
            server_name(&all[chain].server_names, facts.server_name)
        });
        keep_best(&mut left, |chain| match all[chain].transport.as_str() {
            "" => Some(0),
            transport => (transport == facts.transport).then_some(1),
        });
        keep_best(&mut left, |chain| {
            let offered = &all[chain].protocols;
            if offered.is_empty() {
                return Some(0);
            }
            // The client's first choice that any chain offers wins.
            let position = facts
                .protocols
                .iter()
                .position(|protocol| offered.contains(protocol))?;
            Some(facts.protocols.len() - position)
        });
        keep_best(&mut left, |chain| {
            longest(&all[chain].direct_sources, facts.source.ip())
        });
        let source = facts.source.ip();
        let is_local = source.is_loopback() || source == facts.destination.ip();
        keep_best(&mut left, |chain| match all[chain].origin {
            Origin::Any => Some(0),
            Origin::Local => is_local.then_some(1),
            Origin::Elsewhere => (!is_local).then_some(1),
        });
        keep_best(&mut left, |chain| longest(&all[chain].sources, source));
        keep_best(&mut left, |chain| {
            match all[chain].source_ports.as_slice() {
                [] => Some(0),
                ports => ports.contains(&facts.source.port()).then_some(1),
            }
        });
        left.first().copied()
    }
}

/// Keeps the chains with the highest rank; those without a rank do not fit.
fn keep_best(left: &mut Vec<usize>, rank: impl Fn(usize) -> Option<usize>) {
    let best = left.iter().filter_map(|chain| rank(*chain)).max();
    left.retain(|chain| best.is_some() && rank(*chain) == best);
}

/// Length of the longest range with the address, plus one; zero when there are no ranges at all.
fn longest(ranges: &[(IpAddr, u8)], address: IpAddr) -> Option<usize> {
    if ranges.is_empty() {
        return Some(0);
    }
    let fitting = ranges
        .iter()
        .filter(|(base, length)| contains(*base, *length, address));
    fitting.map(|(_, length)| usize::from(*length) + 1).max()
}

fn contains(base: IpAddr, length: u8, address: IpAddr) -> bool {
    match (base, address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => {
            let shift = 32 - u32::from(length.min(32));
            base.to_bits().checked_shr(shift).unwrap_or(0)
                == address.to_bits().checked_shr(shift).unwrap_or(0)
        }
        (IpAddr::V6(base), IpAddr::V6(address)) => {
            let shift = 128 - u32::from(length.min(128));
            base.to_bits().checked_shr(shift).unwrap_or(0)
                == address.to_bits().checked_shr(shift).unwrap_or(0)
        }
        _ => false,
    }
}

/// Exact names rank above every suffix, longer suffixes above shorter ones.
fn server_name(names: &[String], wanted: &str) -> Option<usize> {
    if names.is_empty() {
        return Some(0);
    }
    let rank = |name: &String| match name.strip_prefix('.') {
        None => (name == wanted).then_some(usize::MAX),
        Some(_) => wanted.ends_with(name.as_str()).then_some(name.len()),
    };
    names.iter().filter_map(rank).max()
}

fn ranges(messages: Vec<CidrRange>, field: &str) -> Result<Vec<(IpAddr, u8)>, Invalid> {
    let convert = |range: CidrRange| {
        let base: IpAddr = range.address_prefix.parse().map_err(|_| {
            Invalid::new(
                "address_prefix",
                format!("`{}` is not an address", range.address_prefix),
            )
        })?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let length = range.prefix_len.map_or(0, |length| length.value);
        match u8::try_from(length) {
            Ok(length) if length <= most => Ok((base, length)),
            _ => Err(Invalid::new(
                "prefix_len",
                format!("must be at most {most}"),
            )),
        }
    };
    messages
        .into_iter()
        .enumerate()
        .map(|(index, range)| convert(range).within_item(field, index))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lateen_xds::json;
    use serde_json::{Value, json as object};

    fn matcher(conditions: &[Value]) -> Result<ChainMatcher, Invalid> {
        let mut matcher = ChainMatcher::default();
        for condition in conditions {
            let mut condition = condition.clone();
            condition["@type"] =
                object!("type.googleapis.com/envoy.config.listener.v3.FilterChainMatch");
            let any = json::to_any(&condition).unwrap();
            matcher.push(Some(super::super::decode(&any).unwrap()))?;
        }
        Ok(matcher)
    }

    fn range(text: &str) -> Value {
        let (address, length) = text.split_once('/').unwrap();
        object!([{ "addressPrefix": address, "prefixLen": length.parse::<u32>().unwrap() }])
    }

    /// A connection: destination, source, server name, transport, protocols.
    type Connection<'c> = (&'c str, &'c str, &'c str, &'c str, &'c [&'c str]);

    fn check(conditions: &[Value], connection: Connection<'_>, expected: Option<usize>) {
        let (destination, source, server_name, transport, protocols) = connection;
        let protocols: Vec<String> = protocols.iter().map(|name| (*name).to_owned()).collect();
        let facts = Facts {
            destination: destination.parse().unwrap(),
            source: source.parse().unwrap(),
            server_name,
            transport,
            protocols: &protocols,
        };
        let found = matcher(conditions).unwrap().find(&facts);
        assert_eq!(found, expected, "{connection:?} {conditions:?}");
    }

    #[test]
    fn the_most_specific_value_wins_step_by_step() {
        let plain = |destination, source| (destination, source, "", "raw_buffer", &[][..]);
        let ports = [object!({}), object!({ "destinationPort": 80 })];
        check(&ports, plain("10.0.0.1:80", "10.9.9.9:1"), Some(1));
        check(&ports, plain("10.0.0.1:81", "10.9.9.9:1"), Some(0));
        let ranges = [
            object!({ "prefixRanges": range("10.0.0.0/8") }),
            object!({ "prefixRanges": range("10.1.0.0/16") }),
        ];
        check(&ranges, plain("10.1.2.3:80", "10.9.9.9:1"), Some(1));
        check(&ranges, plain("10.2.2.3:80", "10.9.9.9:1"), Some(0));
        check(&ranges, plain("11.2.2.3:80", "10.9.9.9:1"), None);
        let names = [
            object!({ "serverNames": ["*.test"] }),
            object!({ "serverNames": ["*.b.test"] }),
            object!({ "serverNames": ["a.b.test"] }),
        ];
        for (name, expected) in [
            ("a.b.test", Some(2)),
            ("c.b.test", Some(1)),
            ("d.test", Some(0)),
            ("test", None),
        ] {
            check(
                &names,
                ("10.0.0.1:443", "10.9.9.9:1", name, "tls", &[]),
                expected,
            );
        }
        let protocols = [
            object!({ "applicationProtocols": ["h2"] }),
            object!({ "applicationProtocols": ["http/1.1"] }),
        ];
        for (offered, expected) in [
            (&["http/1.1", "h2"][..], Some(1)),
            (&["x", "h2"], Some(0)),
            (&["x"], None),
        ] {
            check(
                &protocols,
                ("10.0.0.1:443", "10.9.9.9:1", "", "tls", offered),
                expected,
            );
        }
    }

    #[test]
    fn clients_are_told_apart_by_where_they_are() {
        let plain = |destination, source| (destination, source, "", "raw_buffer", &[][..]);
        let origins = [
            object!({}),
            object!({ "sourceType": "SAME_IP_OR_LOOPBACK" }),
            object!({ "sourceType": "EXTERNAL", "sourcePrefixRanges": range("10.9.0.0/16") }),
            object!({ "sourceType": "EXTERNAL", "sourcePrefixRanges": range("10.9.0.0/16"), "sourcePorts": [7] }),
        ];
        check(&origins, plain("10.0.0.1:80", "127.0.0.1:1"), Some(1));
        check(&origins, plain("10.0.0.1:80", "10.0.0.1:1"), Some(1));
        check(&origins, plain("10.0.0.1:80", "10.9.9.9:1"), Some(2));
        check(&origins, plain("10.0.0.1:80", "10.9.9.9:7"), Some(3));
        // No step goes back: the chain for any client is out once one for others was chosen.
        check(&origins, plain("10.0.0.1:80", "10.8.9.9:7"), None);
        let direct = [
            object!({ "directSourcePrefixRanges": range("10.9.0.0/16") }),
            object!({ "sourcePrefixRanges": range("10.9.9.9/32") }),
        ];
        check(&direct, plain("10.0.0.1:80", "10.9.9.9:1"), Some(0));
    }

    #[test]
    fn doubtful_conditions_are_refused() {
        for (conditions, path) in [
            (vec![object!({}), object!({})], ""),
            (
                vec![object!({ "serverNames": ["a*.test"] })],
                "server_names[0]",
            ),
            (
                vec![object!({ "serverNames": ["*test"] })],
                "server_names[0]",
            ),
            (vec![object!({ "sourcePorts": [0] })], "source_ports[0]"),
            (
                vec![object!({ "destinationPort": 70000 })],
                "destination_port",
            ),
            (
                vec![object!({ "prefixRanges": range("x/8") })],
                "prefix_ranges[0].address_prefix",
            ),
            (
                vec![object!({ "prefixRanges": range("10.0.0.0/33") })],
                "prefix_ranges[0].prefix_len",
            ),
            (vec![object!({ "addressSuffix": "x" })], "address_suffix"),
        ] {
            assert_eq!(
                matcher(&conditions).unwrap_err().path,
                path,
                "{conditions:?}"
            );
        }
    }
}
