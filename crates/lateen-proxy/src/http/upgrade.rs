//! Upgraded connections: after a `101` both sides exchange plain bytes.

use super::connection::HttpConnection;
use super::finish::{Lease, UpstreamHold};
use crate::http1::Tunnel;
use crate::tcp::{self, Moved};

/// The endpoint's side.
pub(crate) struct Switched {
    pub(super) upstream: Tunnel,
    /// The connection carries nothing else any more, but counts until the end.
    pub(super) hold: UpstreamHold,
}

impl Switched {
    /// Takes the connection of an exchange that ended with `101`.
    pub(super) fn new(hold: UpstreamHold) -> Option<Self> {
        let upstream = match &hold.lease {
            Lease::Http1(connection) => connection.codec.tunnel(),
            // HTTP/2 has no such status (RFC 9113 section 8.6).
            Lease::Http2(_) => return None,
        };
        Some(Self { upstream, hold })
    }
}

/// Relays between the two sides until one ends.
pub(super) async fn relay(connection: &HttpConnection, mut downstream: Tunnel, switched: Switched) {
    let Switched { mut upstream, hold } = switched;
    let idle = connection.manager.stream_idle_timeout;
    tcp::relay(&mut downstream, &mut upstream, &[], idle, &Moved::default()).await;
    drop(hold);
}
