//! The `proxy` command: arguments and environment as Istio's injection gives them to a sidecar or gateway.
//!
//! `proxy sidecar|router [--domain D] [--concurrency N]`, `POD_NAME`, `POD_NAMESPACE`, `INSTANCE_IP`,
//! `SERVICE_ACCOUNT`, `PROXY_CONFIG` (YAML or JSON) and `ISTIO_META_*` become the node that the control plane goes by;
//! what concerns the agent is read in [`crate::agent`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use lateen_xds::pb::envoy::config::core::v3::{Extension, Node, node};
use lateen_xds::pb::google::protobuf::{ListValue, Struct, Value, value::Kind};

use crate::agent::settings::{self, Environment, SettingError};
use crate::process::{self, ProxyConfig, RunError};

/// Labels of the pod, from the downward API.
const LABELS_FILE: &str = "/etc/istio/pod/labels";

/// The control plane, when the configuration names none.
const DISCOVERY_ADDRESS: &str = "istiod.istio-system.svc:15012";

/// Flags of Istio's agent that have no meaning here, as logs are configured differently.
const IGNORED_FLAGS: [&str; 13] = [
    "--proxyLogLevel",
    "--proxyComponentLogLevel",
    "--log_output_level",
    "--log_caller",
    "--log_stacktrace_level",
    "--log_target",
    "--log_rotate",
    "--outlierLogPath",
    "--trust-domain",
    "--stsPort",
    "--serviceCluster",
    "--meshConfig",
    "--templateFile",
];

/// The same without a value.
const IGNORED_SWITCHES: [&str; 1] = ["--log_as_json"];

