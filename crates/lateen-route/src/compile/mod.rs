//! Protobuf messages into compiled routes. Fields are taken out of the message as they are understood; what is left is
//! refused.

mod action;
mod upgrade;

use std::time::Duration;

use lateen_xds::pb::envoy::config::route::v3 as pb;
use lateen_xds::pb::envoy::config::route::v3::route_match::PathSpecifier;
use lateen_xds::pb::envoy::config::route::v3::virtual_host::TlsRequirementType;
use lateen_xds::pb::google::protobuf;

use crate::constraint::not_empty;
use crate::cors::header_value;
use crate::filter::PerFilter;
use crate::fraction::Fraction;
use crate::header_match::{CookieMatch, HeaderMatch, QueryMatch};
use crate::mutate::{HeaderMutations, Mutations};
use crate::path_match::PathMatch;
use crate::route::{Action, Route, VirtualHost};
use crate::string_match::full_match;
use crate::table::RouteTable;
use crate::table::index::RouteIndex;
use crate::{Invalid, Within, refuse_rest};

/// Bytes that the body of a direct response may have when nothing else is configured.
const DIRECT_BODY_LIMIT: usize = 4096;

/// Takes the four header lists out of a message.
macro_rules! mutations {
    ($message:expr) => {{
        let request = HeaderMutations::compile(
            (
                "request_headers_to_add",
                std::mem::take(&mut $message.request_headers_to_add),
            ),
            (
                "request_headers_to_remove",
                std::mem::take(&mut $message.request_headers_to_remove),
            ),
        )?;
        let response = HeaderMutations::compile(
            (
                "response_headers_to_add",
                std::mem::take(&mut $message.response_headers_to_add),
            ),
            (
                "response_headers_to_remove",
                std::mem::take(&mut $message.response_headers_to_remove),
            ),
        )?;
        Mutations { request, response }
    }};
}
pub(crate) use mutations;

/// Compiles a route configuration.
pub(crate) fn table(mut message: pb::RouteConfiguration) -> Result<RouteTable, Invalid> {
    // For other tools.
    message.metadata = None;
    let most = message
        .max_direct_response_body_size_bytes
        .take()
        .map_or(DIRECT_BODY_LIMIT, |value| value.value as usize);
    let mut table = RouteTable {
        name: std::mem::take(&mut message.name),
        mutations: mutations!(message),
        filters: PerFilter::compile(std::mem::take(&mut message.typed_per_filter_config))?,
        most_specific_mutations_win: std::mem::take(
            &mut message.most_specific_header_mutations_wins,
        ),
        validate_clusters: message.validate_clusters.take().map(|value| value.value),
        ignore_port: std::mem::take(&mut message.ignore_port_in_host_matching),
        ..RouteTable::default()
    };
    let hosts = std::mem::take(&mut message.virtual_hosts);
    let mirrors = std::mem::take(&mut message.request_mirror_policies);
    refuse_rest(&message)?;
    let mut names = std::collections::HashSet::new();
    for (position, mut host) in hosts.into_iter().enumerate() {
        let domains = std::mem::take(&mut host.domains);
        if host.request_mirror_policies.is_empty() {
            host.request_mirror_policies.clone_from(&mirrors);
        }
        if domains.is_empty() {
            return Err(Invalid::new("domains", "must not be empty"))
                .within_item("virtual_hosts", position);
        }
        for (index, domain) in domains.iter().enumerate() {
            table
                .domains
                .insert(domain, position)
                .map_err(|reason| Invalid::new(format!("domains[{index}]"), reason))
                .within_item("virtual_hosts", position)?;
        }
        let host = virtual_host(host)
            .and_then(|host| check_bodies(host, most))
            .within_item("virtual_hosts", position)?;
        if !names.insert(host.name.clone()) {
            return Err(Invalid::new(
                "name",
                format!("`{}` appears twice", host.name),
            ))
            .within_item("virtual_hosts", position);
        }
        table.virtual_hosts.push(host);
    }
    Ok(table)
}

/// Refuses answers whose body is longer than allowed.
fn check_bodies(host: VirtualHost, most: usize) -> Result<VirtualHost, Invalid> {
    for (position, route) in host.routes.iter().enumerate() {
        if let Action::Direct { body, .. } = &route.action
            && body.len() > most
        {
            let reason = format!("has {} bytes; at most {most} are allowed", body.len());
            return Err(Invalid::new("direct_response.body", reason))
                .within_item("routes", position);
        }
    }
    Ok(host)
}

