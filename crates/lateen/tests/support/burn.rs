//! Work for processors in the pods of a target, so that its autoscaler has a reason to act.

use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::mesh::{Mesh, kubectl};

/// Whose pods are meant.
pub struct Target<'t> {
    pub namespace: &'t str,
    /// Their label `app`.
    pub app: &'t str,
    pub container: &'t str,
}

/// Processes that end with the value.
pub struct Burn(Vec<Child>);

impl Drop for Burn {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Its pods that are not ending.
pub fn pods(mesh: &Mesh, target: &Target<'_>) -> Vec<String> {
    let app = format!("app={}", target.app);
    let list = [
        "-n",
        target.namespace,
        "get",
        "pods",
        "-l",
        &app,
        "-o",
        "json",
    ];
    let list: Value = serde_json::from_str(&mesh.kubectl(&list)).expect("JSON");
    let is_kept = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
    let items = list["items"].as_array().expect("a list").iter();
    let name = |pod: &Value| {
        pod["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    items.filter(is_kept).map(name).collect()
}

/// Keeps a processor busy in each of the pods, until [`quench`].
pub fn burn(mesh: &Mesh, target: &Target<'_>, pods: &[String]) -> Burn {
    let start = |pod: &String| {
        let loops = "while [ ! -e /tmp/enough ]; do :; done";
        let place = ["-n", target.namespace, "exec", pod, "-c", target.container];
        let mut command = Command::new(kubectl());
        command
            .args(place)
            .args(["--", "sh", "-c", loops])
            .env("KUBECONFIG", mesh.kubeconfig());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().expect("kubectl runs")
    };
    Burn(pods.iter().map(start).collect())
}

/// Ends the burn.
pub fn quench(mesh: &Mesh, target: &Target<'_>, pods: &[String]) {
    for pod in pods {
        let place = ["-n", target.namespace, "exec", pod, "-c", target.container];
        mesh.kubectl(&[&place[..], &["--", "touch", "/tmp/enough"]].concat());
    }
}
