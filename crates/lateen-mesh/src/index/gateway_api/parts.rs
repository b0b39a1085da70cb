//! What routes become: parts of virtual services, and the virtual services of all parts of one name.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use lateen_api::{
    Kind, Object, VirtualService,
    networking::{
        VirtualServiceSpec,
        http_route::{HttpMatch, HttpRoute as Rule},
    },
};

use super::{
    PARENTS, Route, RouteId, SEMANTICS,
    backends::Backends,
    listeners,
    parents::Bound,
    rules::{Converted, sort_by_precedence},
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
    rules: Arc<Vec<Rule>>,
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
                    let rules = mesh.get_or_insert_with(|| shared(route.convert(&backends(false))));
                    let port = attachment.reference.port;
                    let (prefix, rules) = match port {
                        Some(port) => (format!("{}~{port}", key.namespace), on_port(rules, port)),
                        None => (key.namespace.clone(), Arc::clone(rules)),
                    };
                    parts.extend(hosts.into_iter().map(|host| Part {
                        name: format!("{prefix}~{host}"),
                        host,
                        gateway: "mesh".to_owned(),
                        rules: Arc::clone(&rules),
                    }));
                }
                Ok(Bound::Listener(parent, listener)) => {
                    let rules =
                        gateway.get_or_insert_with(|| shared(route.convert(&backends(true))));
                    let made = listeners::made_name(parent, listener);
                    let hosts = listeners::hosts_at(parent, listener, route.hostnames());
                    parts.extend(hosts.into_iter().map(|host| Part {
                        name: format!("{}~{}~{host}", made.namespace, made.name),
                        host,
                        gateway: format!("{}/{}", made.namespace, made.name),
                        rules: Arc::clone(rules),
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
        parts.sort_by_key(|((kind, key), route, _)| (route.created(), key.clone(), *kind));
        let ((_, oldest), first, part) = parts.first()?;
        let mut rules: Vec<Rule> = Vec::new();
        for (_, _, part) in &parts {
            rules.extend(part.rules.iter().cloned());
        }
        sort_by_precedence(&mut rules);
        let sources: Vec<String> = parts
            .iter()
            .map(|((kind, key), ..)| format!("{}/{}.{}", kind.name(), key.name, key.namespace))
            .collect();
        let annotation = |(key, value): (&str, String)| (key.to_owned(), value);
        let annotations = [
            annotation((SEMANTICS.0, SEMANTICS.1.to_owned())),
            annotation((PARENTS, sources.join(","))),
        ];
        let creation_timestamp = match first {
            Route::Http(route) => route.metadata.creation_timestamp.clone(),
            Route::Grpc(route) => route.metadata.creation_timestamp.clone(),
        };
        Some(Object {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(oldest.namespace.clone()),
                annotations: Some(annotations.into()),
                creation_timestamp,
                ..ObjectMeta::default()
            },
            ..Object::new(
                &oldest.namespace,
                name,
                VirtualServiceSpec {
                    hosts: vec![part.host.clone()],
                    gateways: vec![part.gateway.clone()],
                    http: rules,
                    ..VirtualServiceSpec::default()
                },
            )
        })
    }
}

fn shared(converted: Converted) -> Arc<Vec<Rule>> {
    Arc::new(converted.rules)
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

/// Where an object stands among others of its kind.
pub(super) fn key_of<S: Kind>(object: &Object<S>) -> Key {
    Key::new(object.namespace(), object.name())
}
