//! Runs the API server alone, for tests with real clients:
//! `cargo run -p lateen-cluster --example apiserver -- PORT STATE-DIR KUBECONFIG [PERIOD STABILIZATION]`. Ctrl-C ends it.
//! PERIOD and STABILIZATION are seconds: how often autoscalers look, and how long they keep what was recommended.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use lateen_cluster::{AutoscalerConfig, Cluster, Config};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, state_dir, kubeconfig, times @ ..] = arguments.as_slice() else {
        return Err("usage: apiserver PORT STATE-DIR KUBECONFIG [PERIOD STABILIZATION]".into());
    };
    let mut autoscaler = AutoscalerConfig::default();
    if let [period, stabilization] = times {
        autoscaler.period = Duration::from_secs(period.parse()?);
        autoscaler.downscale_stabilization = Duration::from_secs(stabilization.parse()?);
    }
    let listener = TcpListener::bind(("127.0.0.1", port.parse::<u16>()?))?;
    let address = listener.local_addr()?;
    let state_dir = PathBuf::from(state_dir);
    let cluster = Cluster::start(Config {
        kubelet_socket: state_dir.join("kubelet.sock"),
        state_dir,
        listeners: vec![listener],
        certificate_names: Vec::new(),
        service_range: "10.96.0.0/16".to_owned(),
        node_ports: 30000..=32767,
        autoscaler,
    })
    .await?;
    std::fs::write(
        kubeconfig,
        cluster.kubeconfig(&format!("https://{address}")),
    )?;
    println!("serving on https://{address}");
    tokio::signal::ctrl_c().await?;
    cluster.shutdown().await;
    Ok(())
}