/// What is understood, by category, so that the control plane sends nothing else.
const EXTENSIONS: [(&str, &str, &str); 20] = [
    (
        "envoy.filters.network",
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    ),
    (
        "envoy.filters.network",
        "envoy.filters.network.tcp_proxy",
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
    ),
    (
        "envoy.filters.listener",
        "envoy.filters.listener.original_dst",
        "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
    ),
    (
        "envoy.filters.listener",
        "envoy.filters.listener.tls_inspector",
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    ),
    (
        "envoy.filters.listener",
        "envoy.filters.listener.http_inspector",
        "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
    ),
    (
        "envoy.filters.http",
        "envoy.filters.http.router",
        "envoy.extensions.filters.http.router.v3.Router",
    ),
    (
        "envoy.filters.http",
        "envoy.filters.http.fault",
        "envoy.extensions.filters.http.fault.v3.HTTPFault",
    ),
    (
        "envoy.filters.http",
        "envoy.filters.http.cors",
        "envoy.extensions.filters.http.cors.v3.Cors",
    ),
    (
        "envoy.filters.http",
        "envoy.filters.http.stateful_session",
        "envoy.extensions.filters.http.stateful_session.v3.StatefulSession",
    ),
    // See `config::body_fields`.
    (
        "lateen",
        crate::config::body_fields::NAME,
        "lateen.body_to_headers.v1.BodyToHeaders",
    ),
    // A protocol option of clusters, see `config::cluster::sticky`.
    (
        "lateen",
        crate::config::cluster::sticky::NAME,
        "lateen.sticky_session.v1.StickySession",
    ),
    (
        "envoy.filters.http",
        "istio.alpn",
        "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
    ),
    (
        "envoy.filters.http",
        "envoy.filters.http.grpc_stats",
        "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
    ),
    (
        "envoy.filters.http",
        "envoy.filters.http.istio_stats",
        "stats.PluginConfig",
    ),
    (
        "envoy.filters.http",
        "envoy.filters.http.peer_metadata",
        "io.istio.http.peer_metadata.Config",
    ),
    (
        "envoy.filters.network",
        "envoy.filters.network.istio_stats",
        "stats.PluginConfig",
    ),
    (
        "envoy.filters.network",
        "envoy.filters.network.metadata_exchange",
        "envoy.tcp.metadataexchange.config.MetadataExchange",
    ),
    (
        "envoy.transport_sockets.upstream",
        "envoy.transport_sockets.raw_buffer",
        "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
    ),
    (
        "envoy.transport_sockets.upstream",
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    ),
    (
        "envoy.access_loggers",
        "envoy.access_loggers.file",
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
    ),
];

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
    let variable = |name: &str| environment.get(name);
    let namespace = variable("POD_NAMESPACE").unwrap_or("default");
    let name = variable("POD_NAME")
        .or_else(|| variable("HOSTNAME"))
        .unwrap_or("proxy");
    let addresses = variable("INSTANCE_IP").unwrap_or("127.0.0.1");
    let node_ip: IpAddr = addresses
        .split(',')
        .next()
        .unwrap_or_default()
        .parse()
        .map_err(|_| usage(format!("INSTANCE_IP `{addresses}` is not an address")))?;
    let domain = arguments
        .domain
        .unwrap_or_else(|| format!("{namespace}.svc.cluster.local"));
    let mut metadata = metadata(environment.all(), namespace, name, addresses, labels);
    metadata
        .entry("PROXY_CONFIG".to_owned())
        .or_insert_with(|| from_json(&config));
    let port = |value: Option<u64>, default: u16| match value.map(u16::try_from) {
        None => Ok(default),
        Some(Ok(port)) => Ok(port),
        Some(Err(_)) => Err(usage("a port must be at most 65535".to_owned())),
    };
    let number = |name: &str| config.get(name).and_then(serde_json::Value::as_u64);
    let from_environment = |name: &str| {
        variable(name)
            .map(|value| {
                value
                    .parse()
                    .map_err(|_| usage(format!("{name} must be a port")))
            })
            .transpose()
    };
    let any = |port: u16| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let concurrency = arguments
        .concurrency
        .or_else(|| number("concurrency").map(|count| count as usize));
    let address = config.get("discoveryAddress");
    let address = address.and_then(serde_json::Value::as_str);
    let discovery = settings::target(address.unwrap_or(DISCOVERY_ADDRESS))?;
    let secure_discovery = settings::discovery(&environment, &config, &discovery);
    let secure = secure_discovery.is_some();
    let certificates = settings::certificates(&environment, &discovery, secure, namespace)?;
    let status = port(number("statusPort"), 15020)?;
    let prometheus = from_environment("ENVOY_PROMETHEUS_PORT")?.unwrap_or(15090);
    // As in Istio, a gateway's port is open to others: they learn nothing of what is beside it.
    let scrape = if arguments.role == "sidecar" {
        settings::scrape(&environment, &[status, prometheus])?
    } else {
        None
    };
    Ok(ProxyConfig {
        node: Node {
            id: format!("{}~{node_ip}~{name}.{namespace}~{domain}", arguments.role),
            cluster: variable("ISTIO_META_WORKLOAD_NAME").map_or_else(
                || format!("istio-proxy.{namespace}"),
                |app| format!("{app}.{namespace}"),
            ),
            metadata: Some(Struct {
                fields: metadata.into_iter().collect(),
            }),
            user_agent_name: "lateen".to_owned(),
            user_agent_version_type: Some(node::UserAgentVersionType::UserAgentVersion(
                env!("CARGO_PKG_VERSION").to_owned(),
            )),
            extensions: extensions(),
            ..Node::default()
        },
        discovery,
        secure_discovery,
        certificates,
        probes: settings::probes(&environment, node_ip)?,
        scrape,
        drain: settings::drain(&environment, &config)?,
        admin: SocketAddr::from((Ipv4Addr::LOCALHOST, port(number("proxyAdminPort"), 15000)?)),
        health: vec![any(from_environment("ENVOY_STATUS_PORT")?.unwrap_or(15021))],
        metrics: vec![any(prometheus)],
        status: vec![any(status)],
        // As in Istio: two unless configured, zero means one per core.
        concurrency: match concurrency {
            Some(0) => cores,
            Some(count) => count,
            None => cores.min(2),
        },
        node_ip: Some(node_ip),
        mark_sockets: arguments.role == "sidecar",
    })
}

/// The arguments.
struct Arguments {
    role: String,
    domain: Option<String>,
    concurrency: Option<usize>,
}

