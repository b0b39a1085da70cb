//! What becomes of the Gateway API's objects: the conditions that the Gateway API lists.

use std::collections::BTreeMap;

use lateen_api::gateway_api::{
    Gateway, GatewaySpec, ParentKind, ParentReference, gateway::Listener,
};

use super::{
    CLASSES, CONTROLLER, GATEWAY_GROUP, Route, RouteId,
    backends::{Backends, Problem},
    listeners::{self, Fault},
    parents::{Bound, Denied},
};
use crate::{Index, Key, ObjectKind, index::Condition};

/// Most parents and listeners whose status is told; the schema lets no more be stored.
const MAX_PARENTS: usize = 32;

/// What becomes of an object of the Gateway API.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectStatus {
    /// Kind of the object.
    pub kind: ObjectKind,
    /// Its name; without a namespace for classes.
    pub key: Key,
    /// Generation of the specification that was judged.
    pub generation: i64,
    /// What is to be said.
    pub content: StatusContent,
    /// The status that the object has.
    pub current: Option<serde_json::Value>,
}

/// What is said of an object, by its kind.
#[derive(Debug, Clone, PartialEq)]
pub enum StatusContent {
    /// Of a class.
    Class(Vec<Condition>),
    /// Of a gateway.
    Gateway {
        /// Of the whole.
        conditions: Vec<Condition>,
        /// Where it is reached: addresses and host names.
        addresses: Vec<String>,
        /// Of each listener, in the order of the specification.
        listeners: Vec<ListenerStatus>,
    },
    /// Of a route, at each of its parents that are ours.
    Route(Vec<ParentStatus>),
}

/// What becomes of a listener.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// Kinds of routes that it takes.
    pub kinds: Vec<&'static str>,
    /// How many routes are attached.
    pub attached: usize,
    /// Secrets that its certificates are in. Whether they exist is for the reader to see.
    pub certificates: Vec<Key>,
    /// What is to be said.
    pub conditions: Vec<Condition>,
}

impl ListenerStatus {
    /// Says that a certificate cannot be used.
    pub fn without_certificate(&mut self, message: String) {
        for condition in &mut self.conditions {
            let reason = match condition.kind {
                "ResolvedRefs" => "InvalidCertificateRef",
                "Programmed" => "Invalid",
                _ => continue,
            };
            *condition = bad(condition.kind, reason, message.clone());
        }
    }
}

/// What becomes of a route at a parent.
#[derive(Debug, Clone, PartialEq)]
pub struct ParentStatus {
    /// The parent, as the route refers to it, with group and kind.
    pub reference: ParentReference,
    /// What is to be said.
    pub conditions: Vec<Condition>,
}

impl Index {
    /// The status of every object of the Gateway API that we take care of.
    pub fn gateway_api_statuses(&self) -> Vec<ObjectStatus> {
        let state = &self.gateway_api;
        let mut attached: BTreeMap<(Key, &str), usize> = BTreeMap::new();
        let mut found = Vec::new();
        for (id, route) in &state.routes {
            found.extend(self.route_status(id, route, &mut attached));
        }
        for (key, gateway) in &state.gateways {
            if self.is_our_class(&gateway.spec.gateway_class_name) {
                found.push(self.gateway_status(key, gateway, &attached));
            }
        }
        for (name, class) in &state.classes {
            if class.spec.controller_name == CONTROLLER {
                let message = "handled by the mesh's control plane";
                found.push(ObjectStatus {
                    kind: ObjectKind::GatewayClass,
                    key: Key::new("", &**name),
                    generation: class.metadata.generation.unwrap_or_default(),
                    content: StatusContent::Class(vec![good("Accepted", "Accepted", message)]),
                    current: class.status.clone(),
                });
            }
        }
        found
    }

    /// The gateways that need a Deployment and a Service of their own.
    pub fn gateways_to_deploy(&self) -> impl Iterator<Item = &Gateway> {
        let gateways = self.gateway_api.gateways.values().map(AsRef::as_ref);
        gateways.filter(|gateway| {
            gateway.spec.addresses.is_empty() && self.is_our_class(&gateway.spec.gateway_class_name)
        })
    }

