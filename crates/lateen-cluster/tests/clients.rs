//! The server as real clients meet it: kube-rs over TLS and in the process, and a node's agent behind it.

#[path = "clients/agent.rs"]
mod agent;
#[path = "clients/https.rs"]
mod https;
#[path = "clients/watchers.rs"]
mod watchers;

use std::net::TcpListener;

use lateen_cluster::{Cluster, Config};

/// A running cluster with one listener.
struct Running {
    cluster: Cluster,
    url: String,
    folder: tempfile::TempDir,
}

impl Running {
    async fn start() -> Self {
        Self::restart(tempfile::tempdir().unwrap()).await
    }

    /// Starts on the state of an earlier run.
    async fn restart(folder: tempfile::TempDir) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let config = Config {
            state_dir: folder.path().join("state"),
            listeners: vec![listener],
            certificate_names: vec!["api.example".to_owned()],
            service_range: "10.96.0.0/16".to_owned(),
            node_ports: 30000..=32767,
            autoscaler: Default::default(),
            kubelet_socket: folder.path().join("kubelet.sock"),
        };
        let cluster = Cluster::start(config).await.unwrap();
        Self {
            cluster,
            url,
            folder,
        }
    }

    async fn stop(self) -> tempfile::TempDir {
        self.cluster.shutdown().await;
        self.folder
    }

    /// A client that goes through the socket, with the kubeconfig that users get.
    async fn remote(&self) -> kube::Client {
        self.remote_with(&self.cluster.kubeconfig(&self.url)).await
    }

    async fn remote_with(&self, kubeconfig: &str) -> kube::Client {
        let kubeconfig = kube::config::Kubeconfig::from_yaml(kubeconfig).unwrap();
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .unwrap();
        kube::Client::try_from(config).unwrap()
    }
}
