//! Containers that a pod brings for the injected ones to be changed by: a container called `istio-proxy` with the image
//! `auto`, and the fields that are to differ (Istio: "Customizing injection").

use serde_json::{Map, Value, json};

use super::INIT_CONTAINER;
use crate::PROXY_CONTAINER;

/// The image that stands for the proxy's own.
const AUTOMATIC: &str = "auto";

/// Lists whose items are merged by a field, as in a strategic merge patch of a container.
const KEYED: [(&str, &str); 4] = [
    ("env", "name"),
    ("ports", "containerPort"),
    ("volumeMounts", "mountPath"),
    ("volumeDevices", "devicePath"),
];

/// What a pod says of the injected containers.
#[derive(Debug, Default)]
pub(super) struct Custom {
    proxy: Option<Value>,
    init: Option<Value>,
}

impl Custom {
    /// Takes the containers of these names out of the pod.
    pub(super) fn take(pod: &mut Value) -> Self {
        let mut custom = Self::default();
        for list in ["containers", "initContainers"] {
            let Some(containers) = pod["spec"][list].as_array_mut() else {
                continue;
            };
            containers.retain(|container| {
                let slot = match container["name"].as_str() {
                    Some(PROXY_CONTAINER) => &mut custom.proxy,
                    Some(INIT_CONTAINER) => &mut custom.init,
                    _ => return true,
                };
                *slot = Some(container.clone());
                false
            });
        }
        custom
    }

    /// Changes the proxy as the pod wants it.
    pub(super) fn change_proxy(&self, proxy: &mut Value) {
        change(proxy, self.proxy.as_ref());
    }

    /// Changes the init container as the pod wants it.
    pub(super) fn change_init(&self, init: &mut Value) {
        change(init, self.init.as_ref());
    }
}

fn change(container: &mut Value, custom: Option<&Value>) {
    if let Some(custom) = custom {
        let mut custom = custom.clone();
        if let Some(fields) = custom.as_object_mut() {
            fields.retain(|name, value| name != "image" || *value != AUTOMATIC);
        }
        lay_over(container, custom);
    }
}

/// Objects are merged field by field, known lists item by item; anything else is replaced, and null takes away.
fn lay_over(under: &mut Value, over: Value) {
    let (Value::Object(under), Value::Object(over)) = (&mut *under, &over) else {
        *under = over;
        return;
    };
    for (name, value) in over.clone() {
        let keyed = KEYED.iter().find(|(list, _)| *list == name);
        match (keyed, value) {
            (_, Value::Null) => {
                under.remove(&name);
            }
            (Some((_, key)), Value::Array(items)) => merge_list(under, &name, key, items),
            (_, value) => lay_over(under.entry(name).or_insert(json!(null)), value),
        }
    }
}

fn merge_list(under: &mut Map<String, Value>, name: &str, key: &str, items: Vec<Value>) {
    let list = under.entry(name).or_insert_with(|| json!([]));
    let Some(list) = list.as_array_mut() else {
        return;
    };
    for item in items {
        match list.iter_mut().find(|present| present[key] == item[key]) {
            // A variable has a value or a source, and a later one replaces the earlier as a whole.
            Some(present) if name == "env" => *present = item,
            Some(present) => lay_over(present, item),
            None => list.push(item),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(custom: Value, expected: Value) {
        let mut proxy = json!({
            "name": "istio-proxy", "image": "proxy:1", "args": ["a", "b"],
            "env": [{"name": "A", "valueFrom": {"x": 1}}, {"name": "B", "value": "b"}],
            "securityContext": {"runAsUser": 1337, "readOnlyRootFilesystem": true},
        });
        let mut pod = json!({"spec": {"containers": [{"name": "app"}, custom]}});
        let taken = Custom::take(&mut pod);
        assert_eq!(pod["spec"]["containers"], json!([{"name": "app"}]));
        taken.change_proxy(&mut proxy);
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(proxy[name], *value, "{name}");
        }
    }

    #[test]
    fn fields_of_the_pod_change_those_of_the_proxy() {
        check(
            json!({
                "name": "istio-proxy", "image": "auto", "args": ["c"],
                "env": [{"name": "A", "value": "a"}, {"name": "C", "value": "c"}],
                "securityContext": {"readOnlyRootFilesystem": false},
            }),
            json!({
                "image": "proxy:1", "args": ["c"],
                "env": [{"name": "A", "value": "a"}, {"name": "B", "value": "b"}, {"name": "C", "value": "c"}],
                "securityContext": {"runAsUser": 1337, "readOnlyRootFilesystem": false},
            }),
        );
        check(
            json!({"name": "istio-proxy", "image": "own:2", "args": null}),
            json!({"image": "own:2", "args": null}),
        );
    }
}
