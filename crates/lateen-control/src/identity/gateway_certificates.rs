//! Certificates that listeners of the Gateway API name.
//!
//! They are shown to gateways that have proved an identity and serve such a listener: whoever writes the Gateway shares
//! the Secret with its proxies. One of another namespace needs a ReferenceGrant; without it the listener is not served.

use std::sync::Arc;

use lateen_mesh::index::parse_certificate_name;
use lateen_xds::{Names, Resource, ResourceType};

use super::GatewaySecrets;
use crate::engine::World;
use crate::session::Connection;

/// Those of the named secrets that listeners name, and that the proxy may see.
pub(crate) fn resources(
    secrets: &GatewaySecrets,
    world: &Arc<World>,
    connection: &Connection,
    names: &Names,
) -> Vec<Resource> {
    let Names::Only(names) = names else {
        return Vec::new();
    };
    if connection.identity.is_none() {
        return Vec::new();
    }
    let index = world.index.read();
    let found = names.iter().filter_map(|name| {
        let key = parse_certificate_name(name)?;
        if !index.may_have_certificate(&connection.proxy, name) {
            return None;
        }
        let known = secrets.of_namespace(world, &key.namespace);
        known.named(name, &key.name)
    });
    found.collect()
}

/// The names of those that a connection asked for and that are of a namespace, after a Secret there changed.
pub(super) fn mark(connection: &Connection, namespace: &str) {
    let types = connection.types.lock();
    let status = types.get(&ResourceType::Secret);
    let Some(Names::Only(subscribed)) = status.map(|status| &status.subscribed) else {
        return;
    };
    let concerned = subscribed
        .iter()
        .filter(|name| parse_certificate_name(name).is_some_and(|key| key.namespace == namespace));
    let names: Names = concerned.cloned().collect();
    if !names.is_empty() {
        connection.changes.mark(ResourceType::Secret, names);
    }
}
