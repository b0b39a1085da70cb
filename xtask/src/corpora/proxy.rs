//! The proxy that a case describes.

use anyhow::{Context, Result};
use lateen_mesh::Proxy;
use lateen_xds::pb::{
    envoy::config::core::v3::Node,
    google::protobuf::{Struct, Value as Field, value::Kind},
};
use serde_json::Value;

/// The proxy of a case.
pub(super) fn proxy_of(description: &Value) -> Result<Proxy> {
    let text =
        |field: &str, default: &str| description[field].as_str().unwrap_or(default).to_owned();
    let (kind, namespace) = (text("type", "sidecar"), text("namespace", "default"));
    let string = |text: &str| Field {
        kind: Some(Kind::StringValue(text.to_owned())),
    };
    let labels = description["labels"].as_object().into_iter().flatten();
    let labels =
        labels.map(|(key, value)| (key.clone(), string(value.as_str().unwrap_or_default())));
    let labels = Field {
        kind: Some(Kind::StructValue(Struct {
            fields: labels.collect(),
        })),
    };
    let metadata = [
        ("NAMESPACE".to_owned(), string(&namespace)),
        ("LABELS".to_owned(), labels),
    ];
    let node = Node {
        id: format!(
            "{kind}~{}~app.{namespace}~{namespace}.svc.cluster.local",
            text("ip", "1.1.1.1")
        ),
        metadata: Some(Struct {
            fields: metadata.into(),
        }),
        ..Node::default()
    };
    Proxy::from_node(&node).context("the case's proxy")
}
