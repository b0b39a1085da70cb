//! Between two requests, and after the last.

use std::io;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;

use super::Server;

/// Rest of a request's body that is read and thrown away, so that its connection can go on.
pub(super) const MOST_DRAINED: u64 = 64 << 10;

/// Time for it.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// Time in which a client that still sends may read the last response, before its connection is reset.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// Bytes that are thrown away meanwhile.
const MOST_LINGERED: usize = 1 << 20;

impl Server {
    /// Throws away the rest of a request that is answered, if it is short. Says whether the next one can come.
    pub(super) async fn drain(&self) -> bool {
        {
            let mut state = self.state.borrow_mut();
            if state.decoder.is_done() {
                return true;
            }
            state.take_body();
            if state.decoder.left().is_some_and(|left| left > MOST_DRAINED) {
                return false;
            }
        }
        let mut drained = 0;
        let drain = std::future::poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            loop {
                match ready!(state.poll_body(context)) {
                    Some(Ok(frame)) => {
                        drained += frame.data_ref().map_or(0, Bytes::len) as u64;
                        if drained > MOST_DRAINED {
                            return Poll::Ready(false);
                        }
                    }
                    Some(Err(_)) => return Poll::Ready(false),
                    None => return Poll::Ready(true),
                }
            }
        });
        tokio::time::timeout(DRAIN_TIME, drain).await == Ok(true)
    }

    /// Ends the connection. Were it closed while the client sends, the response could be lost to the reset (RFC 9112
    /// section 9.6).
    pub(super) async fn close(&self) {
        let mut thrown = 0;
        let linger = std::future::poll_fn(|context| {
            let io = &mut self.state.borrow_mut().io;
            ready!(io.poll_shutdown(context))?;
            loop {
                io.received.clear();
                match ready!(io.poll_fill(context))? {
                    0 => return Poll::Ready(Ok::<_, io::Error>(())),
                    read => thrown += read,
                }
                if thrown > MOST_LINGERED {
                    return Poll::Ready(Ok(()));
                }
            }
        });
        let _ = tokio::time::timeout(LINGER_TIME, linger).await;
    }
}
