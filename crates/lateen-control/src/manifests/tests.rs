use std::collections::BTreeSet;

use super::*;

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects
        .iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

#[test]
fn gateway_has_the_ports_that_documents_ask_for() {
    let objects = render(&Options::default());
    let service = find(&objects, "Service", "istio-ingressgateway");
    assert_eq!(service["spec"]["type"], "LoadBalancer");
    let check = |name: &str, port: u16| {
        let ports = service["spec"]["ports"].as_array().unwrap();
        let found = ports.iter().find(|entry| entry["name"] == name).unwrap();
        assert_eq!(found["port"], port, "{name}");
    };
    check("http2", 80);
    check("https", 443);
    check("tcp", 31400);
    check("status-port", 15021);
    check("tls", 15443);
}

#[test]
fn workloads_are_selected_by_their_services_and_selectors() {
    let objects = render(&Options::default());
    for name in ["istiod", "istio-ingressgateway"] {
        let deployment = find(&objects, "Deployment", name);
        let labels = deployment["spec"]["template"]["metadata"]["labels"]
            .as_object()
            .unwrap();
        let wanted = [
            &find(&objects, "Service", name)["spec"]["selector"],
            &deployment["spec"]["selector"]["matchLabels"],
        ];
        for selector in wanted {
            for (key, value) in selector.as_object().unwrap() {
                assert_eq!(labels.get(key), Some(value), "{name}: {key}");
            }
        }
        // No webhook takes the mesh's own pods.
        assert_eq!(labels["sidecar.istio.io/inject"], "false");
        let account = deployment["spec"]["template"]["spec"]["serviceAccountName"]
            .as_str()
            .unwrap();
        find(&objects, "ServiceAccount", account);
    }
}

#[test]
fn settings_reach_the_objects() {
    let options = Options {
        namespace: "mesh".to_owned(),
        image: "example/lateen:2".to_owned(),
        ingress_gateway: false,
        mesh: MeshConfig {
            trust_domain: "example".to_owned(),
            ..MeshConfig::default()
        },
        ..Options::default()
    };
    let objects = render(&options);
    let kinds: BTreeSet<&str> = objects
        .iter()
        .map(|object| object["kind"].as_str().unwrap())
        .collect();
    assert!(kinds.contains("MutatingWebhookConfiguration"));
    assert!(
        !objects
            .iter()
            .any(|object| object["metadata"]["name"] == "istio-ingressgateway")
    );
    let namespaces = objects
        .iter()
        .filter_map(|object| object["metadata"]["namespace"].as_str());
    assert!(namespaces.into_iter().all(|namespace| namespace == "mesh"));
    let deployment = find(&objects, "Deployment", "istiod");
    assert_eq!(
        deployment["spec"]["template"]["spec"]["containers"][0]["image"],
        "example/lateen:2"
    );
    let mesh = find(&objects, "ConfigMap", "istio")["data"]["mesh"]
        .as_str()
        .unwrap();
    assert_eq!(
        serde_saphyr::from_str::<Value>(mesh).unwrap(),
        json!({"trustDomain": "example"})
    );
}
