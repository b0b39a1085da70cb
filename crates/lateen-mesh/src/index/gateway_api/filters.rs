//! Filters of the Gateway API as settings of a virtual service's rule.

use std::collections::BTreeMap;

use lateen_api::{
    Duration,
    common::{Percent, StringMatch},
    gateway_api::http_route::{
        Cors, HeaderModifier, HeaderValue, PathModifier, PathModifierType, RequestMirror,
        RequestRedirect, RouteFilter, RouteFilterType, UrlRewrite,
    },
    networking::http_route::{
        CorsPolicy, DerivePort, HeaderOperations, Headers, HttpMirrorPolicy, HttpRedirect,
        HttpRewrite, HttpRoute as Rule, RegexRewrite, UnmatchedPreflights,
    },
};

use super::{
    backends::{Backends, Problem},
    rules::regex_quoted,
};

/// Reason of a route that has a filter which cannot be applied.
const INVALID_FILTER: &str = "InvalidFilter";
/// Status of redirects that say none.
const FOUND: u32 = 302;
/// Seconds that an answer to a preflight request may be kept when the filter does not say.
const PREFLIGHT_AGE: i32 = 5;
/// Any origin: a scheme and a host with an optional port, RFC 6454.
const ANY_ORIGIN: &str = r"[a-zA-Z][a-zA-Z0-9+.-]*://[^/\s?#]+";

/// Applies a filter to a rule. A mirror that leads nowhere is a problem of its own: requests go on without it.
pub(super) fn apply(
    filter: &RouteFilter,
    rule: &mut Rule,
    backends: &Backends<'_>,
    problems: &mut Vec<Problem>,
) -> Result<(), Problem> {
    match filter.r#type {
        RouteFilterType::RequestHeaderModifier | RouteFilterType::ResponseHeaderModifier => {
            return modify_headers(filter, &mut rule.headers);
        }
        RouteFilterType::RequestRedirect => {
            let settings = field(filter, filter.request_redirect.as_ref())?;
            rule.redirect = Some(redirect(settings));
        }
        RouteFilterType::UrlRewrite => {
            let settings = field(filter, filter.url_rewrite.as_ref())?;
            rule.rewrite = rewrite(settings);
        }
        RouteFilterType::Cors => {
            let settings = field(filter, filter.cors.as_ref())?;
            rule.cors_policy = Some(cors(settings));
        }
        RouteFilterType::RequestMirror => {
            let settings = field(filter, filter.request_mirror.as_ref())?;
            match mirror(settings, backends) {
                (mirror, None) => rule.mirrors.push(mirror),
                (_, Some(problem)) => problems.push(problem),
            }
        }
        RouteFilterType::ExtensionRef | RouteFilterType::Unknown => return Err(unserved(filter)),
    }
    Ok(())
}

/// Adds changes of headers.
pub(super) fn modify_headers(
    filter: &RouteFilter,
    headers: &mut Option<Headers>,
) -> Result<(), Problem> {
    let requests = filter.r#type == RouteFilterType::RequestHeaderModifier;
    let settings = if requests {
        filter.request_header_modifier.as_ref()
    } else {
        filter.response_header_modifier.as_ref()
    };
    let changes = Some(operations(field(filter, settings)?)?);
    let headers = headers.get_or_insert_default();
    if requests {
        headers.request = changes;
    } else {
        headers.response = changes;
    }
    Ok(())
}

/// What is said of a filter that cannot be applied here.
pub(super) fn unserved(filter: &RouteFilter) -> Problem {
    Problem::new(
        INVALID_FILTER,
        format!(
            "a filter of type {:?} is not served here; requests are answered with 500",
            filter.r#type
        ),
    )
}

/// The field that the type of a filter names.
fn field<'a, T>(filter: &RouteFilter, field: Option<&'a T>) -> Result<&'a T, Problem> {
    field.ok_or_else(|| {
        Problem::new(
            INVALID_FILTER,
            format!("a filter of type {:?} has no settings", filter.r#type),
        )
    })
}

fn operations(modifier: &HeaderModifier) -> Result<HeaderOperations, Problem> {
    let entries = |list: &[HeaderValue]| -> Result<BTreeMap<String, String>, Problem> {
        let mut entries = BTreeMap::new();
        for header in list {
            if !lateen_api::validation::gateway_api::is_header_text(&header.value) {
                let name = &header.name;
                let message =
                    format!("the value of header {name:?} has characters that it may not");
                return Err(Problem::new(INVALID_FILTER, message));
            }
            // Of several for one name the first counts.
            let entry = entries.entry(header.name.to_ascii_lowercase());
            entry.or_insert_with(|| header.value.clone());
        }
        Ok(entries)
    };
    Ok(HeaderOperations {
        set: entries(&modifier.set)?,
        add: entries(&modifier.add)?,
        remove: modifier.remove.clone(),
    })
}

