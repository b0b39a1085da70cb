//! The option by which a cluster keeps sessions: a struct with `key` (one of `header`, `cookie`, `query` and
//! `source_ip`), `idle_timeout` (`60s`) and `max_entries`.

use std::time::Duration;

use http::HeaderName;
use lateen_route::session::SessionKey;
use lateen_route::{Invalid, Within};
use lateen_xds::pb::google::protobuf::value::Kind;
use lateen_xds::pb::google::protobuf::{Any, Struct, Value};

use crate::config::telemetry::struct_of;
use crate::sticky::StickySettings;

/// Name of the option, and of the extension that the node lists.
pub(crate) const NAME: &str = "lateen.sticky_session";

const TYPE: &str = "type.googleapis.com/lateen.sticky_session.v1.StickySession";

/// Most sessions that a table is made for.
const MOST: f64 = 16_777_216.0;

/// Compiles the option.
pub(super) fn compile(any: &Any) -> Result<StickySettings, Invalid> {
    let value = struct_of(any, TYPE)?;
    let (mut session_key, mut idle_timeout, mut most) = (None, None, 1 << 20);
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
            _ => return Err(Invalid::unsupported(name)),
        }
    }
    Ok(StickySettings {
        key: session_key.ok_or_else(|| Invalid::new("key", "is required"))?,
        idle_timeout: idle_timeout.ok_or_else(|| Invalid::new("idle_timeout", "is required"))?,
        most,
    })
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
