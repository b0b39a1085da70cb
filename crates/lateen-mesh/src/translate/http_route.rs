//! HTTP rules of virtual services as routes.

use lateen_api::{
    VirtualService,
    common::{Condition, StringMatch, labels_match},
    networking::{
        http_route::{HttpMatch, HttpRewrite, HttpRoute, HttpRouteDestination},
        virtual_service::Destination,
    },
};
use lateen_xds::pb::envoy::{
    config::{
        core::v3::RuntimeFractionalPercent,
        route::v3::{
            Decorator, Route, RouteAction, RouteMatch, WeightedCluster,
            route::Action,
            route_action::{
                ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier,
                RequestMirrorPolicy,
            },
            route_match::PathSpecifier,
            weighted_cluster::{ClusterWeight, cluster_weight},
        },
    },
    r#type::matcher::v3::RegexMatchAndSubstitute,
};

use super::{
    build::{
        config_metadata, duration, fields, flag, metadata, number, ordered, per_hundred,
        per_million, seconds, text,
    },
    destination, hash_policy,
    header_operations::operations,
    http_answer::{direct_response, redirect_action},
    http_match::{self, Prefixes},
    retry, route_filters,
};
use crate::{
    Index, Proxy,
    index::{Service, gateway_name, is_of_gateway_api},
    names::ClusterName,
};

/// Where rules are applied.
pub(super) struct Place<'a, 's> {
    pub(super) index: &'a Index,
    pub(super) proxy: &'a Proxy,
    /// `mesh` or `namespace/name` of a gateway; any of them.
    pub(super) gateways: &'a [String],
    /// Port that clients use.
    pub(super) port: u32,
    /// Do clients speak TLS to it?
    pub(super) tls: bool,
    /// Services that destinations are looked up in.
    pub(super) services: &'a dyn Fn(&str) -> Option<&'s Service>,
}

/// The routes of a virtual service, in order; nothing follows a rule that takes everything.
pub(super) fn routes(place: &Place<'_, '_>, rules: &VirtualService) -> Vec<Route> {
    let mut routes = Vec::new();
    for rule in &rules.spec.http {
        if rule.r#match.is_empty() {
            routes.push(route(place, rules, rule, None));
            return routes;
        }
        for condition in &rule.r#match {
            if !applies(place, rules, condition) {
                continue;
            }
            let route = route(place, rules, rule, Some(condition));
            let last = route.r#match.as_ref().is_some_and(http_match::matches_all);
            routes.push(route);
            if last {
                return routes;
            }
        }
    }
    routes
}

/// Conditions on the client and the port are decided here, not for each request.
fn applies(place: &Place<'_, '_>, rules: &VirtualService, condition: &HttpMatch) -> bool {
    if condition.port != 0 && condition.port != place.port {
        return false;
    }
    if !condition.gateways.is_empty() {
        let mut named = condition
            .gateways
            .iter()
            .map(|name| gateway_name(name, rules.namespace()));
        return named.any(|name| place.gateways.contains(&name));
    }
    (condition.source_namespace.is_empty() || condition.source_namespace == place.proxy.namespace)
        && labels_match(&condition.source_labels, &place.proxy.labels)
}

fn route(
    place: &Place<'_, '_>,
    rules: &VirtualService,
    rule: &HttpRoute,
    condition: Option<&HttpMatch>,
) -> Route {
    let condition_name = condition
        .map(|condition| condition.name.as_str())
        .unwrap_or_default();
    let name = match (rule.name.as_str(), condition_name) {
        ("", _) => String::new(),
        (rule, "") => rule.to_owned(),
        (rule, condition) => format!("{rule}.{condition}"),
    };
    let of_gateway_api = is_of_gateway_api(rules);
    let prefixes = if of_gateway_api {
        Prefixes::Segments
    } else {
        Prefixes::Characters
    };
    let matching = http_match::route_match(condition, prefixes);
    let changes = rule.headers.as_ref();
    let mut request = operations(changes.and_then(|headers| headers.request.as_ref()));
    let mut response = operations(changes.and_then(|headers| headers.response.as_ref()));
    // Changes of the only destination are the route's own, after the rule's; a host that the rule sets stays.
    if let [only] = rule.route.as_slice()
        && let Some(changes) = &only.headers
    {
        request.extend(operations(changes.request.as_ref()));
        response.extend(operations(changes.response.as_ref()));
    }
    let action = if let Some(redirect) = &rule.redirect {
        Action::Redirect(redirect_action(redirect, place.port, place.tls, &matching))
    } else if let Some(response) = &rule.direct_response {
        Action::DirectResponse(direct_response(response))
    } else {
        let mut action = route_action(place, rules, rule, condition, request.authority);
        if of_gateway_api {
            action.cluster_not_found_response_code =
                ClusterNotFoundResponseCode::InternalServerError.into();
            keep_slash(&mut action, &matching);
        }
        Action::Route(action)
    };
    let operation = format!(
        "{}{}",
        target(&action, rules, place.port),
        operation_path(&matching)
    );
    Route {
        name,
        decorator: Some(Decorator {
            operation,
            propagate: None,
        }),
        r#match: Some(matching),
        metadata: metadata(
            "istio",
            fields([(
                "config",
                text(config_metadata(
                    "virtual-service",
                    rules.namespace(),
                    rules.name(),
                )),
            )]),
        ),
        typed_per_filter_config: ordered(route_filters::of_route(
            rule.fault.as_ref(),
            rule.cors_policy.as_ref(),
        )),
        request_headers_to_add: request.add,
        request_headers_to_remove: request.remove,
        response_headers_to_add: response.add,
        response_headers_to_remove: response.remove,
        stat_prefix: condition
            .map(|condition| condition.stat_prefix.clone())
            .unwrap_or_default(),
        action: Some(action),
        ..Route::default()
    }
}

