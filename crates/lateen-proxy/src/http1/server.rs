//! The side of clients: one connection, request after request.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Response, StatusCode, Version, header};
use http_body::{Body, Frame, SizeHint};

use super::chunked::Decoded;
use super::encode::{self, Announced, Asked, BodyEncoder};
use super::error::{Error, Malformed};
use super::framing::{Decoder, keeps_alive};
use super::io::Io;
use super::parse::{self, RequestHead};
use super::tunnel::{HasIo, Tunnel};
use crate::stats::{HttpStats, PerWorker};
use crate::stream::Stream;

/// Rest of a request's body that is read and thrown away, so that its connection can go on.
const MOST_DRAINED: u64 = 64 << 10;

/// Time for it.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// Time in which a client that still sends may read the last response, before its connection is reset.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// Bytes that are thrown away meanwhile.
const MOST_LINGERED: usize = 1 << 20;

/// Limits of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Header fields of a request.
    pub(crate) most_fields: usize,
    /// Length of a head.
    pub(crate) most_bytes: usize,
    /// Time for a head that was begun.
    pub(crate) head_time: Duration,
    /// HTTP/1.0 is spoken, too.
    pub(crate) accepts_http_10: bool,
}

/// What a client sent.
pub(crate) enum Arrived {
    Request(RequestHead, ServerBody),
    /// No request that could be answered in its own terms. The connection ends with the response.
    Refused(Refusal),
}

/// Why there is no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Malformed(Malformed),
    /// Its head took too long.
    Late,
}

/// How far a body has been collected.
enum Filled {
    /// The next part has to be waited for.
    Waits,
    /// There is no room for more.
    Full,
    End,
}

/// How serving a connection ends.
pub(crate) enum Ended {
    Closed,
    /// The response was `101`: the bytes of the other protocol follow.
    Switched(Tunnel),
}

/// A connection.
pub(crate) struct Server {
    state: Rc<RefCell<State>>,
    settings: Settings,
    /// The connection ends as soon as nothing is in progress.
    stopping: Cell<bool>,
}

/// What the connection shares with the body of the current request.
struct State {
    io: Io,
    /// Of the current request's body.
    decoder: Decoder,
    /// The body is awaited before it is sent (RFC 9110 section 10.1.1).
    awaits_continue: bool,
    /// The body cannot be read to its end.
    broken: bool,
    /// The number of the current request. Only its body may read.
    message: u64,
    /// Who waits for the end of the body, to see when the client leaves.
    waiting: Option<Waker>,
}

impl HasIo for State {
    fn io(&mut self) -> &mut Io {
        &mut self.io
    }
}

impl Server {
    /// Serves a stream of which `received` was read already.
    pub(crate) fn new(
        stream: Stream,
        received: BytesMut,
        settings: Settings,
        stats: Arc<PerWorker<HttpStats>>,
    ) -> Self {
        Self {
            state: Rc::new(RefCell::new(State {
                io: Io::new(stream, received, Some(stats)),
                decoder: Decoder::Done,
                awaits_continue: false,
                broken: false,
                message: 0,
                waiting: None,
            })),
            settings,
            stopping: Cell::new(false),
        }
    }

    /// Ends the connection after what is in progress. To be polled afterwards.
    pub(crate) fn stop(&self) {
        self.stopping.set(true);
    }

    /// Serves requests until the connection ends.
    pub(crate) async fn serve<F, B>(&self, service: impl Fn(Arrived) -> F) -> Ended
    where
        F: Future<Output = Response<B>>,
        B: Body<Data = Bytes> + Unpin,
    {
        loop {
            let head = match self.head().await {
                Ok(Some(head)) => head,
                Ok(None) => return Ended::Closed,
                Err(refusal) => {
                    self.refuse(&service, refusal).await;
                    return Ended::Closed;
                }
            };
            let keep_alive = keeps_alive(head.version, &head.headers);
            let asked = Asked {
                is_head: head.method == Method::HEAD,
                version: head.version,
                takes_trailers: takes_trailers(&head),
            };
            let body = match self.begin(&head) {
                Ok(body) => body,
                Err(malformed) => {
                    self.refuse(&service, Refusal::Malformed(malformed)).await;
                    return Ended::Closed;
                }
            };
            let answering = pin!(service(Arrived::Request(head, body)));
            let Ok(response) = self.answer(answering).await else {
                return Ended::Closed;
            };
            let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            let Ok(keep_alive) = self.respond(response, &asked, keep_alive).await else {
                return Ended::Closed;
            };
            if switched {
                return Ended::Switched(Tunnel(self.state.clone()));
            }
            if !keep_alive || !self.drain().await {
                self.close().await;
                return Ended::Closed;
            }
        }
    }

