//! Defaults that Kubernetes fills in, per kind.

mod pod;
mod webhook;

use serde_json::{Map, Value, json};

pub(super) use pod::{pod, quality_of_service};
pub(super) use webhook::{policy, policy_binding, webhooks};

use super::read::{at, each, fill, fill_pointer, int, remove, text};

/// No defaults.
pub(super) fn none(_: &mut Value) {}

/// Every namespace has a label with its name.
pub(super) fn namespace(namespace: &mut Value) {
    let name = text(namespace, "/metadata/name").to_owned();
    if !name.is_empty() && namespace["metadata"].is_object() {
        fill_pointer(&mut namespace["metadata"], "labels", json!({}));
        namespace["metadata"]["labels"]["kubernetes.io/metadata.name"] = json!(name);
    }
}

/// Secrets are opaque; `stringData` is only a way to write `data`.
pub(super) fn secret(secret: &mut Value) {
    use base64::Engine as _;
    fill(secret, "type", "Opaque");
    if let Some(Value::Object(texts)) = remove(secret, "stringData") {
        fill_pointer(secret, "data", json!({}));
        for (name, value) in texts {
            let bytes = value.as_str().unwrap_or_default();
            secret["data"][name] = json!(base64::engine::general_purpose::STANDARD.encode(bytes));
        }
    }
}

