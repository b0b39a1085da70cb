//! The node that the control plane goes by: who the proxy is, what it knows of its pod, and what it understands.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lateen_xds::pb::envoy::config::core::v3::Node;
use lateen_xds::pb::envoy::config::core::v3::node::UserAgentVersionType;
use lateen_xds::pb::google::protobuf::{ListValue, Struct, Value, value::Kind};

use super::arguments::Arguments;
use super::extensions::extensions;
use super::{CommandError, usage};
use crate::agent::settings::Environment;

/// The pod that the proxy is in, as the environment describes it.
pub(super) struct Pod<'e> {
    pub(super) name: &'e str,
    pub(super) namespace: &'e str,
    /// All addresses, separated by commas.
    addresses: &'e str,
    /// The first of them.
    pub(super) ip: IpAddr,
}

impl<'e> Pod<'e> {
    pub(super) fn of(environment: &'e Environment) -> Result<Self, CommandError> {
        let addresses = environment.get("INSTANCE_IP").unwrap_or("127.0.0.1");
        let first = addresses.split(',').next().unwrap_or_default();
        let name = environment.get("POD_NAME");
        Ok(Self {
            name: name
                .or_else(|| environment.get("HOSTNAME"))
                .unwrap_or("proxy"),
            namespace: environment.get("POD_NAMESPACE").unwrap_or("default"),
            addresses,
            ip: first
                .parse()
                .map_err(|_| usage(format!("INSTANCE_IP `{addresses}` is not an address")))?,
        })
    }
}

/// The node of a proxy. `labels` is the content of the downward API's file.
pub(super) fn node(
    arguments: &Arguments,
    pod: &Pod<'_>,
    environment: &Environment,
    config: &serde_json::Value,
    labels: &str,
) -> Node {
    let Pod {
        name,
        namespace,
        ip,
        ..
    } = pod;
    let role = &arguments.role;
    let domain = arguments.domain.clone();
    let domain = domain.unwrap_or_else(|| format!("{namespace}.svc.cluster.local"));
    let workload = environment.get("ISTIO_META_WORKLOAD_NAME");
    let mut metadata = metadata(environment.all(), pod, labels);
    metadata
        .entry("PROXY_CONFIG".to_owned())
        .or_insert_with(|| from_json(config));
    Node {
        id: format!("{role}~{ip}~{name}.{namespace}~{domain}"),
        cluster: format!("{}.{namespace}", workload.unwrap_or("istio-proxy")),
        metadata: Some(Struct {
            fields: metadata.into_iter().collect(),
        }),
        user_agent_name: "lateen".to_owned(),
        user_agent_version_type: Some(UserAgentVersionType::UserAgentVersion(
            env!("CARGO_PKG_VERSION").to_owned(),
        )),
        extensions: extensions(),
        ..Node::default()
    }
}

/// The node's metadata from the environment.
fn metadata(
    environment: &BTreeMap<String, String>,
    pod: &Pod<'_>,
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
    metadata.insert("NAMESPACE".to_owned(), string(pod.namespace));
    metadata.insert("NAME".to_owned(), string(pod.name));
    metadata.insert("INSTANCE_IPS".to_owned(), string(pod.addresses));
    for name in ["SERVICE_ACCOUNT", "TRUST_DOMAIN"] {
        if let Some(value) = environment.get(name) {
            metadata
                .entry(name.to_owned())
                .or_insert_with(|| string(value));
        }
    }
    metadata
}

pub(super) fn string(text: &str) -> Value {
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
