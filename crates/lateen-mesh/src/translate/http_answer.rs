//! Rules that answer at once: redirects and fixed responses.

use base64::{Engine as _, prelude::BASE64_STANDARD as BASE64};
use lateen_api::networking::http_route::{DerivePort, DirectResponse, HttpRedirect};
use lateen_xds::pb::envoy::config::{
    core::v3::{DataSource, data_source::Specifier},
    route::v3::{
        DirectResponseAction, RedirectAction, RouteMatch,
        redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier},
        route_match::PathSpecifier,
    },
};

use super::http_match;

/// A redirect of requests that came to this port, with TLS or without.
pub(super) fn redirect_action(
    redirect: &HttpRedirect,
    port: u32,
    tls: bool,
    matching: &RouteMatch,
) -> RedirectAction {
    let code = match redirect.redirect_code {
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    };
    let segments = match &matching.path_specifier {
        Some(PathSpecifier::PathSeparatedPrefix(matched)) => Some(matched),
        _ => None,
    };
    let path = match (redirect.uri.as_str(), redirect.prefix_rewrite.as_str()) {
        ("", "") => None,
        ("", prefix) if let Some(matched) = segments => Some(if prefix == "/" {
            PathRewriteSpecifier::RegexRewrite(http_match::without_prefix(matched))
        } else {
            PathRewriteSpecifier::PrefixRewrite(prefix.to_owned())
        }),
        ("", prefix) if matches!(matching.path_specifier, Some(PathSpecifier::Prefix(_))) => {
            Some(PathRewriteSpecifier::PrefixRewrite(prefix.to_owned()))
        }
        ("", path) | (path, _) => Some(PathRewriteSpecifier::PathRedirect(path.to_owned())),
    };
    let scheme = redirect.scheme.as_str();
    let wanted_port = match (redirect.port, redirect.derive_port) {
        (Some(port), _) => port,
        (None, Some(DerivePort::FromRequestPort)) => port,
        (None, Some(DerivePort::FromProtocolDefault)) | (None, None) => 0,
    };
    // The default port of a scheme is not shown.
    let shown_scheme = match scheme {
        "" if tls => "https",
        "" => "http",
        scheme => scheme,
    };
    let shown_port = match (shown_scheme, wanted_port) {
        ("http", 80) | ("https", 443) => 0,
        _ => wanted_port,
    };
    RedirectAction {
        host_redirect: redirect.authority.clone(),
        port_redirect: shown_port,
        response_code: code.into(),
        scheme_rewrite_specifier: (!scheme.is_empty())
            .then(|| SchemeRewriteSpecifier::SchemeRedirect(scheme.to_owned())),
        path_rewrite_specifier: path,
        ..RedirectAction::default()
    }
}

/// A fixed response. Bytes are written in base64.
pub(super) fn direct_response(response: &DirectResponse) -> DirectResponseAction {
    let body = response.body.as_ref().and_then(|body| {
        let text = body.string.clone().map(Specifier::InlineString);
        let bytes = body.bytes.as_ref();
        text.or_else(|| Some(Specifier::InlineBytes(BASE64.decode(bytes?).ok()?)))
    });
    DirectResponseAction {
        status: response.status,
        body: body.map(|specifier| DataSource {
            specifier: Some(specifier),
            ..DataSource::default()
        }),
        body_format: None,
    }
}

#[cfg(test)]
mod tests {
    use lateen_api::networking::http_route::HttpBody;

    use super::*;

    #[test]
    fn the_default_port_of_a_scheme_is_not_shown() {
        let check = |scheme: &str, port: u32, tls: bool, expected: u32| {
            let redirect = HttpRedirect {
                scheme: scheme.to_owned(),
                derive_port: Some(DerivePort::FromRequestPort),
                ..HttpRedirect::default()
            };
            let action = redirect_action(&redirect, port, tls, &RouteMatch::default());
            assert_eq!(action.port_redirect, expected, "{scheme:?} {port} {tls}");
        };
        check("", 80, false, 0);
        check("", 80, true, 80);
        check("", 443, true, 0);
        check("https", 443, false, 0);
        check("http", 443, false, 443);
        check("", 8080, false, 8080);
    }

    #[test]
    fn bodies_are_text_or_bytes() {
        let check = |body: HttpBody, expected: Specifier| {
            let response = DirectResponse {
                status: 200,
                body: Some(body),
            };
            let found = direct_response(&response)
                .body
                .and_then(|body| body.specifier);
            assert_eq!(found, Some(expected));
        };
        let text = HttpBody {
            string: Some("ok".to_owned()),
            bytes: None,
        };
        check(text, Specifier::InlineString("ok".to_owned()));
        let bytes = HttpBody {
            string: None,
            bytes: Some("AP8=".to_owned()),
        };
        check(bytes, Specifier::InlineBytes(vec![0, 255]));
    }
}
