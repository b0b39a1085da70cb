//! Checks of gateways.

use std::collections::BTreeSet;

use super::{
    Problems,
    names::{is_address, is_dns_label, is_partial_wildcard, is_port, is_wildcard_host},
};
use crate::{
    common::{Port, ServerTlsMode, ServerTlsSettings, TlsCertificate, TlsProtocol},
    networking::gateway::{GatewaySpec, Server},
};

/// Protocols of ports.
const PROTOCOLS: [&str; 8] = [
    "HTTP", "HTTPS", "GRPC", "GRPC-WEB", "HTTP2", "MONGO", "TCP", "TLS",
];

/// Checks a specification.
pub fn specification(spec: &GatewaySpec, problems: &mut Problems) {
    problems.demand(
        !spec.servers.is_empty(),
        "servers",
        "a gateway needs a server",
    );
    let mut names = BTreeSet::new();
    let mut ports = BTreeSet::new();
    problems.each("servers", &spec.servers, |problems, server| {
        self::server(server, problems);
        let named = server.name.is_empty() || names.insert(&server.name);
        problems.demand(named, "name", format!("{:?} is there twice", server.name));
        let port = server.port.name.is_empty() || ports.insert(&server.port.name);
        problems.demand(
            port,
            "port",
            format!("port name {:?} is there twice", server.port.name),
        );
    });
}

/// Checks a server.
pub fn server(server: &Server, problems: &mut Problems) {
    problems.demand(!server.hosts.is_empty(), "hosts", "a server needs a host");
    problems.each("hosts", &server.hosts, |problems, host| {
        let (namespace, host) = match host.split_once('/') {
            Some((namespace, host)) => (Some(namespace), host),
            None => (None, host.as_str()),
        };
        if let Some(namespace) = namespace
            && !matches!(namespace, "*" | ".")
            && !is_dns_label(namespace)
        {
            problems.add(format!("{namespace:?} is neither a namespace nor * nor ."));
        }
        if is_partial_wildcard(host) || (!is_wildcard_host(host) && !is_address(host)) {
            problems.add(format!(
                "{host:?} is not a domain name; wildcards stand at the beginning"
            ));
        }
    });
    let bind = server.bind.as_str();
    problems.demand(
        bind.is_empty() || bind.starts_with("unix:") || is_address(bind),
        "bind",
        format!("{bind} is not a valid IP address"),
    );
    problems.field("port", |problems| port(&server.port, bind, problems));
    let protocol = server.port.protocol.to_ascii_uppercase();
    match &server.tls {
        None => problems.demand(
            !matches!(protocol.as_str(), "HTTPS" | "TLS"),
            "tls",
            format!("a server of protocol {protocol} must have TLS settings"),
        ),
        Some(tls) => {
            let plain = matches!(
                protocol.as_str(),
                "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" | "TCP" | "MONGO"
            );
            // A redirect to HTTPS is the one thing that a plain HTTP server may want of TLS.
            let redirect = tls.https_redirect && protocol != "TCP";
            problems.demand(
                !plain || redirect,
                "tls",
                format!("a server of protocol {protocol} cannot have TLS settings"),
            );
            problems.field("tls", |problems| server_tls(tls, problems));
        }
    }
}

/// Checks a port. Servers bound to a socket of the file system have none.
pub fn port(port: &Port, bind: &str, problems: &mut Problems) {
    problems.demand(
        PROTOCOLS.contains(&port.protocol.to_ascii_uppercase().as_str()),
        "protocol",
        format!(
            "invalid protocol {:?}: use one of {}",
            port.protocol,
            PROTOCOLS.join(", ")
        ),
    );
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
    problems.demand(!port.name.is_empty(), "name", "a port name is needed");
    problems.demand(
        port.target_port == 0 || is_port(port.target_port),
        "targetPort",
        "a port is 1 to 65535",
    );
}

/// Checks TLS settings of a server.
pub fn server_tls(tls: &ServerTlsSettings, problems: &mut Problems) {
    let mode = tls.mode.unwrap_or_default();
    if let (Some(low), Some(high)) = (tls.min_protocol_version, tls.max_protocol_version) {
        problems.demand(
            high == TlsProtocol::Auto || low <= high,
            "minProtocolVersion",
            "the minimum is above the maximum",
        );
    }
    let sources = [
        !tls.credential_name.is_empty(),
        !tls.credential_names.is_empty(),
        !tls.tls_certificates.is_empty(),
        !tls.server_certificate.is_empty(),
    ];
    if mode == ServerTlsMode::IstioMutual {
        let own = sources.iter().any(|set| *set)
            || !tls.private_key.is_empty()
            || !tls.ca_certificates.is_empty();
        problems.demand(
            !own,
            "mode",
            "the mesh's own certificates are used: name no others",
        );
        return;
    }
    let terminates = matches!(
        mode,
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual
    );
    if !terminates {
        return;
    }
    if sources.iter().filter(|set| **set).count() > 1 {
        problems.add("only one of credential_name, credential_names, tls_certificates and server_certificate can be set");
        return;
    }
    if !tls.credential_name.is_empty() || !tls.credential_names.is_empty() {
        problems.demand(
            tls.credential_names.len() <= 2,
            "credentialNames",
            "there are at most two, of different key types",
        );
        return;
    }
    let wants_clients = mode != ServerTlsMode::Simple;
    if tls.tls_certificates.is_empty() {
        files(&tls.server_certificate, &tls.private_key, problems);
    } else {
        problems.demand(
            tls.tls_certificates.len() <= 2,
            "tlsCertificates",
            "there are at most two, of different key types",
        );
        problems.each(
            "tlsCertificates",
            &tls.tls_certificates,
            |problems, one: &TlsCertificate| {
                files(&one.server_certificate, &one.private_key, problems);
            },
        );
    }
    let authority = !tls.ca_certificates.is_empty() || !tls.ca_cert_credential_name.is_empty();
    problems.demand(
        !wants_clients || authority,
        "caCertificates",
        "a client CA bundle is needed to verify clients",
    );
}

fn files(certificate: &str, key: &str, problems: &mut Problems) {
    problems.demand(
        !certificate.is_empty(),
        "serverCertificate",
        "a server certificate is needed",
    );
    problems.demand(!key.is_empty(), "privateKey", "a private key is needed");
}
