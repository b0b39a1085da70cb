//! Which version a client speaks whose connection does not say so.

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use super::connection::HEAD_TIMEOUT;
use super::drive::sleep_until;
use super::manager::ClientLimits;
use crate::sniff::PREFACE;
use crate::stream::Stream;

/// Reads until it is clear whether the client speaks HTTP/2; nothing when the connection ended before.
pub(super) async fn is_http2(
    stream: &mut Stream,
    prefix: &mut BytesMut,
    limits: &ClientLimits,
) -> Option<bool> {
    let mut late = None;
    loop {
        let length = prefix.len().min(PREFACE.len());
        if prefix[..length] != PREFACE[..length] {
            return Some(false);
        }
        if length == PREFACE.len() {
            return Some(true);
        }
        let now = Instant::now();
        let end = if prefix.is_empty() {
            limits.idle.and_then(|idle| now.checked_add(idle))
        } else {
            // One time for all of it, however finely it is cut.
            Some(*late.get_or_insert_with(|| now + limits.head.unwrap_or(HEAD_TIMEOUT)))
        };
        let read = tokio::select! {
            read = stream.read_buf(prefix) => read.ok()?,
            () = sleep_until(end) => return None,
        };
        if read == 0 {
            // What was sent is no request; the codec says so, if there is anything.
            return (!prefix.is_empty()).then_some(false);
        }
    }
}
