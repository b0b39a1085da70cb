//! Bodies of requests on their way to an upstream: read ahead for filters, and replayable for retries.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream as _;
use http::{HeaderMap, HeaderName};
use http_body::{Body, Frame, SizeHint};
use tokio::io::DuplexStream;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::io::ReaderStream;

use super::body::BodyError;
use super::held::Held;
use super::incoming::{Incoming, IncomingError};
use super::kept::{Kept, Position};
use super::shadow::{BodyCopy, CopiedBody};
use crate::worker::Worker;

/// Why a body was not read ahead.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadAheadError {
    /// The client broke it off, or framed it wrongly.
    #[error("the body breaks off")]
    Broken(#[source] IncomingError),
    /// The worker holds back as much as it may.
    #[error("too many bodies are held back")]
    NoRoom,
}

/// What a client did whose body has no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyFault {
    /// It broke the rules for bodies.
    Malformed,
    /// It left, or gave the request up.
    Left,
}

impl BodyFault {
    fn of(error: &IncomingError) -> Self {
        if error.is_malformed() {
            Self::Malformed
        } else {
            Self::Left
        }
    }
}

/// Most bytes of a request that are kept to send them again.
pub(super) const REPLAY_LIMIT: usize = 1 << 20;

/// The body of a request to an upstream.
pub(crate) enum RequestBody {
    /// There is none.
    Empty,
    /// One pass over the client's body.
    Pass(Pass),
    /// A copy of a body that was read completely.
    Copied(CopiedBody),
    /// What is written into the other end of a pipe.
    Piped(Box<ReaderStream<DuplexStream>>),
}

/// The client's body. Each attempt makes a [`Pass`] over it; what earlier passes read is kept as long as it is small.
pub(crate) struct RequestSource {
    inner: RefCell<Source>,
    ended: Notify,
}

struct Source {
    body: Incoming,
    length: Option<u64>,
    kept: Kept,
    /// Room for it.
    held: Held,
    /// Everything that was read is in `kept`.
    replayable: bool,
    /// Why it has no end.
    fault: Option<BodyFault>,
    done: bool,
    trailers: Option<HeaderMap>,
    received: u64,
    /// When something was received, at last.
    progress: Option<Instant>,
    /// Gets what is read, for shadows of the request.
    copy: Option<Rc<BodyCopy>>,
    /// Only the latest pass may read.
    passes: u32,
    /// It goes on.
    is_passing: bool,
}

/// One reading of the body.
pub(crate) struct Pass {
    source: Rc<RequestSource>,
    number: u32,
    position: Position,
    /// Something was asked for. Before, even a body that is known to be empty is sent with the client's framing.
    begun: bool,
    trailers_sent: bool,
}

impl RequestSource {
    /// Nothing when the request has no body.
    pub(crate) fn new(body: Incoming, worker: &Rc<Worker>) -> Option<Rc<Self>> {
        if body.is_end_stream() {
            return None;
        }
        let length = body.size_hint().exact();
        let fits = length.is_none_or(|length| length <= REPLAY_LIMIT as u64);
        Some(Rc::new(Self {
            inner: RefCell::new(Source {
                body,
                length,
                kept: Kept::default(),
                held: Held::new(worker),
                replayable: fits,
                fault: None,
                done: false,
                trailers: None,
                received: 0,
                progress: None,
                copy: None,
                passes: 0,
                is_passing: false,
            }),
            ended: Notify::new(),
        }))
    }

    /// Begins a pass from the first byte. Earlier passes end with an error.
    pub(crate) fn pass(self: &Rc<Self>) -> RequestBody {
        let mut inner = self.inner.borrow_mut();
        inner.passes += 1;
        inner.is_passing = true;
        let number = inner.passes;
        RequestBody::Pass(Pass {
            source: self.clone(),
            number,
            position: Position::default(),
            begun: false,
            trailers_sent: false,
        })
    }

    /// Whether another pass would see the same bytes.
    pub(crate) fn can_replay(&self) -> bool {
        let inner = self.inner.borrow();
        inner.fault.is_none() && (inner.replayable || inner.received == 0)
    }

    /// What the client did wrong, if the body broke off.
    pub(crate) fn fault(&self) -> Option<BodyFault> {
        self.inner.borrow().fault
    }

    /// The next pass is the last, which may free what it has read.
    pub(crate) fn expect_last_pass(&self) {
        self.inner.borrow_mut().replayable = false;
    }

