//! The `proxy` command: arguments and environment as Istio's injection gives them to a sidecar or gateway.
//!
//! `proxy sidecar|router [--domain D] [--concurrency N]`, `POD_NAME`, `POD_NAMESPACE`, `INSTANCE_IP`,
//! `SERVICE_ACCOUNT`, `PROXY_CONFIG` (YAML or JSON) and `ISTIO_META_*` become the node that the control plane goes by;
//! what concerns the agent is read in [`crate::agent`].

mod arguments;
mod extensions;
mod node;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use serde_json::Value;

use arguments::Arguments;
use node::Pod;

use crate::agent::settings::{self, Environment, SettingError};
use crate::process::{self, ProxyConfig, RunError};

/// Labels of the pod, from the downward API.
const LABELS_FILE: &str = "/etc/istio/pod/labels";

/// The control plane, when the configuration names none.
const DISCOVERY_ADDRESS: &str = "istiod.istio-system.svc:15012";

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The arguments or the environment are wrong.
    #[error("{0}")]
    Usage(String),
    /// The proxy could not start.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Runs the command with the arguments after `proxy` and the environment of the process.
///
/// # Errors
/// When the arguments or the environment are wrong, or the proxy cannot start.
pub fn main(arguments: &[String]) -> Result<(), CommandError> {
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    let labels = std::fs::read_to_string(LABELS_FILE).unwrap_or_default();
    Ok(process::run(parse(arguments, &environment, &labels)?)?)
}

/// Parses arguments and environment. `labels` is the content of the downward API's file, one `key="value"` a line.
///
/// # Errors
/// When something is missing or malformed.
pub fn parse(
    arguments: &[String],
    environment: &BTreeMap<String, String>,
    labels: &str,
) -> Result<ProxyConfig, CommandError> {
    let arguments = Arguments::parse(arguments)?;
    let text = environment.get("PROXY_CONFIG").map_or("", String::as_str);
    let config = settings::proxy_config(text)?;
    let environment = Environment::new(environment, &config);
    let pod = Pod::of(&environment)?;
    let ports = Ports::of(&environment, &config)?;
    let address = config.get("discoveryAddress").and_then(Value::as_str);
    let discovery = settings::target(address.unwrap_or(DISCOVERY_ADDRESS))?;
    let secure_discovery = settings::discovery(&environment, &config, &discovery);
    let secure = secure_discovery.is_some();
    let is_sidecar = arguments.role == "sidecar";
    // As in Istio, a gateway's port is open to others: they learn nothing of what is beside it.
    let scrape = if is_sidecar {
        settings::scrape(&environment, &[ports.status, ports.prometheus])?
    } else {
        None
    };
    let any = |port: u16| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    Ok(ProxyConfig {
        node: node::node(&arguments, &pod, &environment, &config, labels),
        certificates: settings::certificates(&environment, &discovery, secure, pod.namespace)?,
        discovery,
        secure_discovery,
        probes: settings::probes(&environment, pod.ip)?,
        scrape,
        drain: settings::drain(&environment, &config)?,
        admin: SocketAddr::from((Ipv4Addr::LOCALHOST, ports.admin)),
        health: vec![any(ports.health)],
        metrics: vec![any(ports.prometheus)],
        status: vec![any(ports.status)],
        concurrency: concurrency(&arguments, &config),
        node_ip: Some(pod.ip),
        mark_sockets: is_sidecar,
    })
}

/// Ports of the proxy's own servers.
struct Ports {
    admin: u16,
    health: u16,
    prometheus: u16,
    status: u16,
}

impl Ports {
    fn of(environment: &Environment, config: &Value) -> Result<Self, CommandError> {
        let configured = |name: &str, default: u16| match number(config, name).map(u16::try_from) {
            None => Ok(default),
            Some(Ok(port)) => Ok(port),
            Some(Err(_)) => Err(usage("a port must be at most 65535".to_owned())),
        };
        let variable = |name: &str, default: u16| match environment.get(name).map(str::parse) {
            None => Ok(default),
            Some(Ok(port)) => Ok(port),
            Some(Err(_)) => Err(usage(format!("{name} must be a port"))),
        };
        Ok(Self {
            admin: configured("proxyAdminPort", 15000)?,
            health: variable("ENVOY_STATUS_PORT", 15021)?,
            prometheus: variable("ENVOY_PROMETHEUS_PORT", 15090)?,
            status: configured("statusPort", 15020)?,
        })
    }
}

/// Threads that serve traffic. As in Istio: two unless configured, zero means one per core.
fn concurrency(arguments: &Arguments, config: &Value) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let configured = || number(config, "concurrency").map(|count| count as usize);
    match arguments.concurrency.or_else(configured) {
        Some(0) => cores,
        Some(count) => count,
        None => cores.min(2),
    }
}

/// A whole number of the configuration.
fn number(config: &Value, name: &str) -> Option<u64> {
    config.get(name).and_then(Value::as_u64)
}

impl From<SettingError> for CommandError {
    fn from(error: SettingError) -> Self {
        Self::Usage(error.to_string())
    }
}

fn usage(text: String) -> CommandError {
    CommandError::Usage(text)
}

#[cfg(test)]
mod tests {
    use lateen_xds::client::Target;
    use lateen_xds::pb::google::protobuf::value::Kind;

    use super::node::string;
    use super::*;

    fn arguments(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn injected_environment_becomes_the_node() {
        let environment = environment(&[
            ("POD_NAME", "web-1"),
            ("POD_NAMESPACE", "shop"),
            ("INSTANCE_IP", "10.1.2.3"),
            ("SERVICE_ACCOUNT", "web"),
            ("ISTIO_META_WORKLOAD_NAME", "web"),
            (
                "PROXY_CONFIG",
                r#"{"discoveryAddress":"istiod.x.svc:15010","concurrency":1}"#,
            ),
        ]);
        let words = arguments("sidecar --domain shop.svc.cluster.local --proxyLogLevel=warning");
        let config = parse(&words, &environment, "app=\"web\"\n").unwrap();
        assert_eq!(
            config.node.id,
            "sidecar~10.1.2.3~web-1.shop~shop.svc.cluster.local"
        );
        assert_eq!(config.concurrency, 1);
        assert_eq!(
            config.discovery,
            Target::Tcp {
                host: "istiod.x.svc".to_owned(),
                port: 15010
            }
        );
        let fields = config.node.metadata.unwrap().fields;
        assert_eq!(fields["NAMESPACE"], string("shop"));
        let Some(Kind::StructValue(labels)) = &fields["LABELS"].kind else {
            panic!("no labels")
        };
        assert_eq!(labels.fields["app"], string("web"));
        assert!(config.mark_sockets);
    }

    #[test]
    fn wrong_arguments_say_what_is_wrong() {
        for (words, part) in [
            ("", "proxy sidecar"),
            ("agent", "proxy sidecar"),
            ("router --nope", "unknown argument `--nope`"),
            ("router --domain", "needs a value"),
            ("router --concurrency x", "must be a number"),
        ] {
            let error = parse(&arguments(words), &BTreeMap::new(), "")
                .unwrap_err()
                .to_string();
            assert!(error.contains(part), "{words}: {error}");
        }
        let broken = environment(&[("PROXY_CONFIG", "discoveryAddress: istiod")]);
        let error = parse(&arguments("router"), &broken, "")
            .unwrap_err()
            .to_string();
        assert!(error.contains("`istiod` has no port"), "{error}");
    }
}
