//! What the control plane makes for gateways of the Gateway API, as Istio does: the classes, and for each gateway that
//! names no Service a Deployment, a Service and an identity. They go with their Gateway, which owns them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use lateen_api::Kind as _;
use lateen_api::gateway_api::{GROUP, Gateway, GatewayClassSpec};
use lateen_mesh::Key;
use lateen_mesh::index::{GATEWAY_CONTROLLER, deployment_of};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep_until};

use crate::engine::World;
use crate::inject::InjectConfig;
use crate::manifests::gateway::{ServicePort, Workload};

/// Changes within this time are looked at together.
const PAUSE: Duration = Duration::from_millis(50);
/// How long to wait after a write that failed.
const RETRY: Duration = Duration::from_secs(1);
/// How often everything is written again: somebody may have changed or deleted it.
const RESYNC: Duration = Duration::from_secs(60);
/// How often classes are made again that the API does not take (yet): their kind may not be defined.
const CLASS_RETRY: Duration = Duration::from_secs(5);
/// Added to ports that only a privileged process may listen on.
const UNPRIVILEGED: u16 = 10_000;
/// Port of the proxy's readiness.
const STATUS_PORT: u16 = 15021;
/// Annotation of a Gateway that says what type its Service is of.
const SERVICE_TYPE: &str = "networking.istio.io/service-type";
/// Label by which the pods of a Gateway are selected.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// The objects of each gateway, as they were written last.
type Written = BTreeMap<Key, Vec<Value>>;

/// Keeps the classes and the proxies of all gateways, for ever.
pub(crate) async fn keep(world: Arc<World>, client: Client, config: InjectConfig) {
    let mut state = world.state();
    if state.wait_for(|state| state.synced).await.is_err() {
        return;
    }
    let mut written = Written::new();
    let mut next_resync = Instant::now() + RESYNC;
    loop {
        let (missing, wanted): (Vec<&str>, Written) = {
            let index = world.index.read();
            let missing = index.missing_classes().collect();
            let gateways = index.gateways_to_deploy();
            let wanted =
                gateways.filter_map(|gateway| Some((Key::of(gateway), objects(gateway, &config)?)));
            (missing, wanted.collect())
        };
        for name in &missing {
            make_class(&client, name).await;
        }
        // What is gone is deleted with its owner.
        written.retain(|key, _| wanted.contains_key(key));
        let mut failed = false;
        for (key, objects) in wanted {
            if written.get(&key) == Some(&objects) {
                continue;
            }
            match apply(&client, &objects).await {
                Ok(()) => drop(written.insert(key, objects)),
                Err(error) => {
                    let Key { namespace, name } = key;
                    tracing::warn!(namespace, name, %error, "cannot deploy the gateway");
                    failed = true;
                }
            }
        }
        if failed {
            tokio::time::sleep(RETRY).await;
        } else {
            tokio::select! {
                changed = state.changed() => if changed.is_err() {
                    return;
                },
                () = sleep_until(next_resync), if !written.is_empty() => {}
                () = tokio::time::sleep(CLASS_RETRY), if !missing.is_empty() => {}
            }
        }
        if next_resync <= Instant::now() {
            written.clear();
            next_resync = Instant::now() + RESYNC;
        }
        tokio::time::sleep(PAUSE).await;
        // What came meanwhile is part of the next look.
        state.mark_unchanged();
    }
}

/// Makes a class, unless it is there by now or cannot be: another look will be taken.
async fn make_class(client: &Client, name: &str) {
    let gvk = GroupVersionKind::gvk(
        GatewayClassSpec::GROUP,
        GatewayClassSpec::VERSIONS[0],
        GatewayClassSpec::KIND,
    );
    let resource = ApiResource::from_gvk_with_plural(&gvk, GatewayClassSpec::PLURAL);
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let spec = json!({"controllerName": GATEWAY_CONTROLLER, "description": "Gateways of the mesh"});
    let class = DynamicObject::new(name, &resource).data(json!({ "spec": spec }));
    match api.create(&PostParams::default(), &class).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
        Err(error) => tracing::warn!(name, %error, "cannot make the class of gateways"),
        Ok(_) => {}
    }
}

async fn apply(client: &Client, objects: &[Value]) -> Result<(), kube::Error> {
    let parameters = PatchParams::apply(GATEWAY_CONTROLLER).force();
    for object in objects {
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let api_version = text("apiVersion");
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let gvk = GroupVersionKind::gvk(group, version, text("kind"));
        let plural = format!("{}s", text("kind").to_ascii_lowercase());
        let resource = ApiResource::from_gvk_with_plural(&gvk, &plural);
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        api.patch(name, &parameters, &Patch::Apply(object)).await?;
    }
    Ok(())
}

