//! How much a change makes the translation work.

use std::collections::BTreeSet;

use lateen_mesh::resources;
use lateen_xds::ResourceType;

use crate::{A, B, endpoints, mesh, names, service, sidecar, slice, subscriptions};

/// How many resources one new service makes the translation work on, among many services and proxies.
#[test]
fn a_new_service_costs_what_it_appears_in() {
    const SERVICES: usize = 300;
    const PROXIES: usize = 20;
    let mut index = mesh();
    for number in 0..SERVICES {
        index.apply(service(&format!("s{number}")));
    }
    let proxies = vec![sidecar(); PROXIES];
    let subscriptions = subscriptions();
    for proxy in &proxies {
        for (kind, names) in &subscriptions {
            resources(&index, proxy, *kind, names);
        }
    }
    let before = index.translated();
    let impact = index.apply(service("new"));
    let mut sent = Vec::new();
    for proxy in &proxies {
        for (kind, names) in &subscriptions {
            let concerned = impact.narrow(proxy, *kind, names);
            sent.extend(resources(&index, proxy, *kind, &concerned));
        }
    }
    let found: BTreeSet<&str> = sent.iter().map(|one| one.name.as_str()).collect();
    let new = "outbound|8080||new.shop.svc.cluster.local";
    assert_eq!(found, BTreeSet::from(["0.0.0.0_8080", "8080", new]));
    // The cluster and the routes are made once, the listener (it names the workload) for each proxy.
    let made = index.translated() - before;
    assert!(
        made <= 2 + PROXIES as u64,
        "{made} resources were translated"
    );
}

#[test]
fn a_moved_endpoint_costs_one_translation_for_all_proxies_of_a_class() {
    let mut index = mesh();
    let proxies = vec![sidecar(); 20];
    for proxy in &proxies {
        resources(&index, proxy, ResourceType::Endpoint, &names(&[A, B]));
    }
    let before = index.translated();
    let impact = index.apply(slice("b", &["10.0.0.2", "10.0.0.9"]));
    for proxy in &proxies {
        let concerned = impact.narrow(proxy, ResourceType::Endpoint, &names(&[A, B]));
        assert_eq!(concerned, names(&[B]));
        let sent = resources(&index, proxy, ResourceType::Endpoint, &concerned);
        assert_eq!(sent.len(), 1);
    }
    assert_eq!(index.translated() - before, 1);
    assert_eq!(endpoints(&index, &sidecar(), B), 2);
}
