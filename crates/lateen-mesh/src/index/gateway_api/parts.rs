//! What routes become: parts of virtual services, and the virtual services of all parts of one name.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use lateen_api::{
    Object, VirtualService,
    gateway_api::gateway::Listener,
    networking::{
        VirtualServiceSpec,
        http_route::{HttpMatch, HttpRoute as Rule},
        virtual_service::{L4Match, RouteDestination, TcpRoute, TlsMatch, TlsRoute},
    },
};

use super::{
    PARENTS, Route, RouteId, RouteKind, SEMANTICS, backends::Backends, listeners, parents::Bound,
    rules::sort_by_precedence,
};
use crate::{Index, Key};

/// What a route contributes to the virtual service of a parent and a host.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    /// Name of the virtual service; parts of one name belong together.
    pub(super) name: String,
    host: String,
    /// `mesh`, or the gateway of a listener.
    gateway: String,
    content: Content,
}

/// The rules of a part.
#[derive(Debug, Clone, PartialEq)]
enum Content {
    Requests(Arc<Vec<Rule>>),
    Connections(TcpRoute),
    /// Connections with server names.
    ServerNames(TlsRoute),
}

impl Index {
    /// The parts that a route becomes.
    pub(super) fn parts_of(&self, (kind, key): &RouteId, route: &Route) -> Vec<Part> {
        let backends = |grants| Backends {
            index: self,
            kind: *kind,
            namespace: &key.namespace,
            grants,
        };
        // Converted at most once for each of the two: they differ in what needs a grant.
        let (mut mesh, mut gateway) = (None, None);
        let mut parts: Vec<Part> = Vec::new();
        for attachment in self.attachments(route, &key.namespace) {
            match attachment.outcome {
                Ok(Bound::Mesh(hosts)) => {
                    let converted = mesh.get_or_insert_with(|| converted(route, &backends(false)));
                    let port = attachment.reference.port;
                    let prefix = match port {
                        Some(port) => format!("{}~{port}", key.namespace),
                        None => key.namespace.clone(),
                    };
                    parts.extend(hosts.into_iter().map(|host| Part {
                        name: part_name(*kind, key, &format!("{prefix}~{host}")),
                        content: in_mesh(route, converted, port, &host),
                        host,
                        gateway: "mesh".to_owned(),
                    }));
                }
                Ok(Bound::Listener(parent, listener)) => {
                    let converted =
                        gateway.get_or_insert_with(|| converted(route, &backends(true)));
                    let made = listeners::made_name(parent, listener);
                    let hosts = listeners::hosts_at(parent, listener, route.hostnames());
                    let place = format!("{}~{}", made.namespace, made.name);
                    parts.extend(hosts.into_iter().map(|host| Part {
                        name: part_name(*kind, key, &format!("{place}~{host}")),
                        content: at_listener(*kind, converted, listener, &host),
                        host,
                        gateway: format!("{}/{}", made.namespace, made.name),
                    }));
                }
                Err(_) => {}
            }
        }
        // Two references may mean the same parent.
        let mut seen = std::collections::BTreeSet::new();
        parts.retain(|part| seen.insert(part.name.clone()));
        parts
    }

