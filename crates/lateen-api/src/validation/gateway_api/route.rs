//! Checks of routes.

use std::collections::BTreeSet;

use super::filter;
use crate::{
    gateway_api::{
        BackendKind, BackendReference, GrpcRouteSpec, HttpRouteSpec, ParentReference, TcpRouteSpec,
        TlsRouteSpec,
        grpc_route::GrpcMethodMatch,
        http_route::{
            HttpRouteMatch, HttpRule, PathMatch, PathMatchType, RouteBackend, RouteFilterType,
            ValueMatch, ValueMatchType,
        },
        l4_route::ConnectionRule,
    },
    validation::{
        Problems,
        names::{is_dns_label, is_header, is_host, is_port, is_regex},
    },
};

/// Most matches of all rules of a route.
const MAX_MATCHES: usize = 128;
/// Largest weight.
const MAX_WEIGHT: i32 = 1_000_000;
/// Methods that a match may name.
const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

/// Checks an HTTPRoute.
pub fn http_route(spec: &HttpRouteSpec, problems: &mut Problems) {
    common(&spec.parent_refs, &spec.hostnames, problems);
    let matches: usize = spec.rules.iter().map(|rule| rule.matches.len()).sum();
    limited(matches, problems);
    names(spec.rules.iter().map(|rule| rule.name.as_ref()), problems);
    problems.each("rules", &spec.rules, http_rule);
}

/// Checks a GRPCRoute.
pub fn grpc_route(spec: &GrpcRouteSpec, problems: &mut Problems) {
    common(&spec.parent_refs, &spec.hostnames, problems);
    let matches: usize = spec.rules.iter().map(|rule| rule.matches.len()).sum();
    limited(matches, problems);
    names(spec.rules.iter().map(|rule| rule.name.as_ref()), problems);
    problems.each("rules", &spec.rules, |problems, rule| {
        problems.each("matches", &rule.matches, |problems, wanted| {
            if let Some(wanted) = &wanted.method {
                problems.field("method", |problems| grpc_method(wanted, problems));
            }
            headers(&wanted.headers, problems);
        });
        problems.each("filters", &rule.filters, |problems, one| {
            filter::check(one, None, problems);
        });
        filter::at_most_one_each(&rule.filters, problems);
        problems.each("backendRefs", &rule.backend_refs, |problems, one| {
            backend(one, None, problems);
        });
    });
}

/// Checks a TCPRoute.
pub fn tcp_route(spec: &TcpRouteSpec, problems: &mut Problems) {
    common(&spec.parent_refs, &[], problems);
    connection_rules(&spec.rules, problems);
}

/// Checks a TLSRoute.
pub fn tls_route(spec: &TlsRouteSpec, problems: &mut Problems) {
    common(&spec.parent_refs, &spec.hostnames, problems);
    connection_rules(&spec.rules, problems);
}

fn connection_rules(rules: &[ConnectionRule], problems: &mut Problems) {
    problems.demand(rules.len() == 1, "rules", "exactly one rule is served");
    problems.each("rules", rules, |problems, rule| {
        let message = "a rule has a backend";
        problems.demand(!rule.backend_refs.is_empty(), "backendRefs", message);
        problems.each("backendRefs", &rule.backend_refs, |problems, backend| {
            reference(&backend.reference, problems);
            weight(backend.weight, problems);
        });
    });
}

fn limited(matches: usize, problems: &mut Problems) {
    problems.demand(
        matches <= MAX_MATCHES,
        "rules",
        format!("{matches} matches are more than {MAX_MATCHES}; split the route"),
    );
}

fn names<'a>(names: impl Iterator<Item = Option<&'a String>>, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for name in names.flatten() {
        if !seen.insert(name) {
            problems.add_to("rules", format!("the name {name:?} is there twice"));
        }
    }
}

fn common(parents: &[ParentReference], hostnames: &[String], problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    problems.each("parentRefs", parents, |problems, parent| {
        problems.demand(!parent.name.is_empty(), "name", "a parent has a name");
        let port = parent.port.is_none_or(is_port);
        problems.demand(port, "port", "use 1 to 65535");
        if !seen.insert(parent) {
            problems.add("the same parent is there twice");
        }
    });
    problems.each("hostnames", hostnames, |problems, host| {
        let name = host.strip_prefix("*.").unwrap_or(host);
        if !is_host(name) || *host != host.to_ascii_lowercase() {
            problems.add(format!(
                "{host:?} is not a host in lower case; `*` stands for the first labels only"
            ));
        }
    });
}

