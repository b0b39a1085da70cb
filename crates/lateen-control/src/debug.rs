//! Readiness, metrics and the debug endpoints, in the forms of Istio's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use http::{Method, Request, StatusCode};
use lateen_xds::json::{FieldNames, from_any, from_message};
use lateen_xds::pb::envoy::service::status::v3::{
    ClientConfig, ConfigStatus, client_config::GenericXdsConfig,
};
use lateen_xds::pb::google::protobuf::{Any, Timestamp};
use lateen_xds::server::{Peer, Variant};
use lateen_xds::{Names, ResourceType};
use prost::{Message as _, Name as _};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::ISTIO_VERSION;
use crate::engine::World;
use crate::http_server::{self, Reply};
use crate::metrics::short_name;
use crate::session::{Connection, TypeStatus};

/// Answers a request of the monitoring and debug ports.
pub(crate) fn answer<B>(world: &World, request: &Request<B>) -> Reply {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return http_server::text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    match request.uri().path() {
        "/ready" | "/healthz/ready" if world.is_synced() => http_server::text(StatusCode::OK, ""),
        "/ready" | "/healthz/ready" => http_server::text(
            StatusCode::SERVICE_UNAVAILABLE,
            "objects are still being read\n",
        ),
        "/metrics" => {
            let connected = world.connections.lock().len();
            let text = world.metrics.text(connected);
            http_server::typed(StatusCode::OK, "text/plain; version=0.0.4", text)
        }
        "/version" => http_server::json(&version()),
        "/debug/syncz" => http_server::json(&each(world, sync_status)),
        "/debug/adsz" | "/debug/connections" => http_server::json(&clients(world)),
        "/debug/configz" => http_server::json(&configs(world)),
        "/debug/config_dump" => config_dump(world, request.uri().query().unwrap_or_default()),
        "/debug/mesh" => {
            let mesh = serde_json::to_value(world.index.read().mesh()).unwrap_or_default();
            http_server::json(&mesh)
        }
        "/debug" | "/debug/" | "/debug/list" => http_server::text(
            StatusCode::OK,
            "/debug/adsz\n/debug/config_dump?proxyID=POD.NAMESPACE\n/debug/configz\n/debug/connections\n/debug/mesh\n/debug/syncz\n",
        ),
        path => http_server::text(
            StatusCode::NOT_FOUND,
            format!("{path} is not served here\n"),
        ),
    }
}

/// Debug information asked for over the discovery protocol, as `istioctl` does.
pub(crate) fn over_discovery(world: &World, type_url: &str) -> Vec<Any> {
    if type_url != "istio.io/debug/syncz" {
        return Vec::new();
    }
    let connections: Vec<_> = world.connections.lock().values().cloned().collect();
    let configured = connections
        .iter()
        .filter(|connection| !connection.types.lock().is_empty());
    configured
        .map(|connection| client_config(connection))
        .map(|config| Any {
            type_url: ClientConfig::type_url(),
            value: config.encode_to_vec(),
        })
        .collect()
}

/// What the server calls itself, in Istio's form.
pub(crate) fn identifier() -> String {
    let id = std::env::var("POD_NAME").unwrap_or_else(|_| "lateen".to_owned());
    json!({"Component": "istiod", "ID": id, "Info": {"version": ISTIO_VERSION}}).to_string()
}

fn version() -> Value {
    json!({"version": ISTIO_VERSION, "implementation": "lateen", "release": env!("CARGO_PKG_VERSION")})
}

fn each(world: &World, form: fn(&Connection) -> Value) -> Value {
    let connections: Vec<Arc<Connection>> = world.connections.lock().values().cloned().collect();
    connections
        .iter()
        .map(|connection| form(connection))
        .collect()
}

fn sync_status(connection: &Connection) -> Value {
    let mut status = json!({
        "cluster_id": connection.proxy.cluster_id,
        "proxy": format!("{}.{}", connection.proxy.name, connection.proxy.namespace),
        "proxy_type": format!("{:?}", connection.proxy.kind).to_lowercase(),
        "istio_version": connection.proxy.istio_version,
    });
    for (kind, of_type) in &*connection.types.lock() {
        status[format!("{kind}_sent")] = of_type.nonce_sent.clone().into();
        status[format!("{kind}_acked")] = of_type.nonce_acked.clone().into();
        if !of_type.error.is_empty() {
            status[format!("{kind}_error")] = of_type.error.clone().into();
        }
    }
    status
}

