//! Checks of filters.

use crate::{
    gateway_api::http_route::{
        Cors, HeaderModifier, PathModifier, PathModifierType, RequestMirror, RequestRedirect,
        RouteFilter, RouteFilterType, UrlRewrite,
    },
    validation::{
        Problems,
        names::{is_header, is_header_value, is_host},
    },
};

use super::route;

/// Status codes of redirects.
const REDIRECTS: [u32; 5] = [301, 302, 303, 307, 308];

/// Checks a filter. `prefix`: whether the rule has one match, of a prefix, so that the prefix can be replaced; unset
/// where paths are not changed at all.
pub(super) fn check(filter: &RouteFilter, prefix: Option<bool>, problems: &mut Problems) {
    let fields = [
        (
            RouteFilterType::RequestHeaderModifier,
            "requestHeaderModifier",
            filter.request_header_modifier.is_some(),
        ),
        (
            RouteFilterType::ResponseHeaderModifier,
            "responseHeaderModifier",
            filter.response_header_modifier.is_some(),
        ),
        (
            RouteFilterType::RequestMirror,
            "requestMirror",
            filter.request_mirror.is_some(),
        ),
        (
            RouteFilterType::RequestRedirect,
            "requestRedirect",
            filter.request_redirect.is_some(),
        ),
        (
            RouteFilterType::UrlRewrite,
            "urlRewrite",
            filter.url_rewrite.is_some(),
        ),
        (RouteFilterType::Cors, "cors", filter.cors.is_some()),
        (
            RouteFilterType::ExtensionRef,
            "extensionRef",
            filter.extension_ref.is_some(),
        ),
    ];
    for (kind, name, set) in fields {
        let fits = set == (filter.r#type == kind);
        let message = format!("is set if, and only if, the type is {kind:?}");
        problems.demand(fits, name, message);
    }
    if let Some(modifier) = &filter.request_header_modifier {
        problems.field("requestHeaderModifier", |problems| {
            headers(modifier, problems)
        });
    }
    if let Some(modifier) = &filter.response_header_modifier {
        problems.field("responseHeaderModifier", |problems| {
            headers(modifier, problems)
        });
    }
    if let Some(settings) = &filter.request_mirror {
        problems.field("requestMirror", |problems| mirror(settings, problems));
    }
    if let Some(settings) = &filter.request_redirect {
        problems.field("requestRedirect", |problems| {
            redirect(settings, prefix, problems);
        });
    }
    if let Some(settings) = &filter.url_rewrite {
        problems.field("urlRewrite", |problems| rewrite(settings, prefix, problems));
    }
    if let Some(settings) = &filter.cors {
        problems.field("cors", |problems| cors(settings, problems));
    }
}

/// Mirrors and filters of others may be there more than once.
pub(super) fn at_most_one_each(filters: &[RouteFilter], problems: &mut Problems) {
    for kind in [
        RouteFilterType::RequestHeaderModifier,
        RouteFilterType::ResponseHeaderModifier,
        RouteFilterType::RequestRedirect,
        RouteFilterType::UrlRewrite,
        RouteFilterType::Cors,
    ] {
        let count = filters.iter().filter(|one| one.r#type == kind).count();
        let message = format!("a filter of type {kind:?} is there {count} times");
        problems.demand(count <= 1, "filters", message);
    }
}

fn headers(modifier: &HeaderModifier, problems: &mut Problems) {
    for (field, list) in [("set", &modifier.set), ("add", &modifier.add)] {
        problems.each(field, list, |problems, header| {
            let name = &header.name;
            let message = format!("{name:?} cannot be the name of a header");
            problems.demand(is_header(name, false), "name", message);
            let message = format!("{:?} cannot be the value of a header", header.value);
            problems.demand(is_header_text(&header.value), "value", message);
        });
    }
    problems.each("remove", &modifier.remove, |problems, name| {
        if !is_header(name, false) {
            problems.add(format!("{name:?} cannot be the name of a header"));
        }
    });
}

/// Whether a text can be sent as the value of a header, RFC 9110 section 5.5, and a proxy takes its `%`.
pub fn is_header_text(value: &str) -> bool {
    let sendable = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
    value.bytes().all(sendable) && is_header_value(value)
}

fn mirror(settings: &RequestMirror, problems: &mut Problems) {
    problems.field("backendRef", |problems| {
        route::reference(&settings.backend_ref, problems);
    });
    let alone = settings.percent.is_none() || settings.fraction.is_none();
    problems.demand(alone, "percent", "stands without fraction");
    let percent = settings.percent.unwrap_or_default();
    problems.demand((0..=100).contains(&percent), "percent", "use 0 to 100");
    if let Some(fraction) = &settings.fraction {
        let whole = fraction.denominator.unwrap_or(100);
        let fits = whole >= 1 && (0..=whole).contains(&fraction.numerator);
        problems.demand(fits, "fraction", "is not between 0 and 1");
    }
}

fn redirect(settings: &RequestRedirect, prefix: Option<bool>, problems: &mut Problems) {
    if let Some(scheme) = &settings.scheme {
        let known = matches!(scheme.as_str(), "http" | "https");
        problems.demand(known, "scheme", "use http or https");
    }
    if let Some(code) = settings.status_code {
        let message = format!("{code} is none of {REDIRECTS:?}");
        problems.demand(REDIRECTS.contains(&code), "statusCode", message);
    }
    host_and_path(
        settings.hostname.as_deref(),
        settings.path.as_ref(),
        prefix,
        problems,
    );
}

fn rewrite(settings: &UrlRewrite, prefix: Option<bool>, problems: &mut Problems) {
    host_and_path(
        settings.hostname.as_deref(),
        settings.path.as_ref(),
        prefix,
        problems,
    );
}

fn host_and_path(
    host: Option<&str>,
    path: Option<&PathModifier>,
    prefix: Option<bool>,
    problems: &mut Problems,
) {
    if let Some(host) = host {
        let message = format!("{host:?} is no host");
        problems.demand(is_host(host), "hostname", message);
    }
    let Some(path) = path else { return };
    problems.field("path", |problems| {
        let by_prefix = path.r#type == PathModifierType::ReplacePrefixMatch;
        let (whole, part) = (&path.replace_full_path, &path.replace_prefix_match);
        let message = "is set if, and only if, the type is ReplaceFullPath";
        problems.demand(whole.is_some() != by_prefix, "replaceFullPath", message);
        let message = "is set if, and only if, the type is ReplacePrefixMatch";
        problems.demand(part.is_some() == by_prefix, "replacePrefixMatch", message);
        if by_prefix && prefix == Some(false) {
            let message = "needs exactly one match, of type PathPrefix";
            problems.add_to("replacePrefixMatch", message);
        }
        for value in [whole, part].into_iter().flatten() {
            // The new path is sent in the request line.
            if value.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
                problems.add(format!("{value:?} has characters that a path may not"));
            }
        }
    });
}

fn cors(settings: &Cors, problems: &mut Problems) {
    problems.each(
        "allowOrigins",
        &settings.allow_origins,
        |problems, origin| {
            let known = ["http://", "https://"];
            let host = known.iter().find_map(|scheme| origin.strip_prefix(scheme));
            let plain = |c: char| c.is_ascii_alphanumeric() || "-.:*".contains(c);
            let valid = host.is_some_and(|host| !host.is_empty() && host.chars().all(plain));
            if origin != "*" && !valid {
                problems.add(format!("{origin:?} is neither * nor scheme://host[:port]"));
            }
        },
    );
    for (field, names) in [
        ("allowMethods", &settings.allow_methods),
        ("allowHeaders", &settings.allow_headers),
        ("exposeHeaders", &settings.expose_headers),
    ] {
        problems.each(field, names, |problems, name| {
            if name != "*" && !is_header(name, false) {
                problems.add(format!("{name:?} is neither * nor a name"));
            }
        });
    }
    let age = settings.max_age.unwrap_or(1);
    problems.demand(age >= 1, "maxAge", "use 1 or more seconds");
}
