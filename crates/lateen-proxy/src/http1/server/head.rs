//! Waiting for the head of a request.

use std::task::Poll;

use bytes::BytesMut;

use super::super::error::Malformed;
use super::super::parse::{self, RequestHead};
use super::{Refusal, Server, Settings};

impl Server {
    /// The next head; nothing when there is none.
    pub(super) async fn head(&self) -> Result<Option<RequestHead>, Refusal> {
        let Settings {
            most_fields,
            most_bytes,
            head_time,
            ..
        } = self.settings;
        let mut late = None;
        // How much of an incomplete head was looked at, and how long it has to be for another look.
        let (mut seen, mut next_look) = (0, 0);
        let mut begun = !self.state.borrow().io.received.is_empty();
        self.state.borrow_mut().io.shrink();
        std::future::poll_fn(|context| {
            let io = &mut self.state.borrow_mut().io;
            loop {
                if seen == 0 {
                    skip_lines(&mut io.received);
                }
                // A head that comes byte by byte is not to be parsed as often.
                let length = io.received.len();
                if length > next_look || has_empty_line(&io.received, seen) {
                    match parse::request(&mut io.received, most_fields) {
                        Ok(None) => next_look = 2 * length,
                        found => return Poll::Ready(found.map_err(Refusal::Malformed)),
                    }
                }
                if length >= most_bytes {
                    return Poll::Ready(Err(Refusal::Malformed(Malformed::TooLarge)));
                }
                seen = length;
                if self.stopping.get() {
                    return Poll::Ready(Ok(None));
                }
                match io.poll_fill(context) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(1..)) => begun = true,
                    Poll::Ready(_) => return Poll::Ready(Ok(None)),
                }
            }
            if !begun {
                return Poll::Pending;
            }
            // Most heads come in one piece, and need no timer.
            let late = late.get_or_insert_with(|| Box::pin(tokio::time::sleep(head_time)));
            late.as_mut().poll(context).map(|()| Err(Refusal::Late))
        })
        .await
    }
}

/// Removes empty lines before a request, which some clients send (RFC 9112 section 2.2).
fn skip_lines(received: &mut BytesMut) {
    let is_line_end = |byte: &&u8| matches!(byte, b'\r' | b'\n');
    let count = received.iter().take_while(is_line_end).count();
    if count > 0 {
        let _ = received.split_to(count);
    }
}

/// Whether there is the end of a head, which was not there when only `seen` bytes were.
fn has_empty_line(received: &[u8], seen: usize) -> bool {
    let new = &received[seen.saturating_sub(2)..];
    new.windows(2).any(|it| it == b"\n\n") || new.windows(3).any(|it| it == b"\n\r\n")
}