    /// The virtual service of a name, of all parts that it has; nothing without any.
    pub(super) fn merged_service(&self, name: &str) -> Option<VirtualService> {
        let state = &self.gateway_api;
        let merged = state.merged.get(name)?;
        let mut parts: Vec<(&RouteId, &Route, &Part)> = merged
            .routes
            .iter()
            .filter_map(|id| {
                let part = state.parts.get(id)?.iter().find(|part| part.name == name)?;
                Some((id, state.routes.get(id)?, part))
            })
            .collect();
        // The oldest first: where two rules are equal, it wins.
        let created = |route: &Route| route.metadata().creation_timestamp.clone();
        parts.sort_by_key(|((kind, key), route, _)| (created(route), key.clone(), *kind));
        let ((_, oldest), first, part) = parts.first()?;
        let mut spec = VirtualServiceSpec {
            hosts: vec![part.host.clone()],
            gateways: vec![part.gateway.clone()],
            ..VirtualServiceSpec::default()
        };
        for (_, _, part) in &parts {
            match &part.content {
                Content::Requests(rules) => spec.http.extend(rules.iter().cloned()),
                Content::Connections(rule) => spec.tcp.push(rule.clone()),
                Content::ServerNames(rule) => spec.tls.push(rule.clone()),
            }
        }
        sort_by_precedence(&mut spec.http);
        let sources: Vec<String> = parts
            .iter()
            .map(|((kind, key), ..)| format!("{}/{}.{}", kind.name(), key.name, key.namespace))
            .collect();
        let annotation = |(key, value): (&str, String)| (key.to_owned(), value);
        let annotations = [
            annotation((SEMANTICS.0, SEMANTICS.1.to_owned())),
            annotation((PARENTS, sources.join(","))),
        ];
        Some(Object {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(oldest.namespace.clone()),
                annotations: Some(annotations.into()),
                creation_timestamp: first.metadata().creation_timestamp.clone(),
                ..ObjectMeta::default()
            },
            ..Object::new(&oldest.namespace, name, spec)
        })
    }
}

/// The name of the virtual service of a place. Those for requests are shared by all routes there; a connection takes the
/// first route, so each has its own.
fn part_name(kind: RouteKind, key: &Key, place: &str) -> String {
    match kind {
        RouteKind::Http | RouteKind::Grpc => place.to_owned(),
        RouteKind::Tcp => format!("{}~{}~tcp~{place}", key.namespace, key.name),
        RouteKind::Tls => format!("{}~{}~tls~{place}", key.namespace, key.name),
    }
}

/// Rules of requests, shared by all parts, and destinations of connections.
type Shared = (Arc<Vec<Rule>>, Vec<RouteDestination>);

fn converted(route: &Route, backends: &Backends<'_>) -> Shared {
    let converted = route.convert(backends);
    (Arc::new(converted.rules), converted.destinations)
}

/// What a route does with requests and connections of the mesh to a host.
fn in_mesh(
    route: &Route,
    (rules, destinations): &Shared,
    port: Option<u32>,
    host: &str,
) -> Content {
    match route.kind() {
        RouteKind::Http | RouteKind::Grpc => Content::Requests(match port {
            Some(port) => on_port(rules, port),
            None => Arc::clone(rules),
        }),
        RouteKind::Tcp => {
            let limited = port.map(|port| L4Match {
                port,
                ..L4Match::default()
            });
            Content::Connections(TcpRoute {
                r#match: limited.into_iter().collect(),
                route: destinations.clone(),
            })
        }
        RouteKind::Tls => {
            let own = [host.to_owned()];
            let names = match route.hostnames() {
                [] => &own,
                names => names,
            };
            server_names(names, port.unwrap_or_default(), destinations)
        }
    }
}

/// What a route does at a listener with requests and connections to a host.
fn at_listener(
    kind: RouteKind,
    (rules, destinations): &Shared,
    listener: &Listener,
    host: &str,
) -> Content {
    match kind {
        RouteKind::Http | RouteKind::Grpc => Content::Requests(Arc::clone(rules)),
        RouteKind::Tls if listeners::is_passed(listener) => {
            server_names(&[host.to_owned()], 0, destinations)
        }
        // Decrypted connections have no server name any more: the listener has told them apart.
        RouteKind::Tls | RouteKind::Tcp => Content::Connections(TcpRoute {
            r#match: Vec::new(),
            route: destinations.clone(),
        }),
    }
}

fn server_names(names: &[String], port: u32, destinations: &[RouteDestination]) -> Content {
    Content::ServerNames(TlsRoute {
        r#match: vec![TlsMatch {
            sni_hosts: names.to_vec(),
            port,
            ..TlsMatch::default()
        }],
        route: destinations.to_vec(),
    })
}

/// The rules for one port of a service.
fn on_port(rules: &[Rule], port: u32) -> Arc<Vec<Rule>> {
    let limited = |wanted: &HttpMatch| HttpMatch {
        port,
        ..wanted.clone()
    };
    let of = |rule: &Rule| Rule {
        r#match: rule.r#match.iter().map(limited).collect(),
        ..rule.clone()
    };
    Arc::new(rules.iter().map(of).collect())
}
