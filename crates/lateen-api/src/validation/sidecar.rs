//! Checks of Sidecars.

use std::collections::BTreeSet;

use super::{
    Problems,
    destination_rule::connection_pool,
    gateway::server_tls,
    names::{is_address, is_dns_label, is_partial_wildcard, is_port, is_wildcard_host},
    virtual_service::destination,
};
use crate::{
    common::{Port, ServerTlsMode},
    networking::sidecar::{
        CaptureMode, EgressListener, IngressListener, OutboundMode, SidecarSpec,
    },
};

/// Checks a specification.
pub fn specification(spec: &SidecarSpec, problems: &mut Problems) {
    if spec.ingress.is_empty()
        && spec.egress.is_empty()
        && spec.outbound_traffic_policy.is_none()
        && spec.inbound_connection_pool.is_none()
    {
        problems
            .add("a Sidecar sets ingress, egress, outboundTrafficPolicy or inboundConnectionPool");
    }
    let mut ports = BTreeSet::new();
    problems.each("ingress", &spec.ingress, |problems, listener| {
        ingress(listener, problems);
        problems.demand(
            ports.insert(listener.port.number),
            "port",
            format!("port {} is there twice", listener.port.number),
        );
    });
    let mut binds = BTreeSet::new();
    let mut general = 0;
    problems.each("egress", &spec.egress, |problems, listener| {
        egress(listener, problems);
        match &listener.port {
            None => general += 1,
            Some(port) => {
                let unique = binds.insert((listener.bind.clone(), port.number));
                problems.demand(unique, "port", "address and port are there twice");
            }
        }
        problems.demand(
            general <= 1,
            "port",
            "at most one listener is without a port, and it is the last",
        );
        problems.demand(
            general == 0 || listener.port.is_none(),
            "port",
            "the listener without a port comes last: it takes what the others do not",
        );
    });
    if let Some(pool) = &spec.inbound_connection_pool {
        problems.field("inboundConnectionPool", |problems| {
            connection_pool(pool, problems)
        });
    }
    if let Some(policy) = &spec.outbound_traffic_policy
        && let Some(proxy) = &policy.egress_proxy
    {
        problems.field("outboundTrafficPolicy", |problems| {
            let passes = policy.mode.unwrap_or_default() == OutboundMode::AllowAny;
            problems.demand(
                passes,
                "egressProxy",
                "an egress proxy needs mode ALLOW_ANY",
            );
            problems.field("egressProxy", |problems| {
                destination(proxy, problems);
                problems.demand(proxy.port.is_some(), "port", "the port is missing");
            });
        });
    }
}

fn ingress(listener: &IngressListener, problems: &mut Problems) {
    problems.field("port", |problems| {
        port(&listener.port, &listener.bind, problems)
    });
    bind(&listener.bind, problems);
    problems.demand(
        !listener.bind.starts_with("unix:"),
        "bind",
        "what is accepted has an address, not a unix socket",
    );
    let endpoint = listener.default_endpoint.as_str();
    if !endpoint.is_empty() {
        let local = ["127.0.0.1:", "0.0.0.0:", "[::1]:", "[::]:", ":"];
        let ported = local
            .iter()
            .find_map(|prefix| endpoint.strip_prefix(prefix));
        let valid = match ported {
            Some(number) => number.parse::<u32>().is_ok_and(is_port),
            None => endpoint
                .strip_prefix("unix://")
                .is_some_and(|path| path.starts_with(['/', '@'])),
        };
        problems.demand(
            valid,
            "defaultEndpoint",
            "use 127.0.0.1:PORT, [::1]:PORT, 0.0.0.0:PORT, [::]:PORT or unix:///path",
        );
    }
    if let Some(tls) = &listener.tls {
        let mode = tls.mode.unwrap_or_default();
        let protocol = listener.port.protocol.to_ascii_uppercase();
        problems.field("tls", |problems| {
            problems.demand(
                matches!(
                    mode,
                    ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual
                ),
                "mode",
                "a Sidecar accepts SIMPLE, MUTUAL and OPTIONAL_MUTUAL",
            );
            problems.demand(
                protocol == "HTTPS" || protocol == "TLS",
                "mode",
                "the port's protocol must be HTTPS or TLS",
            );
            problems.demand(
                !tls.https_redirect,
                "httpsRedirect",
                "redirects are for gateways",
            );
            problems.demand(
                tls.subject_alt_names.is_empty(),
                "subjectAltNames",
                "names of clients cannot be demanded here",
            );
            server_tls(tls, problems);
        });
    }
}

fn egress(listener: &EgressListener, problems: &mut Problems) {
    if let Some(port) = &listener.port {
        problems.field("port", |problems| {
            self::port(port, &listener.bind, problems)
        });
    } else {
        problems.demand(
            !listener.bind.starts_with("unix:"),
            "bind",
            "a unix socket needs a port entry with its protocol",
        );
    }
    bind(&listener.bind, problems);
    let captured = listener.capture_mode.unwrap_or_default() != CaptureMode::Iptables;
    problems.demand(
        captured || !listener.bind.starts_with("unix:"),
        "captureMode",
        "a unix socket is not captured",
    );
    problems.demand(
        !listener.hosts.is_empty(),
        "hosts",
        "at least one host is needed, */* for all",
    );
    problems.each("hosts", &listener.hosts, |problems, host| {
        match host.split_once('/') {
            None => problems.add(format!("{host:?} is not of the form namespace/host")),
            Some((namespace, name)) => {
                // `~namespace` takes what others let in out again.
                let name_of = namespace.strip_prefix('~').unwrap_or(namespace);
                if !matches!(namespace, "*" | "." | "~") && !is_dns_label(name_of) {
                    problems.add(format!(
                        "{namespace:?} is neither a namespace nor *, . or ~"
                    ));
                }
                if is_partial_wildcard(name) || (!is_wildcard_host(name) && !is_address(name)) {
                    problems.add(format!("{name:?} is not a host name"));
                }
            }
        }
    });
}

fn port(port: &Port, bind: &str, problems: &mut Problems) {
    if bind.starts_with("unix:") {
        problems.demand(
            port.number == 0,
            "number",
            "a port number has no meaning for a unix socket",
        );
    } else {
        problems.demand(
            is_port(port.number),
            "number",
            format!("port number {} is not from 1 to 65535", port.number),
        );
    }
}

fn bind(bind: &str, problems: &mut Problems) {
    let socket = bind
        .strip_prefix("unix://")
        .is_some_and(|path| path.starts_with(['/', '@']));
    problems.demand(
        bind.is_empty() || socket || is_address(bind),
        "bind",
        format!("{bind:?} is neither an address nor a unix socket"),
    );
}
