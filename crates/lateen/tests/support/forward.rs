//! `kubectl port-forward`, running.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::mesh::{Mesh, kubectl};

/// Whether `kubectl` speaks as it does since 1.31, or as it did before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    WebSocket,
    Spdy,
}

impl Speech {
    pub const BOTH: [Self; 2] = [Self::WebSocket, Self::Spdy];

    /// A command of this kind on the mesh.
    pub fn kubectl(self, mesh: &Mesh) -> Command {
        let mut command = Command::new(kubectl());
        let websockets = if self == Self::Spdy { "false" } else { "true" };
        command
            .env("KUBECONFIG", mesh.kubeconfig())
            .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets)
            .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets);
        command
    }
}

/// A forwarded port; ends with the value.
pub struct Forward {
    child: Child,
    /// Open, because kubectl writes a line for each connection.
    _output: BufReader<ChildStdout>,
    /// Where it is reached.
    pub url: String,
}

impl Forward {
    /// Forwards a port of loopback to `port` of `target` (`svc/NAME`, `pod/NAME`).
    pub fn start(mesh: &Mesh, speech: Speech, namespace: &str, target: &str, port: u16) -> Self {
        let mut command = speech.kubectl(mesh);
        let port = format!(":{port}");
        let mut child = command
            .args(["-n", namespace, "port-forward", target, &port])
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("kubectl");
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("output"));
        output.read_line(&mut line).expect("a line");
        // Forwarding from 127.0.0.1:12345 -> 5000
        let local = line.strip_prefix("Forwarding from ");
        let local = local.and_then(|rest| rest.split(' ').next());
        let local = local.unwrap_or_else(|| panic!("port-forward says {line:?}"));
        Self {
            child,
            _output: output,
            url: format!("http://{local}"),
        }
    }

    /// Waits for its end, which something that went wrong brings about.
    pub fn ended(mut self) -> bool {
        let status = self.child.wait().expect("an end");
        !status.success()
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
