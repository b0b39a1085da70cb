//! Sticky sessions as an option of clusters.
//!
//! `typed_extension_protocol_options["lateen.sticky_session"]` is a `TypedStruct` of the type [`TYPE`]: `key` with one of
//! `header`, `cookie`, `query` (names) and `source_ip` (true); `idle_timeout`, a duration in seconds (`60s`);
//! `max_entries`; and `redis`, the server that shares the sessions: `host`, `port`, `database`, `password_secret`, and
//! `tls` with `ca_secret` and `server_name`. Its secrets have the names of [`store_secret`](crate::index::store_secret).

use std::collections::HashMap;

use lateen_api::lateen::{RedisStore, SessionKey};
use lateen_xds::pb::envoy::config::cluster::v3::Cluster;
use lateen_xds::pb::google::protobuf::value::Kind;
use lateen_xds::pb::google::protobuf::{Any, Struct, Value};

use super::build::{boolean, fields, text};
use super::telemetry::{structure, typed_struct};
use crate::index::{Service, StoreSecret, store_secret};
use crate::{Index, Key, Proxy};

/// The extension that proxies list when they keep sessions.
pub(super) const EXTENSION: &str = "lateen.sticky_session";

/// Type of the options.
const TYPE: &str = "type.googleapis.com/lateen.sticky_session.v1.StickySession";

/// Sessions that a proxy keeps when the policy says nothing.
const MAX_ENTRIES: u32 = 1 << 20;

/// Adds the policy of a service or subset to its cluster, for proxies that keep sessions.
pub(super) fn apply(
    index: &Index,
    proxy: &Proxy,
    service: &Service,
    subset: &str,
    cluster: &mut Cluster,
) {
    if !proxy.has(EXTENSION) {
        return;
    }
    let Some(session) = index.sticky_session(service, subset) else {
        return;
    };
    let spec = &session.spec;
    let store = spec.store.as_ref();
    let most = store.and_then(|store| store.memory.as_ref()?.max_entries);
    let mut options = fields([
        ("key", structure(key(&spec.key))),
        ("idle_timeout", text(spec.idle_timeout.to_string())),
        ("max_entries", count(most.unwrap_or(MAX_ENTRIES))),
    ]);
    if let Some(server) = store.and_then(|store| store.redis.as_ref()) {
        let policy = Key::of(session);
        let server = redis(server, &policy);
        options
            .fields
            .extend(server.map(|server| ("redis".to_owned(), structure(server))));
    }
    let options: HashMap<String, Any> =
        HashMap::from([(EXTENSION.to_owned(), typed_struct(TYPE, options))]);
    cluster.typed_extension_protocol_options.extend(options);
}

/// The server of a policy; nothing when its URL is malformed, which validation refuses.
fn redis(server: &RedisStore, policy: &Key) -> Option<Struct> {
    let (host, port, database) = server.address()?;
    let mut all = fields([
        ("host", text(host)),
        ("port", count(port.into())),
        ("database", count(database.into())),
    ]);
    if server.password_secret_ref.is_some() {
        let secret = text(store_secret(policy, StoreSecret::Password));
        all.fields.insert("password_secret".to_owned(), secret);
    }
    if let Some(tls) = &server.tls {
        let name = tls.server_name.as_deref().unwrap_or(host);
        let tls = fields([
            (
                "ca_secret",
                text(store_secret(policy, StoreSecret::Authorities)),
            ),
            ("server_name", text(name)),
        ]);
        all.fields.insert("tls".to_owned(), structure(tls));
    }
    Some(all)
}

fn key(key: &SessionKey) -> Struct {
    let named = [
        ("header", &key.header),
        ("cookie", &key.cookie),
        ("query", &key.query),
    ];
    let name = named
        .into_iter()
        .find_map(|(kind, name)| Some((kind, text(name.clone()?))));
    fields([name.unwrap_or_else(|| ("source_ip", boolean(true)))])
}

fn count(number: u32) -> Value {
    Value {
        kind: Some(Kind::NumberValue(number.into())),
    }
}