    /// Classes of ours that have no object yet.
    pub fn missing_classes(&self) -> impl Iterator<Item = &'static str> {
        let known = &self.gateway_api.classes;
        CLASSES
            .into_iter()
            .filter(|name| !known.contains_key(*name))
    }

    fn route_status<'a>(
        &'a self,
        id: &'a RouteId,
        route: &'a Route,
        attached: &mut BTreeMap<(Key, &'a str), usize>,
    ) -> Option<ObjectStatus> {
        let (kind, key) = id;
        let mut parents: Vec<(&ParentReference, Result<usize, Denied>)> = Vec::new();
        for attachment in self.attachments(route, &key.namespace) {
            let outcome = match attachment.outcome {
                Ok(Bound::Listener(gateway, listener)) => {
                    let place = Key::of(gateway);
                    *attached.entry((place, &listener.name)).or_default() += 1;
                    Ok(1)
                }
                Ok(Bound::Mesh(_)) => Ok(1),
                Err(denied) => Err(denied),
            };
            let reference = attachment.reference;
            match parents.iter_mut().find(|(known, _)| *known == reference) {
                None => parents.push((reference, outcome)),
                Some((_, known)) => *known = nearer(known.clone(), outcome),
            }
        }
        let current = route.status();
        if parents.is_empty() && !has_status_of_ours(current) {
            return None;
        }
        let parents = parents
            .into_iter()
            .take(MAX_PARENTS)
            .map(|(reference, outcome)| {
                let backends = Backends {
                    index: self,
                    kind: *kind,
                    namespace: &key.namespace,
                    grants: reference.parent_kind() == Some(ParentKind::Gateway),
                };
                let problems = route.convert(&backends).problems;
                ParentStatus {
                    reference: reference.written_out(),
                    conditions: vec![accepted(outcome), resolved(&problems)],
                }
            });
        Some(ObjectStatus {
            kind: kind.object_kind(),
            key: key.clone(),
            generation: route.metadata().generation.unwrap_or_default(),
            content: StatusContent::Route(parents.collect()),
            current: current.cloned(),
        })
    }

    fn gateway_status(
        &self,
        key: &Key,
        gateway: &Gateway,
        attached: &BTreeMap<(Key, &str), usize>,
    ) -> ObjectStatus {
        let spec = &gateway.spec;
        let faults = self.faults(gateway);
        let (programmed, addresses) = self.programmed(gateway);
        let listeners: Vec<ListenerStatus> = spec
            .listeners
            .iter()
            .map(|listener| {
                let count = attached.get(&(key.clone(), &*listener.name));
                let fault = faults.get(&*listener.name);
                ListenerStatus {
                    attached: count.copied().unwrap_or(0),
                    certificates: self.named_certificates(gateway, listener),
                    ..listener_status(listener, fault, &programmed)
                }
            })
            .collect();
        ObjectStatus {
            kind: ObjectKind::KubernetesGateway,
            key: key.clone(),
            generation: gateway.metadata.generation.unwrap_or_default(),
            content: StatusContent::Gateway {
                conditions: vec![gateway_accepted(spec, faults.len()), programmed],
                addresses,
                listeners,
            },
            current: gateway.status.clone(),
        }
    }

    /// Whether there are proxies behind the services of a gateway, and where they are reached.
    fn programmed(&self, gateway: &Gateway) -> (Condition, Vec<String>) {
        let namespace = gateway.namespace();
        let (mut addresses, mut missing, mut ready) = (Vec::new(), Vec::new(), false);
        for host in listeners::services(gateway, |name| self.resolve(name, namespace)) {
            let Some(service) = self.service_seen_from(&host, namespace) else {
                missing.push(format!("there is no Service {host}"));
                continue;
            };
            for listener in &gateway.spec.listeners {
                match service.port(listener.port) {
                    None => missing.push(format!("Service {host} has no port {}", listener.port)),
                    Some(port) => ready |= !self.endpoints(service, port).is_empty(),
                }
            }
            match &service.ingress {
                // A name of the cluster would be of no use outside, where its clients are.
                Some(ingress) if ingress.is_empty() => {
                    missing.push(format!(
                        "the load balancer of Service {host} has no address yet"
                    ));
                }
                Some(ingress) => addresses.extend(ingress.iter().cloned()),
                None => addresses.push(service.host.clone()),
            }
        }
        if !ready && missing.is_empty() {
            missing.push("no proxy is ready yet".to_owned());
        }
        let condition = match missing.as_slice() {
            [] => good("Programmed", "Programmed", "proxies have the listeners"),
            missing => bad("Programmed", "AddressNotAssigned", missing.join("; ")),
        };
        (condition, addresses)
    }
}

/// Whether a status has something that we said, which may have to go.
fn has_status_of_ours(status: Option<&serde_json::Value>) -> bool {
    let parents = status.and_then(|status| status["parents"].as_array());
    let mut parents = parents.into_iter().flatten();
    parents.any(|parent| parent["controllerName"] == CONTROLLER)
}

/// A route is accepted at a parent when one of its listeners takes it; else the listener counts that came nearest.
fn nearer(one: Result<usize, Denied>, other: Result<usize, Denied>) -> Result<usize, Denied> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok(one + other),
        (Ok(count), Err(_)) | (Err(_), Ok(count)) => Ok(count),
        (Err(one), Err(other)) => Err(if other.nearness() < one.nearness() {
            other
        } else {
            one
        }),
    }
}