    /// No further pass will be made. The one that goes on still gets what it needs.
    pub(crate) fn forget(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.replayable = false;
        inner.free_unwanted();
    }

    /// Gives what is read from now on to `copy`, too. To be called before the first pass.
    pub(crate) fn copy_to(&self, copy: Rc<BodyCopy>) {
        let mut inner = self.inner.borrow_mut();
        if inner
            .length
            .is_some_and(|length| length > REPLAY_LIMIT as u64)
        {
            // It will not fit, so not a byte of it is kept.
            copy.abandon();
            return;
        }
        // What was read ahead is part of it.
        let mut position = Position::default();
        while let Some(chunk) = inner.kept.read(&mut position) {
            if !copy.push(&chunk) {
                return;
            }
        }
        if inner.done {
            copy.complete(inner.trailers.clone());
        } else {
            inner.copy = Some(copy);
        }
    }

    /// Reads the body before any pass over it, as far as it is not longer than `most`. What was read is kept for the
    /// passes. Nothing when the body is longer.
    ///
    /// Memory: what has come, and twice that for the moment in which the last byte came.
    ///
    /// # Errors
    /// When the body breaks off, or the worker has no room for it.
    pub(crate) async fn read_ahead(&self, most: usize) -> Result<Option<Bytes>, ReadAheadError> {
        let announced = self.inner.borrow().length;
        if announced.is_some_and(|length| length > most as u64) {
            return Ok(None);
        }
        loop {
            {
                let inner = &mut *self.inner.borrow_mut();
                if inner.kept.len() > most {
                    return Ok(None);
                }
                if inner.done {
                    // All of it is kept, so it can be sent as often as needed.
                    inner.replayable = true;
                    return Ok(Some(inner.kept.whole()));
                }
            }
            self.read_frame().await?;
        }
    }

    /// Reads until it is known whether the body has any byte, and says so. What was read is kept for the passes.
    ///
    /// # Errors
    /// As those of [`Self::read_ahead`].
    pub(crate) async fn has_content(&self) -> Result<bool, ReadAheadError> {
        loop {
            {
                let inner = self.inner.borrow();
                if inner.kept.len() > 0 || inner.length.is_some_and(|length| length > 0) {
                    return Ok(true);
                }
                if inner.done {
                    return Ok(false);
                }
            }
            self.read_frame().await?;
        }
    }

    /// Reads one frame, and keeps it for the passes.
    async fn read_frame(&self) -> Result<(), ReadAheadError> {
        let frame = std::future::poll_fn(|context| {
            let inner = &mut *self.inner.borrow_mut();
            Pin::new(&mut inner.body).poll_frame(context)
        });
        let frame = frame.await.transpose();
        let frame = frame.map_err(ReadAheadError::Broken)?;
        let inner = &mut *self.inner.borrow_mut();
        let is_last = frame.is_none();
        match frame.map(Frame::into_data) {
            Some(Ok(data)) => {
                inner.received += data.len() as u64;
                if !inner.held.grow(data.len()) {
                    return Err(ReadAheadError::NoRoom);
                }
                inner.kept.push(&data);
            }
            Some(Err(frame)) => inner.trailers = frame.into_trailers().ok(),
            None => {}
        }
        if is_last || inner.body.is_end_stream() {
            inner.complete();
            self.ended.notify_waiters();
        }
        Ok(())
    }

    /// Removes trailers that came with what was read ahead.
    pub(crate) fn remove_trailers(&self, unwanted: impl Fn(&HeaderName) -> bool) {
        let inner = &mut *self.inner.borrow_mut();
        let Some(trailers) = &mut inner.trailers else {
            return;
        };
        let names: Vec<HeaderName> = trailers
            .keys()
            .filter(|name| unwanted(name))
            .cloned()
            .collect();
        for name in names {
            trailers.remove(name);
        }
        if trailers.is_empty() {
            inner.trailers = None;
        }
    }

    /// Whether the whole body was read.
    pub(crate) fn is_complete(&self) -> bool {
        self.inner.borrow().done
    }

    /// Bytes received so far.
    pub(crate) fn received(&self) -> u64 {
        self.inner.borrow().received
    }

    /// When the last part of it was passed on, if any was.
    pub(crate) fn progress(&self) -> Option<Instant> {
        self.inner.borrow().progress
    }

    /// Returns when the whole body was read.
    pub(crate) async fn ended(&self) {
        loop {
            let ended = self.ended.notified();
            if self.inner.borrow().done {
                return;
            }
            ended.await;
        }
    }
}

