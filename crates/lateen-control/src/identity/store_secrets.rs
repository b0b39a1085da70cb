//! Passwords and authorities of the stores that sticky sessions are shared in.
//!
//! They are shown to proxies that have proved an identity and see a service that the policy is for: whoever writes the
//! policy shares the Secret with the proxies that keep its sessions.

use std::sync::Arc;

use lateen_mesh::index::{StoreSecret, parse_store_secret};
use lateen_xds::pb::envoy::extensions::transport_sockets::tls::v3 as pb;
use lateen_xds::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use lateen_xds::{Names, Resource};

use super::GatewaySecrets;
use super::secret_content::{bytes, inline, resource};
use crate::engine::World;
use crate::session::Connection;

/// Those of the named secrets that are of stores, and that the proxy may see.
pub(crate) fn resources(
    secrets: &GatewaySecrets,
    world: &Arc<World>,
    connection: &Connection,
    names: &Names,
) -> Vec<Resource> {
    let found = connection.asked_as_somebody(names).filter_map(|name| {
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

/// Whether a name is of a store whose policy is in a namespace.
pub(super) fn is_of(name: &str, namespace: &str) -> bool {
    parse_store_secret(name).is_some_and(|(policy, _)| policy.namespace == namespace)
}
