//! Checks of HTTP rules.

use super::{
    Problems,
    http_policy::{cors, duration, fault, percentage, retry},
    names::{is_dns_label, is_header, is_header_value, is_port, is_regex},
    virtual_service::{check_gateway, destination, weights},
};
use crate::{
    common::StringMatch,
    networking::http_route::{
        DirectResponse, HeaderOperations, Headers, HttpMatch, HttpRedirect, HttpRewrite, HttpRoute,
        HttpRouteDestination, RegexRewrite,
    },
};

/// Largest body of a fixed response in bytes.
const MAX_BODY: usize = 1024 * 1024;
/// Beginning of header names that stand for claims of a token.
const CLAIM_PREFIX: &str = "@request.auth.claims";

/// Checks a rule of a virtual service with hosts.
pub fn rule(rule: &HttpRoute, problems: &mut Problems) {
    if let Some(delegate) = &rule.delegate {
        let others =
            !rule.route.is_empty() || rule.redirect.is_some() || rule.direct_response.is_some();
        problems.demand(
            !others,
            "delegate",
            "a rule that delegates has no route, redirect or directResponse",
        );
        let named = |name: &str| name.is_empty() || is_dns_label(name);
        problems.demand(
            named(&delegate.name) && named(&delegate.namespace),
            "delegate",
            "name and namespace have letters, digits and dashes",
        );
    } else {
        action(rule, problems);
    }
    common(rule, problems);
}

/// Checks a rule of a virtual service without hosts.
pub fn delegated_rule(rule: &HttpRoute, problems: &mut Problems) {
    problems.demand(
        rule.delegate.is_none(),
        "delegate",
        "a delegate cannot delegate once more",
    );
    if rule.delegate.is_none() {
        action(rule, problems);
    }
    problems.each("match", &rule.r#match, |problems, condition| {
        problems.demand(
            condition.gateways.is_empty(),
            "gateways",
            "the rule that delegates decides about gateways",
        );
    });
    common(rule, problems);
}

/// Exactly one of route, redirect and direct response, and what goes with it.
fn action(rule: &HttpRoute, problems: &mut Problems) {
    match (&rule.redirect, &rule.direct_response) {
        (Some(_), Some(_)) => problems.add("a rule has a redirect or a directResponse, not both"),
        (Some(_), None) if !rule.route.is_empty() => {
            problems.add("a rule has a redirect or a route, not both")
        }
        (None, Some(_)) if !rule.route.is_empty() => {
            problems.add("a rule has a directResponse or a route, not both")
        }
        (None, None) if rule.route.is_empty() => {
            problems.add("a rule needs a route, redirect or directResponse")
        }
        _ => {}
    }
    let answered = rule.redirect.is_some() || rule.direct_response.is_some();
    problems.demand(
        !answered || rule.rewrite.is_none(),
        "rewrite",
        "nothing is forwarded that could be rewritten",
    );
    problems.demand(
        rule.redirect.is_none() || rule.fault.is_none(),
        "fault",
        "a redirect cannot have faults",
    );
    if let Some(settings) = &rule.redirect {
        problems.field("redirect", |problems| redirect(settings, problems));
        let exact = |condition: &HttpMatch| {
            condition
                .uri
                .as_ref()
                .is_some_and(|uri| uri.exact.is_some() || uri.regex.is_some())
        };
        let prefixed = settings.prefix_rewrite.is_empty() || !rule.r#match.iter().any(exact);
        problems.demand(
            prefixed,
            "redirect",
            "prefixRewrite needs conditions on a prefix of the path",
        );
    }
    if let Some(response) = &rule.direct_response {
        problems.field("directResponse", |problems| {
            direct_response(response, problems)
        });
    }
    if !rule.route.is_empty() {
        destinations(&rule.route, problems);
    }
}

