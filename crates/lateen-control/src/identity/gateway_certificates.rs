//! Certificates that listeners of the Gateway API name.
//!
//! They are shown to gateways that have proved an identity and serve such a listener: whoever writes the Gateway shares
//! the Secret with its proxies. One of another namespace needs a ReferenceGrant; without it the listener is not served.

use std::sync::Arc;

use lateen_mesh::index::parse_certificate_name;
use lateen_xds::{Names, Resource};

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
    let index = world.index.read();
    let found = connection.asked_as_somebody(names).filter_map(|name| {
        let key = parse_certificate_name(name)?;
        if !index.may_have_certificate(&connection.proxy, name) {
            return None;
        }
        let known = secrets.of_namespace(world, &key.namespace);
        known.named(name, &key.name)
    });
    found.collect()
}

/// Whether a name is of a certificate in a namespace.
pub(super) fn is_of(name: &str, namespace: &str) -> bool {
    parse_certificate_name(name).is_some_and(|key| key.namespace == namespace)
}
