//! Passwords and authorities of the stores that sticky sessions are shared in.
//!
//! They are shown to proxies that have proved an identity and see a service that the policy is for: whoever writes the
//! policy shares the Secret with the proxies that keep its sessions.

use std::sync::Arc;

use lateen_mesh::index::{StoreSecret, parse_store_secret};
use lateen_xds::pb::envoy::extensions::transport_sockets::tls::v3 as pb;
use lateen_xds::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use lateen_xds::{Names, Resource, ResourceType};

use super::GatewaySecrets;
use super::secrets::{bytes, inline, resource};
use crate::engine::World;
use crate::session::Connection;

/// Those of the named secrets that are of stores, and that the proxy may see.
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
    let found = names.iter().filter_map(|name| {
        let (policy, wanted) = parse_store_secret(name)?;
        let index = world.index.read();
        let (secret, entry) = index.store_secret(&connection.proxy, &policy, wanted)?;
        let known = secrets.of_namespace(world, &policy.namespace).get(secret)?;
        let content = bytes(&known, entry).map(inline)?;
        let content = match wanted {
            StoreSecret::Password => Type::GenericSecret(pb::GenericSecret {
                secret: Some(content),
                ..pb::GenericSecret::default()
            }),
            StoreSecret::Authorities => Type::ValidationContext(pb::CertificateValidationContext {
                trusted_ca: Some(content),
                ..pb::CertificateValidationContext::default()
            }),
        };
        Some(resource(name, &known, content))
    });
    found.collect()
}

/// Marks what a connection has of a namespace's stores, after a Secret there changed.
pub(super) fn mark(connection: &Connection, namespace: &str) {
    let types = connection.types.lock();
    let status = types.get(&ResourceType::Secret);
    let Some(Names::Only(subscribed)) = status.map(|status| &status.subscribed) else {
        return;
    };
    let concerned = subscribed.iter().filter(|name| {
        parse_store_secret(name).is_some_and(|(policy, _)| policy.namespace == namespace)
    });
    let names: Names = concerned.cloned().collect();
    if !names.is_empty() {
        connection.changes.mark(ResourceType::Secret, names);
    }
}
