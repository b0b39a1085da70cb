use serde_json::json;

use super::*;

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": "web-5d4f-",
            "labels": {"app": "web", "version": "v1", "pod-template-hash": "5d4f"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f", "controller": true}],
        },
        "spec": {"containers": [{"name": "app", "image": "web", "ports": [{"containerPort": 80}]}]},
    })
}

fn injected(pod: &Value) -> (Value, Vec<String>) {
    match inject(
        pod,
        &Owner::of_pod(pod, "default"),
        &InjectConfig::default(),
    )
    .unwrap()
    {
        Outcome::Injected { pod, warnings } => (pod, warnings),
        Outcome::Skipped(reason) => panic!("skipped: {reason}"),
    }
}

fn names(pod: &Value, list: &str) -> Vec<String> {
    let containers = pod["spec"][list].as_array().into_iter().flatten();
    containers
        .map(|container| container["name"].as_str().unwrap().to_owned())
        .collect()
}

fn environment(container: &Value) -> BTreeMap<&str, &Value> {
    let variables = container["env"].as_array().unwrap().iter();
    variables
        .map(|variable| (variable["name"].as_str().unwrap(), variable))
        .collect()
}

#[test]
fn proxy_is_the_second_container() {
    let (pod, warnings) = injected(&pod());
    assert_eq!(names(&pod, "containers"), ["app", "istio-proxy"]);
    assert_eq!(names(&pod, "initContainers"), ["istio-init"]);
    assert!(warnings.is_empty());
    let labels = &pod["metadata"]["labels"];
    assert_eq!(labels["security.istio.io/tlsMode"], "istio");
    assert_eq!(labels["service.istio.io/canonical-name"], "web");
    assert_eq!(labels["service.istio.io/canonical-revision"], "v1");
    let status: Value =
        serde_json::from_str(pod["metadata"]["annotations"][STATUS].as_str().unwrap()).unwrap();
    assert_eq!(status["containers"], json!(["istio-proxy"]));
    let volumes: Vec<_> = pod["spec"]["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["name"])
        .collect();
    assert_eq!(volumes, ["istio-token", "istiod-ca-cert", "istio-podinfo"]);
    assert_eq!(status["volumes"], json!(volumes));
    let proxy = &pod["spec"]["containers"][1];
    let mounts = proxy["volumeMounts"].as_array().unwrap().iter();
    assert_eq!(mounts.map(|it| &it["name"]).collect::<Vec<_>>(), volumes);
    let environment = environment(proxy);
    assert_eq!(environment["ISTIO_META_WORKLOAD_NAME"]["value"], "web");
    assert_eq!(
        environment["ISTIO_META_OWNER"]["value"],
        "kubernetes://apis/apps/v1/namespaces/default/deployments/web"
    );
    assert_eq!(
        environment["POD_NAME"]["valueFrom"]["fieldRef"]["fieldPath"],
        "metadata.name"
    );
    assert_eq!(
        environment["ISTIO_META_POD_PORTS"]["value"],
        r#"[{"containerPort":80}]"#
    );
    let labels: Value = serde_json::from_str(
        environment["ISTIO_METAJSON_LABELS"]["value"]
            .as_str()
            .unwrap(),
    )
    .unwrap();
    assert_eq!(labels, json!({"LABELS": pod["metadata"]["labels"]}));
}

#[test]
fn pods_that_are_left_alone() {
    let check = |change: &dyn Fn(&mut Value), namespace: &str, expected: Skipped| {
        let mut pod = pod();
        change(&mut pod);
        let owner = Owner::of_pod(&pod, namespace);
        let outcome = inject(&pod, &owner, &InjectConfig::default()).unwrap();
        assert_eq!(outcome, Outcome::Skipped(expected));
    };
    check(
        &|pod| pod["spec"]["hostNetwork"] = true.into(),
        "default",
        Skipped::HostNetwork,
    );
    check(
        &|pod| pod["metadata"]["labels"][INJECT] = "false".into(),
        "default",
        Skipped::Refused,
    );
    check(
        &|pod| pod["metadata"]["annotations"] = json!({INJECT: "false"}),
        "default",
        Skipped::Refused,
    );
    check(&|_| (), "kube-system", Skipped::SystemNamespace);
    check(
        &|pod| *pod = injected(pod).0,
        "default",
        Skipped::AlreadyInjected,
    );
}

#[test]
fn a_proxy_in_the_pod_changes_the_injected_one() {
    let mut pod = pod();
    let custom = json!({"name": "istio-proxy", "image": "auto", "securityContext": {"readOnlyRootFilesystem": false}});
    pod["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .insert(0, custom);
    let (pod, _) = injected(&pod);
    assert_eq!(names(&pod, "containers"), ["app", "istio-proxy"]);
    let proxy = &pod["spec"]["containers"][1];
    assert_eq!(proxy["image"], InjectConfig::default().image);
    assert_eq!(proxy["securityContext"]["readOnlyRootFilesystem"], false);
    assert_eq!(proxy["securityContext"]["runAsUser"], 1337);
}

#[test]
fn a_pod_can_be_a_gateway() {
    let pod = json!({
        "metadata": {"name": "g", "annotations": {"inject.istio.io/templates": "gateway"}},
        "spec": {"containers": [{"name": "istio-proxy", "image": "auto"}]},
    });
    let (pod, _) = injected(&pod);
    assert_eq!(names(&pod, "containers"), ["istio-proxy"]);
    assert!(
        names(&pod, "initContainers").is_empty(),
        "nothing is redirected"
    );
    let proxy = &pod["spec"]["containers"][0];
    assert_eq!(proxy["args"][1], "router");
    let mut other = pod.clone();
    other["metadata"]["annotations"] = json!({"inject.istio.io/templates": "grpc-agent"});
    let owner = Owner::of_pod(&other, "default");
    let error = inject(&other, &owner, &InjectConfig::default()).unwrap_err();
    assert!(error.to_string().contains("grpc-agent"), "{error}");
}

#[test]
fn label_wins_over_annotation() {
    let mut pod = pod();
    pod["metadata"]["labels"][INJECT] = "true".into();
    pod["metadata"]["annotations"] = json!({INJECT: "false"});
    assert_eq!(
        names(&injected(&pod).0, "containers"),
        ["app", "istio-proxy"]
    );
}

#[test]
fn annotations_shape_the_sidecar() {
    let annotated = |name: &str, value: &str| {
        let mut pod = pod();
        pod["metadata"]["annotations"] = json!({name: value});
        pod
    };
    let check = |name: &str, value: &str, pointer: &str, expected: Value| {
        let (pod, warnings) = injected(&annotated(name, value));
        assert_eq!(pod["spec"].pointer(pointer), Some(&expected), "{name}");
        assert!(warnings.is_empty(), "{warnings:?}");
    };
    check(
        "sidecar.istio.io/proxyImage",
        "other:1",
        "/containers/1/image",
        json!("other:1"),
    );
    check(
        "sidecar.istio.io/proxyCPU",
        "1",
        "/containers/1/resources/requests/cpu",
        json!("1"),
    );
    check(
        "sidecar.istio.io/logLevel",
        "debug",
        "/containers/1/args/5",
        json!("debug"),
    );
    check(
        "traffic.sidecar.istio.io/includeOutboundIPRanges",
        "10.0.0.0/8",
        "/initContainers/0/args/10",
        json!("10.0.0.0/8"),
    );
    check(
        "traffic.sidecar.istio.io/excludeInboundPorts",
        "22, 23",
        "/initContainers/0/args/16",
        json!("15090,15021,15020,22,23"),
    );
    check(
        "sidecar.istio.io/nativeSidecar",
        "true",
        "/initContainers/1/restartPolicy",
        json!("Always"),
    );
    check(
        "proxy.istio.io/config",
        "holdApplicationUntilProxyStarts: true\nconcurrency: 1\n",
        "/initContainers/1/name",
        json!("istio-proxy"),
    );
    let (pod, _) = injected(&annotated("proxy.istio.io/config", "concurrency: 1"));
    let environment = environment(&pod["spec"]["containers"][1]);
    let proxy_config = environment["PROXY_CONFIG"]["value"].as_str().unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(proxy_config).unwrap(),
        json!({"discoveryAddress": "istiod.istio-system.svc:15012", "concurrency": 1})
    );
    let (_, warnings) = injected(&annotated("sidecar.istio.io/userVolume", "{}"));
    assert_eq!(
        warnings,
        ["annotation sidecar.istio.io/userVolume has no effect in this mesh"]
    );
}

#[test]
fn values_that_cannot_be_followed_are_refused() {
    let check = |name: &str, value: &str| {
        let mut pod = pod();
        pod["metadata"]["annotations"] = json!({name: value});
        let error = inject(&pod, &Owner::default(), &InjectConfig::default()).unwrap_err();
        assert_eq!(
            (error.annotation.as_str(), error.value.as_str()),
            (name, value)
        );
    };
    check("traffic.sidecar.istio.io/excludeInboundPorts", "22;reboot");
    check("traffic.sidecar.istio.io/includeOutboundPorts", "0");
    check(
        "traffic.sidecar.istio.io/includeOutboundIPRanges",
        "10.0.0.0/33",
    );
    check("sidecar.istio.io/interceptionMode", "TPROXY");
    check("sidecar.istio.io/nativeSidecar", "perhaps");
    check("proxy.istio.io/config", "just text");
}

#[test]
fn patch_makes_the_injected_pod_of_the_original() {
    let original = pod();
    let (expected, _) = injected(&original);
    let mut patched = original.clone();
    json_patch::patch(&mut patched, &json_patch::diff(&original, &expected)).unwrap();
    assert_eq!(patched, expected);
}

#[test]
fn documents_of_a_file() {
    let text = "# kept\napiVersion: v1\nkind: Service\nmetadata: {name: web}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  template:\n    metadata: {labels: {app: web}}\n    spec: {containers: [{name: app, image: web}]}\n---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: batch/v1\n  kind: CronJob\n  metadata: {name: job}\n  spec: {jobTemplate: {spec: {template: {spec: {hostNetwork: true, containers: [{name: app}]}}}}}\n";
    let (output, reports) = inject_documents(text, &InjectConfig::default()).unwrap();
    let found: Vec<_> = reports
        .iter()
        .map(|r| (r.workload.as_str(), r.skipped))
        .collect();
    assert_eq!(
        found,
        [
            ("Deployment/web", None),
            ("CronJob/job", Some(Skipped::HostNetwork))
        ]
    );
    let documents: Vec<&str> = output.split("---\n").collect();
    assert_eq!(documents.len(), 3);
    assert!(documents[0].starts_with("# kept\n"));
    let deployment: Value = serde_saphyr::from_str(documents[1]).unwrap();
    assert_eq!(
        names(&deployment["spec"]["template"], "containers"),
        ["app", "istio-proxy"]
    );
    // A second run finds everything done.
    let (again, reports) = inject_documents(&output, &InjectConfig::default()).unwrap();
    assert_eq!(again, output);
    assert!(reports.iter().all(|report| report.skipped.is_some()));
}
