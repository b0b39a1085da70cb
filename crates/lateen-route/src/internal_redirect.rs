//! Redirects of endpoints that the proxy follows itself (`internal_redirect_policy`).

use http::{HeaderName, StatusCode};
use lateen_xds::pb::envoy::config::core::v3::TypedExtensionConfig;
use lateen_xds::pb::envoy::config::route::v3::InternalRedirectPolicy;
use lateen_xds::pb::envoy::extensions::internal_redirect::allow_listed_routes::v3::AllowListedRoutesConfig;
use prost::Message;

use crate::constraint::header_name;
use crate::{Invalid, Within, refuse_rest};

const PREDICATES: &str = "type.googleapis.com/envoy.extensions.internal_redirect.";

/// Redirects that one request may take when nothing is configured.
const DEFAULT_MOST: u32 = 1;

/// Responses that can be followed.
const REDIRECTS: [u32; 5] = [301, 302, 303, 307, 308];

/// Which redirects are followed.
#[derive(Debug)]
pub struct InternalRedirects {
    /// Of one request.
    pub most: u32,
    /// Responses that are followed.
    pub statuses: Vec<StatusCode>,
    /// All must agree.
    pub predicates: Vec<Predicate>,
    /// They may lead from `http` to `https` and back.
    pub cross_scheme: bool,
    /// Headers of the response that replace those of the request.
    pub copied: Vec<HeaderName>,
}

/// What a redirect must satisfy.
#[derive(Debug, PartialEq, Eq)]
pub enum Predicate {
    /// It leads to a route that this route has not sent the request to before.
    NewRoute,
    /// It leads to a route with one of these names.
    Routes(Vec<String>),
    /// It does not lead from `http` to `https`.
    SafeScheme,
}

impl InternalRedirects {
    /// Compiles the policy of a route.
    ///
    /// # Errors
    /// When it is invalid, or has a predicate that is not known.
    pub(crate) fn compile(mut message: InternalRedirectPolicy) -> Result<Self, Invalid> {
        let most = message.max_internal_redirects.take();
        let mut statuses = std::mem::take(&mut message.redirect_response_codes);
        if statuses.len() > REDIRECTS.len() {
            let reason = format!("at most {} are allowed", REDIRECTS.len());
            return Err(Invalid::new("redirect_response_codes", reason));
        }
        if statuses.is_empty() {
            statuses.push(302);
        }
        let predicates = std::mem::take(&mut message.predicates)
            .into_iter()
            .enumerate();
        let predicates = predicates
            .map(|(index, message)| predicate(message).within_item("predicates", index))
            .collect::<Result<_, _>>()?;
        let copied = std::mem::take(&mut message.response_headers_to_copy);
        let copied = copied.iter().enumerate().map(|(index, name)| {
            if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
                let reason = format!("`{name}` cannot be changed this way");
                return Err(Invalid::new("", reason));
            }
            header_name("", name).within_item("response_headers_to_copy", index)
        });
        let redirects = Self {
            most: most.map_or(DEFAULT_MOST, |most| most.value),
            // Others are ignored, as in Envoy.
            statuses: statuses
                .into_iter()
                .filter(|code| REDIRECTS.contains(code))
                .filter_map(|code| StatusCode::from_u16(u16::try_from(code).ok()?).ok())
                .collect(),
            predicates,
            cross_scheme: std::mem::take(&mut message.allow_cross_scheme_redirect),
            copied: copied.collect::<Result<_, _>>()?,
        };
        refuse_rest(&message)?;
        Ok(redirects)
    }

    /// Whether the predicates agree to a redirect of the route `from` to the route `to`. `before` has those of the request
    /// so far; `https` says whether request and target are of that scheme.
    pub fn agree(
        &self,
        from: &str,
        to: &str,
        before: &[(String, String)],
        https: (bool, bool),
    ) -> bool {
        self.predicates.iter().all(|predicate| match predicate {
            Predicate::NewRoute => !before.iter().any(|(by, other)| by == from && other == to),
            Predicate::Routes(names) => names.iter().any(|name| name == to),
            Predicate::SafeScheme => https.0 || !https.1,
        })
    }
}

fn predicate(message: TypedExtensionConfig) -> Result<Predicate, Invalid> {
    let any = message.typed_config.unwrap_or_default();
    let kind = any.type_url.strip_prefix(PREDICATES).unwrap_or_default();
    match kind {
        "previous_routes.v3.PreviousRoutesConfig" => Ok(Predicate::NewRoute),
        "safe_cross_scheme.v3.SafeCrossSchemeConfig" => Ok(Predicate::SafeScheme),
        "allow_listed_routes.v3.AllowListedRoutesConfig" => {
            let config = AllowListedRoutesConfig::decode(any.value.as_slice())
                .map_err(|error| Invalid::new("typed_config", error.to_string()))?;
            Ok(Predicate::Routes(config.allowed_route_names))
        }
        _ => {
            let reason = format!(
                "predicate `{}` is not supported by this proxy",
                any.type_url
            );
            Err(Invalid::new("typed_config", reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(predicate: Predicate, to: &str, https: (bool, bool), agrees: bool) {
        let redirects = InternalRedirects {
            most: 1,
            statuses: Vec::new(),
            predicates: vec![predicate],
            cross_scheme: true,
            copied: Vec::new(),
        };
        let before = [
            ("here".to_owned(), "there".to_owned()),
            ("far".to_owned(), "near".to_owned()),
        ];
        assert_eq!(redirects.agree("here", to, &before, https), agrees, "{to}");
    }

    #[test]
    fn predicates_refuse_what_they_are_for() {
        check(Predicate::NewRoute, "there", (false, false), false);
        check(Predicate::NewRoute, "near", (false, false), true);
        check(
            Predicate::Routes(vec!["a".to_owned()]),
            "a",
            (false, false),
            true,
        );
        check(
            Predicate::Routes(vec!["a".to_owned()]),
            "b",
            (false, false),
            false,
        );
        check(Predicate::SafeScheme, "a", (false, true), false);
        check(Predicate::SafeScheme, "a", (true, false), true);
        check(Predicate::SafeScheme, "a", (true, true), true);
    }
}
