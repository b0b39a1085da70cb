//! The body of a request, read straight from its connection.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::super::chunked::Decoded;
use super::super::error::Error;
use super::super::framing::Decoder;
use super::super::io::Io;
use super::super::tunnel::HasIo;

/// The body of a request, read straight from its connection.
pub(crate) struct ServerBody {
    pub(super) state: Rc<RefCell<State>>,
    pub(super) message: u64,
}

impl Body for ServerBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut state = self.state.borrow_mut();
        if state.message != self.message || state.broken {
            return Poll::Ready(Some(Err(Error::Over)));
        }
        let polled = state.poll_body(context);
        if polled.is_pending() {
            let waker = context.waker();
            if !state
                .reader
                .as_ref()
                .is_some_and(|reader| reader.will_wake(waker))
            {
                state.reader = Some(waker.clone());
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let state = self.state.borrow();
        state.message == self.message && state.decoder.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.state.borrow();
        match state
            .decoder
            .left()
            .filter(|_| state.message == self.message)
        {
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}

/// What the connection shares with the body of the current request.
pub(super) struct State {
    pub(super) io: Io,
    /// Of the current request's body.
    pub(super) decoder: Decoder,
    /// The body is awaited before it is sent (RFC 9110 section 10.1.1).
    pub(super) awaits_continue: bool,
    /// The body cannot be read to its end.
    pub(super) broken: bool,
    /// As the client left in the middle of it.
    pub(super) left: bool,
    /// The number of the current request. Only its body may read.
    pub(super) message: u64,
    /// Who waits for the end of the body, to see when the client leaves.
    waiting: Option<Waker>,
    /// Who waits for the next part of the body.
    reader: Option<Waker>,
}

impl HasIo for State {
    fn io(&mut self) -> &mut Io {
        &mut self.io
    }
}

impl State {
    pub(super) fn new(io: Io) -> Self {
        Self {
            io,
            decoder: Decoder::Done,
            awaits_continue: false,
            broken: false,
            left: false,
            message: 0,
            waiting: None,
            reader: None,
        }
    }

    /// Begins with the body of the next request.
    pub(super) fn begin(&mut self, decoder: Decoder, awaits_continue: bool) -> u64 {
        self.awaits_continue = awaits_continue && !decoder.is_done();
        self.decoder = decoder;
        (self.broken, self.left) = (false, false);
        self.message += 1;
        self.message
    }

    /// Takes the body from whoever may still read it, which another task may do for an HTTP/2 endpoint.
    pub(super) fn take_body(&mut self) {
        self.message += 1;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Returns when the client left, which is watched while nothing else reads.
    pub(super) fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if !self.decoder.is_done() {
            if !self.broken && self.waiting.is_none() {
                self.waiting = Some(context.waker().clone());
            }
            return Poll::Pending;
        }
        // Requests that are sent ahead wait in the buffer, and then in the socket.
        while self.io.received.is_empty() {
            match ready!(self.io.poll_fill(context)) {
                Ok(0) => return Poll::Ready(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) => return Poll::Ready(error),
            }
        }
        Poll::Pending
    }

    /// Reads the body on.
    pub(super) fn poll_body(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.awaits_continue {
            // Also when it has come already, as in Envoy: who asks gets an answer.
            self.awaits_continue = false;
            let out = &mut self.io.outgoing.collected;
            out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            let _ = self.io.poll_flush(context)?;
        }
        let polled = loop {
            match self.decoder.decode(&mut self.io.received) {
                Ok(Decoded::Data(data)) => break Some(Ok(Frame::data(data))),
                Ok(Decoded::Trailers(fields)) => break Some(Ok(Frame::trailers(fields))),
                Ok(Decoded::End) => break None,
                Ok(Decoded::Incomplete) => {}
                Err(malformed) => break Some(Err(malformed.into())),
            }
            match ready!(self.io.poll_fill(context)) {
                Ok(0) => break Some(Err(Error::Ended)),
                Ok(_) => {}
                Err(error) => break Some(Err(error.into())),
            }
        };
        self.broken |= matches!(polled, Some(Err(_)));
        self.left |= matches!(polled, Some(Err(Error::Ended | Error::Io(_))));
        if (self.decoder.is_done() || self.broken)
            && let Some(waker) = self.waiting.take()
        {
            waker.wake();
        }
        Poll::Ready(polled)
    }
}