/// A service is reached from inside the cluster; ports are TCP and lead to the port of the same number.
pub(super) fn service(service: &mut Value) {
    fill_pointer(service, "spec", json!({}));
    let spec = &mut service["spec"];
    if !spec.is_object() {
        return;
    }
    fill(spec, "sessionAffinity", "None");
    if spec["sessionAffinity"] == "None" {
        remove(spec, "sessionAffinityConfig");
    }
    if spec["sessionAffinity"] == "ClientIP"
        && at(spec, "/sessionAffinityConfig/clientIP/timeoutSeconds").is_null()
    {
        spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 10_800}});
    }
    fill(spec, "type", "ClusterIP");
    each(spec, "/ports", |port| {
        fill(port, "protocol", "TCP");
        let number = port["port"].clone();
        fill(port, "targetPort", number);
    });
    let type_ = text(spec, "/type").to_owned();
    let external = matches!(type_.as_str(), "NodePort" | "LoadBalancer")
        || (type_ == "ClusterIP" && !super::read::list(spec, "/externalIPs").is_empty());
    if external {
        fill(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(type_.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        fill_pointer(spec, "internalTrafficPolicy", "Cluster");
    }
    if type_ == "LoadBalancer" {
        fill_pointer(spec, "allocateLoadBalancerNodePorts", true);
        each(service, "/status/loadBalancer/ingress", |ingress| {
            if !text(ingress, "/ip").is_empty() {
                fill_pointer(ingress, "ipMode", "VIP");
            }
        });
    }
}

/// Ports of endpoints are TCP.
pub(super) fn endpoints(endpoints: &mut Value) {
    each(endpoints, "/subsets", |subset| {
        each(subset, "/ports", |port| fill(port, "protocol", "TCP"));
    });
}

/// Ports of endpoint slices are TCP without a name.
pub(super) fn endpoint_slice(slice: &mut Value) {
    each(slice, "/ports", |port| {
        fill_pointer(port, "name", "");
        fill_pointer(port, "protocol", "TCP");
    });
}

/// One replica, a quarter at a time.
pub(super) fn deployment(deployment: &mut Value) {
    let Some(spec) = deployment.get_mut("spec").filter(|spec| spec.is_object()) else {
        return;
    };
    fill_pointer(spec, "replicas", 1);
    fill_pointer(spec, "strategy", json!({}));
    let strategy = &mut spec["strategy"];
    fill(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        fill_pointer(strategy, "rollingUpdate", json!({}));
        fill_pointer(&mut strategy["rollingUpdate"], "maxUnavailable", "25%");
        fill_pointer(&mut strategy["rollingUpdate"], "maxSurge", "25%");
    }
    fill_pointer(spec, "revisionHistoryLimit", 10);
    fill_pointer(spec, "progressDeadlineSeconds", 600);
    pod::template(spec);
}

/// One replica.
pub(super) fn replica_set(set: &mut Value) {
    let Some(spec) = set.get_mut("spec").filter(|spec| spec.is_object()) else {
        return;
    };
    fill_pointer(spec, "replicas", 1);
    pod::template(spec);
}

/// One replica, pods one after the other, all of them updated; claims of volumes outlive the set.
pub(super) fn stateful_set(set: &mut Value) {
    let Some(spec) = set.get_mut("spec").filter(|spec| spec.is_object()) else {
        return;
    };
    fill(spec, "podManagementPolicy", "OrderedReady");
    fill_pointer(spec, "updateStrategy", json!({}));
    let strategy = &mut spec["updateStrategy"];
    if text(strategy, "/type").is_empty() {
        fill(strategy, "type", "RollingUpdate");
        fill_pointer(strategy, "rollingUpdate", json!({}));
    }
    if strategy["type"] == "RollingUpdate" && strategy["rollingUpdate"].is_object() {
        fill_pointer(&mut strategy["rollingUpdate"], "partition", 0);
    }
    fill_pointer(spec, "persistentVolumeClaimRetentionPolicy", json!({}));
    let retention = &mut spec["persistentVolumeClaimRetentionPolicy"];
    fill(retention, "whenDeleted", "Retain");
    fill(retention, "whenScaled", "Retain");
    fill_pointer(spec, "replicas", 1);
    fill_pointer(spec, "revisionHistoryLimit", 10);
    pod::template(spec);
}

/// At least one replica, and 80 % of the requested processor time when no metric is given.
pub(super) fn autoscaler(autoscaler: &mut Value) {
    let Some(spec) = autoscaler.get_mut("spec").filter(|spec| spec.is_object()) else {
        return;
    };
    fill_pointer(spec, "minReplicas", 1);
    if at(spec, "/metrics").as_array().is_none_or(Vec::is_empty) {
        spec["metrics"] = json!([{"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
    }
    if spec.get("behavior").is_some_and(Value::is_object) {
        let behavior = &mut spec["behavior"];
        fill_pointer(behavior, "scaleUp", json!({}));
        let up = &mut behavior["scaleUp"];
        fill_pointer(up, "stabilizationWindowSeconds", 0);
        fill_pointer(up, "selectPolicy", "Max");
        fill_pointer(
            up,
            "policies",
            json!([
                {"type": "Pods", "value": 4, "periodSeconds": 15},
                {"type": "Percent", "value": 100, "periodSeconds": 15},
            ]),
        );
        fill_pointer(behavior, "scaleDown", json!({}));
        let down = &mut behavior["scaleDown"];
        fill_pointer(down, "selectPolicy", "Max");
        fill_pointer(
            down,
            "policies",
            json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]),
        );
    }
}

/// Bindings refer to roles, and to subjects of the right group.
pub(super) fn binding(binding: &mut Value) {
    if binding["roleRef"].is_object() {
        fill(
            &mut binding["roleRef"],
            "apiGroup",
            "rbac.authorization.k8s.io",
        );
    }
    each(binding, "/subjects", |subject| {
        match text(subject, "/kind") {
            "User" | "Group" => fill(subject, "apiGroup", "rbac.authorization.k8s.io"),
            _ => {}
        }
    });
}

/// Nodes can give what they have.
pub(super) fn node(node: &mut Value) {
    let capacity = at(node, "/status/capacity").clone();
    if !capacity.is_null() && at(node, "/status/allocatable").is_null() {
        node["status"]["allocatable"] = capacity;
    }
}

/// Priority classes preempt.
pub(super) fn priority_class(class: &mut Value) {
    fill_pointer(class, "preemptionPolicy", "PreemptLowerPriority");
}

/// Adds the amounts of two resource maps where only one of them has the resource.
fn requests_from_limits(resources: &mut Value) {
    let limits: Map<String, Value> = at(resources, "/limits")
        .as_object()
        .cloned()
        .unwrap_or_default();
    if limits.is_empty() {
        return;
    }
    fill_pointer(resources, "requests", json!({}));
    for (name, amount) in limits {
        fill_pointer(&mut resources["requests"], &name, amount);
    }
}

/// Container ports of a pod on the host's network are the host's.
fn host_ports(container: &mut Value) {
    each(container, "/ports", |port| {
        let number = int(port, "/containerPort");
        fill(port, "hostPort", number);
    });
}
