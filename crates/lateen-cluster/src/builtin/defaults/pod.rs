//! Defaults of pods and pod templates.

use serde_json::{Value, json};

use super::{host_ports, requests_from_limits};
use crate::builtin::read::{each, fill, fill_pointer, list, text};
use crate::schema::quantity::Quantity;

const DEFAULT_MODE: i64 = 0o644;

/// A pod: what templates get, and what only whole pods get.
pub(in crate::builtin) fn pod(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec").filter(|spec| spec.is_object()) else {
        return;
    };
    pod_spec(spec);
    for containers in ["/containers", "/initContainers"] {
        each(spec, containers, |container| {
            fill_pointer(container, "resources", json!({}));
            requests_from_limits(&mut container["resources"]);
        });
    }
    fill_pointer(spec, "enableServiceLinks", true);
    if spec["hostNetwork"] == true {
        each(spec, "/containers", host_ports);
        each(spec, "/initContainers", host_ports);
    }
    // What the admission of Kubernetes adds to every pod: its account and when it leaves a sick node.
    fill(spec, "serviceAccountName", "default");
    let account = spec["serviceAccountName"].clone();
    fill(spec, "serviceAccount", account);
    fill_pointer(spec, "preemptionPolicy", "PreemptLowerPriority");
    fill_pointer(spec, "priority", 0);
    tolerations(spec);
}

fn tolerations(spec: &mut Value) {
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let tolerated = list(spec, "/tolerations").iter().any(|toleration| {
            let matches_key =
                matches!(text(toleration, "/key"), found if found == key || found.is_empty());
            matches_key && matches!(text(toleration, "/effect"), "NoExecute" | "")
        });
        if !tolerated {
            fill_pointer(spec, "tolerations", json!([]));
            if let Some(tolerations) = spec["tolerations"].as_array_mut() {
                tolerations.push(json!({
                    "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}));
            }
        }
    }
}

/// The template of a controller whose `spec` this is.
pub(in crate::builtin) fn template(spec: &mut Value) {
    if let Some(template) = spec
        .get_mut("template")
        .filter(|template| template.is_object())
    {
        fill_pointer(template, "spec", json!({}));
        pod_spec(&mut template["spec"]);
    }
}

fn pod_spec(spec: &mut Value) {
    fill(spec, "dnsPolicy", "ClusterFirst");
    fill(spec, "restartPolicy", "Always");
    fill_pointer(spec, "securityContext", json!({}));
    fill_pointer(spec, "terminationGracePeriodSeconds", 30);
    fill(spec, "schedulerName", "default-scheduler");
    // The two names of one field; the newer one decides.
    let newer = text(spec, "/serviceAccountName").to_owned();
    let older = text(spec, "/serviceAccount").to_owned();
    if newer.is_empty() && !older.is_empty() {
        spec["serviceAccountName"] = json!(older);
    } else if !newer.is_empty() {
        spec["serviceAccount"] = json!(newer);
    }
    for containers in ["/containers", "/initContainers", "/ephemeralContainers"] {
        each(spec, containers, container);
    }
    each(spec, "/volumes", volume);
    if spec["hostNetwork"] == true {
        each(spec, "/containers", host_ports);
        each(spec, "/initContainers", host_ports);
    }
}

fn container(container: &mut Value) {
    let policy = if image_tag(text(container, "/image")) == "latest" {
        "Always"
    } else {
        "IfNotPresent"
    };
    fill(container, "imagePullPolicy", policy);
    fill(container, "terminationMessagePath", "/dev/termination-log");
    fill(container, "terminationMessagePolicy", "File");
    each(container, "/ports", |port| fill(port, "protocol", "TCP"));
    each(container, "/env", |variable| {
        if let Some(field) = variable.pointer_mut("/valueFrom/fieldRef") {
            fill(field, "apiVersion", "v1");
        }
        if let Some(field) = variable.pointer_mut("/valueFrom/resourceFieldRef") {
            fill(field, "divisor", "0");
        }
    });
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(name).filter(|probe| probe.is_object()) {
            fill(probe, "timeoutSeconds", 1);
            fill(probe, "periodSeconds", 10);
            fill(probe, "successThreshold", 1);
            fill(probe, "failureThreshold", 3);
            handler(probe);
        }
    }
    for hook in ["/lifecycle/postStart", "/lifecycle/preStop"] {
        if let Some(hook) = container.pointer_mut(hook) {
            handler(hook);
        }
    }
}

fn handler(handler: &mut Value) {
    if let Some(request) = handler
        .get_mut("httpGet")
        .filter(|request| request.is_object())
    {
        fill(request, "path", "/");
        fill(request, "scheme", "HTTP");
    }
    if let Some(call) = handler.get_mut("grpc").filter(|call| call.is_object()) {
        fill_pointer(call, "service", "");
    }
}

fn volume(volume: &mut Value) {
    let Some(members) = volume.as_object_mut() else {
        return;
    };
    if members.keys().all(|name| name == "name") {
        members.insert("emptyDir".to_owned(), json!({}));
    }
    for name in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(name).filter(|source| source.is_object()) {
            fill_pointer(source, "defaultMode", DEFAULT_MODE);
        }
    }
    if let Some(path) = volume.get_mut("hostPath").filter(|path| path.is_object()) {
        fill_pointer(path, "type", "");
    }
    each(volume, "/projected/sources", |source| {
        if let Some(token) = source
            .get_mut("serviceAccountToken")
            .filter(|token| token.is_object())
        {
            fill_pointer(token, "expirationSeconds", 3600);
        }
        downward_items(source);
    });
    downward_items(volume);
}

