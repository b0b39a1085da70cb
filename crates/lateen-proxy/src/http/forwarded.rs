//! Headers about the path of a request: who the client is, which id the request has, which trace it belongs to.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::client_certificate;
use super::head::Head;
use super::manager::HttpManager;
use crate::connection::ConnectionInfo;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
const TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
const SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
const PARENT_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");

/// The digit of a request id that says whether the request is traced, and the value for sampled ones.
const TRACE_DIGIT: (usize, &str) = (14, "9");

/// Sets the headers on a request that came in.
pub(crate) fn apply(head: &mut Head, manager: &HttpManager, info: &ConnectionInfo) {
    let headers = &mut head.headers;
    if manager.use_remote_address {
        sanitise(headers);
        client_address(headers, manager, info);
    } else {
        remove_internal(headers);
    }
    let seen = headers
        .entry(X_FORWARDED_PROTO)
        .or_insert_with(|| HeaderValue::from_static(scheme(info)));
    // The scheme that a trusted hop saw is what routes and redirects go by.
    head.scheme = match seen.as_bytes() {
        b"https" => "https",
        _ => "http",
    };
    if manager.append_forwarded_port && !headers.contains_key(X_FORWARDED_PORT) {
        headers.insert(X_FORWARDED_PORT, HeaderValue::from(info.local.port()));
    }
    client_certificate::apply(
        headers,
        manager.forward_client_cert,
        manager.client_cert_details,
        info.tls.as_ref(),
    );
    request_id(headers, manager);
    if manager.tracing.is_some() {
        trace(headers);
    }
    if let Some(via) = &manager.via {
        append_via(headers, via);
    }
}

/// Says that a message came through this proxy (RFC 9110 section 7.6.3).
pub(super) fn append_via(headers: &mut HeaderMap, via: &HeaderValue) {
    let before: Vec<_> = headers.get_all(header::VIA).iter().collect();
    if before.is_empty() {
        headers.insert(header::VIA, via.clone());
        return;
    }
    // In one field, as Envoy writes it.
    let before: Vec<_> = before.into_iter().map(HeaderValue::as_bytes).collect();
    let all = [&before.join(&b','), via.as_bytes()].join(&b", "[..]);
    if let Ok(value) = HeaderValue::from_bytes(&all) {
        headers.insert(header::VIA, value);
    }
}

/// The scheme of the connection itself.
fn scheme(info: &ConnectionInfo) -> &'static str {
    if info.tls.is_some() { "https" } else { "http" }
}

/// Headers that steer the proxy and that only an internal caller may send. Without `internal_address_config`, which is
/// not taken, no caller is internal (Envoy's documentation of `x-envoy-internal`).
const INTERNAL_ONLY: [&str; 15] = [
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-force-trace",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-internal",
    "x-envoy-ip-tags",
    "x-envoy-max-retries",
    "x-envoy-original-url",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-rq-timeout-ms",
];

/// Removes what only internal callers may send.
fn remove_internal(headers: &mut HeaderMap) {
    // Most requests carry none of them, and one look at the names is cheaper than a search for each.
    if headers
        .keys()
        .any(|name| name.as_str().starts_with("x-envoy-"))
    {
        for name in INTERNAL_ONLY {
            headers.remove(name);
        }
    }
}

/// Removes what only the proxies of the mesh may say.
fn sanitise(headers: &mut HeaderMap) {
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-envoy-"))
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
}

/// The peer is the client, or a trusted proxy in front of it.
fn client_address(headers: &mut HeaderMap, manager: &HttpManager, info: &ConnectionInfo) {
    let peer = info.remote.ip();
    // A client on the same host is shown by an address that others can reach.
    let shown = if peer.is_loopback() {
        manager.node_ip.unwrap_or(peer)
    } else {
        peer
    };
    let trusted = headers
        .get(X_FORWARDED_FOR)
        .filter(|_| manager.trusted_hops > 0)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| {
            value
                .rsplit(',')
                .nth(manager.trusted_hops as usize - 1)
                .map(|ip| ip.trim().to_owned())
        });
    let external = trusted.unwrap_or_else(|| peer.to_string());
    if let Ok(value) = HeaderValue::from_str(&external) {
        headers.insert(X_EXTERNAL_ADDRESS, value);
    }
    if !manager.skip_xff_append {
        append_forwarded_for(headers, shown);
    }
    if manager.trusted_hops == 0 || !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme(info)));
    }
}

/// Adds an address to the list of those that the request came through.
pub(super) fn append_forwarded_for(headers: &mut HeaderMap, ip: IpAddr) {
    let earlier: Vec<_> = headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let all = if earlier.is_empty() {
        ip.to_string()
    } else {
        format!("{},{ip}", earlier.join(","))
    };
    if let Ok(value) = HeaderValue::from_str(&all) {
        headers.insert(X_FORWARDED_FOR, value);
    }
}

/// An id from outside is kept only when configured; inside the mesh it is.
fn request_id(headers: &mut HeaderMap, manager: &HttpManager) {
    if !manager.generate_request_id {
        return;
    }
    let keep = !manager.use_remote_address || manager.preserve_external_request_id;
    if keep && headers.contains_key(X_REQUEST_ID) {
        return;
    }
    let mut id = uuid::Uuid::from_u128(random_128()).hyphenated().to_string();
    // Version 4, variant 1; the version digit is where the trace decision is kept.
    id.replace_range(
        TRACE_DIGIT.0..=TRACE_DIGIT.0,
        if manager.tracing.is_some() {
            TRACE_DIGIT.1
        } else {
            "4"
        },
    );
    let variant = char::from(b"89ab"[fastrand::usize(0..4)]).to_string();
    id.replace_range(19..20, &variant);
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(X_REQUEST_ID, value);
    }
}

/// Continues the trace of the request with a child span, or starts one whose first span is the low half of its id.
fn trace(headers: &mut HeaderMap) {
    let given = |name: &HeaderName, lengths: &[usize]| {
        headers.get(name).filter(|value| {
            lengths.contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_hexdigit)
        })
    };
    let parent = given(&TRACE_ID, &[16, 32])
        .and_then(|_| given(&SPAN_ID, &[16]))
        .cloned();
    match parent {
        Some(parent) => {
            headers.insert(PARENT_SPAN_ID, parent);
            insert_hex(headers, SPAN_ID, format!("{:016x}", fastrand::u64(1..)));
        }
        None => {
            let id = format!("{:032x}", random_128());
            insert_hex(headers, SPAN_ID, id[16..].to_owned());
            insert_hex(headers, TRACE_ID, id);
            headers.remove(PARENT_SPAN_ID);
        }
    }
    // A decision that was made before is kept.
    headers
        .entry(SAMPLED)
        .or_insert_with(|| HeaderValue::from_static("1"));
}

fn insert_hex(headers: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(value)) {
        headers.insert(name, value);
    }
}

fn random_128() -> u128 {
    u128::from(fastrand::u64(..)) << 64 | u128::from(fastrand::u64(1..))
}
