//! The control plane: Kubernetes watchers, push engine, discovery endpoint and injection webhook.