impl Arguments {
    fn parse(arguments: &[String]) -> Result<Self, CommandError> {
        let mut words = arguments.iter();
        let role = words.next().map_or("", String::as_str);
        if !matches!(role, "sidecar" | "router") {
            return Err(usage(format!(
                "expected `proxy sidecar` or `proxy router`, not `{role}`"
            )));
        }
        let mut parsed = Self {
            role: role.to_owned(),
            domain: None,
            concurrency: None,
        };
        while let Some(word) = words.next() {
            let (flag, inline) = match word.split_once('=') {
                Some((flag, value)) => (flag, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            let mut value = || {
                inline
                    .clone()
                    .or_else(|| words.next().cloned())
                    .ok_or_else(|| usage(format!("flag `{flag}` needs a value")))
            };
            match flag {
                "--domain" => parsed.domain = Some(value()?),
                "--concurrency" => {
                    let count = value()?;
                    let count = count.parse();
                    parsed.concurrency = Some(
                        count.map_err(|_| usage("--concurrency must be a number".to_owned()))?,
                    );
                }
                _ if IGNORED_SWITCHES.contains(&flag) => {}
                _ if IGNORED_FLAGS.contains(&flag) => {
                    value()?;
                }
                _ => return Err(usage(format!("unknown argument `{word}` of proxy {role}"))),
            }
        }
        Ok(parsed)
    }
}

/// The node's metadata from the environment.
fn metadata(
    environment: &BTreeMap<String, String>,
    namespace: &str,
    name: &str,
    addresses: &str,
    labels: &str,
) -> BTreeMap<String, Value> {
    let mut metadata = BTreeMap::new();
    for (key, value) in environment {
        if let Some(key) = key.strip_prefix("ISTIO_META_") {
            metadata.insert(key.to_owned(), string(value));
        } else if key.starts_with("ISTIO_METAJSON_")
            && let Ok(serde_json::Value::Object(fields)) = serde_json::from_str(value)
        {
            metadata.extend(
                fields
                    .iter()
                    .map(|(key, value)| (key.clone(), from_json(value))),
            );
        }
    }
    let mut labels: BTreeMap<String, Value> = labels
        .lines()
        .filter_map(|line| {
            let (key, value) = line.split_once('=')?;
            Some((key.to_owned(), string(value.trim_matches('"'))))
        })
        .collect();
    if let Some(Value {
        kind: Some(Kind::StructValue(given)),
    }) = metadata.remove("LABELS")
    {
        labels.extend(given.fields);
    }
    let structure = Kind::StructValue(Struct {
        fields: labels.into_iter().collect(),
    });
    metadata.insert(
        "LABELS".to_owned(),
        Value {
            kind: Some(structure),
        },
    );
    metadata.insert("NAMESPACE".to_owned(), string(namespace));
    metadata.insert("NAME".to_owned(), string(name));
    metadata.insert("INSTANCE_IPS".to_owned(), string(addresses));
    for (variable, key) in [
        ("SERVICE_ACCOUNT", "SERVICE_ACCOUNT"),
        ("TRUST_DOMAIN", "TRUST_DOMAIN"),
    ] {
        if let Some(value) = environment.get(variable) {
            metadata
                .entry(key.to_owned())
                .or_insert_with(|| string(value));
        }
    }
    metadata
}

fn extensions() -> Vec<Extension> {
    EXTENSIONS
        .iter()
        .map(|(category, name, message)| Extension {
            name: (*name).to_owned(),
            category: (*category).to_owned(),
            type_urls: vec![(*message).to_owned()],
            ..Extension::default()
        })
        .collect()
}

fn string(text: &str) -> Value {
    Value {
        kind: Some(Kind::StringValue(text.to_owned())),
    }
}

fn from_json(value: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(*value),
        Json::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or(0.0)),
        Json::String(value) => Kind::StringValue(value.clone()),
        Json::Array(values) => Kind::ListValue(ListValue {
            values: values.iter().map(from_json).collect(),
        }),
        Json::Object(fields) => Kind::StructValue(Struct {
            fields: fields
                .iter()
                .map(|(key, value)| (key.clone(), from_json(value)))
                .collect(),
        }),
    };
    Value { kind: Some(kind) }
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
