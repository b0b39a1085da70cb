//! Hash policies: which properties of a request make its consistent hash.

use http::HeaderName;
use lateen_xds::pb::envoy::config::route::v3::route_action as pb;
use lateen_xds::pb::envoy::config::route::v3::route_action::hash_policy::PolicySpecifier;
use twox_hash::XxHash64;

use crate::compile::duration;
use crate::constraint::header_name;
use crate::cookie::CookieTemplate;
use crate::rewrite::RegexRewrite;
use crate::{Invalid, RequestView, Within, refuse_rest};

/// xxHash64, the hash of every consistent choice.
pub fn xx64(bytes: &[u8], seed: u64) -> u64 {
    XxHash64::oneshot(seed, bytes)
}

/// MurmurHash2 in its 64-bit variant A with the seed that the C++ library uses.
pub fn murmur64(bytes: &[u8]) -> u64 {
    const SEED: u64 = 0xc70f_6907;
    const MULTIPLIER: u64 = 0xc6a4_a793_5bd1_e995;
    let mix = |word: u64| {
        let word = word.wrapping_mul(MULTIPLIER);
        (word ^ (word >> 47)).wrapping_mul(MULTIPLIER)
    };
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(MULTIPLIER);
    let mut words = bytes.chunks_exact(8);
    for word in words.by_ref() {
        let word = word
            .iter()
            .rev()
            .fold(0u64, |all, byte| all << 8 | u64::from(*byte));
        hash = (hash ^ mix(word)).wrapping_mul(MULTIPLIER);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let rest = rest
            .iter()
            .rev()
            .fold(0u64, |all, byte| all << 8 | u64::from(*byte));
        hash = (hash ^ rest).wrapping_mul(MULTIPLIER);
    }
    hash = (hash ^ (hash >> 47)).wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 47)
}

/// One property; several are combined in order.
#[derive(Debug, Clone)]
pub struct HashPolicy {
    source: Source,
    /// No further policy is looked at once there is a hash.
    terminal: bool,
}

#[derive(Debug, Clone)]
enum Source {
    Header(HashedHeader, Option<RegexRewrite>),
    /// A cookie; with a life time it is generated for those who have none.
    Cookie(CookieTemplate),
    PeerIp,
    Query(String),
}

#[derive(Debug, Clone)]
enum HashedHeader {
    /// `:method`, `:path`, `:authority`, `:scheme` or `host`.
    Pseudo(String),
    Field(HeaderName),
}

/// Where the request came from, for the policies that use it.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    /// Address of the client without port.
    pub remote_ip: &'a str,
    /// `ip:port` of the client.
    pub remote: &'a str,
    /// `ip:port` of the own end.
    pub local: &'a str,
}

impl HashPolicy {
    /// Compiles the protobuf form.
    pub fn compile(mut policy: pb::HashPolicy) -> Result<Self, Invalid> {
        let terminal = std::mem::take(&mut policy.terminal);
        let source = match policy.policy_specifier.take() {
            Some(PolicySpecifier::Header(mut header)) => {
                let name = std::mem::take(&mut header.header_name);
                let rewrite = header
                    .regex_rewrite
                    .take()
                    .map(RegexRewrite::compile)
                    .transpose()
                    .within("header.regex_rewrite")?;
                refuse_rest(&header).within("header")?;
                let lower = name.to_ascii_lowercase();
                let name = match lower.as_str() {
                    ":method" | ":path" | ":authority" | ":scheme" | "host" => {
                        HashedHeader::Pseudo(lower)
                    }
                    _ => HashedHeader::Field(header_name("header.header_name", &lower)?),
                };
                Source::Header(name, rewrite)
            }
            Some(PolicySpecifier::Cookie(mut cookie)) => {
                let name = std::mem::take(&mut cookie.name);
                let path = std::mem::take(&mut cookie.path);
                let ttl = cookie
                    .ttl
                    .take()
                    .map(duration)
                    .transpose()
                    .within("cookie.ttl")?;
                let attributes = std::mem::take(&mut cookie.attributes)
                    .into_iter()
                    .map(|attribute| (attribute.name, attribute.value))
                    .collect();
                refuse_rest(&cookie).within("cookie")?;
                if name.is_empty() {
                    return Err(Invalid::new("cookie.name", "must not be empty"));
                }
                Source::Cookie(CookieTemplate {
                    name,
                    ttl,
                    path,
                    attributes,
                })
            }
            Some(PolicySpecifier::ConnectionProperties(properties)) if properties.source_ip => {
                Source::PeerIp
            }
            Some(PolicySpecifier::ConnectionProperties(_)) => {
                return Err(Invalid::new("connection_properties", "needs source_ip"));
            }
            Some(PolicySpecifier::QueryParameter(parameter)) if parameter.name.is_empty() => {
                return Err(Invalid::new("query_parameter.name", "must not be empty"));
            }
            Some(PolicySpecifier::QueryParameter(parameter)) => Source::Query(parameter.name),
            Some(PolicySpecifier::FilterState(_)) => {
                return Err(Invalid::unsupported("filter_state"));
            }
            None => return Err(Invalid::new("policy_specifier", "is required")),
        };
        Ok(Self { source, terminal })
    }
}

