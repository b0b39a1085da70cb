//! The side of clients: one connection, request after request.

mod body;
mod close;
mod head;

pub(crate) use body::ServerBody;

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Response, Version, header};
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep};

use body::State;
use close::MOST_DRAINED;

use super::body_encoder::BodyEncoder;
use super::encode::{self, Announced, Asked};
use super::error::{Error, Malformed};
use super::framing::{Decoder, is_chunked_with_length, keeps_alive, may_have};
use super::io::Io;
use super::parse::RequestHead;
use super::tunnel::Tunnel;
use crate::stats::{HttpStats, PerWorker};
use crate::stream::Stream;

/// Limits of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Header fields of a request.
    pub(crate) most_fields: usize,
    /// Length of a head.
    pub(crate) most_bytes: usize,
    /// Time for a head that was begun.
    pub(crate) head_time: Duration,
    /// Time in which a client has to take something of a response.
    pub(crate) write_time: Option<Duration>,
    /// HTTP/1.0 is spoken, too.
    pub(crate) accepts_http_10: bool,
    /// A length beside chunks is passed over.
    pub(crate) allows_chunked_length: bool,
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
    /// The response was `101`, or a success of `CONNECT`: the bytes of the other protocol follow.
    Switched(Tunnel),
}

/// A connection.
pub(crate) struct Server {
    state: Rc<RefCell<State>>,
    settings: Settings,
    /// The connection ends as soon as nothing is in progress.
    stopping: Cell<bool>,
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
            state: Rc::new(RefCell::new(State::new(Io::new(
                stream,
                received,
                Some(stats),
            )))),
            settings,
            stopping: Cell::new(false),
        }
    }

    /// Ends the connection after what is in progress. To be polled afterwards.
    pub(crate) fn stop(&self) {
        self.stopping.set(true);
    }

    /// Serves requests until the connection ends. `refused` answers what is no request that could be answered in its own
    /// terms; the connection ends with it.
    pub(crate) async fn serve<F, B>(
        &self,
        service: impl Fn(RequestHead, ServerBody) -> F,
        refused: impl Fn(Refusal) -> Response<B>,
    ) -> Ended
    where
        F: Future<Output = Response<B>>,
        B: Body<Data = Bytes> + Unpin,
    {
        let ended = loop {
            match self.next(&service, &refused).await {
                Some(Ended::Closed) => break Ended::Closed,
                Some(switched) => return switched,
                None => {}
            }
        };
        // Nobody shall keep the socket open for a body that will not come.
        self.state.borrow_mut().take_body();
        ended
    }

    /// Serves one request. Says how the connection ends, unless it goes on.
    async fn next<F, B>(
        &self,
        service: &impl Fn(RequestHead, ServerBody) -> F,
        refused: &impl Fn(Refusal) -> Response<B>,
    ) -> Option<Ended>
    where
        F: Future<Output = Response<B>>,
        B: Body<Data = Bytes> + Unpin,
    {
        let begun = match self.head().await {
            Ok(None) => return Some(Ended::Closed),
            Ok(Some(mut head)) => match self.begin(&mut head) {
                Ok((body, is_doubtful)) => Ok((head, body, is_doubtful)),
                Err(malformed) => Err(Refusal::Malformed(malformed)),
            },
            Err(refusal) => Err(refusal),
        };
        let mut asked = Asked {
            method: Method::GET,
            version: Version::HTTP_11,
            takes_trailers: false,
        };
        let (response, keep_alive) = match begun {
            Ok((head, body, is_doubtful)) => {
                asked.method = head.method.clone();
                asked.version = head.version;
                let [has_te, has_connection] =
                    may_have(&head.headers, [header::TE, header::CONNECTION]);
                asked.takes_trailers = has_te && takes_trailers(&head);
                let keep_alive = if has_connection {
                    keeps_alive(head.version, &head.headers)
                } else {
                    head.version == Version::HTTP_11
                };
                let keep_alive = keep_alive && !is_doubtful;
                let answering = pin!(service(head, body));
                match self.answer(answering).await {
                    Ok(response) => (response, keep_alive),
                    Err(_) => return Some(Ended::Closed),
                }
            }
            Err(refusal) => {
                self.state.borrow_mut().broken = true;
                (refused(refusal), false)
            }
        };
        let switched = asked.switches(response.status());
        let Ok(keep_alive) = self.respond(response, &asked, keep_alive).await else {
            return Some(Ended::Closed);
        };
        if switched {
            return Some(Ended::Switched(Tunnel(self.state.clone())));
        }
        if !keep_alive || !self.drain().await {
            self.close().await;
            return Some(Ended::Closed);
        }
        None
    }

    /// Prepares for the body of a request. Says whether somebody on the way may have read it otherwise, so that nothing
    /// may follow it.
    fn begin(&self, head: &mut RequestHead) -> Result<(ServerBody, bool), Malformed> {
        if head.version == Version::HTTP_10 && !self.settings.accepts_http_10 {
            return Err(Malformed::Version);
        }
        // RFC 9112 section 6.1.
        let is_doubtful =
            self.settings.allows_chunked_length && is_chunked_with_length(&head.headers);
        if is_doubtful {
            head.headers.remove(header::CONTENT_LENGTH);
        }
        let decoder = Decoder::of_request(head.version, &head.headers)?;
        if head.method == Method::CONNECT && !decoder.is_done() {
            // What follows belongs to the tunnel, if there is one (RFC 9110 section 9.3.6).
            return Err(match decoder {
                Decoder::Chunked(_) => Malformed::Coding,
                _ => Malformed::Body,
            });
        }
        let expects = head.headers.get(header::EXPECT).is_some_and(|value| {
            let is_new = head.version == Version::HTTP_11;
            is_new && value.as_bytes().eq_ignore_ascii_case(b"100-continue")
        });
        let message = self.state.borrow_mut().begin(decoder, expects);
        let body = ServerBody {
            state: self.state.clone(),
            message,
        };
        Ok((body, is_doubtful))
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
            // From now on that would be part of the response.
            state.awaits_continue = false;
            let out = &mut state.io.outgoing.collected;
            let announced = Announced::of(&body);
            let is_short = match announced {
                Announced::Empty => true,
                Announced::Length(length) => length <= MOST_DRAINED,
                Announced::Unknown => false,
            };
            // More is still to come than will be waited for after it.
            let is_long = |left| left > MOST_DRAINED;
            keep_alive &= !is_short || !state.decoder.left().is_some_and(is_long);
            let (status, headers) = (parts.status, &parts.headers);
            encode::response(out, asked, status, headers, announced, &mut keep_alive)?
        };
        let mut body = Some(body).filter(|_| !encoder.is_complete());
        let (mut failed, mut stalled) = (None, Stall::default());
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
                            if matches!(encoder, BodyEncoder::UntilClose) {
                                self.state.borrow().io.break_off();
                            }
                        }
                    }
                }
                let state = &mut *self.state.borrow_mut();
                if state.io.poll_flush(context)?.is_pending() {
                    let limit = self.settings.write_time;
                    return stalled.poll(limit, state.io.sent, context).map(Err);
                }
                if body.is_none() {
                    return Poll::Ready(failed.take().map_or(Ok(()), Err));
                }
                if waits && state.left {
                    // Nobody waits for the rest of a response that has begun.
                    return Poll::Ready(Err(Error::Ended));
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
}

/// The time since a client took something.
#[derive(Default)]
struct Stall {
    sent: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    /// Returns when it is too long. To be called when the socket takes nothing more.
    fn poll(
        &mut self,
        limit: Option<Duration>,
        sent: u64,
        context: &mut Context<'_>,
    ) -> Poll<Error> {
        let Some(limit) = limit else {
            return Poll::Pending;
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if self.sent != sent {
            self.sent = sent;
            timer.as_mut().reset(Instant::now() + limit);
        }
        timer
            .as_mut()
            .poll(context)
            .map(|()| Error::Io(io::ErrorKind::TimedOut.into()))
    }
}

/// Whether a client asks for fields behind the body (RFC 9110 section 10.1.4).
fn takes_trailers(head: &RequestHead) -> bool {
    let mut values = head.headers.get_all(header::TE).iter();
    values.any(|value| {
        let mut tokens = value.as_bytes().split(|byte| *byte == b',');
        tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    })
}