/// A prefix by segments that is replaced by `/` goes together with the slash behind it: `/a/b` without `/a` is `/b`.
fn keep_slash(action: &mut RouteAction, matching: &RouteMatch) {
    if let Some(PathSpecifier::PathSeparatedPrefix(prefix)) = &matching.path_specifier
        && action.prefix_rewrite == "/"
    {
        action.prefix_rewrite.clear();
        action.regex_rewrite = Some(http_match::without_prefix(prefix));
    }
}

/// What a trace calls the destination: `host:port`, or the rules' own name when there are several.
fn target(action: &Action, rules: &VirtualService, port: u32) -> String {
    if let Action::Route(RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(name)),
        ..
    }) = action
        && let Some(cluster) = ClusterName::parse(name)
    {
        return format!("{}:{}", cluster.host, cluster.port);
    }
    format!("{}:{port}", rules.name())
}

fn operation_path(matching: &RouteMatch) -> String {
    match &matching.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => format!("{prefix}*"),
        Some(PathSpecifier::Path(path)) => path.clone(),
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex.clone(),
        _ => "/*".to_owned(),
    }
}

#[allow(deprecated)] // `max_grpc_timeout` is what Istio sends to every Envoy
fn route_action(
    place: &Place<'_, '_>,
    rules: &VirtualService,
    rule: &HttpRoute,
    condition: Option<&HttpMatch>,
    authority: Option<String>,
) -> RouteAction {
    let timeout = rule.timeout.unwrap_or_default();
    let mut hash_policies = Vec::new();
    for destination in &rule.route {
        let policy = hash_of(place, rules, &destination.destination);
        hash_policies.extend(policy.filter(|policy| !hash_policies.contains(policy)));
    }
    let mut action = RouteAction {
        timeout: duration(timeout),
        max_grpc_timeout: duration(timeout),
        retry_policy: retry::policy(rule.retries.as_ref(), !hash_policies.is_empty()),
        hash_policy: hash_policies,
        request_mirror_policies: mirrors(place, rules, rule),
        ..RouteAction::default()
    };
    if let Some(rewrite) = &rule.rewrite {
        apply_rewrite(&mut action, rewrite, condition);
    }
    // An authority in the rewrite comes before one that is set as a header.
    if action.host_rewrite_specifier.is_none() {
        action.host_rewrite_specifier = authority.map(HostRewriteSpecifier::HostRewriteLiteral);
    }
    let used: Vec<&HttpRouteDestination> = match rule.route.as_slice() {
        [only] => vec![only],
        several => several
            .iter()
            .filter(|destination| destination.weight > 0)
            .collect(),
    };
    match used.as_slice() {
        [only] if only.headers.is_none() || rule.route.len() == 1 => {
            action.cluster_specifier = Some(ClusterSpecifier::Cluster(cluster(
                place,
                rules,
                &only.destination,
            )));
        }
        several => {
            let clusters = several
                .iter()
                .map(|destination| weighted(place, rules, destination, several.len()));
            action.cluster_specifier = Some(ClusterSpecifier::WeightedClusters(WeightedCluster {
                clusters: clusters.collect(),
                ..WeightedCluster::default()
            }));
        }
    }
    action
}

