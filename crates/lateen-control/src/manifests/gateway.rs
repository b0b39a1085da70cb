//! The ingress gateway.

use serde_json::{Value, json};

use super::Options;
use crate::PROXY_CONTAINER;
use crate::inject::{
    InjectConfig, gateway_env, proxy_security_context, proxy_volume_mounts, proxy_volumes,
};

const NAME: &str = "istio-ingressgateway";

/// Ports of the Service: name, port, port of the container.
const PORTS: [(&str, u16, u16); 5] = [
    ("status-port", 15021, 15021),
    ("http2", 80, 8080),
    ("https", 443, 8443),
    ("tcp", 31400, 31400),
    ("tls", 15443, 15443),
];

pub(super) fn render(options: &Options) -> Vec<Value> {
    let service_account = json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": format!("{NAME}-service-account"), "namespace": options.namespace, "labels": labels()},
    });
    let mut objects = vec![service_account];
    objects.extend(secret_access(options));
    objects.extend([service(options), deployment(options)]);
    objects
}

/// The gateway may be shown the certificates of its namespace.
fn secret_access(options: &Options) -> [Value; 2] {
    let name = format!("{NAME}-sds");
    let metadata = json!({"name": name, "namespace": options.namespace, "labels": labels()});
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": metadata,
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"]}],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{
            "kind": "ServiceAccount",
            "name": format!("{NAME}-service-account"),
            "namespace": options.namespace,
        }],
    });
    [role, binding]
}

fn labels() -> Value {
    json!({"app": NAME, "istio": "ingressgateway"})
}

fn service(options: &Options) -> Value {
    let ports: Vec<Value> = PORTS
        .into_iter()
        .map(|(name, port, target)| {
            json!({"name": name, "port": port, "protocol": "TCP", "targetPort": target})
        })
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": options.namespace, "labels": labels()},
        "spec": {"type": options.gateway_service_type, "selector": labels(), "ports": ports},
    })
}

fn deployment(options: &Options) -> Value {
    let config = InjectConfig {
        image: options.image.clone(),
        namespace: options.namespace.clone(),
        trust_domain: options.mesh.trust_domain.clone(),
        discovery_address: format!("istiod.{}.svc:15012", options.namespace),
        ..InjectConfig::default()
    };
    let mut pod_labels = labels();
    pod_labels["service.istio.io/canonical-name"] = NAME.into();
    pod_labels["service.istio.io/canonical-revision"] = "latest".into();
    pod_labels["sidecar.istio.io/inject"] = "false".into();
    let owner = format!(
        "kubernetes://apis/apps/v1/namespaces/{}/deployments/{NAME}",
        options.namespace
    );
    let mut env = gateway_env(&config, &pod_labels);
    env.extend([
        json!({"name": "ISTIO_META_WORKLOAD_NAME", "value": NAME}),
        json!({"name": "ISTIO_META_OWNER", "value": owner}),
    ]);
    let mut ports: Vec<Value> = PORTS
        .into_iter()
        .map(|(_, _, target)| json!({"containerPort": target, "protocol": "TCP"}))
        .collect();
    ports.push(json!({"containerPort": 15090, "protocol": "TCP", "name": "http-envoy-prom"}));
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": options.namespace, "labels": labels()},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels()},
            "strategy": {"rollingUpdate": {"maxSurge": "100%", "maxUnavailable": "25%"}},
            "template": {
                "metadata": {
                    "labels": pod_labels,
                    "annotations": {
                        "prometheus.io/port": "15090",
                        "prometheus.io/scrape": "true",
                        "prometheus.io/path": "/stats/prometheus",
                    },
                },
                "spec": {
                    "serviceAccountName": format!("{NAME}-service-account"),
                    "containers": [{
                        "name": PROXY_CONTAINER,
                        "image": options.image,
                        "imagePullPolicy": options.image_pull_policy,
                        "args": [
                            "proxy", "router",
                            "--domain", "$(POD_NAMESPACE).svc.cluster.local",
                            "--proxyLogLevel", "warning",
                            "--proxyComponentLogLevel", "misc:error",
                        ],
                        "ports": ports,
                        "env": env,
                        "readinessProbe": {
                            "httpGet": {"path": "/healthz/ready", "port": 15021},
                            "periodSeconds": 1,
                            "timeoutSeconds": 3,
                            "failureThreshold": 30,
                        },
                        "resources": {
                            "requests": {"cpu": "50m", "memory": "64Mi"},
                            "limits": {"cpu": "2", "memory": "1Gi"},
                        },
                        "securityContext": proxy_security_context(),
                        "volumeMounts": proxy_volume_mounts(),
                    }],
                    "volumes": proxy_volumes(),
                },
            },
        },
    })
}