fn downward_items(source: &mut Value) {
    each(source, "/downwardAPI/items", |item| {
        if let Some(field) = item.get_mut("fieldRef").filter(|field| field.is_object()) {
            fill(field, "apiVersion", "v1");
        }
    });
}

/// Tag of an image; `latest` without tag and digest, empty with a digest alone.
fn image_tag(image: &str) -> &str {
    let (name, digest) = image
        .split_once('@')
        .map_or((image, ""), |(name, digest)| (name, digest));
    // A colon before the last slash belongs to a port of the registry.
    let last = name.rsplit('/').next().unwrap_or_default();
    match last.split_once(':') {
        Some((_, tag)) => tag,
        None if digest.is_empty() => "latest",
        None => "",
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`, from the resources of the containers.
pub(in crate::builtin) fn quality_of_service(pod: &Value) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    let containers = list(pod, "/spec/containers")
        .iter()
        .chain(list(pod, "/spec/initContainers"));
    for container in containers {
        for resource in ["cpu", "memory"] {
            let amount = |which: &str| {
                Quantity::parse(text(container, &format!("/resources/{which}/{resource}")))
                    .ok()
                    .filter(|amount| amount.milli() > 0)
            };
            let (request, limit) = (amount("requests"), amount("limits"));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_without_tag_are_pulled_always() {
        for (image, tag) in [
            ("nginx", "latest"),
            ("nginx:1.2", "1.2"),
            ("localhost:5000/nginx", "latest"),
            ("localhost:5000/a/nginx:x", "x"),
            ("nginx@sha256:abc", ""),
            ("nginx:1@sha256:abc", "1"),
        ] {
            assert_eq!(image_tag(image), tag, "{image}");
        }
    }

    #[test]
    fn quality_follows_from_resources() {
        let check = |resources: Value, expected: &str| {
            let pod = json!({"spec": {"containers": [{"resources": resources}]}});
            assert_eq!(quality_of_service(&pod), expected);
        };
        check(json!({}), "BestEffort");
        check(json!({"requests": {"cpu": "1"}}), "Burstable");
        check(
            json!({"limits": {"cpu": "1", "memory": "1Gi"}}),
            "Guaranteed",
        );
    }
}