/// What a gateway needs, in the order in which it is made.
fn objects(gateway: &Gateway, config: &InjectConfig) -> Option<Vec<Value>> {
    let name = deployment_of(gateway)?;
    let infrastructure = gateway.spec.infrastructure.clone().unwrap_or_default();
    let mut labels: Map<String, Value> = infrastructure
        .labels
        .into_iter()
        .map(|(key, value)| (key, json!(value)))
        .collect();
    labels.insert(GATEWAY_NAME.to_owned(), json!(gateway.name()));
    labels.insert(
        "gateway.networking.k8s.io/gateway-class-name".to_owned(),
        json!(gateway.spec.gateway_class_name),
    );
    labels.insert(
        "gateway.istio.io/managed".to_owned(),
        json!(GATEWAY_CONTROLLER.replace('/', "-")),
    );
    let annotations = gateway.metadata.annotations.as_ref();
    let service_type = annotations.and_then(|all| all.get(SERVICE_TYPE));
    let workload = Workload {
        namespace: gateway.namespace().to_owned(),
        service_account: name.clone(),
        name,
        labels: Value::Object(labels),
        selector: json!({GATEWAY_NAME: gateway.name()}),
        annotations: json!(infrastructure.annotations),
        ports: ports(gateway),
        service_type: service_type.map_or_else(|| "LoadBalancer".to_owned(), Clone::clone),
        owner: Some(json!({
            "apiVersion": format!("{GROUP}/v1"),
            "kind": "Gateway",
            "name": gateway.name(),
            "uid": gateway.metadata.uid.as_deref()?,
        })),
    };
    Some(vec![
        workload.service_account(),
        workload.service(),
        workload.deployment(config),
    ])
}

/// The ports of the listeners, and the one of the proxy's readiness.
fn ports(gateway: &Gateway) -> Vec<ServicePort> {
    let mut listed: BTreeMap<u16, &str> = BTreeMap::new();
    for listener in &gateway.spec.listeners {
        if let Ok(port) = u16::try_from(listener.port) {
            listed.entry(port).or_insert(&listener.protocol);
        }
    }
    let mut taken: BTreeSet<u16> = listed.keys().copied().collect();
    taken.insert(STATUS_PORT);
    let mut ports: Vec<ServicePort> = Vec::new();
    for (port, protocol) in listed.iter().filter(|(port, _)| **port != STATUS_PORT) {
        let target = if *port < 1024 {
            let mut above = (UNPRIVILEGED + port)..;
            above.find(|port| taken.insert(*port)).unwrap_or(*port)
        } else {
            *port
        };
        ports.push(ServicePort {
            name: format!("{}-{port}", protocol.to_ascii_lowercase()),
            port: *port,
            target,
        });
    }
    ports.push(ServicePort {
        name: "status-port".to_owned(),
        port: STATUS_PORT,
        target: STATUS_PORT,
    });
    ports
}

#[cfg(test)]
mod tests {
    use lateen_api::decode;

    use super::*;

    fn gateway(listeners: Value) -> Gateway {
        let object = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {
                "name": "edge", "namespace": "shop", "uid": "1-2-3",
                "annotations": {SERVICE_TYPE: "ClusterIP"},
            },
            "spec": {
                "gatewayClassName": "istio", "listeners": listeners,
                "infrastructure": {"labels": {"team": "a"}, "annotations": {"note": "b"}},
            },
        });
        decode(&object).expect("a gateway")
    }

    #[test]
    fn ports_are_those_that_an_ordinary_process_may_open() {
        let check = |ports: &[u32], expected: &[(u16, u16)]| {
            let listeners = ports.iter().enumerate().map(|(place, port)| {
                json!({"name": format!("l{place}"), "port": port, "protocol": "HTTP"})
            });
            let found = super::ports(&gateway(listeners.collect()));
            let found: Vec<_> = found.iter().map(|one| (one.port, one.target)).collect();
            assert_eq!(found, expected, "{ports:?}");
        };
        check(&[80, 80], &[(80, 10_080), (15021, 15021)]);
        check(
            &[80, 443, 8080],
            &[(80, 10_080), (443, 10_443), (8080, 8080), (15021, 15021)],
        );
        check(
            &[10_080, 80],
            &[(80, 10_081), (10_080, 10_080), (15021, 15021)],
        );
    }

    #[test]
    fn everything_goes_with_its_gateway() {
        let http = json!([{"name": "http", "port": 80, "protocol": "HTTP"}]);
        let config = InjectConfig::default();
        let found = objects(&gateway(http), &config).expect("objects");
        let kinds: Vec<_> = found.iter().map(|one| one["kind"].as_str()).collect();
        let expected = ["ServiceAccount", "Service", "Deployment"].map(Some);
        assert_eq!(kinds, expected);
        for object in &found {
            let metadata = &object["metadata"];
            assert_eq!(metadata["name"], "edge-istio");
            assert_eq!(metadata["namespace"], "shop");
            assert_eq!(metadata["labels"]["team"], "a");
            assert_eq!(metadata["annotations"]["note"], "b");
            assert_eq!(metadata["ownerReferences"][0]["uid"], "1-2-3");
        }
        assert_eq!(found[1]["spec"]["type"], "ClusterIP");
        let labels = &found[2]["spec"]["template"]["metadata"]["labels"];
        let selector = &found[1]["spec"]["selector"];
        for (key, value) in selector.as_object().expect("a selector") {
            assert_eq!(labels[key], *value, "{key}");
        }
    }
}
