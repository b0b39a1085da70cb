use serde_json::{Value, json};

use super::rows;
use crate::resource::Resource;
use crate::strategy::{FieldValidation, Part, RequestInfo};

mod deployment;
mod stateful;

const NOW: &str = "2026-01-01T00:10:00Z";

fn row(plural: &str) -> Resource {
    rows().into_iter().find(|row| row.plural == plural).unwrap()
}

fn info(api_version: &str) -> RequestInfo<'_> {
    RequestInfo {
        api_version,
        namespace: "lab",
        part: Part::Main,
    }
}

/// The object as it would be stored when it is created, with all that is wrong with it.
fn create(plural: &str, object: Value) -> (Value, Vec<String>) {
    let row = row(plural);
    let mut object = object;
    let version = object["apiVersion"].as_str().unwrap().to_owned();
    if row.namespaced {
        object["metadata"]["namespace"] = json!("lab");
    }
    let strategy = &row.strategy;
    strategy
        .decode(&mut object, info(&version), FieldValidation::Strict)
        .unwrap();
    strategy
        .convert_to_storage(&mut object, info(&version))
        .unwrap();
    strategy.default(&mut object);
    strategy.prepare_create(&mut object, info(&version));
    let errors = strategy.validate(&object, None, info(&version));
    (object, errors.iter().map(ToString::to_string).collect())
}

fn update(plural: &str, old: &Value, object: Value) -> (Value, Vec<String>) {
    let row = row(plural);
    let mut object = object;
    let version = object["apiVersion"].as_str().unwrap().to_owned();
    let strategy = &row.strategy;
    strategy
        .convert_to_storage(&mut object, info(&version))
        .unwrap();
    strategy.default(&mut object);
    strategy.prepare_update(&mut object, old, info(&version));
    let errors = strategy.validate(&object, Some(old), info(&version));
    (object, errors.iter().map(ToString::to_string).collect())
}

fn cells(plural: &str, object: Value) -> Vec<String> {
    let cells = row(plural).strategy.row(&object, "v1", NOW);
    assert_eq!(cells.len(), row(plural).strategy.columns("v1").len());
    cells
        .iter()
        .map(|cell| {
            cell.as_str()
                .map_or_else(|| cell.to_string(), str::to_owned)
        })
        .collect()
}

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

#[test]
fn every_kind_has_a_schema_and_described_columns() {
    for row in rows() {
        for version in &row.versions {
            let name = if version.group.is_empty() {
                version.name.clone()
            } else {
                format!("{}/{}", version.group, version.name)
            };
            let (definition, documents) = row.strategy.openapi(&name).unwrap();
            assert!(documents.contains_key(&definition), "{definition}");
        }
        for column in row.strategy.columns(&row.storage_api_version()) {
            assert!(
                !column.description.is_empty(),
                "{} {}",
                row.kind,
                column.name
            );
        }
    }
}

#[test]
fn a_service_gets_its_defaults_and_keeps_its_addresses() {
    let service = |spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec});
    let (stored, errors) = create(
        "services",
        service(
            json!({"type": "NodePort", "ports": [{"name": "http", "port": 80, "targetPort": "web"}, {"name": "dns", "port": 53, "protocol": "UDP"}]}),
        ),
    );
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(
        stored["spec"],
        json!({
            "type": "NodePort",
            "ports": [
                {"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"},
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
            ],
            "sessionAffinity": "None",
            "externalTrafficPolicy": "Cluster",
            "internalTrafficPolicy": "Cluster",
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
        })
    );
    assert_eq!(stored["status"], json!({"loadBalancer": {}}));
    let mut allocated = stored;
    allocated["spec"]["clusterIP"] = json!("10.96.0.7");
    allocated["spec"]["clusterIPs"] = json!(["10.96.0.7"]);
    allocated["spec"]["ports"][0]["nodePort"] = json!(30007);
    let (kept, errors) = update(
        "services",
        &allocated,
        service(json!({"type": "NodePort", "ports": [{"name": "http", "port": 80}]})),
    );
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(kept["spec"]["clusterIPs"], json!(["10.96.0.7"]));
    assert_eq!(kept["spec"]["ports"][0]["nodePort"], 30007);
    let mut patched = allocated.clone();
    patched["spec"]["clusterIP"] = json!("10.96.9.9");
    let (_, errors) = update("services", &allocated, patched);
    assert_eq!(
        errors,
        ["spec.clusterIPs[0]: Invalid value: [\"10.96.9.9\"]: may not change once set"]
    );
}

#[test]
fn invalid_objects_are_explained() {
    let check = |plural: &str, object: Value, expected: &[&str]| {
        let (_, errors) = create(plural, object);
        assert_eq!(errors, expected);
    };
    check(
        "services",
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 0}, {"port": 70000, "name": "UPPER"}]}}),
        &[
            "spec.ports[0].name: Required value",
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.ports[1].name: Invalid value: \"UPPER\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            "spec.ports[1].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "spec.ports[1].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ],
    );
    check(
        "horizontalpodautoscalers",
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
            "spec": {"minReplicas": 5, "maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"}}}),
        &[
            "spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`",
            "spec.scaleTargetRef.apiVersion: Invalid value: \"\": apiVersion must specify API group",
        ],
    );
    check(
        "pods",
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [
            {"name": "a", "image": "x", "ports": [{"containerPort": 99999}], "livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": -1}},
            {"name": "a", "image": "y", "volumeMounts": [{"name": "none", "mountPath": "/x"}]}]}}),
        &[
            "spec.containers[0].ports[0].containerPort: Invalid value: 99999: must be between 1 and 65535, inclusive",
            "spec.containers[0].livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
            "spec.containers[1].volumeMounts[0].name: Not found: \"none\"",
            "spec.containers[1].name: Duplicate value: \"a\"",
        ],
    );
    check(
        "configmaps",
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a b": "x"}}),
        &[
            "data[a b]: Invalid value: \"a b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        ],
    );
}

