//! TLS on both sides of the proxy: contexts compiled from configuration, handshakes, and what is known of a peer.

pub(crate) mod certificate;
pub(crate) mod names;
pub(crate) mod validation;
