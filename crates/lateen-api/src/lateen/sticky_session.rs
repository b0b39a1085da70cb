//! `StickySession`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TargetReference;
use crate::{Duration, Kind, validation::names};

/// Port of a Redis server whose URL names none.
const REDIS_PORT: u16 = 6379;

/// Keeps each key on its endpoint while requests come within the idle timeout.
///
/// The first request of a key goes where ring hash says. Every request renews. A live key keeps its endpoint while
/// others come and go, moves only when its own endpoint is gone or fails, and is free again after the idle time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["targetRefs", "key", "idleTimeout"]))]
pub struct StickySessionSpec {
    /// Services of the own namespace, at least one. `sectionName` limits the session to a subset of the Service.
    pub target_refs: Vec<TargetReference>,
    /// What tells clients apart.
    pub key: SessionKey,
    /// Time without a request after which a key is free again: 1 s to 30 days.
    pub idle_timeout: Duration,
    /// Where the sessions are kept; in the memory of each proxy when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<SessionStore>,
}

/// What tells clients apart: exactly one field. A request without it is not part of a session and is balanced as
/// the DestinationRule says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("oneOf" = crate::crd::rules::at_most_one(&["header", "cookie", "query", "sourceIp"])))]
pub struct SessionKey {
    /// Value of a request header. Several lines of it count as one list, joined by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Value of a cookie that the application sets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// Value of a query parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The client's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_ip: Option<bool>,
}

/// Where sessions are kept: exactly one field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("oneOf" = crate::crd::rules::at_most_one(&["memory", "redis"])))]
pub struct SessionStore {
    /// In the memory of each proxy, shared by its workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryStore>,
    /// In a Redis server, shared by all proxies: several gateway replicas agree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisStore>,
}

/// Sessions in the memory of the proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MemoryStore {
    /// Most sessions that are kept, 1 to 16,777,216; 1,048,576 when unset. Beyond it the one that was idle longest goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_entries: Option<u32>,
}

/// Sessions in a Redis server. When it is away, requests go on by ring hash.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["url"]))]
pub struct RedisStore {
    /// `redis://HOST[:PORT][/DATABASE]`; port 6379 and database 0 when left out. No user or password in it.
    pub url: String,
    /// Speak TLS to the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<RedisTls>,
    /// Secret with the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<SecretKeyReference>,
}

/// TLS to a Redis server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["caSecretRef"]))]
pub struct RedisTls {
    /// Secret with the certificates of the authorities that sign the server's, in PEM form (key `ca.crt`).
    pub ca_secret_ref: SecretKeyReference,
    /// Name that the server's certificate must have; the host of the URL when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

/// An entry of a Secret in the own namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct SecretKeyReference {
    /// Name of the Secret.
    pub name: String,
    /// Entry of the Secret: `password` or `ca.crt` when unset, by what is referred to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl SecretKeyReference {
    /// Name of the Secret and its entry, which is `usual` when unset.
    fn place<'r>(&'r self, usual: &'r str) -> (&'r str, &'r str) {
        (&self.name, self.key.as_deref().unwrap_or(usual))
    }
}

impl RedisStore {
    /// Where the password is: name of the Secret and its entry.
    pub fn password(&self) -> Option<(&str, &str)> {
        Some(self.password_secret_ref.as_ref()?.place("password"))
    }

    /// Host, port and database of the URL; nothing when it is malformed.
    pub fn address(&self) -> Option<(&str, u16, u16)> {
        let rest = self.url.strip_prefix("redis://")?;
        let (server, database) = match rest.split_once('/') {
            Some((server, "")) => (server, 0),
            Some((server, number)) => (server, number.parse().ok()?),
            None => (rest, 0),
        };
        let (host, port) = match server.rsplit_once(':') {
            // The colons of an address without a port are inside of its brackets.
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (server, REDIS_PORT),
        };
        let bracketed = host.strip_prefix('[').map(|host| host.strip_suffix(']'));
        let host = bracketed.unwrap_or(Some(host))?;
        let is_known = names::is_host(host) || names::is_address(host);
        (is_known && port != 0).then_some((host, port, database))
    }
}

impl RedisTls {
    /// Where the authorities are: name of the Secret and its entry.
    pub fn authorities(&self) -> (&str, &str) {
        self.ca_secret_ref.place("ca.crt")
    }
}

impl Kind for StickySessionSpec {
    const GROUP: &'static str = super::GROUP;
    const KIND: &'static str = "StickySession";
    const PLURAL: &'static str = "stickysessions";
    const VERSIONS: &'static [&'static str] = super::VERSIONS;
}
