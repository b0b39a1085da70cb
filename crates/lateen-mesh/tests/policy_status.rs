//! What the status of Lateen's own kinds says.

use lateen_api::decode;
use lateen_mesh::{Change, Index, MeshConfig};
use serde_json::{Value, json};

/// A mesh with the Service `web`, its subset `v1`, the Gateway `edge`, and these policies in the order of their age.
fn mesh(policies: &[(&str, &str, Value)]) -> Index {
    let mut index = Index::new(MeshConfig::default());
    let object = |group: &str, kind: &str, name: &str, spec: &Value, age: usize| {
        json!({
            "apiVersion": group, "kind": kind, "spec": spec,
            "metadata": {
                "name": name, "namespace": "shop", "generation": 3,
                "creationTimestamp": format!("2026-01-01T00:00:{age:02}Z"),
            },
        })
    };
    let service = json!({"ports": [{"port": 80, "name": "http"}], "selector": {"app": "web"}});
    let service = object("v1", "Service", "web", &service, 0);
    let service = serde_json::from_value(service).expect("a service");
    index.apply(Change::Service(service));
    let istio = |kind: &str, name: &str, spec: Value| {
        object("networking.istio.io/v1", kind, name, &spec, 0)
    };
    let rule = istio(
        "DestinationRule",
        "web",
        json!({"host": "web", "subsets": [{"name": "v1"}]}),
    );
    index.apply(Change::DestinationRule(decode(&rule).expect("a rule")));
    let gateway = istio("Gateway", "edge", json!({"servers": []}));
    index.apply(Change::Gateway(decode(&gateway).expect("a gateway")));
    for (age, (kind, name, spec)) in policies.iter().enumerate() {
        let policy = object("lateen.dev/v1alpha1", kind, name, spec, age);
        index.apply(match *kind {
            "StickySession" => Change::StickySession(decode(&policy).expect(name)),
            _ => Change::BodyToHeaders(decode(&policy).expect(name)),
        });
    }
    index
}

/// The conditions of the last of these policies: type, whether it holds, reason, message.
fn check(policies: &[(&str, &str, Value)], expected: &[(&str, bool, &str, &str)]) {
    let index = mesh(policies);
    let (_, name, _) = policies.last().expect("a policy");
    let status = index
        .policy_statuses()
        .find(|status| status.key.name == *name);
    let status = status.expect("a status");
    assert_eq!(status.generation, 3);
    let found: Vec<_> = status
        .conditions
        .iter()
        .map(|it| (it.kind, it.holds, it.reason, it.message.as_str()))
        .collect();
    assert_eq!(found, expected, "{policies:?}");
}

fn session(name: &'static str, targets: &[(&str, &str)]) -> (&'static str, &'static str, Value) {
    let targets: Vec<Value> = targets
        .iter()
        .map(|(name, section)| match *section {
            "" => json!({"kind": "Service", "name": name}),
            section => json!({"kind": "Service", "name": name, "sectionName": section}),
        })
        .collect();
    let spec = json!({"targetRefs": targets, "key": {"header": "a"}, "idleTimeout": "60s"});
    ("StickySession", name, spec)
}

const RESOLVED: (&str, bool, &str, &str) =
    ("ResolvedRefs", true, "ResolvedRefs", "all targets exist");

#[test]
fn a_session_is_in_effect_for_the_services_that_are_there() {
    check(
        &[session("a", &[("web", "")])],
        &[
            ("Accepted", true, "Accepted", "in effect for Service web"),
            RESOLVED,
        ],
    );
    check(
        &[session("a", &[("web", ""), ("web", "v1")])],
        &[
            (
                "Accepted",
                true,
                "Accepted",
                "in effect for Service web, subset v1 of Service web",
            ),
            RESOLVED,
        ],
    );
    check(
        &[session("a", &[("web", ""), ("shop", "")])],
        &[
            ("Accepted", true, "Accepted", "in effect for Service web"),
            (
                "ResolvedRefs",
                false,
                "TargetNotFound",
                "there is no Service shop",
            ),
        ],
    );
    check(
        &[session("a", &[("web", "v2")])],
        &[
            ("Accepted", false, "TargetNotFound", "not in effect"),
            (
                "ResolvedRefs",
                false,
                "TargetNotFound",
                "no DestinationRule gives Service web a subset v2",
            ),
        ],
    );
}

#[test]
fn an_older_session_for_the_same_target_comes_first() {
    let older = session("older", &[("web", "")]);
    check(
        &[older.clone(), session("a", &[("web", "")])],
        &[
            (
                "Accepted",
                false,
                "Conflicted",
                "not in effect; Service web follows the older StickySession older",
            ),
            RESOLVED,
        ],
    );
    check(
        &[older.clone(), session("a", &[("web", ""), ("web", "v1")])],
        &[
            (
                "Accepted",
                true,
                "PartiallyConflicted",
                "in effect for subset v1 of Service web; Service web follows the older StickySession older",
            ),
            RESOLVED,
        ],
    );
    check(
        &[session("younger", &[("web", "v1")]), older],
        &[
            ("Accepted", true, "Accepted", "in effect for Service web"),
            RESOLVED,
        ],
    );
}

#[test]
fn a_body_policy_is_in_effect_for_gateways_that_are_there_and_for_what_it_selects() {
    let policy = |change: Value| {
        let mut spec = change;
        spec["fields"] = json!([{"pointer": "/a", "header": "a"}]);
        ("BodyToHeaders", "a", spec)
    };
    let gateway =
        |name: &str| json!({"group": "networking.istio.io", "kind": "Gateway", "name": name});
    check(
        &[policy(
            json!({"targetRefs": [gateway("edge"), gateway("none")]}),
        )],
        &[
            ("Accepted", true, "Accepted", "in effect for Gateway edge"),
            (
                "ResolvedRefs",
                false,
                "TargetNotFound",
                "there is no Gateway none",
            ),
        ],
    );
    check(
        &[policy(json!({"selector": {"matchLabels": {"app": "web"}}}))],
        &[
            (
                "Accepted",
                true,
                "Accepted",
                "in effect for workloads with app=web",
            ),
            RESOLVED,
        ],
    );
}
