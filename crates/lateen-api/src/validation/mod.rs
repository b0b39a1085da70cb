//! Checks that a schema cannot express: what Istio's own validation refuses, with the path of the field.
//!
//! What is refused here is refused before it is stored; what can be stored and is merely doubtful is left to analysis.

pub mod destination_rule;
pub mod gateway;
pub mod gateway_api;
pub mod http_policy;
pub mod http_route;
pub mod lateen;
pub mod names;
pub mod service_entry;
pub mod sidecar;
pub mod virtual_service;

use std::fmt;

use crate::{gateway_api::GROUP as GATEWAY_API, object::decode};

/// One thing that is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field, for example `spec.http[0].route[1].weight`.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.path, self.message)
    }
}

/// Problems that were found so far, and where the search is.
#[derive(Debug, Default)]
pub struct Problems {
    path: String,
    found: Vec<Problem>,
}

impl Problems {
    /// A search that begins at a path.
    pub fn at(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            found: Vec::new(),
        }
    }

    /// What was found.
    pub fn into_found(self) -> Vec<Problem> {
        self.found
    }

    /// Searches in a field.
    pub fn field<T>(&mut self, name: &str, search: impl FnOnce(&mut Self) -> T) -> T {
        self.descend(
            &if self.path.is_empty() {
                name.to_owned()
            } else {
                format!(".{name}")
            },
            search,
        )
    }

    /// Searches in each element of a field that is a list.
    pub fn each<'a, T: 'a>(
        &mut self,
        name: &str,
        elements: impl IntoIterator<Item = &'a T>,
        mut search: impl FnMut(&mut Self, &'a T),
    ) {
        self.field(name, |problems| {
            for (index, element) in elements.into_iter().enumerate() {
                problems.descend(&format!("[{index}]"), |problems| search(problems, element));
            }
        });
    }

    fn descend<T>(&mut self, segment: &str, search: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.path.push_str(segment);
        let result = search(self);
        self.path.truncate(length);
        result
    }

    /// Notes a problem of the current field.
    pub fn add(&mut self, message: impl Into<String>) {
        self.found.push(Problem {
            path: self.path.clone(),
            message: message.into(),
        });
    }

    /// Notes a problem of a field.
    pub fn add_to(&mut self, name: &str, message: impl Into<String>) {
        self.field(name, |problems| problems.add(message));
    }

    /// Notes a problem of a field unless something holds.
    pub fn demand(&mut self, holds: bool, name: &str, message: impl Into<String>) {
        if !holds {
            self.add_to(name, message);
        }
    }
}

/// The problems of an object in JSON form, whatever its version; `None` for kinds that are not ours.
pub fn validate(object: &serde_json::Value) -> Option<Vec<Problem>> {
    fn check<S: crate::Kind>(
        object: &serde_json::Value,
        search: impl FnOnce(&S, &mut Problems),
    ) -> Vec<Problem> {
        match decode::<S>(object) {
            Ok(object) => {
                let mut problems = Problems::at("spec");
                search(&object.spec, &mut problems);
                problems.into_found()
            }
            Err(error) => vec![Problem {
                path: String::new(),
                message: error.to_string(),
            }],
        }
    }
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let group = api_version.split('/').next().unwrap_or_default();
    Some(match (group, object["kind"].as_str().unwrap_or_default()) {
        ("networking.istio.io", "VirtualService") => check(object, virtual_service::specification),
        ("networking.istio.io", "DestinationRule") => {
            check(object, destination_rule::specification)
        }
        ("networking.istio.io", "Gateway") => check(object, gateway::specification),
        ("networking.istio.io", "ServiceEntry") => check(object, service_entry::specification),
        ("networking.istio.io", "WorkloadEntry") => check(object, service_entry::workload),
        ("networking.istio.io", "Sidecar") => check(object, sidecar::specification),
        ("security.istio.io", "PeerAuthentication") => check(object, peer_authentication),
        (GATEWAY_API, "HTTPRoute") => check(object, gateway_api::http_route),
        (GATEWAY_API, "GRPCRoute") => check(object, gateway_api::grpc_route),
        (GATEWAY_API, "TCPRoute") => check(object, gateway_api::tcp_route),
        (GATEWAY_API, "TLSRoute") => check(object, gateway_api::tls_route),
        (GATEWAY_API, "Gateway") => check(object, gateway_api::gateway),
        (GATEWAY_API, "GatewayClass") => check(object, gateway_api::gateway_class),
        (GATEWAY_API, "ReferenceGrant") => check(object, gateway_api::reference_grant),
        ("lateen.dev", "StickySession") => check(object, lateen::sticky_session),
        ("lateen.dev", "BodyToHeaders") => check(object, lateen::body_to_headers),
        _ => return None,
    })
}

/// Checks a peer authentication.
pub fn peer_authentication(
    spec: &crate::security::PeerAuthenticationSpec,
    problems: &mut Problems,
) {
    let selected = spec
        .selector
        .as_ref()
        .is_some_and(|selector| !selector.match_labels.is_empty());
    let empty = spec.port_levels().next().is_none();
    problems.demand(
        spec.port_level_mtls.is_none() || !empty,
        "portLevelMtls",
        "name at least one port, or leave it out",
    );
    problems.demand(
        empty || selected,
        "portLevelMtls",
        "settings of single ports need a selector with labels",
    );
    for (port, _) in spec.port_levels() {
        let valid = port.parse::<u32>().is_ok_and(names::is_port);
        problems.demand(
            valid,
            "portLevelMtls",
            format!("{port:?} is not a port: use 1 to 65535"),
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_the_field_that_is_wrong() {
        let object = json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "a", "namespace": "b"},
            "spec": {"hosts": ["a"], "http": [
                {"route": [{"destination": {"host": "a"}}]},
                {"route": [{"destination": {"host": "a"}, "weight": -1}, {"destination": {"host": "b/c"}, "weight": 1}]},
            ]},
        });
        let found = validate(&object).unwrap_or_default();
        let paths: Vec<&str> = found.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "spec.http[1].route[0].weight",
                "spec.http[1].route[1].destination.host"
            ]
        );
    }

    #[test]
    fn names_the_field_that_cannot_be_decoded() {
        let object = json!({
            "apiVersion": "networking.istio.io/v1alpha3", "kind": "VirtualService",
            "metadata": {"name": "a"}, "spec": {"hosts": ["a"], "http": [{"timeout": "5"}]},
        });
        let found = validate(&object).unwrap_or_default();
        assert_eq!(found.len(), 1);
        assert!(
            found[0].message.contains("spec.http[0].timeout"),
            "{}",
            found[0].message
        );
        assert!(validate(&json!({"apiVersion": "v1", "kind": "Pod"})).is_none());
    }
}
