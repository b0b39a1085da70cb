//! Bodies that are passed on at a limited rate.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

/// Parts of a second in which bytes are let through.
const PARTS: u64 = 20;

/// A body with a limit of bytes per second.
pub(crate) struct Throttled<B> {
    body: B,
    /// Bytes that may pass in a part of a second, at least one.
    share: u64,
    /// Bytes that may pass now.
    left: u64,
    /// What has been read and may not pass yet.
    waiting: Bytes,
    /// The end of the current part of a second.
    next: Pin<Box<Sleep>>,
}

impl<B> Throttled<B> {
    /// Limits `body` to `rate` bytes per second.
    pub(crate) fn new(body: B, rate: u64) -> Self {
        let share = rate.div_ceil(PARTS).max(1);
        Self {
            body,
            share,
            left: share,
            waiting: Bytes::new(),
            next: Box::pin(tokio::time::sleep(part())),
        }
    }
}

fn part() -> Duration {
    Duration::from_secs(1) / u32::try_from(PARTS).unwrap_or(1)
}

impl<B: Body<Data = Bytes> + Unpin> Body for Throttled<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        if this.waiting.is_empty() {
            let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) if !data.is_empty() => this.waiting = data,
                Some(Ok(Ok(data))) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        if this.left == 0 {
            ready!(this.next.as_mut().poll(context));
            this.left = this.share;
            this.next.as_mut().reset(Instant::now() + part());
        }
        let most = usize::try_from(this.left).unwrap_or(usize::MAX);
        let passed = this.waiting.split_to(most.min(this.waiting.len()));
        this.left -= passed.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(passed))))
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let waiting = self.waiting.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + waiting);
        }
        hint.set_lower(hint.lower() + waiting);
        hint
    }
}