fn common(rule: &HttpRoute, problems: &mut Problems) {
    problems.each("match", &rule.r#match, |problems, condition| {
        self::condition(condition, problems)
    });
    headers(rule.headers.as_ref(), problems);
    if let Some(settings) = &rule.fault {
        problems.field("fault", |problems| fault(settings, problems));
    }
    if let Some(settings) = &rule.retries {
        problems.field("retries", |problems| retry(settings, problems));
    }
    if let Some(settings) = &rule.rewrite {
        problems.field("rewrite", |problems| rewrite(settings, problems));
        problems.demand(
            settings.authority.is_empty() || !sets_authority(rule),
            "rewrite",
            "the authority is either rewritten or set as a header, not both",
        );
    }
    if let Some(settings) = &rule.cors_policy {
        problems.field("corsPolicy", |problems| cors(settings, problems));
    }
    if let Some(timeout) = rule.timeout {
        duration(timeout, "timeout", problems);
    }
    if let Some(mirror) = &rule.mirror {
        problems.field("mirror", |problems| destination(mirror, problems));
    }
    let single = rule.mirror.is_some() && !rule.mirrors.is_empty();
    problems.demand(
        !single,
        "mirrors",
        "copies go to mirror or to mirrors, not both",
    );
    problems.each("mirrors", &rule.mirrors, |problems, mirror| {
        problems.field("destination", |problems| {
            destination(&mirror.destination, problems)
        });
        percentage(mirror.percentage, "percentage", problems);
    });
    problems.demand(
        rule.mirror_percent.is_none_or(|percent| percent <= 100),
        "mirrorPercent",
        "a share is 0 to 100 percent",
    );
    percentage(rule.mirror_percentage, "mirrorPercentage", problems);
}

fn sets_authority(rule: &HttpRoute) -> bool {
    let request = rule
        .headers
        .as_ref()
        .and_then(|headers| headers.request.as_ref());
    request.is_some_and(|operations| {
        operations.set.keys().any(|name| {
            name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
        })
    })
}

/// Whether a rule looks at claims of a token, which gateways alone can.
pub(super) fn asks_for_claims(rule: &HttpRoute) -> bool {
    rule.r#match.iter().any(|condition| {
        let mut names = condition
            .headers
            .keys()
            .chain(condition.without_headers.keys());
        names.any(|name| name.starts_with(CLAIM_PREFIX))
    })
}

/// Checks a condition.
pub fn condition(condition: &HttpMatch, problems: &mut Problems) {
    let texts = [
        ("uri", &condition.uri),
        ("scheme", &condition.scheme),
        ("method", &condition.method),
        ("authority", &condition.authority),
    ];
    for (name, wanted) in texts {
        if let Some(wanted) = wanted {
            problems.field(name, |problems| text(wanted, problems));
        }
    }
    for (field, headers) in [
        ("headers", &condition.headers),
        ("withoutHeaders", &condition.without_headers),
    ] {
        problems.field(field, |problems| {
            for (name, wanted) in headers {
                let claim = name.starts_with(CLAIM_PREFIX);
                problems.demand(
                    claim || is_header(name, true),
                    name,
                    format!("{name:?} is not a header name"),
                );
                problems.field(name, |problems| text(wanted, problems));
            }
        });
    }
    problems.field("queryParams", |problems| {
        for (name, wanted) in &condition.query_params {
            problems.demand(!name.is_empty(), name, "a parameter needs a name");
            problems.field(name, |problems| text(wanted, problems));
        }
    });
    let port = condition.port;
    problems.demand(
        port == 0 || is_port(port),
        "port",
        format!("{port} is not a port: use 1 to 65535"),
    );
    problems.each("gateways", &condition.gateways, |problems, gateway| {
        check_gateway(gateway, problems)
    });
}

pub(super) fn text(wanted: &StringMatch, problems: &mut Problems) {
    let set = [&wanted.exact, &wanted.prefix, &wanted.regex]
        .into_iter()
        .flatten()
        .count();
    if set > 1 {
        problems.add("one of exact, prefix and regex, not several");
    }
    if let Some(expression) = &wanted.regex {
        let valid = expression == "*" || (!expression.is_empty() && is_regex(expression));
        problems.demand(
            valid,
            "regex",
            format!("{expression:?} is not a regular expression"),
        );
    }
    if let Some(prefix) = &wanted.prefix {
        problems.demand(
            !prefix.is_empty(),
            "prefix",
            "an empty prefix matches everything: leave the condition out",
        );
    }
}

/// Checks destinations with their weights.
pub fn destinations(routes: &[HttpRouteDestination], problems: &mut Problems) {
    problems.each("route", routes, |problems, route| {
        problems.demand(route.weight >= 0, "weight", "a weight is 0 or more");
        problems.field("destination", |problems| {
            destination(&route.destination, problems)
        });
        headers(route.headers.as_ref(), problems);
    });
    weights(routes.iter().map(|route| route.weight), problems);
}