#[test]
fn unknown_fields_and_wrong_types_are_refused() {
    let check = |plural: &str, object: Value, expected: &str| {
        let mut object = object;
        let version = object["apiVersion"].as_str().unwrap().to_owned();
        let error = row(plural)
            .strategy
            .decode(&mut object, info(&version), FieldValidation::Strict)
            .unwrap_err();
        assert_eq!(error.message, expected);
        assert_eq!(error.code, 400);
    };
    check(
        "services",
        json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": "eighty"}]}}),
        "Service in version \"v1\" cannot be handled as a Service: json: cannot unmarshal string into Go struct field ServicePort.spec.ports.port of type int32",
    );
    check(
        "configmaps",
        json!({"apiVersion": "v1", "kind": "ConfigMap", "dat": {}}),
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"dat\"",
    );
}

#[test]
fn autoscalers_convert_between_their_versions() {
    let (stored, errors) = create(
        "horizontalpodautoscalers",
        json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}, "spec": {
            "maxReplicas": 5, "targetCPUUtilizationPercentage": 50,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}}),
    );
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(
        stored["spec"]["metrics"],
        json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}])
    );
    assert_eq!(stored["spec"]["minReplicas"], 1);
    let mut old = stored;
    row("horizontalpodautoscalers")
        .strategy
        .convert_from_storage(&mut old, "autoscaling/v1")
        .unwrap();
    assert_eq!(old["apiVersion"], "autoscaling/v1");
    assert_eq!(old["spec"]["targetCPUUtilizationPercentage"], 50);
    assert!(old["spec"].get("metrics").is_none());
}

#[test]
fn generation_counts_changes_of_the_wish() {
    let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "x"}]}}});
    let (stored, _) = create("deployments", deployment(spec));
    let mut labelled = stored.clone();
    labelled["metadata"]["labels"] = json!({"x": "y"});
    assert_eq!(
        update("deployments", &stored, labelled).0["metadata"]["generation"],
        1
    );
    let mut scaled = stored.clone();
    scaled["spec"]["replicas"] = json!(3);
    scaled["status"] = json!({"replicas": 7});
    let (scaled, _) = update("deployments", &stored, scaled);
    assert_eq!(scaled["metadata"]["generation"], 2);
    assert_eq!(scaled["status"], json!({}));
}

#[test]
fn pods_show_what_their_containers_do() {
    let pod = |spec: Value, status: Value| json!({"metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:05:00Z"}, "spec": spec, "status": status});
    let check = |object: Value, expected: [&str; 5]| {
        assert_eq!(cells("pods", object)[..5], expected);
    };
    let one = json!({"containers": [{"name": "a"}]});
    check(
        pod(one.clone(), json!({"phase": "Pending"})),
        ["p", "0/1", "Pending", "0", "5m"],
    );
    check(
        pod(
            one.clone(),
            json!({"phase": "Running", "containerStatuses": [{"ready": true, "restartCount": 2, "state": {"running": {}}, "lastState": {"terminated": {"finishedAt": "2026-01-01T00:09:55Z"}}}]}),
        ),
        ["p", "1/1", "Running", "2 (5s ago)", "5m"],
    );
    check(
        pod(
            one,
            json!({"phase": "Running", "containerStatuses": [{"restartCount": 0, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
        ),
        ["p", "0/1", "CrashLoopBackOff", "0", "5m"],
    );
    let sidecar = json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}, {"name": "i"}], "containers": [{"name": "a"}]});
    check(
        pod(
            sidecar,
            json!({"phase": "Pending", "initContainerStatuses": [
            {"name": "s", "started": true, "ready": true, "state": {"running": {}}}, {"name": "i", "state": {"running": {}}}]}),
        ),
        ["p", "1/2", "Init:1/2", "0", "5m"],
    );
}

#[test]
fn tables_show_what_kubernetes_shows() {
    let metadata = json!({"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"});
    let check = |plural: &str, mut object: Value, expected: &[&str]| {
        object["metadata"] = metadata.clone();
        assert_eq!(cells(plural, object), expected);
    };
    check(
        "services",
        json!({"spec": {"type": "NodePort", "clusterIPs": ["10.96.0.1"], "ports": [{"port": 80, "nodePort": 30000, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}),
        &[
            "x",
            "NodePort",
            "10.96.0.1",
            "<none>",
            "80:30000/TCP,53/UDP",
            "10m",
            "<none>",
        ],
    );
    check(
        "horizontalpodautoscalers",
        json!({"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 2, "maxReplicas": 5,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 50}}}]}}),
        &[
            "x",
            "Deployment/web",
            "cpu: <unknown>/50%",
            "2",
            "5",
            "0",
            "10m",
        ],
    );
    check(
        "endpointslices",
        json!({"addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": ["1.1.1.1"]}, {"addresses": ["1.1.1.2", "1.1.1.3"]}, {"addresses": ["1.1.1.4"]}]}),
        &[
            "x",
            "IPv4",
            "80",
            "1.1.1.1,1.1.1.2,1.1.1.3 + 1 more...",
            "10m",
        ],
    );
    check(
        "nodes",
        json!({"status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1"}}}),
        &[
            "x",
            "Ready",
            "<none>",
            "10m",
            "v1",
            "<none>",
            "<none>",
            "<unknown>",
            "<unknown>",
            "<unknown>",
        ],
    );
}