    /// The next head; nothing when there is none.
    async fn head(&self) -> Result<Option<RequestHead>, Refusal> {
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

    /// Prepares for the body of a request.
    fn begin(&self, head: &RequestHead) -> Result<ServerBody, Malformed> {
        if head.version == Version::HTTP_10 && !self.settings.accepts_http_10 {
            return Err(Malformed::Version);
        }
        let decoder = Decoder::of_request(head.version, &head.headers)?;
        let mut state = self.state.borrow_mut();
        state.awaits_continue = !decoder.is_done()
            && head.version == Version::HTTP_11
            && head
                .headers
                .get(header::EXPECT)
                .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        state.decoder = decoder;
        state.broken = false;
        state.message += 1;
        Ok(ServerBody {
            state: self.state.clone(),
            message: state.message,
        })
    }

    /// Waits for the service, as long as the client does.
    async fn answer<R>(&self, mut service: Pin<&mut impl Future<Output = R>>) -> io::Result<R> {
        std::future::poll_fn(|context| {
            if let Poll::Ready(response) = service.as_mut().poll(context) {
                return Poll::Ready(Ok(response));
            }
            let mut state = self.state.borrow_mut();
            if !state.io.outgoing.is_empty() {
                let _ = state.io.poll_flush(context)?;
            }
            state.poll_gone(context).map(Err)
        })
        .await
    }

    /// Sends a response. Says whether the connection can go on.
    async fn respond<B>(
        &self,
        response: Response<B>,
        asked: &Asked,
        mut keep_alive: bool,
    ) -> Result<bool, Error>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (parts, body) = response.into_parts();
        let mut encoder = {
            let state = &mut *self.state.borrow_mut();
            // Whether a body comes that was not asked for is the client's choice, which nobody could tell.
            keep_alive &= !state.awaits_continue && !state.broken && !self.stopping.get();
            let out = &mut state.io.outgoing.collected;
            let announced = Announced::of(&body);
            let (status, headers) = (parts.status, &parts.headers);
            let encoder =
                encode::response(out, asked, status, headers, announced, &mut keep_alive)?;
            keep_alive &= keeps_alive(Version::HTTP_11, headers);
            encoder
        };
        let mut body = Some(body).filter(|_| !encoder.is_complete());
        let mut failed = None;
        std::future::poll_fn(|context| {
            loop {
                let mut waits = false;
                if let Some(content) = &mut body {
                    match self.fill(content, &mut encoder, context) {
                        Ok(Filled::Waits) => waits = true,
                        Ok(Filled::Full) => {}
                        // What hangs on the response is over when the last of it is written.
                        Ok(Filled::End) => body = None,
                        Err(error) => {
                            // The client gets what there is, and sees that it is not all.
                            (body, failed) = (None, Some(error));
                        }
                    }
                }
                let state = &mut *self.state.borrow_mut();
                ready!(state.io.poll_flush(context))?;
                if body.is_none() {
                    return Poll::Ready(failed.take().map_or(Ok(()), Err));
                }
                if waits {
                    return state.poll_gone(context).map(|error| Err(error.into()));
                }
            }
        })
        .await
        .map(|()| keep_alive && !self.state.borrow().broken)
    }

    /// Collects what there is of a body.
    fn fill<B>(
        &self,
        body: &mut B,
        encoder: &mut BodyEncoder,
        context: &mut Context<'_>,
    ) -> Result<Filled, Error>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        while self.state.borrow().io.outgoing.has_room() {
            // Not borrowed meanwhile: the body may wait for the rest of the request.
            let frame = match Pin::new(&mut *body).poll_frame(context) {
                Poll::Pending => return Ok(Filled::Waits),
                Poll::Ready(frame) => frame,
            };
            let out = &mut self.state.borrow_mut().io.outgoing;
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => encoder.push(out, data)?,
                Some(Ok(Err(frame))) => {
                    encoder.finish(out, frame.trailers_ref())?;
                    return Ok(Filled::End);
                }
                Some(Err(_)) => return Err(Error::Body),
                None => {
                    encoder.finish(out, None)?;
                    return Ok(Filled::End);
                }
            }
            if encoder.is_complete() {
                return Ok(Filled::End);
            }
        }
        Ok(Filled::Full)
    }

    /// Answers what is no request.
    async fn refuse<F, B>(&self, service: &impl Fn(Arrived) -> F, refusal: Refusal)
    where
        F: Future<Output = Response<B>>,
        B: Body<Data = Bytes> + Unpin,
    {
        let asked = Asked {
            is_head: false,
            version: Version::HTTP_11,
            takes_trailers: false,
        };
        let response = service(Arrived::Refused(refusal)).await;
        self.state.borrow_mut().broken = true;
        if self.respond(response, &asked, false).await.is_ok() {
            self.close().await;
        }
    }

    /// Throws away the rest of a request that is answered, if it is short. Says whether the next one can come.
    async fn drain(&self) -> bool {
        {
            let mut state = self.state.borrow_mut();
            if state.decoder.is_done() {
                return true;
            }
            // Whoever may still read it is too late.
            state.message += 1;
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
    async fn close(&self) {
        let linger = std::future::poll_fn(|context| {
            let io = &mut self.state.borrow_mut().io;
            ready!(io.poll_shutdown(context))?;
            let mut thrown = 0;
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

impl State {
    /// Returns when the client left, which is watched while nothing else reads.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
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
    fn poll_body(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.awaits_continue {
            // Also when it has come already, as in Envoy: who asks gets an answer.
            self.awaits_continue = false;
            let out = &mut self.io.outgoing.collected;
            out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        if !self.io.outgoing.is_empty() {
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
        if (self.decoder.is_done() || self.broken)
            && let Some(waker) = self.waiting.take()
        {
            waker.wake();
        }
        Poll::Ready(polled)
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

/// Whether a client asks for fields behind the body (RFC 9110 section 10.1.4).
fn takes_trailers(head: &RequestHead) -> bool {
    let mut values = head.headers.get_all(header::TE).iter();
    values.any(|value| {
        let mut tokens = value.as_bytes().split(|byte| *byte == b',');
        tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    })
}

/// The body of a request, read straight from its connection.
pub(crate) struct ServerBody {
    state: Rc<RefCell<State>>,
    message: u64,
}

impl Body for ServerBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut state = self.state.borrow_mut();
        if state.message != self.message {
            return Poll::Ready(Some(Err(Error::Over)));
        }
        state.poll_body(context)
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