fn accepted(outcome: Result<usize, Denied>) -> Condition {
    match outcome {
        Ok(1) => good("Accepted", "Accepted", "the route is in effect"),
        Ok(count) => good(
            "Accepted",
            "Accepted",
            format!("the route is in effect at {count} listeners"),
        ),
        Err(denied) => bad("Accepted", denied.reason, denied.message),
    }
}

fn resolved(problems: &[Problem]) -> Condition {
    let mut messages: Vec<&str> = Vec::new();
    for problem in problems {
        if !messages.contains(&&*problem.message) {
            messages.push(&problem.message);
        }
    }
    match problems.first() {
        None => good("ResolvedRefs", "ResolvedRefs", "all references exist"),
        Some(first) => bad("ResolvedRefs", first.reason, messages.join("; ")),
    }
}

fn gateway_accepted(spec: &GatewaySpec, faulty: usize) -> Condition {
    let unsupported = spec
        .addresses
        .iter()
        .find(|address| address.r#type.as_deref() != Some("Hostname"));
    if let Some(address) = unsupported {
        let message = format!(
            "address {:?}: only the Hostname of a Service is served",
            address.value
        );
        return bad("Accepted", "UnsupportedAddress", message);
    }
    match (faulty, spec.listeners.len()) {
        (0, _) => good("Accepted", "Accepted", "the gateway is valid"),
        (faulty, all) if faulty == all => bad(
            "Accepted",
            "ListenersNotValid",
            "none of the listeners is valid",
        ),
        (faulty, all) => good(
            "Accepted",
            "ListenersNotValid",
            format!("{faulty} of {all} listeners are not valid"),
        ),
    }
}

fn listener_status(
    listener: &Listener,
    fault: Option<&Fault>,
    gateway: &Condition,
) -> ListenerStatus {
    let served: Vec<&'static str> = listeners::kinds_of(listener)
        .iter()
        .map(|kind| kind.name())
        .collect();
    let listed = listener
        .allowed_routes
        .as_ref()
        .map(|allowed| &*allowed.kinds);
    let listed = listed.unwrap_or_default();
    let is_served = |kind: &str, group: Option<&str>| {
        group.unwrap_or(GATEWAY_GROUP) == GATEWAY_GROUP && served.contains(&kind)
    };
    let unknown: Vec<&str> = listed
        .iter()
        .filter(|kind| !is_served(&kind.kind, kind.group.as_deref()))
        .map(|kind| kind.kind.as_str())
        .collect();
    let takes = |kind: &&'static str| {
        let own = |one: &lateen_api::gateway_api::gateway::RouteKind| {
            one.kind == **kind && is_served(&one.kind, one.group.as_deref())
        };
        listed.is_empty() || listed.iter().any(own)
    };
    let mut accepted = good("Accepted", "Accepted", "the listener is valid");
    let mut conflicted = bad("Conflicted", "NoConflicts", "no other listener excludes it");
    let mut resolved = good("ResolvedRefs", "ResolvedRefs", "all references exist");
    if !unknown.is_empty() {
        let message = format!("no routes of kind {} here", unknown.join(", "));
        resolved = bad("ResolvedRefs", "InvalidRouteKinds", message);
    }
    match fault {
        None => {}
        Some(Fault::Conflict(reason)) => {
            let message = "another listener of the port excludes it";
            accepted = bad("Accepted", reason, message);
            conflicted = good("Conflicted", reason, message);
        }
        Some(Fault::Protocol(message)) => {
            accepted = bad("Accepted", "UnsupportedProtocol", message.clone());
        }
        Some(Fault::Tls(problem)) => {
            resolved = bad("ResolvedRefs", problem.reason, problem.message.clone());
        }
    }
    let programmed = match fault {
        None => Condition {
            message: gateway.message.clone(),
            ..if gateway.holds {
                good("Programmed", "Programmed", "")
            } else {
                bad("Programmed", "Pending", "")
            }
        },
        Some(_) => bad("Programmed", "Invalid", "the listener is not valid"),
    };
    ListenerStatus {
        name: listener.name.clone(),
        kinds: served.iter().copied().filter(takes).collect(),
        attached: 0,
        certificates: Vec::new(),
        conditions: vec![accepted, programmed, conflicted, resolved],
    }
}

fn good(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Condition {
    Condition {
        kind,
        holds: true,
        reason,
        message: message.into(),
    }
}

fn bad(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Condition {
    Condition {
        holds: false,
        ..good(kind, reason, message)
    }
}
