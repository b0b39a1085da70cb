//! The control plane beside a real API server, asked over real sockets.

mod gateway_api;
mod identity;
mod support;

use kube::api::{Patch, PatchParams, PostParams};
use lateen_xds::ResourceType;
use serde_json::{Value, json};
use tonic::Code;

use support::{Mesh, Proxy, SIDECAR, WEB, api_of, create, endpoints, eventually, service, typed};

#[tokio::test(flavor = "multi_thread")]
async fn changes_reach_the_proxies_that_they_concern() {
    let mesh = Mesh::start().await;
    create(&mesh.client, service("web")).await;
    let mut proxy = Proxy::connect(&mesh, SIDECAR).await.unwrap();
    proxy.until(ResourceType::Cluster, WEB).await;
    proxy.subscribe(ResourceType::Endpoint, &[WEB]).await;
    proxy.until(ResourceType::Endpoint, WEB).await;
    // An endpoint that moves costs one response with that resource.
    create(&mesh.client, endpoints("web", &["10.0.0.1"])).await;
    assert_eq!(
        proxy.next().await.unwrap(),
        (ResourceType::Endpoint, vec![WEB.to_owned()])
    );
    // A new service is a new cluster.
    create(&mesh.client, service("other")).await;
    let other = "outbound|80||other.default.svc.cluster.local";
    assert_eq!(
        proxy.next().await.unwrap(),
        (ResourceType::Cluster, vec![other.to_owned()])
    );
    // Status says that everything was accepted.
    eventually("syncz shows the proxy as synced", async || {
        let (_, text) = mesh.monitoring("/debug/syncz").await;
        let status: Value = serde_json::from_str(&text).unwrap();
        status[0]["proxy"] == "web.default"
            && status[0]["cluster_sent"] == status[0]["cluster_acked"]
            && status[0]["endpoint_sent"] == status[0]["endpoint_acked"]
    })
    .await;
    let (_, metrics) = mesh.monitoring("/metrics").await;
    assert!(
        metrics.contains("pilot_xds{version=\"1.31.1\"} 1\n"),
        "{metrics}"
    );
    let (status, dump) = mesh
        .monitoring("/debug/config_dump?proxyID=web.default")
        .await;
    assert_eq!(status, 200);
    let dump: Value = serde_json::from_str(&dump).unwrap();
    assert!(
        dump["cds"]
            .as_array()
            .unwrap()
            .iter()
            .any(|cluster| cluster["name"] == WEB)
    );
    drop(proxy);
    eventually("the proxy is gone", async || {
        mesh.monitoring("/debug/syncz").await.1 == "[]\n"
    })
    .await;
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_that_are_defined_later_are_picked_up() {
    let mesh = Mesh::start().await;
    assert_eq!(
        mesh.monitoring("/debug/configz").await,
        (200, "[]\n".to_owned())
    );
    mesh.stop_validating().await;
    create(&mesh.client, destination_rule_definition()).await;
    create(&mesh.client, service("web")).await;
    let mut proxy = Proxy::connect(&mesh, SIDECAR).await.unwrap();
    proxy.until(ResourceType::Cluster, WEB).await;
    let rule = |name: &str, spec: Value| {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
            "metadata": {"name": name, "namespace": "default"}, "spec": spec,
        })
    };
    // One that cannot be decoded does not hide the others.
    let broken = rule("broken", json!({"host": 7}));
    let api = api_of(&mesh.client, &broken);
    eventually("the kind is served", async || {
        api.create(&PostParams::default(), &typed(&broken))
            .await
            .is_ok()
    })
    .await;
    let subsets = json!([{"name": "v1", "labels": {"version": "v1"}}]);
    create(
        &mesh.client,
        rule("web", json!({"host": "web", "subsets": subsets})),
    )
    .await;
    proxy
        .until(
            ResourceType::Cluster,
            "outbound|80|v1|web.default.svc.cluster.local",
        )
        .await;
    let (_, configs) = mesh.monitoring("/debug/configz").await;
    let configs: Value = serde_json::from_str(&configs).unwrap();
    assert_eq!(configs.as_array().unwrap().len(), 1);
    assert_eq!(configs[0]["metadata"]["name"], "web");
    mesh.stop().await;
}

fn destination_rule_definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "destinationrules.networking.istio.io"},
        "spec": {
            "group": "networking.istio.io", "scope": "Namespaced",
            "names": {"kind": "DestinationRule", "plural": "destinationrules"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_are_no_proxies_are_refused() {
    let mesh = Mesh::start().await;
    let check = async |node: &str| {
        let status = match Proxy::connect(&mesh, node).await {
            Err(status) => status,
            Ok(mut proxy) => proxy.next().await.unwrap_err(),
        };
        assert_eq!(status.code(), Code::InvalidArgument, "{node}: {status}");
    };
    check("").await;
    check("envoy").await;
    check("ztunnel~10.0.0.1~a.b~c").await;
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_injected_when_they_are_created() {
    let mesh = Mesh::start().await;
    mesh.point_webhooks_here().await;
    let namespaces = [
        ("meshed", json!({"istio-injection": "enabled"})),
        ("plain", json!({})),
    ];
    for (name, labels) in namespaces {
        let metadata = json!({"name": name, "labels": labels});
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
        create(&mesh.client, namespace).await;
    }
    let client = &mesh.client;
    let check = async |namespace: &str, labels: Value, expected: &[&str]| {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"generateName": "web-", "namespace": namespace, "labels": labels},
            "spec": {"containers": [{"name": "app", "image": "web"}]},
        });
        let made = create(client, pod).await;
        let containers = made["spec"]["containers"].as_array().unwrap().iter();
        let names: Vec<_> = containers.map(|it| it["name"].as_str().unwrap()).collect();
        assert_eq!(names, expected, "{namespace} {labels}");
    };
    check("meshed", json!({"app": "web"}), &["app", "istio-proxy"]).await;
    check(
        "meshed",
        json!({"sidecar.istio.io/inject": "false"}),
        &["app"],
    )
    .await;
    check("plain", json!({"app": "web"}), &["app"]).await;
    check(
        "plain",
        json!({"sidecar.istio.io/inject": "true"}),
        &["app", "istio-proxy"],
    )
    .await;
    let (_, metrics) = mesh.monitoring("/metrics").await;
    assert!(
        metrics.contains("sidecar_injection_success_total 2\n"),
        "{metrics}"
    );
    mesh.stop().await;
}