impl Source {
    /// Frees what is kept for nobody.
    fn free_unwanted(&mut self) {
        if !self.is_passing && !self.replayable {
            self.held.shrink(self.kept.len());
            self.kept.clear();
        }
    }

    fn complete(&mut self) {
        self.done = true;
        if let Some(copy) = self.copy.take() {
            copy.complete(self.trailers.clone());
        }
    }
}

impl Drop for RequestSource {
    fn drop(&mut self) {
        // Nobody reads the rest any more: half a request is not sent anywhere.
        if let Some(copy) = self.inner.get_mut().copy.take() {
            copy.abandon();
        }
    }
}

impl Pass {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut inner = self.source.inner.borrow_mut();
        self.begun = true;
        if inner.passes != self.number {
            return Poll::Ready(Some(Err("another attempt took over".into())));
        }
        let kept = if inner.replayable {
            inner.kept.read(&mut self.position)
        } else {
            // Nobody will ask for it again.
            let inner = &mut *inner;
            let chunk = inner.kept.take(&mut self.position);
            if let Some(chunk) = &chunk {
                inner.held.shrink(chunk.len());
            }
            chunk
        };
        if let Some(chunk) = kept {
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        if inner.done {
            let trailers = inner.trailers.clone().filter(|_| !self.trailers_sent);
            self.trailers_sent = true;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let polled = Pin::new(&mut inner.body).poll_frame(context);
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                inner.complete();
                self.source.ended.notify_waiters();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                if let Some(copy) = inner.copy.take() {
                    copy.abandon();
                }
                // What is missing will not come, so there is nothing to send again.
                inner.replayable = false;
                inner.fault = Some(BodyFault::of(&error));
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    inner.received += data.len() as u64;
                    inner.progress = Some(Instant::now());
                    if let Some(copy) = &inner.copy
                        && !copy.push(data)
                    {
                        inner.copy = None;
                    }
                    if inner.replayable {
                        let fits = inner.kept.len() + data.len() <= REPLAY_LIMIT;
                        if fits && inner.held.grow_if_spare(data.len()) {
                            inner.kept.push(data);
                        } else {
                            // It is not tried again then.
                            inner.replayable = false;
                            let length = inner.kept.len();
                            inner.held.shrink(length);
                            inner.kept.clear();
                        }
                        self.position = inner.kept.end();
                    }
                } else if let Some(trailers) = frame.trailers_ref() {
                    inner.trailers = Some(trailers.clone());
                    self.trailers_sent = true;
                }
                if inner.body.is_end_stream() {
                    inner.complete();
                    self.source.ended.notify_waiters();
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut inner = self.source.inner.borrow_mut();
        if inner.passes == self.number {
            inner.is_passing = false;
            inner.free_unwanted();
        }
    }
}

impl RequestBody {
    /// The body from its beginning, for another connection; nothing when what was read of it is gone.
    pub(crate) fn rewound(self) -> Option<Self> {
        match self {
            Self::Empty => Some(self),
            Self::Piped(_) => None,
            Self::Copied(ref body) => body.is_untouched().then_some(self),
            Self::Pass(pass) if !pass.begun => Some(Self::Pass(pass)),
            Self::Pass(mut pass) => {
                let is_current = {
                    let inner = pass.source.inner.borrow();
                    inner.replayable && inner.passes == pass.number
                };
                (pass.position, pass.begun, pass.trailers_sent) = Default::default();
                is_current.then_some(Self::Pass(pass))
            }
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Pass(pass) => pass.poll(context),
            Self::Copied(body) => Poll::Ready(body.next().map(Ok)),
            Self::Piped(pipe) => {
                let read = ready!(Pin::new(pipe).poll_next(context));
                Poll::Ready(read.map(|read| read.map(Frame::data).map_err(Into::into)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Copied(body) => body.is_empty(),
            Self::Piped(_) => false,
            Self::Pass(pass) => {
                let inner = pass.source.inner.borrow();
                let trailers = inner.trailers.is_some() && !pass.trailers_sent;
                let sent = pass.begun && pass.position == inner.kept.end();
                inner.done && sent && !trailers
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Copied(body) => body.size_hint(),
            Self::Piped(_) => SizeHint::default(),
            // Only asked for before anything was read.
            Self::Pass(pass) => match pass.source.inner.borrow().length {
                Some(length) if !pass.begun => SizeHint::with_exact(length),
                _ => SizeHint::default(),
            },
        }
    }
}
