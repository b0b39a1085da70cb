//! What the server sets on new objects and carries over on updates, per kind.

use serde_json::{Value, json};

use super::read::{at, fill, object_mut, remove, text};

/// Nothing beyond the common rules.
pub(super) fn nothing(_: &mut Value) {}

/// Nothing is carried over.
pub(super) fn keep(_: &mut Value, _: &Value) {}

/// A new pod waits for its node.
pub(super) fn create_pod(pod: &mut Value) {
    let best_effort = super::defaults::quality_of_service(pod);
    pod["status"] = json!({"phase": "Pending", "qosClass": best_effort});
}

/// A new namespace is active and will be emptied before it goes.
pub(super) fn create_namespace(namespace: &mut Value) {
    namespace["status"] = json!({"phase": "Active"});
    if let Some(spec) = object_mut(namespace, "spec") {
        spec.insert("finalizers".to_owned(), json!(["kubernetes"]));
    }
}

/// The finalizers of a namespace's spec change only through its finalize subresource.
pub(super) fn update_namespace(namespace: &mut Value, old: &Value) {
    match old.get("spec") {
        Some(spec) => namespace["spec"] = spec.clone(),
        None => drop(remove(namespace, "spec")),
    }
}

/// A new service has the single-stack form of its addresses; the addresses themselves are allocated elsewhere.
pub(super) fn create_service(service: &mut Value) {
    pair_cluster_ips(service);
    drop_type_dependent(service, None);
}

/// What a service keeps when a client leaves it out: addresses and node ports that were allocated.
pub(super) fn update_service(service: &mut Value, old: &Value) {
    let type_ = text(service, "/spec/type").to_owned();
    let old_type = text(old, "/spec/type");
    if type_ != "ExternalName" && old_type != "ExternalName" {
        // An address that is not given is kept; one that is given without its list is meant to change.
        let given = text(service, "/spec/clusterIP").to_owned();
        let kept = text(old, "/spec/clusterIP").to_owned();
        if given.is_empty() {
            if at(service, "/spec/clusterIPs")
                .as_array()
                .is_none_or(Vec::is_empty)
            {
                for name in ["clusterIP", "clusterIPs"] {
                    if let Some(value) = old["spec"].get(name) {
                        service["spec"][name] = value.clone();
                    }
                }
            }
        } else if given != kept && at(service, "/spec/clusterIPs") == at(old, "/spec/clusterIPs") {
            service["spec"]["clusterIPs"] = json!([given]);
        }
        for name in ["ipFamilies", "ipFamilyPolicy"] {
            if service["spec"].get(name).is_none()
                && let Some(value) = old["spec"].get(name)
            {
                service["spec"][name] = value.clone();
            }
        }
    }
    keep_node_ports(service, old);
    pair_cluster_ips(service);
    drop_type_dependent(service, Some(old));
}

/// Node ports stay with their port when an update does not mention them.
fn keep_node_ports(service: &mut Value, old: &Value) {
    if !matches!(text(service, "/spec/type"), "NodePort" | "LoadBalancer")
        || !matches!(text(old, "/spec/type"), "NodePort" | "LoadBalancer")
    {
        return;
    }
    let taken: Vec<(Value, Value, Value)> = super::read::list(old, "/spec/ports")
        .iter()
        .map(|port| {
            (
                port["port"].clone(),
                port["protocol"].clone(),
                port["nodePort"].clone(),
            )
        })
        .collect();
    super::read::each(service, "/spec/ports", |port| {
        let known = taken
            .iter()
            .find(|(number, protocol, _)| *number == port["port"] && *protocol == port["protocol"]);
        if let Some((_, _, node_port)) = known.filter(|(_, _, node_port)| !node_port.is_null()) {
            fill(port, "nodePort", node_port.clone());
        }
    });
}

/// `clusterIP` and `clusterIPs` say the same.
fn pair_cluster_ips(service: &mut Value) {
    let Some(spec) = service["spec"].as_object_mut() else {
        return;
    };
    let single = spec
        .get("clusterIP")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let first = spec.get("clusterIPs").and_then(|ips| ips.get(0)).cloned();
    match (single.is_empty(), first) {
        (false, None) => {
            spec.insert("clusterIPs".to_owned(), json!([single]));
        }
        (true, Some(first)) => {
            spec.insert("clusterIP".to_owned(), first);
        }
        _ => {}
    }
}

/// Fields that the new type of a service does not have, if nobody asked for them in this very write.
fn drop_type_dependent(service: &mut Value, old: Option<&Value>) {
    let type_ = text(service, "/spec/type").to_owned();
    let unchanged = |service: &Value, name: &str| {
        old.is_some_and(|old| old["spec"].get(name) == service["spec"].get(name))
    };
    let type_changed = old.is_some_and(|old| text(old, "/spec/type") != type_);
    if matches!(type_.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        if let Some(spec) = service["spec"].as_object_mut() {
            // Who names the endpoints of a service without addresses of its own may name both families.
            let free = spec.get("clusterIP").is_some_and(|ip| ip == "None")
                && spec.get("selector").is_none_or(Value::is_null);
            let (families, policy) = if free {
                (json!(["IPv4", "IPv6"]), "RequireDualStack")
            } else {
                (json!(["IPv4"]), "SingleStack")
            };
            spec.entry("ipFamilies").or_insert(families);
            spec.entry("ipFamilyPolicy")
                .or_insert_with(|| json!(policy));
        }
        if type_changed && unchanged(service, "externalName") {
            remove(&mut service["spec"], "externalName");
        }
    }
    if type_changed && type_ == "ExternalName" {
        for name in [
            "clusterIP",
            "clusterIPs",
            "ipFamilies",
            "ipFamilyPolicy",
            "internalTrafficPolicy",
        ] {
            if unchanged(service, name) {
                remove(&mut service["spec"], name);
            }
        }
    }
    if type_changed && matches!(type_.as_str(), "ClusterIP" | "ExternalName") {
        super::read::each(service, "/spec/ports", |port| {
            let kept = old.is_some_and(|old| {
                super::read::list(old, "/spec/ports")
                    .iter()
                    .any(|before| before["nodePort"] == port["nodePort"])
            });
            if kept {
                remove(port, "nodePort");
            }
        });
        if unchanged(service, "externalTrafficPolicy") {
            remove(&mut service["spec"], "externalTrafficPolicy");
        }
    }
    if type_changed && type_ != "LoadBalancer" {
        for name in [
            "allocateLoadBalancerNodePorts",
            "loadBalancerClass",
            "healthCheckNodePort",
        ] {
            if unchanged(service, name) {
                remove(&mut service["spec"], name);
            }
        }
    }
}