/// A sticky session of the Service `web`.
fn session(idle: &str) -> Value {
    json!({
        "apiVersion": "lateen.dev/v1alpha1", "kind": "StickySession",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "targetRefs": [{"kind": "Service", "name": "web"}],
            "key": {"header": "x-user"}, "idleTimeout": idle,
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_a_policy_says_whether_it_is_in_effect() {
    let mesh = Mesh::start().await;
    for definition in lateen_api::crd::all() {
        create(&mesh.client, definition).await;
    }
    mesh.stop_validating().await;
    let api = api_of(&mesh.client, &session("1s"));
    eventually("the kind is served", async || {
        api.create(&PostParams::default(), &typed(&session("1s")))
            .await
            .is_ok()
    })
    .await;
    let shows = async |reason: &str, message: &str| {
        eventually(reason, async || {
            let found = api.get("web").await.unwrap();
            let conditions = &found.data["status"]["conditions"];
            let accepted = &conditions[0];
            accepted["type"] == "Accepted"
                && accepted["reason"] == reason
                && accepted["message"].as_str().unwrap().contains(message)
                && accepted["observedGeneration"] == found.metadata.generation.unwrap()
        })
        .await;
    };
    shows("TargetNotFound", "not in effect").await;
    create(&mesh.client, service("web")).await;
    shows("Accepted", "in effect for Service web").await;
    let idle = |time: &str| Patch::Merge(json!({"spec": {"idleTimeout": time}}));
    let change = async |time: &str| {
        let done = api.patch("web", &PatchParams::default(), &idle(time)).await;
        done.unwrap();
    };
    change("1ms").await;
    shows("Invalid", "spec.idleTimeout").await;
    change("2s").await;
    shows("Accepted", "in effect for Service web").await;
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn configuration_that_cannot_work_is_refused_before_it_is_stored() {
    let mesh = Mesh::start().await;
    for definition in lateen_api::crd::all() {
        create(&mesh.client, definition).await;
    }
    mesh.point_webhooks_here().await;
    let api = api_of(&mesh.client, &session("1s"));
    let create = async |idle: &str| {
        let object = typed(&session(idle));
        api.create(&PostParams::default(), &object).await
    };
    eventually("the kind is served", async || {
        api.list(&Default::default()).await.is_ok()
    })
    .await;
    let refused = create("1ms").await.unwrap_err().to_string();
    let expected = "admission webhook \"rev.validation.istio.io\" denied the request: configuration is invalid: spec.idleTimeout: ";
    assert!(refused.contains(expected), "{refused}");
    create("10s").await.unwrap();
    let change = Patch::Merge(json!({"spec": {"key": {"header": "a b"}}}));
    let refused = api.patch("web", &PatchParams::default(), &change).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("spec.key.header: "), "{refused}");
    let (_, metrics) = mesh.monitoring("/metrics").await;
    for line in [
        "galley_validation_passed 1\n",
        "galley_validation_failed 2\n",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    mesh.stop().await;
}

impl Mesh {
    /// Lets objects be stored as if they were from before the validating webhook.
    pub(crate) async fn stop_validating(&self) {
        let validator = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration", "metadata": {},
        });
        let name = "istio-validator-istio-system";
        let all = api_of(&self.client, &validator);
        all.delete(name, &Default::default()).await.unwrap();
    }

    /// There are no pods that could answer for the webhooks' Service: the API server is told the address itself.
    async fn point_webhooks_here(&self) {
        let port = self.control.addresses().webhook.port();
        for (kind, name, path) in [
            (
                "MutatingWebhookConfiguration",
                "istio-sidecar-injector",
                "inject",
            ),
            (
                "ValidatingWebhookConfiguration",
                "istio-validator-istio-system",
                "validate",
            ),
        ] {
            let configuration = json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {},
            });
            let api = api_of(&self.client, &configuration);
            let mut webhooks = api.get(name).await.unwrap().data["webhooks"].clone();
            for webhook in webhooks.as_array_mut().unwrap() {
                webhook["clientConfig"] =
                    json!({"url": format!("https://localhost:{port}/{path}")});
            }
            let patch = Patch::Merge(json!({"webhooks": webhooks}));
            api.patch(name, &PatchParams::default(), &patch)
                .await
                .unwrap();
            eventually("the CA bundle is put back", async || {
                let found = api.get(name).await.unwrap();
                let mut webhooks = found.data["webhooks"].as_array().unwrap().iter();
                webhooks.all(|webhook| {
                    webhook["clientConfig"]["caBundle"].is_string()
                        && webhook["failurePolicy"] == "Fail"
                })
            })
            .await;
        }
    }
}
