//! Conditions of HTTP rules as route matches.

use std::collections::BTreeMap;

use lateen_api::{
    common::{Condition, StringMatch},
    networking::http_route::HttpMatch,
};
use lateen_xds::pb::envoy::{
    config::route::v3::{
        HeaderMatcher, QueryParameterMatcher, RouteMatch, header_matcher::HeaderMatchSpecifier,
        query_parameter_matcher::QueryParameterMatchSpecifier, route_match::PathSpecifier,
    },
    r#type::matcher::v3::{
        RegexMatchAndSubstitute, RegexMatcher, StringMatcher, string_matcher::MatchPattern,
    },
};

use super::build::flag;
use crate::index::regex_quoted;

/// How prefixes of paths match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prefixes {
    /// By characters, as virtual services have it.
    Characters,
    /// By whole segments, as the Gateway API has it.
    Segments,
}

/// The route match of a condition; without one, everything matches.
pub(super) fn route_match(condition: Option<&HttpMatch>, prefixes: Prefixes) -> RouteMatch {
    let Some(condition) = condition else {
        return RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..RouteMatch::default()
        };
    };
    let path = match condition.uri.as_ref().map(StringMatch::condition) {
        Some(Condition::Exact(text)) => PathSpecifier::Path(text.to_owned()),
        Some(Condition::Prefix(text)) if prefixes == Prefixes::Segments && text != "/" => {
            let text = text.strip_suffix('/').unwrap_or(text);
            PathSpecifier::PathSeparatedPrefix(text.to_owned())
        }
        Some(Condition::Prefix(text)) => PathSpecifier::Prefix(text.to_owned()),
        Some(Condition::Regex(text)) => PathSpecifier::SafeRegex(regex(text)),
        Some(Condition::Present) | None => PathSpecifier::Prefix("/".to_owned()),
    };
    let mut headers: Vec<HeaderMatcher> = headers(&condition.headers, header).collect();
    headers.extend(self::headers(&condition.without_headers, header_without));
    let pseudo = [
        (":method", &condition.method),
        (":authority", &condition.authority),
        (":scheme", &condition.scheme),
    ];
    headers.extend(
        pseudo
            .into_iter()
            .filter_map(|(name, wanted)| Some(header(name, wanted.as_ref()?))),
    );
    RouteMatch {
        path_specifier: Some(path),
        case_sensitive: flag(!condition.ignore_uri_case),
        headers,
        query_parameters: condition
            .query_params
            .iter()
            .map(|(name, wanted)| query(name, wanted))
            .collect(),
        ..RouteMatch::default()
    }
}

/// Whether a route match is met by every request, so that no later rule can be reached.
pub(super) fn matches_all(matching: &RouteMatch) -> bool {
    let path = match &matching.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => prefix == "/",
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex == "*" || regex.regex == ".*",
        _ => false,
    };
    path && matching.headers.is_empty() && matching.query_parameters.is_empty()
}

fn headers(
    wanted: &BTreeMap<String, StringMatch>,
    matcher: fn(&str, &StringMatch) -> HeaderMatcher,
) -> impl Iterator<Item = HeaderMatcher> {
    wanted
        .iter()
        .map(move |(name, wanted)| matcher(&name.to_ascii_lowercase(), wanted))
}

fn header(name: &str, wanted: &StringMatch) -> HeaderMatcher {
    let specifier = match text(wanted) {
        Some(matcher) => HeaderMatchSpecifier::StringMatch(matcher),
        None => HeaderMatchSpecifier::PresentMatch(true),
    };
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(specifier),
        ..HeaderMatcher::default()
    }
}

/// A header that is missing is not what was described either.
fn header_without(name: &str, unwanted: &StringMatch) -> HeaderMatcher {
    let described = text(unwanted).is_some();
    HeaderMatcher {
        invert_match: true,
        treat_missing_header_as_empty: described,
        ..header(name, unwanted)
    }
}

fn query(name: &str, wanted: &StringMatch) -> QueryParameterMatcher {
    let specifier = match text(wanted) {
        Some(matcher) => QueryParameterMatchSpecifier::StringMatch(matcher),
        None => QueryParameterMatchSpecifier::PresentMatch(true),
    };
    QueryParameterMatcher {
        name: name.to_owned(),
        query_parameter_match_specifier: Some(specifier),
    }
}

/// The matcher for a text; `None` when being there is enough.
pub(super) fn text(wanted: &StringMatch) -> Option<StringMatcher> {
    let pattern = match wanted.condition() {
        Condition::Present => return None,
        Condition::Exact(text) => MatchPattern::Exact(text.to_owned()),
        Condition::Prefix(text) => MatchPattern::Prefix(text.to_owned()),
        Condition::Regex(text) => MatchPattern::SafeRegex(regex(text)),
    };
    Some(StringMatcher {
        match_pattern: Some(pattern),
        ..StringMatcher::default()
    })
}

/// What takes a prefix of whole segments away, the slash behind it too: `/a/b` without `/a` is `/b`, and `/a` is `/`.
pub(super) fn without_prefix(prefix: &str) -> RegexMatchAndSubstitute {
    RegexMatchAndSubstitute {
        pattern: Some(regex(&format!("^{}(/?)(.*)", regex_quoted(prefix)))),
        substitution: r"/\2".to_owned(),
    }
}

/// An RE2 expression.
pub(super) fn regex(expression: &str) -> RegexMatcher {
    RegexMatcher {
        regex: expression.to_owned(),
        ..RegexMatcher::default()
    }
}