fn headers(settings: Option<&Headers>, problems: &mut Problems) {
    let Some(settings) = settings else { return };
    problems.field("headers", |problems| {
        for (name, operations) in [
            ("request", &settings.request),
            ("response", &settings.response),
        ] {
            if let Some(operations) = operations {
                problems.field(name, |problems| header_operations(operations, problems));
            }
        }
    });
}

fn header_operations(operations: &HeaderOperations, problems: &mut Problems) {
    for (field, entries) in [("set", &operations.set), ("add", &operations.add)] {
        problems.field(field, |problems| {
            for (name, value) in entries {
                problems.demand(
                    is_header(name, true),
                    name,
                    format!("{name:?} is not a header name"),
                );
                problems.demand(
                    is_header_value(value),
                    name,
                    "a percent sign begins an operator such as %HOSTNAME%, or is doubled",
                );
            }
        });
    }
    problems.each("remove", &operations.remove, |problems, name| {
        if !is_header(name, false) {
            problems.add(format!(
                "{name:?} is not the name of a header that can be removed"
            ));
        }
    });
}

/// Checks a redirect.
pub fn redirect(redirect: &HttpRedirect, problems: &mut Problems) {
    let changes = !redirect.uri.is_empty()
        || !redirect.prefix_rewrite.is_empty()
        || !redirect.authority.is_empty()
        || !redirect.scheme.is_empty()
        || redirect.port.is_some()
        || redirect.derive_port.is_some();
    if !changes {
        problems.add("a redirect changes something: uri, prefixRewrite, authority, port or scheme");
    }
    problems.demand(
        redirect.uri.is_empty() || redirect.prefix_rewrite.is_empty(),
        "prefixRewrite",
        "uri replaces the whole path, prefixRewrite its beginning: set one",
    );
    problems.demand(
        matches!(redirect.redirect_code, 0 | 301 | 302 | 303 | 307 | 308),
        "redirectCode",
        format!(
            "{} is not one of 301, 302, 303, 307, 308",
            redirect.redirect_code
        ),
    );
    problems.demand(
        matches!(redirect.scheme.as_str(), "" | "http" | "https"),
        "scheme",
        format!("{:?} is neither http nor https", redirect.scheme),
    );
    problems.demand(
        redirect.port.is_none_or(is_port),
        "port",
        "a port is 1 to 65535",
    );
}

/// Checks a fixed response.
pub fn direct_response(response: &DirectResponse, problems: &mut Problems) {
    problems.demand(
        (200..600).contains(&response.status),
        "status",
        format!("{} is not a status code from 200 to 599", response.status),
    );
    let body = response
        .body
        .as_ref()
        .and_then(|body| body.string.as_ref().or(body.bytes.as_ref()));
    let bytes = response.body.as_ref().and_then(|body| body.bytes.as_ref());
    let base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    problems.demand(
        bytes.is_none_or(|bytes| bytes.len().is_multiple_of(4) && bytes.chars().all(base64)),
        "body",
        "bytes are written in base64",
    );
    let length = body.map_or(0, String::len);
    problems.demand(
        length <= MAX_BODY,
        "body",
        format!("{length} bytes are more than {MAX_BODY}"),
    );
}

/// Checks a rewrite.
pub fn rewrite(rewrite: &HttpRewrite, problems: &mut Problems) {
    let regex = rewrite.uri_regex_rewrite.as_ref();
    if rewrite.uri.is_empty() && rewrite.authority.is_empty() && regex.is_none() {
        problems.add("a rewrite changes something: uri, uriRegexRewrite or authority");
    }
    if let Some(regex) = regex {
        problems.demand(
            rewrite.uri.is_empty(),
            "uri",
            "uri and uriRegexRewrite exclude each other",
        );
        problems.field("uriRegexRewrite", |problems| regex_rewrite(regex, problems));
    }
}

/// Checks a replacement by a regular expression.
pub fn regex_rewrite(regex: &RegexRewrite, problems: &mut Problems) {
    problems.demand(
        !regex.r#match.is_empty() && is_regex(&regex.r#match),
        "match",
        format!("{:?} is not a regular expression", regex.r#match),
    );
    problems.demand(
        !regex.rewrite.is_empty(),
        "rewrite",
        "a replacement is needed",
    );
}
