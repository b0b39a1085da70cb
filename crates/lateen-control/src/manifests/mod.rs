//! The objects that install the control plane and a gateway: what `lateen up` applies to its own API server and
//! `lateen install` to a real one.

mod control_plane;
pub(crate) mod gateway;
mod webhook;

use serde_json::{Value, json};

use crate::MeshConfig;

/// Image that holds the `lateen` program.
pub const IMAGE: &str = "lateen.dev/lateen:latest";

/// What may differ between installations.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Namespace of everything that has one.
    pub namespace: String,
    /// Image of control plane and gateway; its entry point is `lateen`.
    pub image: String,
    /// When the image is pulled.
    pub image_pull_policy: String,
    /// Settings of the mesh.
    pub mesh: MeshConfig,
    /// Replicas of the control plane.
    pub replicas: u32,
    /// Whether there is an ingress gateway.
    pub ingress_gateway: bool,
    /// Type of the gateway's Service: `LoadBalancer`, `NodePort` or `ClusterIP`.
    pub gateway_service_type: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            namespace: "istio-system".to_owned(),
            image: IMAGE.to_owned(),
            image_pull_policy: "IfNotPresent".to_owned(),
            mesh: MeshConfig {
                access_log_file: "/dev/stdout".to_owned(),
                ..MeshConfig::default()
            },
            replicas: 1,
            ingress_gateway: true,
            gateway_service_type: "LoadBalancer".to_owned(),
        }
    }
}

/// All objects in the order in which they are applied: each comes after what it needs.
pub fn render(options: &Options) -> Vec<Value> {
    let mut objects = vec![json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": options.namespace},
    })];
    objects.extend(control_plane::render(options));
    objects.extend(webhook::render(options));
    if options.ingress_gateway {
        objects.extend(gateway::render(options));
    }
    objects
}

#[cfg(test)]
mod tests;
