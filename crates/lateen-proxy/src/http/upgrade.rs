//! Upgraded connections: after a `101` both sides exchange plain bytes.

use std::rc::Rc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::connection::HttpConnection;
use super::finish::UpstreamHold;
use crate::tcp::{Moved, relay};

/// Relays between the two ends once both have switched, in the background.
pub(super) fn start(
    connection: &Rc<HttpConnection>,
    downstream: OnUpgrade,
    upstream: OnUpgrade,
    hold: UpstreamHold,
) {
    let connection = connection.clone();
    tokio::task::spawn_local(async move {
        // The upstream connection carries nothing else any more, but counts until the end.
        let _hold = hold;
        let idle = connection.manager.stream_idle_timeout;
        if let Ok((downstream, upstream)) = tokio::try_join!(downstream, upstream) {
            connection.guard.head_complete();
            relay(
                &mut TokioIo::new(downstream),
                &mut TokioIo::new(upstream),
                &[],
                idle,
                &Moved::default(),
            )
            .await;
        }
    });
}
