//! Waiting for the head of a request.

use std::task::Poll;

use bytes::BytesMut;

use super::super::error::Malformed;
use super::super::parse::{self, RequestHead};
use super::super::search::HeadSearch;
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
        let mut search = HeadSearch::default();
        self.state.borrow_mut().io.shrink();
        std::future::poll_fn(|context| {
            let io = &mut self.state.borrow_mut().io;
            loop {
                if skip_lines(&mut io.received) {
                    search = HeadSearch::default();
                }
                if search.is_worth_a_look(&io.received) {
                    let found = parse::request(&mut io.received, most_fields);
                    if let Some(found) = found.transpose() {
                        return Poll::Ready(found.map(Some).map_err(Refusal::Malformed));
                    }
                }
                if io.received.len() >= most_bytes {
                    return Poll::Ready(Err(Refusal::Malformed(Malformed::TooLarge)));
                }
                if self.stopping.get() {
                    return Poll::Ready(Ok(None));
                }
                match io.poll_fill(context) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(_) => return Poll::Ready(Ok(None)),
                }
            }
            // Between two requests there is no head that could be late; and most come in one piece.
            if io.received.is_empty() {
                return Poll::Pending;
            }
            let late = late.get_or_insert_with(|| Box::pin(tokio::time::sleep(head_time)));
            late.as_mut().poll(context).map(|()| Err(Refusal::Late))
        })
        .await
    }
}

/// Removes empty lines before a request, which some clients send (RFC 9112 section 2.2). Says whether there were any.
fn skip_lines(received: &mut BytesMut) -> bool {
    let is_line_end = |byte: &&u8| matches!(byte, b'\r' | b'\n');
    let count = received.iter().take_while(is_line_end).count();
    if count > 0 {
        let _ = received.split_to(count);
    }
    count > 0
}