fn clients(world: &World) -> Value {
    let clients = each(world, |connection| {
        let watches: BTreeMap<&str, Value> = connection
            .types
            .lock()
            .iter()
            .map(|(kind, status)| (kind.type_url(), names(&status.subscribed)))
            .collect();
        json!({
            "connectionId": format!("{}-{}", connection.proxy.id, connection.id),
            "connectedAt": OffsetDateTime::from(connection.since).format(&Rfc3339).unwrap_or_default(),
            "address": match connection.peer {
                Peer::Tcp(address) => address.to_string(),
                Peer::Unix => "unix".to_owned(),
            },
            "identity": connection.identity.as_ref().map(|identity| identity.id.to_string()),
            "delta": connection.variant == Variant::Delta,
            "labels": connection.proxy.labels,
            "node": from_message(&connection.node, FieldNames::Camel)
                .map(|mut node| {
                    // Some five hundred extensions of an Envoy tell a reader nothing.
                    if let Some(fields) = node.as_object_mut() {
                        fields.remove("extensions");
                    }
                    node
                })
                .unwrap_or_default(),
            "watches": watches,
        })
    });
    let total = clients.as_array().map_or(0, Vec::len);
    json!({"totalClients": total, "clients": clients})
}

fn names(names: &Names) -> Value {
    match names {
        Names::All => json!(["*"]),
        Names::Only(names) => json!(names),
    }
}

fn configs(world: &World) -> Value {
    let configs = world.configs.read();
    configs
        .values()
        .filter_map(|object| serde_json::to_value(object).ok())
        .collect()
}

/// What a connected proxy would be sent now, by type.
fn config_dump(world: &World, query: &str) -> Reply {
    let wanted = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("proxyID="));
    let Some(wanted) = wanted else {
        return http_server::text(
            StatusCode::BAD_REQUEST,
            "say which: ?proxyID=POD.NAMESPACE\n",
        );
    };
    let found = world
        .connections
        .lock()
        .values()
        .find(|connection| {
            format!("{}.{}", connection.proxy.name, connection.proxy.namespace) == wanted
        })
        .cloned();
    let Some(connection) = found else {
        let message = format!("no proxy {wanted} is connected\n");
        return http_server::text(StatusCode::NOT_FOUND, message);
    };
    let index = world.index.read();
    let mut dump = json!({});
    for kind in ResourceType::ALL {
        let subscribed = connection
            .types
            .lock()
            .get(&kind)
            .map(|status| status.subscribed.clone());
        let resources = subscribed
            .map(|names| lateen_mesh::resources(&index, &connection.proxy, kind, &names))
            .unwrap_or_default();
        let printed: Vec<Value> = resources
            .iter()
            .map(|resource| {
                from_any(&resource.body, FieldNames::Proto).unwrap_or_else(
                    |error| json!({"name": resource.name, "error": error.to_string()}),
                )
            })
            .collect();
        dump[short_name(kind)] = printed.into();
    }
    drop(index);
    http_server::json(&dump)
}

fn client_config(connection: &Connection) -> ClientConfig {
    let generic = |(kind, status): (&ResourceType, &TypeStatus)| GenericXdsConfig {
        type_url: kind.type_url().to_owned(),
        config_status: config_status(status).into(),
        last_updated: status.sent_at.and_then(timestamp),
        ..GenericXdsConfig::default()
    };
    ClientConfig {
        node: Some(connection.node.clone()),
        generic_xds_configs: connection.types.lock().iter().map(generic).collect(),
        ..ClientConfig::default()
    }
}

fn config_status(status: &TypeStatus) -> ConfigStatus {
    if status.nonce_sent.is_empty() {
        ConfigStatus::NotSent
    } else if !status.error.is_empty() {
        ConfigStatus::Error
    } else if status.nonce_sent == status.nonce_acked {
        ConfigStatus::Synced
    } else {
        ConfigStatus::Stale
    }
}

fn timestamp(at: SystemTime) -> Option<Timestamp> {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Timestamp {
        seconds: i64::try_from(since.as_secs()).ok()?,
        nanos: i32::try_from(since.subsec_nanos()).ok()?,
    })
}
