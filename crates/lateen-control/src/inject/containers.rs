//! The two containers that are added to a pod, with Istio's names, arguments and environment.

use lateen_identity::service::TOKEN_AUDIENCE;
use serde_json::{Value, json};

use super::settings::Settings;
use super::{INIT_CONTAINER, InjectConfig, Owner};
use crate::PROXY_CONTAINER;

/// User and group of the proxy: its own traffic is known by them and not redirected.
const PROXY_USER: u32 = 1337;
/// Ports of the proxy itself, which are never redirected: metrics, readiness, agent.
const OWN_PORTS: &str = "15090,15021,15020";

/// The container that redirects the pod's traffic before anything else runs.
pub(super) fn init(config: &InjectConfig, settings: &Settings) -> Value {
    let excluded = match settings.exclude_inbound_ports.as_str() {
        "" => OWN_PORTS.to_owned(),
        more => format!("{OWN_PORTS},{more}"),
    };
    let user = PROXY_USER.to_string();
    // The letters are those of istio-iptables.
    let mut args = vec![
        "init",
        "-p",
        "15001",
        "-z",
        "15006",
        "-u",
        &user,
        "-m",
        "REDIRECT",
        "-i",
        &settings.include_ranges,
        "-x",
        &settings.exclude_ranges,
        "-b",
        &settings.include_inbound_ports,
        "-d",
        &excluded,
    ];
    let optional = [
        ("-q", &settings.include_outbound_ports),
        ("-o", &settings.exclude_outbound_ports),
    ];
    for (flag, value) in optional {
        if !value.is_empty() {
            args.extend([flag, value.as_str()]);
        }
    }
    json!({
        "name": INIT_CONTAINER,
        "image": settings.image,
        "imagePullPolicy": config.image_pull_policy,
        "args": args,
        "resources": settings.resources,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
            "privileged": false,
            "readOnlyRootFilesystem": false,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "runAsUser": 0,
        },
    })
}

/// The proxy.
pub(super) fn proxy(
    pod: &Value,
    owner: &Owner,
    config: &InjectConfig,
    settings: &Settings,
) -> Value {
    let mut env = common_env(config, &settings.proxy_config);
    env.extend([
        json!({"name": "ISTIO_META_POD_PORTS", "value": ports(pod).to_string()}),
        json!({"name": "ISTIO_META_APP_CONTAINERS", "value": application_containers(pod)}),
        json!({"name": "ISTIO_META_INTERCEPTION_MODE", "value": "REDIRECT"}),
        json!({"name": "ISTIO_META_WORKLOAD_NAME", "value": owner.workload}),
        json!({"name": "ISTIO_META_OWNER", "value": owner.path}),
        labels_env(&pod["metadata"]["labels"]),
    ]);
    let mut container = json!({
        "name": PROXY_CONTAINER,
        "image": settings.image,
        "imagePullPolicy": config.image_pull_policy,
        "args": [
            "proxy", if settings.gateway { "router" } else { "sidecar" },
            "--domain", "$(POD_NAMESPACE).svc.cluster.local",
            "--proxyLogLevel", settings.log_level,
            "--proxyComponentLogLevel", settings.component_log_level,
        ],
        "ports": [{"containerPort": 15090, "name": "http-envoy-prom", "protocol": "TCP"}],
        "env": env,
        "resources": settings.resources,
        "readinessProbe": {
            "httpGet": {"path": "/healthz/ready", "port": 15021},
            "periodSeconds": 15,
            "timeoutSeconds": 3,
            "failureThreshold": 4,
        },
        "startupProbe": {
            "httpGet": {"path": "/healthz/ready", "port": 15021},
            "periodSeconds": 1,
            "timeoutSeconds": 3,
            "failureThreshold": 600,
        },
        "securityContext": security_context(),
        "volumeMounts": volume_mounts(),
    });
    if settings.native_sidecar && !settings.gateway {
        container["restartPolicy"] = "Always".into();
    }
    container
}

/// What a proxy reads of its pod and of the mesh: the token that proves who it is, the authorities by which it knows
/// the control plane, and labels and annotations.
pub(crate) fn volumes() -> Vec<Value> {
    let field = |path: &str| json!({"path": path, "fieldRef": {"apiVersion": "v1", "fieldPath": format!("metadata.{path}")}});
    vec![
        json!({
            "name": "istio-token",
            "projected": {"sources": [{"serviceAccountToken": {
                "audience": TOKEN_AUDIENCE, "expirationSeconds": 43200, "path": "istio-token",
            }}]},
        }),
        json!({"name": "istiod-ca-cert", "configMap": {"name": "istio-ca-root-cert"}}),
        json!({
            "name": "istio-podinfo",
            "downwardAPI": {"items": [field("labels"), field("annotations")]},
        }),
    ]
}

/// Where a proxy finds them.
pub(crate) fn volume_mounts() -> Value {
    json!([
        {"name": "istio-token", "mountPath": "/var/run/secrets/tokens", "readOnly": true},
        {"name": "istiod-ca-cert", "mountPath": "/var/run/secrets/istio", "readOnly": true},
        {"name": "istio-podinfo", "mountPath": "/etc/istio/pod", "readOnly": true},
    ])
}

/// Environment that every proxy gets.
pub(super) fn common_env(config: &InjectConfig, proxy_config: &Value) -> Vec<Value> {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    vec![
        json!({"name": "PILOT_CERT_PROVIDER", "value": "istiod"}),
        json!({"name": "CA_ADDR", "value": config.discovery_address}),
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("INSTANCE_IP", "status.podIP"),
        field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        field("HOST_IP", "status.hostIP"),
        json!({"name": "PROXY_CONFIG", "value": proxy_config.to_string()}),
        json!({"name": "TRUST_DOMAIN", "value": config.trust_domain}),
        json!({"name": "ISTIO_META_CLUSTER_ID", "value": config.cluster_id}),
        json!({"name": "ISTIO_META_MESH_ID", "value": config.mesh_id}),
        field("ISTIO_META_NODE_NAME", "spec.nodeName"),
    ]
}

/// Labels for the proxy's node: objects in `ISTIO_METAJSON_*` are merged into its metadata.
pub(super) fn labels_env(labels: &Value) -> Value {
    json!({"name": "ISTIO_METAJSON_LABELS", "value": json!({"LABELS": labels}).to_string()})
}

pub(crate) fn security_context() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "privileged": false,
        "readOnlyRootFilesystem": true,
        "runAsGroup": PROXY_USER,
        "runAsNonRoot": true,
        "runAsUser": PROXY_USER,
    })
}

/// The application's declared ports, in Istio's form.
fn ports(pod: &Value) -> Value {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    containers
        .flat_map(|container| container["ports"].as_array().into_iter().flatten().cloned())
        .collect()
}

fn application_containers(pod: &Value) -> String {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let names: Vec<&str> = containers
        .filter_map(|container| container["name"].as_str())
        .collect();
    names.join(",")
}
