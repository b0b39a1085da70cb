//! The byte stream of a client's HTTP/2 connection: replays what was read to inspect it, counts, and ends when the client asks
//! for too much.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::HttpConnection;
use super::frames::FrameBudget;
use crate::stream::Stream;

/// The stream.
pub(crate) struct Downstream {
    stream: Stream,
    prefix: Bytes,
    connection: Rc<HttpConnection>,
    frames: FrameBudget,
}

impl Downstream {
    pub(crate) fn new(stream: Stream, prefix: Bytes, connection: Rc<HttpConnection>) -> Self {
        Self {
            stream,
            prefix,
            connection,
            frames: FrameBudget::new(),
        }
    }

    /// Counts what was written: so many bytes of these.
    fn sent<'s>(&mut self, mut count: usize, slices: impl Iterator<Item = &'s [u8]>) {
        let stats = self.connection.manager.stats.here();
        stats.tx_bytes.add(count as u64);
        for slice in slices {
            let part = &slice[..count.min(slice.len())];
            self.frames.send(part);
            count -= part.len();
        }
        self.connection.outgoing.set(self.frames.outgoing());
    }

    /// Tells the client why its connection ends, if it takes that at once, and ends it.
    fn end(&mut self, context: &mut Context<'_>) -> io::Error {
        if let Some(farewell) = self.frames.farewell() {
            let mut stream = Pin::new(&mut self.stream);
            let written = stream.as_mut().poll_write(context, &farewell);
            if written.is_ready() {
                let _ = stream.poll_flush(context);
            }
        }
        io::Error::other("the client asks for too much")
    }
}

impl AsyncRead for Downstream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.connection.is_abusive() {
            return Poll::Ready(Err(this.end(context)));
        }
        let before = buffer.filled().len();
        if this.prefix.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        } else {
            let count = this.prefix.len().min(buffer.remaining());
            buffer.put_slice(&this.prefix[..count]);
            this.prefix.advance(count);
        }
        let read = &buffer.filled()[before..];
        let stats = this.connection.manager.stats.here();
        stats.rx_bytes.add(read.len() as u64);
        let is_fair = this.frames.receive(read);
        this.connection.outgoing.set(this.frames.outgoing());
        if !is_fair {
            stats.cx_protocol_error.inc();
            return Poll::Ready(Err(this.end(context)));
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
            self.sent(*written, std::iter::once(bytes));
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
            self.sent(*written, slices.iter().map(|slice| &**slice));
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
