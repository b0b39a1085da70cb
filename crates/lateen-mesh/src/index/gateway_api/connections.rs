//! Rules of TCPRoutes and TLSRoutes: where connections go.

use lateen_api::{
    gateway_api::{
        BackendReference,
        l4_route::{ConnectionBackend, ConnectionRule},
    },
    networking::virtual_service::RouteDestination,
};

use super::{
    backends::{Backends, Problem},
    rules::Converted,
};

/// The destinations of a route, and what is wrong with them. Without any, connections are closed: they are sent to a
/// destination that does not exist.
pub(super) fn of_rules(rules: &[ConnectionRule], backends: &Backends<'_>) -> Converted {
    let mut converted = Converted::default();
    let all = || rules.iter().flat_map(|rule| &rule.backend_refs);
    let used: Vec<&ConnectionBackend> = all().filter(|backend| backend.share() > 0).collect();
    for unused in all().filter(|backend| backend.share() == 0) {
        converted.problems.extend(problem(unused, backends));
    }
    for backend in &used {
        let (destination, problem) = backends.destination(&backend.reference);
        converted.problems.extend(problem);
        converted.destinations.push(RouteDestination {
            destination,
            // The weight of the only one does not matter.
            weight: if used.len() == 1 { 0 } else { backend.share() },
        });
    }
    if used.is_empty() {
        converted.destinations.push(RouteDestination {
            destination: Backends::nowhere(&BackendReference::default()),
            weight: 0,
        });
    }
    converted
}

fn problem(backend: &ConnectionBackend, backends: &Backends<'_>) -> Option<Problem> {
    backends.destination(&backend.reference).1
}
