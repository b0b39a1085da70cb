//! The application protocols that Istio's proxies offer and accept in TLS (ALPN), in their order.
//!
//! Source: the listeners and clusters of Istio's control plane, `BuildListenerTLSContext` and `istio.alpn`.
//!
//! A difference of TLS libraries matters here: when the two lists have nothing in common, Envoy goes on without a
//! protocol, while rustls ends the handshake (RFC 7301, section 3.2). A server that must accept peers with foreign
//! lists has to look at the ClientHello first, and leave its own list empty when they do not meet.

/// TCP with an exchange of metadata between the two proxies.
pub const PEER_EXCHANGE: &[u8] = b"istio-peer-exchange";
/// Any protocol between two proxies of the mesh.
pub const ISTIO: &[u8] = b"istio";
/// HTTP/1.0 between two proxies of the mesh.
pub const ISTIO_HTTP10: &[u8] = b"istio-http/1.0";
/// HTTP/1.1 between two proxies of the mesh.
pub const ISTIO_HTTP11: &[u8] = b"istio-http/1.1";
/// HTTP/2 between two proxies of the mesh.
pub const ISTIO_H2: &[u8] = b"istio-h2";
/// HTTP/2.
pub const H2: &[u8] = b"h2";
/// HTTP/1.1.
pub const HTTP11: &[u8] = b"http/1.1";
/// HTTP/1.0.
pub const HTTP10: &[u8] = b"http/1.0";

/// Accepted by an inbound HTTP filter chain, and by gateways.
pub const SERVER_HTTP: &[&[u8]] = &[H2, HTTP11];
/// Accepted by an inbound TCP filter chain.
pub const SERVER_TCP: &[&[u8]] = &[PEER_EXCHANGE, H2, HTTP11];
/// Offered by a client with automatic mutual TLS.
pub const CLIENT_MUTUAL: &[&[u8]] = &[PEER_EXCHANGE, ISTIO];
/// Offered by a client with automatic mutual TLS to a cluster of HTTP/2.
pub const CLIENT_MUTUAL_H2: &[&[u8]] = &[PEER_EXCHANGE, ISTIO, H2];
/// Offered for HTTP/1.0 upstream, once the HTTP filter knows the protocol.
pub const CLIENT_HTTP10: &[&[u8]] = &[ISTIO_HTTP10, ISTIO, HTTP10];
/// Offered for HTTP/1.1 upstream, once the HTTP filter knows the protocol.
pub const CLIENT_HTTP11: &[&[u8]] = &[ISTIO_HTTP11, ISTIO, HTTP11];
/// Offered for HTTP/2 upstream, once the HTTP filter knows the protocol.
pub const CLIENT_H2: &[&[u8]] = &[ISTIO_H2, ISTIO, H2];
/// Offered by a peer in the mesh that speaks HTTP: what an inbound filter chain for HTTP matches.
pub const MATCH_MESH_HTTP: &[&[u8]] = &[ISTIO_HTTP10, ISTIO_HTTP11, ISTIO_H2];
/// Offered by a peer in the mesh that speaks TCP: what an inbound filter chain for TCP matches.
pub const MATCH_MESH_TCP: &[&[u8]] = &[PEER_EXCHANGE, ISTIO];
