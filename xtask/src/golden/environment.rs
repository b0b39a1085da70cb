//! The cluster that the recordings were made in, as far as the control plane looks at it.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use lateen_mesh::{Change, Index, Key, MeshConfig, ObjectKind};
use serde_json::{Value, json};

use crate::manifests;

/// Labels of the pods of the ingress gateway.
const GATEWAY_APP: &str = "istio-ingressgateway";

/// A pod of the recorded cluster.
#[derive(Clone)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) address: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) service_account: String,
    template: Value,
}

/// The recorded cluster.
pub(crate) struct Environment {
    pub(crate) index: Index,
    pub(crate) pods: Vec<Pod>,
    /// What each address stands for.
    pub(crate) names: BTreeMap<String, String>,
    services: BTreeMap<(String, String), Value>,
    created: i64,
    next_address: u32,
}

impl Environment {
    /// The cluster before any scenario: the system's own services and the ingress gateway.
    pub(crate) fn new() -> Self {
        // The recorded control plane was installed with access logs on.
        let mesh = MeshConfig {
            access_log_file: "/dev/stdout".to_owned(),
            ..MeshConfig::default()
        };
        let mut environment = Self {
            index: Index::new(mesh),
            pods: Vec::new(),
            names: BTreeMap::new(),
            services: BTreeMap::new(),
            created: 0,
            next_address: 0,
        };
        let labels: BTreeMap<String, String> = [("app", GATEWAY_APP), ("istio", "ingressgateway")]
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let port = |name: &str, port: u32, target: u32| json!({"name": name, "port": port, "targetPort": target});
        environment.add_service(json!({
            "metadata": {"name": GATEWAY_APP, "namespace": "istio-system"},
            "spec": {"selector": labels, "ports": [
                port("status-port", 15021, 15021), port("http2", 80, 8080), port("https", 443, 8443),
            ]},
        }));
        environment.add_pod(
            "istio-system",
            GATEWAY_APP,
            labels,
            "istio-ingressgateway-service-account",
            json!({}),
        );
        environment.publish();
        environment
    }

    /// Later objects are younger.
    pub(crate) fn next_step(&mut self) {
        self.created += 10;
    }

    /// Applies the manifests of a file.
    pub(crate) fn apply(&mut self, path: &Path, namespace: &str) -> Result<()> {
        for mut object in read(path)? {
            self.created += 1;
            manifests::stored(&mut object, namespace, self.created);
            match object["kind"].as_str().unwrap_or_default() {
                "Service" => self.add_service(object),
                "Deployment" | "ReplicaSet" | "StatefulSet" => self.add_pods(&object),
                _ => {
                    // An object that is applied again keeps its age in a cluster; here only the order matters.
                    if let Some(change) =
                        manifests::change(&object).with_context(|| path.display().to_string())?
                    {
                        self.index.apply(change);
                    }
                }
            }
        }
        self.publish();
        Ok(())
    }

    /// Deletes the objects of a file. Recorded scenarios delete configuration only.
    pub(crate) fn delete(&mut self, path: &Path, namespace: &str) -> Result<()> {
        for mut object in read(path)? {
            manifests::stored(&mut object, namespace, self.created);
            let text = |field: &str| {
                object["metadata"][field]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            };
            let key = Key::new(text("namespace"), text("name"));
            let kind = match object["kind"].as_str().unwrap_or_default() {
                "Gateway" => ObjectKind::Gateway,
                "VirtualService" => ObjectKind::VirtualService,
                "DestinationRule" => ObjectKind::DestinationRule,
                "ServiceEntry" => ObjectKind::ServiceEntry,
                other => anyhow::bail!("{}: deleting a {other} is not recorded", path.display()),
            };
            self.index.apply(Change::Deleted(kind, key));
        }
        Ok(())
    }

    /// The pod of a proxy: the ingress gateway, or the first one of an application in a version.
    pub(crate) fn pod(&self, namespace: &str, proxy: &str, revision: Option<&str>) -> Option<&Pod> {
        let (namespace, app) = if proxy == "gateway" {
            ("istio-system", GATEWAY_APP)
        } else {
            (namespace, proxy)
        };
        self.pods
            .iter()
            .filter(|pod| {
                pod.namespace == namespace
                    && pod.labels.get("app").is_some_and(|label| label == app)
            })
            .min_by_key(|pod| {
                let version = pod
                    .labels
                    .get("service.istio.io/canonical-revision")
                    .map(String::as_str);
                (revision.is_some() && version != revision, &pod.labels)
            })
    }

    fn address(&mut self, stands_for: String) -> String {
        // Three digits in each part: no address is the beginning of another.
        let (high, low) = (100 + self.next_address / 100, 100 + self.next_address % 100);
        self.next_address += 1;
        let address = format!("10.244.{high}.{low}");
        self.names.insert(address.clone(), stands_for);
        address
    }

