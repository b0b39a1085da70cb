//! Rules of HTTPRoutes and GRPCRoutes as rules of virtual services.
//!
//! Each rule has one match, so that the rules of several routes can be sorted together. What cannot be done as the
//! route says is answered with 500 instead of being left out: a request must not go around a filter, nor to another
//! backend than the one that was meant.

use lateen_api::{
    common::StringMatch,
    gateway_api::{
        GrpcRoute, HttpRoute,
        grpc_route::GrpcMethodMatch,
        http_route::{
            HttpRouteMatch, HttpRule, PathMatchType, RouteBackend, RouteFilter, RouteFilterType,
            RouteRetry, RouteTimeouts, ValueMatch, ValueMatchType,
        },
    },
    networking::{
        http_route::{
            DirectResponse, HttpMatch, HttpRetry, HttpRoute as Rule, HttpRouteDestination,
        },
        virtual_service::RouteDestination,
    },
};

use super::{
    backends::{Backends, Problem},
    filters,
};

/// What an error is answered with, as the Gateway API asks.
const ERROR_STATUS: u32 = 500;
/// Conditions under which requests are repeated besides the listed codes: the connection failed.
const RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled";
/// How often requests are repeated when the route does not say.
const ATTEMPTS: i32 = 2;

/// The rules of a route, and what is wrong with them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Converted {
    /// Of requests.
    pub(super) rules: Vec<Rule>,
    /// Of connections, for kinds that do not look at requests.
    pub(super) destinations: Vec<RouteDestination>,
    pub(super) problems: Vec<Problem>,
}

/// The rules of an HTTPRoute.
pub(super) fn of_http(route: &HttpRoute, backends: &Backends<'_>) -> Converted {
    let mut converted = Converted::default();
    for (position, rule) in route.spec.rules.iter().enumerate() {
        let base = Rule {
            name: name(
                route.namespace(),
                route.name(),
                position,
                rule.name.as_ref(),
            ),
            retries: rule.retry.as_ref().map(retries),
            ..Rule::default()
        };
        let base = with_timeouts(base, rule.timeouts.as_ref());
        let parts = (&*rule.filters, &*rule.backend_refs);
        let base = converted.complete(base, parts, backends, &HTTP_FILTERS);
        converted.add(base, http_matches(rule));
    }
    converted
}

/// The rules of a GRPCRoute.
pub(super) fn of_grpc(route: &GrpcRoute, backends: &Backends<'_>) -> Converted {
    let mut converted = Converted::default();
    for (position, rule) in route.spec.rules.iter().enumerate() {
        let base = Rule {
            name: name(
                route.namespace(),
                route.name(),
                position,
                rule.name.as_ref(),
            ),
            ..Rule::default()
        };
        let parts = (&*rule.filters, &*rule.backend_refs);
        let base = converted.complete(base, parts, backends, &GRPC_FILTERS);
        let mut matches: Vec<HttpMatch> = rule
            .matches
            .iter()
            .map(|wanted| HttpMatch {
                uri: Some(grpc_path(wanted.method.as_ref())),
                headers: values(&wanted.headers, true),
                ..HttpMatch::default()
            })
            .collect();
        if matches.is_empty() {
            matches.push(any_path());
        }
        converted.add(base, matches);
    }
    converted
}

/// Filters that a rule of an HTTPRoute may have.
const HTTP_FILTERS: [RouteFilterType; 6] = [
    RouteFilterType::RequestHeaderModifier,
    RouteFilterType::ResponseHeaderModifier,
    RouteFilterType::RequestMirror,
    RouteFilterType::RequestRedirect,
    RouteFilterType::UrlRewrite,
    RouteFilterType::Cors,
];
/// Filters that a rule of a GRPCRoute may have.
const GRPC_FILTERS: [RouteFilterType; 3] = [
    RouteFilterType::RequestHeaderModifier,
    RouteFilterType::ResponseHeaderModifier,
    RouteFilterType::RequestMirror,
];
/// Filters that a backend may have.
const BACKEND_FILTERS: [RouteFilterType; 2] = [
    RouteFilterType::RequestHeaderModifier,
    RouteFilterType::ResponseHeaderModifier,
];

impl Converted {
    /// One rule for each match.
    fn add(&mut self, base: Rule, matches: Vec<HttpMatch>) {
        self.rules.extend(matches.into_iter().map(|wanted| Rule {
            r#match: vec![wanted],
            ..base.clone()
        }));
    }