fn redirect(filter: &RequestRedirect) -> HttpRedirect {
    let derived = match (filter.port, &filter.scheme) {
        (Some(_), _) => None,
        (None, Some(_)) => Some(DerivePort::FromProtocolDefault),
        (None, None) => Some(DerivePort::FromRequestPort),
    };
    let (uri, prefix_rewrite) = match filter.path.as_ref().map(change_of_path) {
        Some(Change::Whole(path)) => (path.to_owned(), String::new()),
        Some(Change::Prefix(path)) => (String::new(), path.to_owned()),
        None => (String::new(), String::new()),
    };
    HttpRedirect {
        uri,
        prefix_rewrite,
        authority: filter.hostname.clone().unwrap_or_default(),
        port: filter.port,
        derive_port: derived,
        scheme: filter.scheme.clone().unwrap_or_default(),
        redirect_code: filter.status_code.unwrap_or(FOUND),
    }
}

fn rewrite(filter: &UrlRewrite) -> Option<HttpRewrite> {
    let mut rewrite = HttpRewrite {
        authority: filter.hostname.clone().unwrap_or_default(),
        ..HttpRewrite::default()
    };
    match filter.path.as_ref().map(change_of_path) {
        Some(Change::Whole(path)) => {
            // Istio's expression: it stands for any path.
            rewrite.uri_regex_rewrite = Some(RegexRewrite {
                r#match: "/.*".to_owned(),
                rewrite: path.to_owned(),
            });
        }
        Some(Change::Prefix(path)) => rewrite.uri = path.to_owned(),
        None => {}
    }
    (rewrite != HttpRewrite::default()).then_some(rewrite)
}

/// What a path becomes.
enum Change<'a> {
    Whole(&'a str),
    Prefix(&'a str),
}

fn change_of_path(modifier: &PathModifier) -> Change<'_> {
    match modifier.r#type {
        PathModifierType::ReplaceFullPath => {
            Change::Whole(modifier.replace_full_path.as_deref().unwrap_or("/"))
        }
        PathModifierType::ReplacePrefixMatch => {
            let path = modifier.replace_prefix_match.as_deref().unwrap_or("/");
            // A slash at the end does not count, and nothing in place of the prefix leaves the slash.
            let path = path.strip_suffix('/').unwrap_or(path);
            Change::Prefix(if path.is_empty() { "/" } else { path })
        }
    }
}

fn mirror(filter: &RequestMirror, backends: &Backends<'_>) -> (HttpMirrorPolicy, Option<Problem>) {
    let (destination, problem) = backends.destination(&filter.backend_ref);
    let value = match (&filter.fraction, filter.percent) {
        (Some(fraction), _) => {
            let whole = fraction.denominator.unwrap_or(100).max(1);
            Some(100.0 * f64::from(fraction.numerator.max(0)) / f64::from(whole))
        }
        (None, percent) => percent.map(|percent| f64::from(percent.max(0))),
    };
    let mirror = HttpMirrorPolicy {
        destination,
        percentage: value.map(|value| Percent {
            value: value.min(100.0),
        }),
    };
    (mirror, problem)
}

fn cors(filter: &Cors) -> CorsPolicy {
    CorsPolicy {
        allow_origins: filter.allow_origins.iter().map(|one| origin(one)).collect(),
        allow_methods: filter.allow_methods.clone(),
        allow_headers: filter.allow_headers.clone(),
        expose_headers: filter.expose_headers.clone(),
        max_age: Some(Duration::from_secs(i64::from(
            filter.max_age.unwrap_or(PREFLIGHT_AGE).max(0),
        ))),
        allow_credentials: filter.allow_credentials.filter(|allowed| *allowed),
        // Origins that are not listed get no permission, and their preflight requests no answer of the backend's.
        unmatched_preflights: Some(UnmatchedPreflights::Ignore),
        ..CorsPolicy::default()
    }
}

/// `*` stands for any characters of a host.
fn origin(text: &str) -> StringMatch {
    let expression = match text {
        "*" => ANY_ORIGIN.to_owned(),
        _ if text.contains('*') => {
            let parts: Vec<String> = text.split('*').map(regex_quoted).collect();
            parts.join(r"[^/\s?#]*")
        }
        _ => {
            return StringMatch {
                exact: Some(text.to_owned()),
                ..StringMatch::default()
            };
        }
    };
    StringMatch {
        regex: Some(expression),
        ..StringMatch::default()
    }
}