    fn add_service(&mut self, mut service: Value) {
        let text = |field: &str| {
            service["metadata"][field]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let (namespace, name) = (text("namespace"), text("name"));
        let address = self.address(format!("vip:{name}.{namespace}"));
        if service["spec"]["clusterIP"].as_str() != Some("None") {
            service["spec"]["clusterIP"] = address.into();
        }
        self.services.insert((namespace, name), service);
    }

    fn add_pods(&mut self, controller: &Value) {
        let template = &controller["spec"]["template"];
        let namespace = controller["metadata"]["namespace"]
            .as_str()
            .unwrap_or_default();
        let name = controller["metadata"]["name"].as_str().unwrap_or_default();
        let entries = template["metadata"]["labels"]
            .as_object()
            .into_iter()
            .flatten();
        let labels: BTreeMap<String, String> = entries
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect();
        let account = template["spec"]["serviceAccountName"]
            .as_str()
            .unwrap_or("default")
            .to_owned();
        for _ in 0..controller["spec"]["replicas"].as_u64().unwrap_or(1) {
            self.add_pod(
                namespace,
                name,
                labels.clone(),
                &account,
                template["spec"].clone(),
            );
        }
    }

    fn add_pod(
        &mut self,
        namespace: &str,
        owner: &str,
        labels: BTreeMap<String, String>,
        account: &str,
        spec: Value,
    ) {
        let number = self.pods.len();
        let app = labels.get("app").or_else(|| labels.get("istio"));
        let stem = [app, labels.get("version")]
            .into_iter()
            .flatten()
            .cloned()
            .collect::<Vec<_>>()
            .join("-");
        let address = self.address(format!("pod:{stem}.{namespace}"));
        self.pods.push(Pod {
            name: format!("{owner}-{number}"),
            namespace: namespace.to_owned(),
            address,
            labels: injected(labels, owner),
            service_account: account.to_owned(),
            template: spec,
        });
    }

    /// Puts pods, services and their endpoint slices into the index.
    fn publish(&mut self) {
        let mut objects = Vec::new();
        for pod in &self.pods {
            let mut spec = pod.template.clone();
            if spec["containers"].is_null() {
                spec["containers"] = json!([]);
            }
            spec["serviceAccountName"] = json!(pod.service_account);
            objects.push(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": pod.labels},
                "spec": spec,
                "status": {"podIP": pod.address},
            }));
        }
        for ((namespace, name), service) in &self.services {
            let mut service = service.clone();
            service["apiVersion"] = "v1".into();
            service["kind"] = "Service".into();
            objects.push(slice(&self.pods, namespace, name, &service));
            objects.push(service);
        }
        for object in objects {
            match manifests::change(&object) {
                Ok(Some(change)) => drop(self.index.apply(change)),
                // Both are made above from objects that were read before.
                Ok(None) => unreachable!("pods, services and slices are known kinds"),
                Err(error) => eprintln!("left out: {error:#}"),
            }
        }
    }
}

fn read(path: &Path) -> Result<Vec<Value>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    // Some documents were indented with tabs.
    manifests::documents(&text.replace('\t', "  ")).with_context(|| path.display().to_string())
}

/// Labels that injection adds.
fn injected(mut labels: BTreeMap<String, String>, owner: &str) -> BTreeMap<String, String> {
    let name = labels
        .get("app")
        .cloned()
        .unwrap_or_else(|| owner.to_owned());
    let revision = labels
        .get("version")
        .cloned()
        .unwrap_or_else(|| "latest".to_owned());
    labels.insert("security.istio.io/tlsMode".to_owned(), "istio".to_owned());
    labels.insert("service.istio.io/canonical-name".to_owned(), name);
    labels.insert("service.istio.io/canonical-revision".to_owned(), revision);
    labels
}

/// What the EndpointSlice controller makes of a service.
fn slice(pods: &[Pod], namespace: &str, name: &str, service: &Value) -> Value {
    let selector = service["spec"]["selector"].as_object();
    let selected = |pod: &&Pod| {
        pod.namespace == namespace
            && selector.is_some_and(|selector| {
                selector
                    .iter()
                    .all(|(key, value)| pod.labels.get(key).map(String::as_str) == value.as_str())
            })
    };
    let members: Vec<&Pod> = pods.iter().filter(selected).collect();
    let named = |wanted: &str| {
        let containers = members
            .first()
            .and_then(|pod| pod.template["containers"].as_array());
        let mut ports = containers
            .into_iter()
            .flatten()
            .filter_map(|container| container["ports"].as_array())
            .flatten();
        ports
            .find(|port| port["name"].as_str() == Some(wanted))
            .and_then(|port| port["containerPort"].as_u64())
    };
    let ports: Vec<Value> = service["spec"]["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|port| {
            let target = match &port["targetPort"] {
                Value::String(name) => name.parse().ok().or_else(|| named(name)),
                number => number.as_u64(),
            };
            let target = target.or_else(|| port["port"].as_u64());
            json!({"name": port["name"].as_str().unwrap_or_default(), "port": target, "protocol": "TCP"})
        })
        .collect();
    let endpoints: Vec<Value> = members
        .iter()
        .map(|pod| {
            json!({
                "addresses": [pod.address], "conditions": {"ready": true},
                "targetRef": {"kind": "Pod", "name": pod.name, "namespace": pod.namespace},
            })
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("{name}-1"), "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
    })
}
