//! The byte stream of a downstream connection: replays what was read to inspect it, counts, and cuts off clients that
//! send a head too slowly.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::connection::HEAD_TIMEOUT;
use crate::stats::{HttpStats, PerWorker};
use crate::stream::Stream;

/// Where an HTTP/1.1 connection is between requests. Shared with the codec's thread only, but its types want `Send`.
#[derive(Debug, Default)]
pub(crate) struct HeadGuard(AtomicU8);

const IDLE: u8 = 0;
const HEAD_STARTED: u8 = 1;
const IN_REQUEST: u8 = 2;

impl HeadGuard {
    /// A head was received completely.
    pub(crate) fn head_complete(&self) {
        self.0.store(IN_REQUEST, Ordering::Relaxed);
    }

    /// The next byte begins a head.
    pub(crate) fn idle(&self) {
        self.0.store(IDLE, Ordering::Relaxed);
    }

    fn bytes_arrived(&self) {
        let _ = self
            .0
            .compare_exchange(IDLE, HEAD_STARTED, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn head_started(&self) -> bool {
        self.0.load(Ordering::Relaxed) == HEAD_STARTED
    }
}

/// The stream.
pub(crate) struct Downstream {
    stream: Stream,
    prefix: Bytes,
    guard: Arc<HeadGuard>,
    stats: Arc<PerWorker<HttpStats>>,
    /// Heads are timed. HTTP/2 has its own limits.
    timed: Option<HeadTime>,
    deadline: Option<Pin<Box<Sleep>>>,
}

/// How long a head may take.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HeadTime {
    /// Clients that take longer are cut off.
    Own,
    /// They are told so.
    Configured(Duration),
}

/// What a client gets whose head is late.
const LATE: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 22\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\nrequest header timeout";

impl Downstream {
    pub(crate) fn new(
        stream: Stream,
        prefix: Bytes,
        guard: Arc<HeadGuard>,
        stats: Arc<PerWorker<HttpStats>>,
        timed: Option<HeadTime>,
    ) -> Self {
        Self {
            stream,
            prefix,
            guard,
            stats,
            timed,
            deadline: None,
        }
    }

    /// Fails when a head was begun and is not complete in time.
    fn check_head(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(time) = self.timed.filter(|_| self.guard.head_started()) else {
            self.deadline = None;
            return Ok(());
        };
        let limit = match time {
            HeadTime::Own => HEAD_TIMEOUT,
            HeadTime::Configured(limit) => limit,
        };
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if deadline.as_mut().poll(context).is_pending() {
            return Ok(());
        }
        if matches!(time, HeadTime::Configured(_)) {
            self.stats.here().rq_header_timeout.inc();
            // Nothing else is being written between requests. A client that does not read gets nothing.
            let stream = Pin::new(&mut self.stream);
            if let Poll::Ready(Ok(_)) = stream.poll_write(context, LATE) {
                let _ = Pin::new(&mut self.stream).poll_flush(context);
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

impl AsyncRead for Downstream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        if this.prefix.is_empty() {
            match Pin::new(&mut this.stream).poll_read(context, buffer) {
                Poll::Pending => {
                    this.check_head(context)?;
                    return Poll::Pending;
                }
                Poll::Ready(result) => result?,
            }
        } else {
            let count = this.prefix.len().min(buffer.remaining());
            buffer.put_slice(&this.prefix[..count]);
            this.prefix.advance(count);
        }
        let read = buffer.filled().len() - before;
        this.stats.here().rx_bytes.add(read as u64);
        if read > 0 {
            this.guard.bytes_arrived();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Downstream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(written)) = &polled {
            self.stats.here().tx_bytes.add(*written as u64);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        if let Poll::Ready(Ok(written)) = &polled {
            self.stats.here().tx_bytes.add(*written as u64);
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
