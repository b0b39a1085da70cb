//! A connection's stream with its buffers. What is small is collected into one write; what is large is written from
//! where it is.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use crate::stats::{HttpStats, PerWorker};
use crate::stream::Stream;

/// Room for reading of a connection that moves little.
const LEAST_READ: usize = 8 << 10;

/// The same of one that moves much.
const MOST_READ: usize = 64 << 10;

/// Parts up to this length are copied together.
const SMALL: usize = 4 << 10;

/// Bytes that are collected at most before they are written.
const MOST_COLLECTED: usize = 16 << 10;

/// The stream and its buffers.
pub(crate) struct Io {
    stream: Stream,
    /// What was received and not used yet.
    pub(super) received: BytesMut,
    pub(super) outgoing: Outgoing,
    /// Room for the next read.
    read_size: usize,
    /// Bytes that were written.
    pub(super) sent: u64,
    /// Counts bytes, for connections of clients.
    stats: Option<Arc<PerWorker<HttpStats>>>,
}

/// What is to be written.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// Heads and small parts.
    pub(super) collected: BytesMut,
    written: usize,
    /// A large part, which follows them.
    large: Bytes,
    /// What ends it.
    end: &'static [u8],
}

impl Io {
    /// `received` was read from the stream already.
    pub(super) fn new(
        stream: Stream,
        received: BytesMut,
        stats: Option<Arc<PerWorker<HttpStats>>>,
    ) -> Self {
        if let Some(stats) = &stats {
            stats.here().rx_bytes.add(received.len() as u64);
        }
        Self {
            stream,
            received,
            outgoing: Outgoing::default(),
            read_size: LEAST_READ,
            sent: 0,
            stats,
        }
    }

    /// Reads more. Nothing: the peer ended its side.
    pub(super) fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.received.capacity() - self.received.len() < self.read_size / 2 {
            self.received.reserve(self.read_size);
        }
        let room = self.received.capacity() - self.received.len();
        let stream = Pin::new(&mut self.stream);
        let read = ready!(poll_read_buf(stream, context, &mut self.received))?;
        if let Some(stats) = &self.stats {
            stats.here().rx_bytes.add(read as u64);
        }
        // Who fills the buffer has more to say.
        self.read_size = if read == room {
            (self.read_size * 2).min(MOST_READ)
        } else if read < LEAST_READ {
            LEAST_READ
        } else {
            self.read_size
        };
        Poll::Ready(Ok(read))
    }

    /// Writes all that is to be written.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let stream = Pin::new(&mut self.stream);
            let collected = &self.outgoing.collected[self.outgoing.written..];
            let written = if self.outgoing.large.is_empty() && self.outgoing.end.is_empty() {
                ready!(stream.poll_write(context, collected))?
            } else {
                let slices = [
                    IoSlice::new(collected),
                    IoSlice::new(&self.outgoing.large),
                    IoSlice::new(self.outgoing.end),
                ];
                let slices = if collected.is_empty() {
                    &slices[1..]
                } else {
                    &slices
                };
                ready!(stream.poll_write_vectored(context, slices))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if let Some(stats) = &self.stats {
                stats.here().tx_bytes.add(written as u64);
            }
            self.sent += written as u64;
            self.outgoing.advance(written);
        }
        // TLS has a buffer of its own.
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Whether the peer neither sends nor ends. What it sends is lost, as nobody asked for it.
    pub(super) fn is_silent(&mut self, context: &mut Context<'_>) -> bool {
        let mut byte = [0];
        let stream = Pin::new(&mut self.stream);
        self.received.is_empty()
            && stream
                .poll_read(context, &mut ReadBuf::new(&mut byte))
                .is_pending()
    }

    /// Lets the peer see that the connection broke, when it is dropped.
    pub(super) fn break_off(&self) {
        let _ = SockRef::from(self.stream.tcp()).set_linger(Some(Duration::ZERO));
    }

    /// Tells the peer that nothing more comes.
    pub(super) fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    /// Frees a buffer that grew, while nothing is in it.
    pub(super) fn shrink(&mut self) {
        if self.received.is_empty() && self.received.capacity() > LEAST_READ {
            self.received = BytesMut::new();
        }
        self.read_size = LEAST_READ;
    }
}

impl Outgoing {
    /// Whether everything was written.
    pub(super) fn is_empty(&self) -> bool {
        self.written == self.collected.len() && self.large.is_empty() && self.end.is_empty()
    }

    /// Whether more may be added before it is written.
    pub(super) fn has_room(&self) -> bool {
        self.large.is_empty() && self.end.is_empty() && self.collected.len() < MOST_COLLECTED
    }

    /// Adds a part, and what ends it.
    pub(super) fn push(&mut self, part: Bytes, end: &'static [u8]) {
        if part.len() <= SMALL {
            self.collected.extend_from_slice(&part);
            self.collected.extend_from_slice(end);
        } else {
            self.large = part;
            self.end = end;
        }
    }

    fn advance(&mut self, mut count: usize) {
        let collected = count.min(self.collected.len() - self.written);
        self.written += collected;
        count -= collected;
        if self.written == self.collected.len() {
            self.written = 0;
            self.collected.clear();
            if self.collected.capacity() > 2 * MOST_COLLECTED {
                self.collected = BytesMut::new();
            }
        }
        let large = count.min(self.large.len());
        self.large.advance(large);
        if self.large.is_empty() {
            // The buffer that it is part of may be used again.
            self.large = Bytes::new();
        }
        self.end = &self.end[count - large..];
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.received.is_empty() {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
            if let Some(stats) = &this.stats {
                let read = buffer.filled().len() - before;
                stats.here().rx_bytes.add(read as u64);
            }
        } else {
            let count = this.received.len().min(buffer.remaining());
            buffer.put_slice(&this.received[..count]);
            this.received.advance(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        if let Some(stats) = &self.stats {
            stats.here().tx_bytes.add(written as u64);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_in_parts_is_written_once() {
        for large in [0, 10, SMALL, SMALL + 1, 3 * SMALL] {
            for step in [1, 7, usize::MAX] {
                let mut outgoing = Outgoing::default();
                outgoing.collected.extend_from_slice(b"head");
                outgoing.push(Bytes::from(vec![b'x'; large]), b"\r\n");
                let mut written = Vec::new();
                while !outgoing.is_empty() {
                    let mut all = outgoing.collected[outgoing.written..].to_vec();
                    all.extend_from_slice(&outgoing.large);
                    all.extend_from_slice(outgoing.end);
                    all.truncate(step);
                    outgoing.advance(all.len());
                    written.extend_from_slice(&all);
                }
                let expected = [&b"head"[..], &vec![b'x'; large], b"\r\n"].concat();
                assert!(written == expected, "{large} by {step}");
                assert!(outgoing.has_room());
            }
        }
    }
}
