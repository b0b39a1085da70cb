//! The application's probes, moved to the proxy's agent: the kubelet has no certificate, and would be refused where only
//! mutual TLS is accepted. The agent asks the application within the pod.

use serde_json::{Map, Value, json};

/// Port of the agent.
const AGENT_PORT: u16 = 15020;
/// Kinds of probes, and the names that the agent knows them by.
const KINDS: [(&str, &str); 3] = [
    ("livenessProbe", "livez"),
    ("readinessProbe", "readyz"),
    ("startupProbe", "startupz"),
];

/// Points the probes of the application's containers at the agent. Returns what the agent has to know, by path
/// (`ISTIO_KUBE_APP_PROBERS`). Probes that run a program stay as they are.
pub(super) fn rewrite(pod: &mut Value) -> Map<String, Value> {
    let mut probers = Map::new();
    // Sidecars among the init containers have probes, too.
    for list in ["containers", "initContainers"] {
        let containers = pod["spec"][list].as_array_mut();
        for container in containers.into_iter().flatten() {
            let ports = container["ports"].clone();
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            for (kind, short) in KINDS {
                let Some(probe) = container.get_mut(kind) else {
                    continue;
                };
                let Some(prober) = prober(probe, &ports) else {
                    continue;
                };
                let path = format!("/app-health/{name}/{short}");
                for action in ["httpGet", "tcpSocket", "grpc"] {
                    if let Some(fields) = probe.as_object_mut() {
                        fields.remove(action);
                    }
                }
                probe["httpGet"] = json!({"path": path, "port": AGENT_PORT, "scheme": "HTTP"});
                probers.insert(path, prober);
            }
        }
    }
    probers
}

/// What the agent does for a probe; nothing for one that it cannot do.
fn prober(probe: &Value, ports: &Value) -> Option<Value> {
    let mut made = Map::new();
    for action in ["httpGet", "tcpSocket"] {
        if let Some(found) = probe.get(action).filter(|found| !found.is_null()) {
            let mut found = found.clone();
            found["port"] = number(&found["port"], ports)?.into();
            made.insert(action.to_owned(), found);
        }
    }
    if let Some(found) = probe.get("grpc").filter(|found| !found.is_null()) {
        made.insert("grpc".to_owned(), found.clone());
    }
    if made.len() != 1 {
        return None;
    }
    if let Some(seconds) = probe.get("timeoutSeconds") {
        made.insert("timeoutSeconds".to_owned(), seconds.clone());
    }
    Some(Value::Object(made))
}

/// A port by its number, or by its name among the container's ports.
fn number(port: &Value, ports: &Value) -> Option<u64> {
    if let Some(number) = port.as_u64() {
        return Some(number);
    }
    let name = port.as_str()?;
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let mut listed = ports.as_array()?.iter();
    listed.find(|port| port["name"] == name)?["containerPort"].as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_asked_of_the_agent() {
        let mut pod = json!({"spec": {"containers": [{
            "name": "app",
            "ports": [{"name": "web", "containerPort": 8080}],
            "livenessProbe": {"httpGet": {"path": "/alive", "port": "web"}, "timeoutSeconds": 3, "periodSeconds": 7},
            "readinessProbe": {"tcpSocket": {"port": 9090}},
            "startupProbe": {"exec": {"command": ["true"]}},
        }, {
            "name": "other",
            "readinessProbe": {"grpc": {"port": 5000, "service": "x"}},
            "livenessProbe": {"httpGet": {"path": "/", "port": "nameless"}},
        }]}});
        let before = pod.clone();
        let probers = rewrite(&mut pod);
        let expected = json!({
            "/app-health/app/livez": {"httpGet": {"path": "/alive", "port": 8080}, "timeoutSeconds": 3},
            "/app-health/app/readyz": {"tcpSocket": {"port": 9090}},
            "/app-health/other/readyz": {"grpc": {"port": 5000, "service": "x"}},
        });
        assert_eq!(Value::Object(probers), expected);
        let containers = &pod["spec"]["containers"];
        let asked = |name: &str| json!({"path": format!("/app-health/{name}"), "port": 15020, "scheme": "HTTP"});
        assert_eq!(
            containers[0]["livenessProbe"],
            json!({"httpGet": asked("app/livez"), "timeoutSeconds": 3, "periodSeconds": 7})
        );
        assert_eq!(
            containers[0]["readinessProbe"],
            json!({"httpGet": asked("app/readyz")})
        );
        // What the agent cannot do is left to the kubelet.
        let unchanged = &before["spec"]["containers"];
        assert_eq!(containers[0]["startupProbe"], unchanged[0]["startupProbe"]);
        assert_eq!(
            containers[1]["livenessProbe"],
            unchanged[1]["livenessProbe"]
        );
        assert_eq!(
            containers[1]["readinessProbe"],
            json!({"httpGet": asked("other/readyz")})
        );
    }
}