    /// Adds filters and backends to a rule.
    fn complete(
        &mut self,
        mut rule: Rule,
        (filters, references): (&[RouteFilter], &[RouteBackend]),
        backends: &Backends<'_>,
        served: &[RouteFilterType],
    ) -> Rule {
        for filter in filters {
            let applied = if served.contains(&filter.r#type) {
                filters::apply(filter, &mut rule, backends, &mut self.problems)
            } else {
                Err(filters::unserved(filter))
            };
            if let Err(problem) = applied {
                self.problems.push(problem);
                return answered_with_error(rule);
            }
        }
        let used: Vec<&RouteBackend> = references.iter().filter(|one| one.share() > 0).collect();
        // Those that get nothing are looked at all the same: the user is told of a wrong name.
        for unused in references.iter().filter(|one| one.share() == 0) {
            let (_, problem) = backends.destination(&unused.reference);
            self.problems.extend(problem);
        }
        if rule.redirect.is_some() {
            return rule;
        }
        if used.is_empty() {
            return answered_with_error(rule);
        }
        for backend in &used {
            let mut destination = self.destination(backend, backends);
            // The weight of the only one does not matter.
            destination.weight = if used.len() == 1 { 0 } else { backend.share() };
            rule.route.push(destination);
        }
        rule
    }

    fn destination(
        &mut self,
        backend: &RouteBackend,
        backends: &Backends<'_>,
    ) -> HttpRouteDestination {
        let (destination, problem) = backends.destination(&backend.reference);
        self.problems.extend(problem);
        let mut converted = HttpRouteDestination {
            destination,
            ..HttpRouteDestination::default()
        };
        for filter in &backend.filters {
            let applied = if BACKEND_FILTERS.contains(&filter.r#type) {
                filters::modify_headers(filter, &mut converted.headers)
            } else {
                Err(filters::unserved(filter))
            };
            if let Err(problem) = applied {
                self.problems.push(problem);
                converted.destination = Backends::nowhere(&backend.reference);
            }
        }
        converted
    }
}

fn answered_with_error(rule: Rule) -> Rule {
    Rule {
        direct_response: Some(DirectResponse {
            status: ERROR_STATUS,
            body: None,
        }),
        redirect: None,
        rewrite: None,
        mirrors: Vec::new(),
        route: Vec::new(),
        ..rule
    }
}

/// The rule's own name, else one that is unique.
fn name(namespace: &str, route: &str, position: usize, own: Option<&String>) -> String {
    own.cloned()
        .unwrap_or_else(|| format!("{namespace}.{route}.{position}"))
}

/// A rule without conditions matches the prefix `/`, as the schema of the Gateway API defaults it.
fn http_matches(rule: &HttpRule) -> Vec<HttpMatch> {
    if rule.matches.is_empty() {
        return vec![any_path()];
    }
    rule.matches.iter().map(http_match).collect()
}

