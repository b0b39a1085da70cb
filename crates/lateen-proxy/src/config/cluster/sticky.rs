//! The option by which a cluster keeps sessions: a struct with `key` (one of `header`, `cookie`, `query` and
//! `source_ip`), `idle_timeout` (`60s`), `max_entries`, and `redis`: the server that shares them, by `host`, `port`,
//! `database`, `password_secret` and `tls` (`ca_secret`, `server_name`). Secrets are names on the discovery stream.

use std::net::Ipv6Addr;
use std::time::Duration;

use http::HeaderName;
use lateen_route::session::SessionKey;
use lateen_route::{Invalid, Within};
use lateen_xds::pb::google::protobuf::value::Kind;
use lateen_xds::pb::google::protobuf::{Any, Struct, Value};

use crate::config::context::Context;
use crate::config::telemetry::struct_of;
use crate::config::tls;
use crate::secret::Origin;
use crate::sticky::{StickySettings, StoreSettings};

/// Name of the option, and of the extension that the node lists.
pub(crate) const NAME: &str = "lateen.sticky_session";

const TYPE: &str = "type.googleapis.com/lateen.sticky_session.v1.StickySession";

/// Most sessions that a table is made for.
const MOST: f64 = 16_777_216.0;

/// Compiles the option.
pub(super) fn compile(any: &Any, context: &Context<'_>) -> Result<StickySettings, Invalid> {
    let value = struct_of(any, TYPE)?;
    let (mut session_key, mut idle_timeout, mut most, mut store) = (None, None, 1 << 20, None);
    for (name, value) in value.fields {
        match (name.as_str(), value.kind) {
            ("key", Some(Kind::StructValue(value))) => {
                session_key = Some(key(value).within("key")?);
            }
            ("idle_timeout", Some(Kind::StringValue(text))) => {
                idle_timeout = Some(seconds(&text).ok_or_else(|| {
                    Invalid::new("idle_timeout", format!("`{text}` is not a time above zero"))
                })?);
            }
            ("max_entries", Some(Kind::NumberValue(number)))
                if (1.0..=MOST).contains(&number) && number.fract() == 0.0 =>
            {
                most = number as u32;
            }
            ("redis", Some(Kind::StructValue(value))) => {
                store = Some(redis(value, context).within("redis")?);
            }
            _ => return Err(Invalid::unsupported(name)),
        }
    }
    Ok(StickySettings {
        key: session_key.ok_or_else(|| Invalid::new("key", "is required"))?,
        idle_timeout: idle_timeout.ok_or_else(|| Invalid::new("idle_timeout", "is required"))?,
        most,
        store,
    })
}

/// The server that shares the sessions.
fn redis(value: Struct, context: &Context<'_>) -> Result<StoreSettings, Invalid> {
    let (mut host, mut port, mut database, mut password, mut trust) = (None, None, 0, None, None);
    let small = |number: f64| {
        let whole = number.fract() == 0.0 && (0.0..=f64::from(u16::MAX)).contains(&number);
        whole.then_some(number as u16)
    };
    for (name, value) in value.fields {
        match (name.as_str(), value.kind) {
            ("host", Some(Kind::StringValue(text))) if !text.is_empty() => host = Some(text),
            ("port", Some(Kind::NumberValue(number))) if small(number).is_some_and(|p| p > 0) => {
                port = small(number);
            }
            ("database", Some(Kind::NumberValue(number))) if small(number).is_some() => {
                database = small(number).unwrap_or_default();
            }
            ("password_secret", Some(Kind::StringValue(secret))) if !secret.is_empty() => {
                password = Some(context.secrets().slot(Origin::Discovery, &secret, None));
            }
            ("tls", Some(Kind::StructValue(value))) => trust = Some(value),
            _ => return Err(Invalid::unsupported(name)),
        }
    }
    let host = host.ok_or_else(|| Invalid::new("host", "is required"))?;
    let port = port.ok_or_else(|| Invalid::new("port", "is required"))?;
    let server = match host.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]:{port}"),
        Err(_) => format!("{host}:{port}"),
    };
    let (encrypted, tls) = match trust {
        None => (String::new(), None),
        Some(trust) => {
            let (name, authorities) = encryption(trust, &host).within("tls")?;
            let tls = tls::to_server(&name, &authorities, context).within("tls")?;
            (format!("{name} {authorities}"), Some(tls))
        }
    };
    let secret = password.as_ref().map_or("", |slot| slot.name.as_str());
    Ok(StoreSettings {
        identity: format!("{server} {database} {secret} {encrypted}"),
        server,
        host,
        port,
        database,
        password,
        tls,
    })
}

/// The name that the server's certificate must be for, and the secret of its authorities.
fn encryption(value: Struct, host: &str) -> Result<(String, String), Invalid> {
    let (mut authorities, mut server_name) = (None, host.to_owned());
    for (name, value) in value.fields {
        match (name.as_str(), value.kind) {
            ("ca_secret", Some(Kind::StringValue(secret))) => authorities = Some(secret),
            ("server_name", Some(Kind::StringValue(text))) if !text.is_empty() => {
                server_name = text;
            }
            _ => return Err(Invalid::unsupported(name)),
        }
    }
    let authorities = authorities.ok_or_else(|| Invalid::new("ca_secret", "is required"))?;
    Ok((server_name, authorities))
}

fn key(value: Struct) -> Result<SessionKey, Invalid> {
    let mut fields = value.fields.into_iter();
    let (Some((kind, value)), None) = (fields.next(), fields.next()) else {
        return Err(Invalid::new("", "exactly one field is needed"));
    };
    match (kind.as_str(), value) {
        (
            "header",
            Value {
                kind: Some(Kind::StringValue(name)),
            },
        ) => HeaderName::try_from(&name)
            .map(SessionKey::Header)
            .map_err(|_| Invalid::new("header", format!("`{name}` is not a name of a header"))),
        (
            "cookie",
            Value {
                kind: Some(Kind::StringValue(name)),
            },
        ) => Ok(SessionKey::Cookie(name)),
        (
            "query",
            Value {
                kind: Some(Kind::StringValue(name)),
            },
        ) => Ok(SessionKey::Query(name)),
        (
            "source_ip",
            Value {
                kind: Some(Kind::BoolValue(true)),
            },
        ) => Ok(SessionKey::Source),
        _ => Err(Invalid::unsupported(kind)),
    }
}

/// A duration as JSON has it: seconds with a fraction.
fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.strip_suffix('s')?.parse().ok()?;
    let time = Duration::try_from_secs_f64(seconds).ok()?;
    Some(time).filter(|time| !time.is_zero())
}
