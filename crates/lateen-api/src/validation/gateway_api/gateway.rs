//! Checks of gateways, classes and grants.

use std::collections::BTreeSet;

use crate::{
    gateway_api::{
        GatewayClassSpec, GatewaySpec, ReferenceGrantSpec,
        gateway::{FromNamespaces, TlsMode},
    },
    validation::{
        Problems,
        names::{is_dns_label, is_host, is_port},
    },
};

/// Checks a gateway. Protocols that are not served are told in its status, as others may serve them.
pub fn gateway(spec: &GatewaySpec, problems: &mut Problems) {
    let message = "a gateway has a class";
    problems.demand(
        !spec.gateway_class_name.is_empty(),
        "gatewayClassName",
        message,
    );
    let message = "a gateway has a listener";
    problems.demand(!spec.listeners.is_empty(), "listeners", message);
    let (mut names, mut places) = (BTreeSet::new(), BTreeSet::new());
    problems.each("listeners", &spec.listeners, |problems, listener| {
        let name = &listener.name;
        let message = format!("{name:?} is not the name of a listener");
        problems.demand(is_host(name), "name", message);
        if !names.insert(name) {
            problems.add_to("name", format!("{name:?} is there twice"));
        }
        problems.demand(is_port(listener.port), "port", "use 1 to 65535");
        let host = listener.hostname.as_deref();
        if !places.insert((listener.port, &listener.protocol, host)) {
            problems.add("port, protocol and hostname are those of another listener");
        }
        if let Some(host) = host {
            let name = host.strip_prefix("*.").unwrap_or(host);
            let message = format!("{host:?} is neither a host nor *. and a domain");
            problems.demand(is_host(name), "hostname", message);
        }
        let plain = matches!(listener.protocol.as_str(), "HTTP" | "TCP" | "UDP");
        let message = format!("protocol {} has no tls", listener.protocol);
        problems.demand(!(plain && listener.tls.is_some()), "tls", message);
        if plain && listener.protocol != "HTTP" {
            let message = format!("protocol {} has no hostname", listener.protocol);
            problems.demand(host.is_none(), "hostname", message);
        }
        if listener.protocol == "HTTPS"
            && let Some(tls) = &listener.tls
        {
            let ends = tls.mode.unwrap_or_default() == TlsMode::Terminate;
            problems.demand(ends, "tls", "mode must be Terminate for protocol HTTPS");
        }
        let allowed = listener.allowed_routes.as_ref();
        if let Some(namespaces) = allowed.and_then(|allowed| allowed.namespaces.as_ref()) {
            let selects = namespaces.from == Some(FromNamespaces::Selector);
            let message = "from: Selector needs a selector";
            problems.demand(
                !selects || namespaces.selector.is_some(),
                "allowedRoutes",
                message,
            );
        }
    });
}

/// Checks a class.
pub fn gateway_class(spec: &GatewayClassSpec, problems: &mut Problems) {
    let name = &spec.controller_name;
    let valid = name
        .split_once('/')
        .is_some_and(|(domain, path)| is_host(domain) && !path.is_empty());
    let message = format!("{name:?} is not DOMAIN/PATH");
    problems.demand(valid, "controllerName", message);
}

/// Checks a grant.
pub fn reference_grant(spec: &ReferenceGrantSpec, problems: &mut Problems) {
    problems.demand(!spec.from.is_empty(), "from", "somebody is granted");
    problems.demand(!spec.to.is_empty(), "to", "something is granted");
    problems.each("from", &spec.from, |problems, from| {
        problems.demand(!from.kind.is_empty(), "kind", "a kind is needed");
        let namespace = &from.namespace;
        let message = format!("{namespace:?} is no namespace");
        problems.demand(is_dns_label(namespace), "namespace", message);
    });
    problems.each("to", &spec.to, |problems, to| {
        problems.demand(!to.kind.is_empty(), "kind", "a kind is needed");
    });
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::validation::validate;

    /// Paths of what is wrong.
    fn check(kind: &str, spec: Value, expected: &[&str]) {
        let object = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
            "metadata": {"name": "a", "namespace": "b"}, "spec": spec,
        });
        let found = validate(&object).expect("a kind that is checked");
        let paths: Vec<&str> = found.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, expected, "{object} {found:?}");
    }

    #[test]
    fn names_what_is_wrong_with_a_gateway() {
        let gateway =
            |listeners: Value| json!({"gatewayClassName": "istio", "listeners": listeners});
        let http = json!({"name": "web", "port": 80, "protocol": "HTTP"});
        check("Gateway", gateway(json!([http])), &[]);
        check("Gateway", gateway(json!([])), &["spec.listeners"]);
        let twice = ["spec.listeners[1].name", "spec.listeners[1]"];
        check("Gateway", gateway(json!([http, http])), &twice);
        let tls = json!([{"name": "web", "port": 443, "protocol": "HTTPS", "tls": {"mode": "Passthrough"}}]);
        check("Gateway", gateway(tls), &["spec.listeners[0].tls"]);
        let tls = json!([{"name": "web", "port": 80, "protocol": "HTTP", "hostname": "a.*.b", "tls": {}}]);
        check(
            "Gateway",
            gateway(tls),
            &["spec.listeners[0].hostname", "spec.listeners[0].tls"],
        );
    }

    #[test]
    fn names_what_is_wrong_with_a_route() {
        let route = |rule: Value| json!({"parentRefs": [{"name": "edge"}], "rules": [rule]});
        let backend = json!({"name": "web", "port": 80});
        check("HTTPRoute", route(json!({"backendRefs": [backend]})), &[]);
        let table = [
            (
                json!({"backendRefs": [{"name": "web"}]}),
                "spec.rules[0].backendRefs[0].port",
            ),
            (
                json!({"matches": [{"path": {"type": "RegularExpression", "value": "("}}]}),
                "spec.rules[0].matches[0].path.value",
            ),
            (
                json!({"matches": [{"path": {"value": "a"}}]}),
                "spec.rules[0].matches[0].path.value",
            ),
            (
                json!({"matches": [{"method": "get"}]}),
                "spec.rules[0].matches[0].method",
            ),
            (
                json!({"filters": [{"type": "CORS"}]}),
                "spec.rules[0].filters[0].cors",
            ),
            (
                json!({"filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier":
                    {"set": [{"name": "x", "value": "a\nb"}]}}]}),
                "spec.rules[0].filters[0].requestHeaderModifier.set[0].value",
            ),
            (
                json!({"matches": [{"path": {"type": "Exact", "value": "/a"}}], "filters": [{"type": "URLRewrite",
                    "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/b"}}}]}),
                "spec.rules[0].filters[0].urlRewrite.path.replacePrefixMatch",
            ),
            (
                json!({"timeouts": {"request": "1s", "backendRequest": "2s"}}),
                "spec.rules[0].timeouts.backendRequest",
            ),
        ];
        for (rule, path) in table {
            check("HTTPRoute", route(rule), &[path]);
        }
        let grpc = |method: Value| route(json!({"matches": [{"method": method}]}));
        check("GRPCRoute", grpc(json!({"service": "a.B"})), &[]);
        let path = "spec.rules[0].matches[0].method";
        check("GRPCRoute", grpc(json!({})), &[path]);
    }
}