/// The hash of a request under `policies`; nothing when no property is there. The second value are the cookies that the
/// response must set, with their values.
pub fn hash_request<'p>(
    policies: &'p [HashPolicy],
    request: &RequestView<'_>,
    peer: &Peer<'_>,
) -> (Option<u64>, Vec<(&'p CookieTemplate, String)>) {
    let mut combined: Option<u64> = None;
    let mut generated = Vec::new();
    for policy in policies {
        let hash = match &policy.source {
            Source::Header(name, rewrite) => hash_header(request, name, rewrite.as_ref()),
            Source::PeerIp => Some(xx64(peer.remote_ip.as_bytes(), 0)),
            Source::Query(name) => request
                .query_parameter(name)
                .map(|value| xx64(value.as_bytes(), 0)),
            Source::Cookie(cookie) => match request.cookie(&cookie.name) {
                Some(value) if !value.is_empty() => Some(xx64(value.as_bytes(), 0)),
                _ if cookie.ttl.is_some() => {
                    let seed = format!("{}{}", peer.remote, peer.local);
                    let value = format!("{:016x}", xx64(seed.as_bytes(), 0));
                    let hash = xx64(value.as_bytes(), 0);
                    generated.push((cookie, value));
                    Some(hash)
                }
                _ => None,
            },
        };
        if let Some(hash) = hash {
            combined = Some(combined.map_or(hash, |old| old.rotate_left(1) ^ hash));
        }
        if policy.terminal && combined.is_some() {
            break;
        }
    }
    (combined, generated)
}

/// A single value is hashed as it is; several are sorted and hashed one after the other, each seeded by the one before.
fn hash_header(
    request: &RequestView<'_>,
    name: &HashedHeader,
    rewrite: Option<&RegexRewrite>,
) -> Option<u64> {
    let name = match name {
        HashedHeader::Field(name) => name,
        HashedHeader::Pseudo(name) => {
            let value = request.pseudo_header(name)?.as_bytes();
            return Some(match rewrite {
                Some(rewrite) => xx64(&rewrite.replace(value), 0),
                None => xx64(value, 0),
            });
        }
    };
    let rewritten = |value: &'_ http::HeaderValue| match rewrite {
        Some(rewrite) => rewrite.replace(value.as_bytes()).into_owned(),
        None => value.as_bytes().to_vec(),
    };
    let mut values = request.headers.get_all(name).iter();
    let first = values.next()?;
    let Some(second) = values.next() else {
        // The usual case takes no copy.
        return Some(match rewrite {
            Some(rewrite) => xx64(&rewrite.replace(first.as_bytes()), 0),
            None => xx64(first.as_bytes(), 0),
        });
    };
    let mut all: Vec<_> = [first, second]
        .into_iter()
        .chain(values)
        .map(rewritten)
        .collect();
    all.sort_unstable();
    Some(all.iter().fold(0, |hash, value| xx64(value, hash)))
}
