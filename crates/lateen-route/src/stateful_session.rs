//! Sessions that name their endpoint: the client sends back, in a cookie or a header, where its first request went.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, header};
use lateen_xds::pb::envoy::config::core::v3::TypedExtensionConfig;
use lateen_xds::pb::envoy::extensions::filters::http::stateful_session::v3 as pb;
use lateen_xds::pb::envoy::extensions::http::stateful_session::cookie::v3::CookieBasedSessionState;
use lateen_xds::pb::envoy::extensions::http::stateful_session::header::v3::HeaderBasedSessionState;
use lateen_xds::pb::google::protobuf::Any;
use prost::Message;

use crate::compile::duration;
use crate::cookie::CookieTemplate;
use crate::{Invalid, RequestView, Within, refuse_rest};

/// Envoy finds the kinds by these names.
const COOKIE: &str = "envoy.http.stateful_session.cookie";
const HEADER: &str = "envoy.http.stateful_session.header";

/// How sessions are kept.
#[derive(Debug, Clone)]
pub struct Session {
    carrier: Carrier,
    /// Without its endpoint a session gets no other one.
    pub strict: bool,
    /// Status when a strict session has lost its endpoint.
    pub lost: http::StatusCode,
}

#[derive(Debug, Clone)]
enum Carrier {
    Cookie(CookieTemplate),
    Header(HeaderName),
}

/// The content of a cookie: Envoy's message of the same name.
#[derive(Clone, PartialEq, prost::Message)]
struct Cookie {
    /// `ip:port` of the endpoint.
    #[prost(string, tag = "1")]
    address: String,
    /// When it ends, in seconds since 1970; 0: with the client's session.
    #[prost(uint64, tag = "2")]
    expires: u64,
}

impl Session {
    /// Compiles the protobuf form; nothing when it describes no session.
    pub fn compile(mut message: pb::StatefulSession) -> Result<Option<Self>, Invalid> {
        // Names statistics only.
        message.stat_prefix.clear();
        let strict = std::mem::take(&mut message.strict);
        let lost = match std::mem::take(&mut message.status_on_strict_destination_not_found) {
            0 => http::StatusCode::SERVICE_UNAVAILABLE,
            code => u16::try_from(code)
                .ok()
                .filter(|code| (200..600).contains(code))
                .and_then(|code| http::StatusCode::from_u16(code).ok())
                .ok_or_else(|| {
                    let reason = "must be 200 to 599";
                    Invalid::new("status_on_strict_destination_not_found", reason)
                })?,
        };
        let state = message.session_state.take();
        refuse_rest(&message)?;
        let Some(state) = state else { return Ok(None) };
        let carrier = Carrier::compile(state).within("session_state")?;
        Ok(Some(Self {
            carrier,
            strict,
            lost,
        }))
    }

    /// Whether sessions are kept for a request: those of a cookie only below its path.
    pub fn applies(&self, request: &RequestView<'_>) -> bool {
        let Carrier::Cookie(cookie) = &self.carrier else {
            return true;
        };
        let base = cookie.path.as_str();
        base.is_empty()
            || request
                .path_only()
                .strip_prefix(base)
                .is_some_and(|rest| base.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
    }

    /// The endpoint that a request asks for. `now` is in seconds since 1970.
    pub fn endpoint(&self, request: &RequestView<'_>, now: u64) -> Option<SocketAddr> {
        let text = match &self.carrier {
            Carrier::Cookie(cookie) => request.cookie(&cookie.name)?,
            Carrier::Header(name) => request.headers.get(name)?.to_str().ok()?,
        };
        let bytes = STANDARD.decode(text).ok()?;
        match &self.carrier {
            Carrier::Header(_) => std::str::from_utf8(&bytes).ok()?.parse().ok(),
            Carrier::Cookie(_) => match Cookie::decode(bytes.as_slice()) {
                Ok(cookie) if cookie.expires != 0 && cookie.expires < now => None,
                Ok(cookie) => cookie.address.parse().ok(),
                // What earlier versions of Envoy wrote.
                Err(_) => std::str::from_utf8(&bytes).ok()?.parse().ok(),
            },
        }
    }

    /// The header of a response that tells the client its endpoint.
    pub fn announce(&self, endpoint: SocketAddr, now: u64) -> Option<(HeaderName, HeaderValue)> {
        let address = endpoint.to_string();
        let (name, value) = match &self.carrier {
            Carrier::Header(name) => (name.clone(), STANDARD.encode(address)),
            Carrier::Cookie(cookie) => {
                let ttl = cookie.ttl.map_or(0, |ttl| ttl.as_secs());
                let expires = if ttl == 0 { 0 } else { now.saturating_add(ttl) };
                let content = Cookie { address, expires }.encode_to_vec();
                (header::SET_COOKIE, cookie.set(&STANDARD.encode(content)))
            }
        };
        HeaderValue::try_from(value).ok().map(|value| (name, value))
    }

    /// Whether an announcement replaces an earlier header of the same name.
    pub fn replaces(&self) -> bool {
        matches!(self.carrier, Carrier::Header(_))
    }
}

impl Carrier {
    fn compile(state: TypedExtensionConfig) -> Result<Self, Invalid> {
        let any = state
            .typed_config
            .ok_or_else(|| Invalid::new("typed_config", "is required"))?;
        match state.name.as_str() {
            COOKIE => Self::cookie(&any).within("typed_config"),
            HEADER => Self::header(&any).within("typed_config"),
            _ => Err(Invalid::new(
                "name",
                format!("must be `{COOKIE}` or `{HEADER}`"),
            )),
        }
    }

    fn cookie(any: &Any) -> Result<Self, Invalid> {
        let mut state: CookieBasedSessionState = decode(any)?;
        let mut cookie = state
            .cookie
            .take()
            .ok_or_else(|| Invalid::new("cookie", "is required"))?;
        let template = CookieTemplate {
            name: std::mem::take(&mut cookie.name),
            ttl: cookie
                .ttl
                .take()
                .map(duration)
                .transpose()
                .within("cookie.ttl")?,
            path: std::mem::take(&mut cookie.path),
            attributes: std::mem::take(&mut cookie.attributes)
                .into_iter()
                .map(|attribute| (attribute.name, attribute.value))
                .collect(),
        };
        refuse_rest(&cookie).within("cookie")?;
        refuse_rest(&state)?;
        if template.name.is_empty() {
            return Err(Invalid::new("cookie.name", "must not be empty"));
        }
        Ok(Self::Cookie(template))
    }

    fn header(any: &Any) -> Result<Self, Invalid> {
        let mut state: HeaderBasedSessionState = decode(any)?;
        let name = std::mem::take(&mut state.name);
        refuse_rest(&state)?;
        HeaderName::try_from(&name)
            .map(Self::Header)
            .map_err(|_| Invalid::new("name", format!("`{name}` is not a valid header name")))
    }
}

/// Decodes an extension whose type must be `M`.
fn decode<M: Message + Default + prost::Name>(any: &Any) -> Result<M, Invalid> {
    if any.type_url != M::type_url()
        && any.type_url != format!("type.googleapis.com/{}", M::full_name())
    {
        let reason = format!("`{}` is not `{}`", any.type_url, M::full_name());
        return Err(Invalid::new("", reason));
    }
    M::decode(any.value.as_slice())
        .map_err(|error| Invalid::new("", format!("`{}` cannot be decoded: {error}", any.type_url)))
}