fn virtual_host(mut message: pb::VirtualHost) -> Result<VirtualHost, Invalid> {
    message.metadata = None;
    let name = std::mem::take(&mut message.name);
    not_empty("name", &name)?;
    let require_tls = match TlsRequirementType::try_from(std::mem::take(&mut message.require_tls)) {
        Ok(TlsRequirementType::None) => false,
        Ok(TlsRequirementType::All) => true,
        _ => return Err(Invalid::unsupported("require_tls")),
    };
    let mutations = mutations!(message);
    let retry = message.retry_policy.take();
    let mirrors = std::mem::take(&mut message.request_mirror_policies);
    let attempt_count_in_request = std::mem::take(&mut message.include_request_attempt_count);
    let attempt_count_in_response = std::mem::take(&mut message.include_attempt_count_in_response);
    let filters = PerFilter::compile(std::mem::take(&mut message.typed_per_filter_config))?;
    let messages = std::mem::take(&mut message.routes);
    refuse_rest(&message)?;
    let mut routes = Vec::with_capacity(messages.len());
    for (position, mut message) in messages.into_iter().enumerate() {
        // The virtual host's policy is the default of its routes.
        if let Some(pb::route::Action::Route(action)) = &mut message.action
            && action.retry_policy.is_none()
        {
            action.retry_policy.clone_from(&retry);
        }
        // So are its copies.
        if let Some(pb::route::Action::Route(action)) = &mut message.action
            && action.request_mirror_policies.is_empty()
        {
            action.request_mirror_policies.clone_from(&mirrors);
        }
        routes.push(route(message).within_item("routes", position)?);
    }
    let index = RouteIndex::build(&routes);
    Ok(VirtualHost {
        name,
        routes,
        require_tls,
        attempt_count_in_request,
        attempt_count_in_response,
        mutations,
        filters,
        index,
    })
}

fn route(mut message: pb::Route) -> Result<Route, Invalid> {
    // For other tools and for statistics only.
    message.metadata = None;
    message.stat_prefix.clear();
    let name = std::mem::take(&mut message.name);
    let told = |decorator: &pb::Decorator| {
        let propagate = decorator.propagate.as_ref();
        propagate.is_none_or(|propagate| propagate.value)
    };
    let operation = match message.decorator.take().filter(told) {
        Some(decorator) => header_value("operation", decorator.operation).within("decorator")?,
        None => None,
    };
    let mutations = mutations!(message);
    let filters = PerFilter::compile(std::mem::take(&mut message.typed_per_filter_config))?;
    let matcher = message
        .r#match
        .take()
        .ok_or_else(|| Invalid::new("match", "is required"))?;
    let action = message
        .action
        .take()
        .ok_or_else(|| Invalid::new("action", "is required"))?;
    refuse_rest(&message)?;
    let action = action::compile(action)?;
    conditions(
        matcher,
        Route {
            name,
            operation,
            mutations,
            filters,
            action,
            path: PathMatch::Prefix(String::new()),
            case_sensitive: true,
            headers: Vec::new(),
            query: Vec::new(),
            cookies: Vec::new(),
            grpc: false,
            fraction: None,
        },
    )
    .within("match")
}

/// Fills in the conditions of a route.
fn conditions(mut message: pb::RouteMatch, mut route: Route) -> Result<Route, Invalid> {
    route.path = match message.path_specifier.take() {
        Some(PathSpecifier::Path(path)) => PathMatch::Exact(path),
        Some(PathSpecifier::Prefix(prefix)) => PathMatch::Prefix(prefix),
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => {
            if !prefix.starts_with('/') || prefix.ends_with('/') || prefix.contains(['?', '#']) {
                return Err(Invalid::new(
                    "path_separated_prefix",
                    "must begin with a slash, not end with one, and have no query",
                ));
            }
            PathMatch::SeparatedPrefix(prefix)
        }
        Some(PathSpecifier::SafeRegex(regex)) => {
            PathMatch::Regex(full_match(regex).within("safe_regex")?)
        }
        Some(PathSpecifier::ConnectMatcher(_)) => PathMatch::Connect,
        Some(PathSpecifier::PathMatchPolicy(_)) => {
            return Err(Invalid::unsupported("path_match_policy"));
        }
        None => return Err(Invalid::new("path_specifier", "is required")),
    };
    route.case_sensitive = message
        .case_sensitive
        .take()
        .is_none_or(|value| value.value);
    for (index, matcher) in std::mem::take(&mut message.headers).into_iter().enumerate() {
        route
            .headers
            .push(HeaderMatch::compile(matcher).within_item("headers", index)?);
    }
    for (index, matcher) in std::mem::take(&mut message.query_parameters)
        .into_iter()
        .enumerate()
    {
        route
            .query
            .push(QueryMatch::compile(matcher).within_item("query_parameters", index)?);
    }
    for (index, matcher) in std::mem::take(&mut message.cookies).into_iter().enumerate() {
        route
            .cookies
            .push(CookieMatch::compile(matcher).within_item("cookies", index)?);
    }
    route.grpc = message.grpc.take().is_some();
    route.fraction = message
        .runtime_fraction
        .take()
        .map(Fraction::compile_runtime)
        .transpose()
        .within("runtime_fraction")?;
    refuse_rest(&message)?;
    Ok(route)
}

/// A duration of the protocol. Negative and oversized ones are refused.
pub(crate) fn duration(value: protobuf::Duration) -> Result<Duration, Invalid> {
    match (u64::try_from(value.seconds), u32::try_from(value.nanos)) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Ok(Duration::new(seconds, nanos)),
        _ => Err(Invalid::new("", "must be a duration of zero or more")),
    }
}