fn weighted(
    place: &Place<'_, '_>,
    rules: &VirtualService,
    destination: &HttpRouteDestination,
    count: usize,
) -> ClusterWeight {
    let headers = destination.headers.as_ref();
    let request = operations(headers.and_then(|headers| headers.request.as_ref()));
    let response = operations(headers.and_then(|headers| headers.response.as_ref()));
    // The weight of a single destination does not matter, also when it is 0.
    let weight = if count == 1 {
        100
    } else {
        destination.weight.unsigned_abs()
    };
    ClusterWeight {
        name: cluster(place, rules, &destination.destination),
        weight: number(weight),
        request_headers_to_add: request.add,
        request_headers_to_remove: request.remove,
        response_headers_to_add: response.add,
        response_headers_to_remove: response.remove,
        host_rewrite_specifier: request
            .authority
            .map(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral),
        ..ClusterWeight::default()
    }
}

fn cluster(place: &Place<'_, '_>, rules: &VirtualService, destination: &Destination) -> String {
    let host = place.index.resolve(&destination.host, rules.namespace());
    destination::cluster_of(destination, &host, (place.services)(&host), place.port)
}

fn hash_of(
    place: &Place<'_, '_>,
    rules: &VirtualService,
    destination: &Destination,
) -> Option<lateen_xds::pb::envoy::config::route::v3::route_action::HashPolicy> {
    let name = cluster(place, rules, destination);
    let cluster = ClusterName::parse(&name)?;
    let service = place
        .index
        .service_seen_from(cluster.host, &place.proxy.namespace)?;
    hash_policy::of_destination(
        place.index,
        place.proxy,
        service,
        cluster.port,
        cluster.subset,
    )
}

fn mirrors(
    place: &Place<'_, '_>,
    rules: &VirtualService,
    rule: &HttpRoute,
) -> Vec<RequestMirrorPolicy> {
    let share = match (&rule.mirror_percentage, rule.mirror_percent) {
        (Some(percent), _) => per_million(percent.value),
        (None, Some(percent)) => per_hundred(percent),
        (None, None) => per_hundred(100),
    };
    let single = rule.mirror.iter().map(|destination| (destination, share));
    let several = rule.mirrors.iter().map(|mirror| {
        let share = mirror
            .percentage
            .map_or_else(|| per_hundred(100), |percent| per_million(percent.value));
        (&mirror.destination, share)
    });
    single
        .chain(several)
        .filter(|(_, share)| share.numerator > 0)
        .map(|(destination, share)| RequestMirrorPolicy {
            cluster: cluster(place, rules, destination),
            runtime_fraction: Some(RuntimeFractionalPercent {
                default_value: Some(share),
                ..RuntimeFractionalPercent::default()
            }),
            trace_sampled: flag(false),
            disable_shadow_host_suffix_append: true,
            ..RequestMirrorPolicy::default()
        })
        .collect()
}

fn apply_rewrite(action: &mut RouteAction, rewrite: &HttpRewrite, condition: Option<&HttpMatch>) {
    if let Some(substitution) = &rewrite.uri_regex_rewrite {
        action.regex_rewrite = Some(RegexMatchAndSubstitute {
            pattern: Some(http_match::regex(&substitution.r#match)),
            substitution: substitution.rewrite.clone(),
        });
    } else if !rewrite.uri.is_empty() {
        let uri = condition
            .and_then(|condition| condition.uri.as_ref())
            .map(StringMatch::condition);
        match uri {
            // Nothing of the path is "what matched": all of it is replaced.
            Some(Condition::Regex(_)) => {
                action.regex_rewrite = Some(RegexMatchAndSubstitute {
                    pattern: Some(http_match::regex(r"^/.*$")),
                    substitution: rewrite.uri.clone(),
                });
            }
            _ => action.prefix_rewrite.clone_from(&rewrite.uri),
        }
    }
    if !rewrite.authority.is_empty() {
        action.host_rewrite_specifier = Some(HostRewriteSpecifier::HostRewriteLiteral(
            rewrite.authority.clone(),
        ));
    }
}

/// The route of a service that no virtual service is for.
#[allow(deprecated)] // `max_grpc_timeout`, as below
pub(super) fn default_route(index: &Index, proxy: &Proxy, service: &Service, port: u32) -> Route {
    let hash = hash_policy::of_destination(index, proxy, service, port, "");
    Route {
        name: "default".to_owned(),
        r#match: Some(http_match::route_match(None, Prefixes::Characters)),
        decorator: Some(Decorator {
            operation: format!("{}:{port}/*", service.host),
            propagate: None,
        }),
        action: Some(Action::Route(RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(
                ClusterName::outbound(port, "", &service.host).to_string(),
            )),
            timeout: seconds(0),
            max_grpc_timeout: seconds(0),
            // Istio keeps looking for another endpoint here, whatever the hash says.
            retry_policy: retry::policy(None, false),
            hash_policy: hash.into_iter().collect(),
            ..RouteAction::default()
        })),
        ..Route::default()
    }
}