fn http_rule(problems: &mut Problems, rule: &HttpRule) {
    problems.each("matches", &rule.matches, |problems, wanted| {
        http_match(wanted, problems);
    });
    let prefix = only_prefix(rule);
    problems.each("filters", &rule.filters, |problems, one| {
        filter::check(one, Some(prefix), problems);
    });
    filter::at_most_one_each(&rule.filters, problems);
    let has = |kind| rule.filters.iter().any(|filter| filter.r#type == kind);
    let redirects = has(RouteFilterType::RequestRedirect);
    problems.demand(
        !(redirects && has(RouteFilterType::UrlRewrite)),
        "filters",
        "a rule redirects or rewrites, not both",
    );
    problems.demand(
        !redirects || rule.backend_refs.is_empty(),
        "backendRefs",
        "a rule that redirects has no backends",
    );
    problems.each("backendRefs", &rule.backend_refs, |problems, one| {
        backend(one, Some(prefix), problems);
    });
    if let Some(timeouts) = &rule.timeouts {
        let (whole, each) = (
            timeouts.request.unwrap_or_default(),
            timeouts.backend_request.unwrap_or_default(),
        );
        problems.field("timeouts", |problems| {
            problems.demand(whole.as_nanos() >= 0, "request", "a time is not negative");
            let fits = each.as_nanos() >= 0 && (whole.as_nanos() == 0 || each <= whole);
            let message = "a try lasts no longer than the whole request";
            problems.demand(fits, "backendRequest", message);
        });
    }
    if let Some(retry) = &rule.retry {
        problems.field("retry", |problems| {
            let codes = retry.codes.iter();
            let outside: Vec<_> = codes.filter(|code| !(400..600).contains(*code)).collect();
            let message = format!("{outside:?}: use status codes from 400 to 599");
            problems.demand(outside.is_empty(), "codes", message);
            let attempts = retry.attempts.unwrap_or(1);
            problems.demand(attempts >= 0, "attempts", "use 0 or more");
            let pause = retry.backoff.unwrap_or_default();
            let message = "a pause is not negative";
            problems.demand(pause.as_nanos() >= 0, "backoff", message);
        });
    }
}

/// Whether the only match of a rule is a prefix: then it can be replaced.
fn only_prefix(rule: &HttpRule) -> bool {
    let kind = |wanted: &HttpRouteMatch| {
        let path = wanted.path.as_ref();
        path.and_then(|path| path.r#type).unwrap_or_default()
    };
    match rule.matches.as_slice() {
        [] => true,
        [only] => kind(only) == PathMatchType::PathPrefix,
        _ => false,
    }
}

fn http_match(wanted: &HttpRouteMatch, problems: &mut Problems) {
    if let Some(wanted) = &wanted.path {
        problems.field("path", |problems| path(wanted, problems));
    }
    headers(&wanted.headers, problems);
    problems.each("queryParams", &wanted.query_params, value);
    if let Some(method) = &wanted.method {
        let known = METHODS.contains(&method.as_str());
        let message = format!("{method:?} is none of {}", METHODS.join(", "));
        problems.demand(known, "method", message);
    }
}

fn path(wanted: &PathMatch, problems: &mut Problems) {
    let value = wanted.value.as_deref().unwrap_or("/");
    if wanted.r#type.unwrap_or_default() == PathMatchType::RegularExpression {
        expression(value, problems);
        return;
    }
    if !value.starts_with('/') {
        problems.add_to("value", format!("{value:?} does not begin with /"));
    }
    let lower = value.to_ascii_lowercase();
    let odd = ["//", "/./", "/../", "%2f", "#"];
    let ends = ["/..", "/."];
    if odd.iter().any(|part| lower.contains(part)) || ends.iter().any(|end| lower.ends_with(end)) {
        let message = format!("{value:?} is no path in its normal form");
        problems.add_to("value", message);
    }
}

fn expression(value: &str, problems: &mut Problems) {
    let message = format!("{value:?} is not an RE2 expression");
    problems.demand(is_regex(value), "value", message);
}

fn headers(wanted: &[ValueMatch], problems: &mut Problems) {
    problems.each("headers", wanted, |problems, wanted| {
        let name = &wanted.name;
        let message = format!("{name:?} cannot be the name of a header");
        problems.demand(is_header(name, false), "name", message);
        value(problems, wanted);
    });
}

fn value(problems: &mut Problems, wanted: &ValueMatch) {
    problems.demand(!wanted.name.is_empty(), "name", "a name is needed");
    if wanted.r#type.unwrap_or_default() == ValueMatchType::RegularExpression {
        expression(&wanted.value, problems);
    }
}

fn grpc_method(wanted: &GrpcMethodMatch, problems: &mut Problems) {
    if wanted.service.is_none() && wanted.method.is_none() {
        problems.add("a service, a method or both are needed");
    }
    let exactly = wanted.r#type.unwrap_or_default() == ValueMatchType::Exact;
    for (field, value) in [("service", &wanted.service), ("method", &wanted.method)] {
        let Some(value) = value else { continue };
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.".contains(c);
        let valid = if exactly {
            !value.is_empty() && value.chars().all(plain)
        } else {
            is_regex(value)
        };
        let message = format!("{value:?} is not a name or expression of gRPC");
        problems.demand(valid, field, message);
    }
}

fn backend(backend: &RouteBackend, prefix: Option<bool>, problems: &mut Problems) {
    reference(&backend.reference, problems);
    weight(backend.weight, problems);
    problems.each("filters", &backend.filters, |problems, one| {
        filter::check(one, prefix, problems);
    });
    filter::at_most_one_each(&backend.filters, problems);
}

fn weight(weight: Option<i32>, problems: &mut Problems) {
    let known = (0..=MAX_WEIGHT).contains(&weight.unwrap_or(1));
    problems.demand(known, "weight", format!("use 0 to {MAX_WEIGHT}"));
}

/// Checks what requests go to.
pub(super) fn reference(backend: &BackendReference, problems: &mut Problems) {
    problems.demand(!backend.name.is_empty(), "name", "a backend has a name");
    let port = backend.port.is_none_or(is_port);
    problems.demand(port, "port", "use 1 to 65535");
    if backend.backend_kind() == Some(BackendKind::Service) {
        problems.demand(backend.port.is_some(), "port", "a Service needs a port");
    }
    if let Some(namespace) = &backend.namespace {
        let message = format!("{namespace:?} is no namespace");
        problems.demand(is_dns_label(namespace), "namespace", message);
    }
}
