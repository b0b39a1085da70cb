//! By what in a request its endpoint is chosen.

use lateen_api::networking::traffic_policy::ConsistentHash;
use lateen_xds::pb::envoy::config::route::v3::route_action::{
    HashPolicy,
    hash_policy::{
        ConnectionProperties, Cookie, CookieAttribute, Header, PolicySpecifier, QueryParameter,
    },
};

use super::{build::duration, policy::Policy};
use crate::{Index, Proxy, index::Service};

/// The hash policy of a port of a service, or of a subset of it.
pub(super) fn of_destination(
    index: &Index,
    proxy: &Proxy,
    service: &Service,
    port: u32,
    subset: &str,
) -> Option<HashPolicy> {
    let rule = index.destination_rule(proxy, service)?;
    let subset = rule
        .subsets
        .iter()
        .copied()
        .find(|candidate| !subset.is_empty() && candidate.name == subset);
    let policy = Policy::of(Some(&rule), subset, port);
    policy.consistent_hash().and_then(of_settings)
}

fn of_settings(hash: &ConsistentHash) -> Option<HashPolicy> {
    let specifier = if let Some(name) = &hash.http_header_name {
        PolicySpecifier::Header(Header {
            header_name: name.clone(),
            regex_rewrite: None,
        })
    } else if let Some(cookie) = &hash.http_cookie {
        PolicySpecifier::Cookie(Cookie {
            name: cookie.name.clone(),
            ttl: cookie.ttl.and_then(duration),
            path: cookie.path.clone(),
            attributes: cookie
                .attributes
                .iter()
                .map(|attribute| CookieAttribute {
                    name: attribute.name.clone(),
                    value: attribute.value.clone(),
                })
                .collect(),
        })
    } else if hash.use_source_ip == Some(true) {
        PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true })
    } else {
        let name = hash.http_query_parameter_name.clone()?;
        PolicySpecifier::QueryParameter(QueryParameter { name })
    };
    Some(HashPolicy {
        policy_specifier: Some(specifier),
        terminal: false,
    })
}