fn http_match(wanted: &HttpRouteMatch) -> HttpMatch {
    let path = wanted.path.as_ref();
    let value = path.and_then(|path| path.value.as_deref()).unwrap_or("/");
    let kind = path.and_then(|path| path.r#type).unwrap_or_default();
    let uri = match kind {
        PathMatchType::Exact => exact(value),
        PathMatchType::PathPrefix => prefix(match value.strip_suffix('/') {
            // A slash at the end does not count.
            Some(shorter) if !shorter.is_empty() => shorter,
            _ => value,
        }),
        PathMatchType::RegularExpression => regex(value),
    };
    HttpMatch {
        uri: Some(uri),
        method: wanted.method.as_deref().map(exact),
        headers: values(&wanted.headers, true),
        query_params: values(&wanted.query_params, false),
        ..HttpMatch::default()
    }
}

fn any_path() -> HttpMatch {
    HttpMatch {
        uri: Some(prefix("/")),
        ..HttpMatch::default()
    }
}

/// The path of gRPC requests is `/SERVICE/METHOD`.
fn grpc_path(method: Option<&GrpcMethodMatch>) -> StringMatch {
    let Some(wanted) = method else {
        return prefix("/");
    };
    let kind = wanted.r#type.unwrap_or_default();
    match (kind, wanted.service.as_deref(), wanted.method.as_deref()) {
        (_, None, None) => prefix("/"),
        (ValueMatchType::Exact, Some(service), None) => prefix(&format!("/{service}")),
        (ValueMatchType::Exact, Some(service), Some(method)) => {
            exact(&format!("/{service}/{method}"))
        }
        (ValueMatchType::Exact, None, Some(method)) => {
            regex(&format!("/[^/]+/{}", regex_quoted(method)))
        }
        (ValueMatchType::RegularExpression, Some(service), None) => {
            regex(&format!("/{service}/.+"))
        }
        (ValueMatchType::RegularExpression, service, Some(method)) => {
            let service = service.unwrap_or("[^/]+");
            regex(&format!("/{service}/{method}"))
        }
    }
}

/// A text as an expression that matches nothing else.
pub(crate) fn regex_quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for character in text.chars() {
        if r"\.+*?()|[]{}^$".contains(character) {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted
}

/// Conditions by name. Of several for one name the first counts.
fn values(
    wanted: &[ValueMatch],
    lower_case: bool,
) -> std::collections::BTreeMap<String, StringMatch> {
    let mut found = std::collections::BTreeMap::new();
    for one in wanted {
        let name = if lower_case {
            one.name.to_ascii_lowercase()
        } else {
            one.name.clone()
        };
        let condition = match one.r#type.unwrap_or_default() {
            ValueMatchType::Exact => exact(&one.value),
            ValueMatchType::RegularExpression => regex(&one.value),
        };
        found.entry(name).or_insert(condition);
    }
    found
}

fn retries(retry: &RouteRetry) -> HttpRetry {
    let attempts = retry.attempts.unwrap_or(ATTEMPTS).max(0);
    let mut conditions = vec![RETRY_ON.to_owned()];
    conditions.extend(retry.codes.iter().map(u32::to_string));
    HttpRetry {
        attempts,
        retry_on: if attempts == 0 {
            String::new()
        } else {
            conditions.join(",")
        },
        backoff: retry.backoff,
        ..HttpRetry::default()
    }
}

/// A limit for each try is one for the whole request when nothing is repeated.
fn with_timeouts(mut rule: Rule, timeouts: Option<&RouteTimeouts>) -> Rule {
    let Some(timeouts) = timeouts else {
        return rule;
    };
    let set = |limit: Option<lateen_api::Duration>| limit.filter(|limit| limit.as_nanos() > 0);
    rule.timeout = set(timeouts.request);
    if let Some(limit) = set(timeouts.backend_request) {
        match &mut rule.retries {
            Some(retries) if retries.attempts > 0 => retries.per_try_timeout = Some(limit),
            _ => rule.timeout = Some(limit),
        }
    }
    rule
}

fn exact(text: &str) -> StringMatch {
    StringMatch {
        exact: Some(text.to_owned()),
        ..StringMatch::default()
    }
}

fn prefix(text: &str) -> StringMatch {
    StringMatch {
        prefix: Some(text.to_owned()),
        ..StringMatch::default()
    }
}

fn regex(text: &str) -> StringMatch {
    StringMatch {
        regex: Some(text.to_owned()),
        ..StringMatch::default()
    }
}

/// The order in which rules are tried, as the Gateway API has it: exact paths first, then prefixes, then expressions,
/// longer before shorter; every path last, so that it hides no expression; then rules with a method, with more headers,
/// with more query parameters. What is equal stays in the order that it has.
pub(super) fn sort_by_precedence(rules: &mut [Rule]) {
    rules.sort_by_cached_key(|rule| {
        let wanted = rule.r#match.first();
        let (rank, length) = match wanted.and_then(|wanted| wanted.uri.as_ref()) {
            Some(StringMatch {
                exact: Some(text), ..
            }) => (0, text.len()),
            Some(StringMatch {
                prefix: Some(text), ..
            }) if text != "/" => (1, text.len()),
            Some(StringMatch {
                regex: Some(text), ..
            }) => (2, text.len()),
            _ => (3, 0),
        };
        let more = std::cmp::Reverse::<usize>;
        (
            rank,
            more(length),
            wanted.is_none_or(|wanted| wanted.method.is_none()),
            more(wanted.map_or(0, |wanted| wanted.headers.len())),
            more(wanted.map_or(0, |wanted| wanted.query_params.len())),
        )
    });
}
