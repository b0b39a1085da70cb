//! Gateways: the ingress gateway, and those that a Gateway of the Gateway API asks for.

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
    let config = InjectConfig {
        image: options.image.clone(),
        image_pull_policy: options.image_pull_policy.clone(),
        namespace: options.namespace.clone(),
        trust_domain: options.mesh.trust_domain.clone(),
        discovery_address: format!("istiod.{}.svc:15012", options.namespace),
        ..InjectConfig::default()
    };
    let ports = PORTS.map(|(name, port, target)| ServicePort {
        name: name.to_owned(),
        port,
        target,
    });
    let gateway = Workload {
        name: NAME.to_owned(),
        namespace: options.namespace.clone(),
        service_account: format!("{NAME}-service-account"),
        labels: labels(),
        selector: labels(),
        annotations: json!({}),
        ports: ports.into(),
        service_type: options.gateway_service_type.clone(),
        owner: None,
    };
    let mut objects = vec![gateway.service_account()];
    objects.extend(secret_access(options));
    objects.extend([gateway.service(), gateway.deployment(&config)]);
    objects
}

/// A port of a gateway's Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServicePort {
    /// Name, unique within the Service.
    pub(crate) name: String,
    /// Port that clients use.
    pub(crate) port: u16,
    /// Port that the proxy listens on.
    pub(crate) target: u16,
}

/// Proxies that are a gateway, and the Service in front of them.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    /// Name of Deployment and Service.
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) service_account: String,
    /// Labels of everything, pods included.
    pub(crate) labels: Value,
    /// Those of the labels that select the pods.
    pub(crate) selector: Value,
    /// Annotations of everything.
    pub(crate) annotations: Value,
    pub(crate) ports: Vec<ServicePort>,
    /// `LoadBalancer`, `NodePort` or `ClusterIP`.
    pub(crate) service_type: String,
    /// The object that everything goes with.
    pub(crate) owner: Option<Value>,
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

impl Workload {
    /// The identity of the proxies.
    pub(crate) fn service_account(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": self.metadata(&self.service_account),
        })
    }

    /// The Service in front of the proxies.
    pub(crate) fn service(&self) -> Value {
        let ports: Vec<Value> = self
            .ports
            .iter()
            .map(|port| {
                json!({"name": port.name, "port": port.port, "protocol": "TCP", "targetPort": port.target})
            })
            .collect();
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self.metadata(&self.name),
            "spec": {"type": self.service_type, "selector": self.selector, "ports": ports},
        })
    }

    fn metadata(&self, name: &str) -> Value {
        let mut metadata =
            json!({"name": name, "namespace": self.namespace, "labels": self.labels});
        if self
            .annotations
            .as_object()
            .is_some_and(|all| !all.is_empty())
        {
            metadata["annotations"] = self.annotations.clone();
        }
        if let Some(owner) = &self.owner {
            metadata["ownerReferences"] = json!([owner]);
        }
        metadata
    }

    /// The Deployment of the proxies.
    pub(crate) fn deployment(&self, config: &InjectConfig) -> Value {
        let name = &self.name;
        let mut pod_labels = self.labels.clone();
        pod_labels["service.istio.io/canonical-name"] = name.as_str().into();
        pod_labels["service.istio.io/canonical-revision"] = "latest".into();
        pod_labels["sidecar.istio.io/inject"] = "false".into();
        let owner = format!(
            "kubernetes://apis/apps/v1/namespaces/{}/deployments/{name}",
            self.namespace
        );
        let mut env = gateway_env(config, &pod_labels);
        env.extend([
            json!({"name": "ISTIO_META_WORKLOAD_NAME", "value": name}),
            json!({"name": "ISTIO_META_OWNER", "value": owner}),
        ]);
        let mut annotations = json!({
            "prometheus.io/port": "15090",
            "prometheus.io/scrape": "true",
            "prometheus.io/path": "/stats/prometheus",
        });
        for (key, value) in self.annotations.as_object().into_iter().flatten() {
            annotations[key] = value.clone();
        }
        let mut ports: Vec<Value> = self
            .ports
            .iter()
            .map(|port| json!({"containerPort": port.target, "protocol": "TCP"}))
            .collect();
        ports.push(json!({"containerPort": 15090, "protocol": "TCP", "name": "http-envoy-prom"}));
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": self.metadata(name),
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": self.selector},
                "strategy": {"rollingUpdate": {"maxSurge": "100%", "maxUnavailable": "25%"}},
                "template": {
                    "metadata": {
                        "labels": pod_labels,
                        "annotations": annotations,
                    },
                    "spec": {
                        "serviceAccountName": self.service_account,
                        "containers": [{
                            "name": PROXY_CONTAINER,
                            "image": config.image,
                            "imagePullPolicy": config.image_pull_policy,
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
}
