//! The side of endpoints: a connection that carries one exchange after the other.
//!
//! No task stands behind it: who waits for the response sends the request meanwhile. Only when the response begins before
//! the request is complete, which is rare, the rest of the request gets a task, as neither may wait for the other.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::task::AbortHandle;

use super::body_encoder::BodyEncoder;
use super::chunked::Decoded;
use super::encode::{self, Announced, Opens, OutgoingHead};
use super::error::{Error, Malformed};
use super::framing::{Decoder, keeps_alive};
use super::io::Io;
use super::parse::{self, ResponseHead};
use super::search::HeadSearch;
use super::tunnel::{HasIo, Tunnel};
use crate::http::codec;
use crate::http::request_body::RequestBody;
use crate::stream::Stream;

/// Informational responses before the one that counts.
const MOST_INFORMATIONAL: u32 = 10;

/// A request without a response.
pub(crate) struct Unanswered {
    pub(crate) error: Error,
    /// The request's body, when the connection was closed before any byte of the request was sent.
    pub(crate) unsent: Option<RequestBody>,
}

/// A connection.
pub(crate) struct Client {
    state: Rc<RefCell<State>>,
}

/// What the connection shares with the body of the current response.
struct State {
    io: Io,
    /// What is still to be sent.
    upload: Option<Upload>,
    /// The request could not be sent to its end.
    broken: bool,
    /// The last exchange is complete, and another may follow.
    reusable: bool,
}

/// The request's body on its way.
struct Upload {
    body: RequestBody,
    encoder: BodyEncoder,
    /// Everything is in the buffer.
    ended: bool,
}

impl HasIo for State {
    fn io(&mut self) -> &mut Io {
        &mut self.io
    }
}

impl Client {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            state: Rc::new(RefCell::new(State {
                io: Io::new(stream, BytesMut::new(), None),
                upload: None,
                broken: false,
                reusable: true,
            })),
        }
    }

    /// Whether the connection can carry another exchange. Whatever the peer sends between two, also its farewell, says
    /// that it cannot. `waker` is woken when that happens.
    pub(crate) fn is_reusable(&self, waker: &Waker) -> bool {
        let state = &mut *self.state.borrow_mut();
        state.reusable && state.io.is_silent(&mut Context::from_waker(waker))
    }

    /// Frees memory that an idle connection does not need.
    pub(crate) fn shrink(&self) {
        self.state.borrow_mut().io.shrink();
    }

    /// Sends a request and waits for the head of its response.
    ///
    /// # Errors
    /// When there is none, or none that could be understood. The connection is of no use any more.
    pub(crate) async fn send(
        &self,
        head: OutgoingHead<'_>,
        body: RequestBody,
    ) -> Result<Response<ClientBody>, Unanswered> {
        let failed = |error| Unanswered {
            error,
            unsent: None,
        };
        self.state.borrow_mut().begin(&head, body).map_err(failed)?;
        let (mut informational, mut search) = (0, HeadSearch::default());
        let received = std::future::poll_fn(|context| {
            let state = &mut *self.state.borrow_mut();
            match state.poll_upload(context) {
                // The peer does not take the rest, and may have said why.
                Poll::Ready(Err(Error::Io(_))) if state.io.sent > 0 => state.break_off(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                _ => {}
            }
            // What comes before the request is no answer to it.
            if state.io.sent == 0 {
                return Poll::Pending;
            }
            let switches = head.opens == Opens::Protocol;
            state.poll_head(context, &mut search, &mut informational, switches)
        });
        let received = match received.await {
            Ok(received) => received,
            Err(error) => {
                let state = &mut *self.state.borrow_mut();
                // What went wrong with the body would go wrong again.
                let is_unsent = state.io.sent == 0 && matches!(error, Error::Io(_));
                let unsent = state.upload.take().filter(|_| is_unsent);
                let unsent = unsent.and_then(|upload| upload.body.rewound());
                return Err(Unanswered { error, unsent });
            }
        };
        self.respond(head, received).map_err(failed)
    }

    /// The response that a head begins.
    fn respond(
        &self,
        asked: OutgoingHead<'_>,
        head: ResponseHead,
    ) -> Result<Response<ClientBody>, Error> {
        let ResponseHead {
            status,
            version,
            headers,
        } = head;
        let decoder = match asked.opens {
            // Whatever the head says (RFC 9110 section 9.3.6).
            Opens::Tunnel if status.is_success() => Decoder::Done,
            _ => Decoder::of_response(asked.method, status, version, &headers)?,
        };
        let keep_alive = keeps_alive(version, &headers)
            && !matches!(decoder, Decoder::UntilClose)
            // What comes after an upgrade that was refused is not certain to be HTTP.
            && asked.opens == Opens::Nothing;
        let mut body = ClientBody {
            state: self.state.clone(),
            decoder,
            keep_alive,
            upload: None,
        };
        if body.decoder.is_done() {
            body.finish();
        } else if self.state.borrow().upload.is_some() {
            body.upload = Some(self.upload_beside());
        }
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.version_mut() = version;
        *response.headers_mut() = headers;
        Ok(response)
    }

    /// Sends the rest of the request in a task of its own.
    fn upload_beside(&self) -> AbortHandle {
        let state = self.state.clone();
        let upload = std::future::poll_fn(move |context| {
            let state = &mut *state.borrow_mut();
            if ready!(state.poll_upload(context)).is_err() {
                // The response may be complete all the same.
                state.break_off();
            }
            Poll::Ready(())
        });
        tokio::task::spawn_local(upload).abort_handle()
    }

    /// The bytes after a switch of protocols.
    pub(crate) fn tunnel(&self) -> Tunnel {
        Tunnel(self.state.clone())
    }
}

impl State {
    /// Puts the head of a request into the buffer.
    fn begin(&mut self, head: &OutgoingHead<'_>, body: RequestBody) -> Result<(), Error> {
        self.reusable = false;
        self.io.sent = 0;
        let announced = Announced::of(&body);
        let encoder = encode::request(&mut self.io.outgoing.collected, head, announced)?;
        self.upload = Some(Upload {
            ended: encoder.is_complete(),
            body,
            encoder,
        });
        Ok(())
    }

    /// Gives the rest of the request up.
    fn break_off(&mut self) {
        self.upload = None;
        self.broken = true;
    }

    /// Sends what can be sent of the request.
    fn poll_upload(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Some(upload) = &mut self.upload else {
            return Poll::Ready(Ok(()));
        };
        loop {
            let waits = upload.fill(&mut self.io, context)?;
            ready!(self.io.poll_flush(context))?;
            if upload.ended {
                self.upload = None;
                return Poll::Ready(Ok(()));
            }
            if waits {
                return Poll::Pending;
            }
        }
    }

    /// Reads the head of the response.
    fn poll_head(
        &mut self,
        context: &mut Context<'_>,
        search: &mut HeadSearch,
        informational: &mut u32,
        switches: bool,
    ) -> Poll<Result<ResponseHead, Error>> {
        loop {
            if search.is_worth_a_look(&self.io.received) {
                match parse::response(&mut self.io.received, codec::MOST_HEADERS)? {
                    Some(head) if head.status == StatusCode::SWITCHING_PROTOCOLS => {
                        return Poll::Ready(match switches {
                            true => Ok(head),
                            false => Err(Malformed::Switch.into()),
                        });
                    }
                    Some(head) if head.status.is_informational() => {
                        *informational += 1;
                        if *informational > MOST_INFORMATIONAL {
                            return Poll::Ready(Err(Malformed::Head.into()));
                        }
                        *search = HeadSearch::default();
                        continue;
                    }
                    Some(head) => return Poll::Ready(Ok(head)),
                    None => {}
                }
            }
            if self.io.received.len() >= codec::HTTP1_BUFFER {
                return Poll::Ready(Err(Malformed::TooLarge.into()));
            }
            if ready!(self.io.poll_fill(context))? == 0 {
                return Poll::Ready(Err(Error::Ended));
            }
        }
    }
}

impl Upload {
    /// Collects what there is of the body. Says whether more has to be waited for.
    fn fill(&mut self, io: &mut Io, context: &mut Context<'_>) -> Result<bool, Error> {
        while !self.ended && io.outgoing.has_room() {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
                return Ok(true);
            };
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => {
                    self.encoder.push(&mut io.outgoing, data)?;
                    self.ended = self.encoder.is_complete();
                }
                Some(Ok(Err(frame))) => {
                    self.encoder
                        .finish(&mut io.outgoing, frame.trailers_ref())?;
                    self.ended = true;
                }
                Some(Err(_)) => return Err(Error::Body),
                None => {
                    self.encoder.finish(&mut io.outgoing, None)?;
                    self.ended = true;
                }
            }
        }
        Ok(false)
    }
}

/// The body of a response, read straight from its connection.
pub(crate) struct ClientBody {
    state: Rc<RefCell<State>>,
    decoder: Decoder,
    /// The connection can be used again after it.
    keep_alive: bool,
    /// The task that sends the rest of the request.
    upload: Option<AbortHandle>,
}

impl ClientBody {
    /// Gives the connection free, if the request was sent completely, too.
    fn finish(&self) {
        let state = &mut *self.state.borrow_mut();
        let is_sent = state.upload.is_none() && !state.broken;
        state.reusable = self.keep_alive && is_sent && state.io.received.is_empty();
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        if let Some(upload) = self.upload.take() {
            upload.abort();
        }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if this.decoder.is_done() {
            return Poll::Ready(None);
        }
        let polled = {
            let state = &mut *this.state.borrow_mut();
            loop {
                match this.decoder.decode(&mut state.io.received) {
                    Ok(Decoded::Data(data)) => break Some(Ok(Frame::data(data))),
                    Ok(Decoded::Trailers(fields)) => break Some(Ok(Frame::trailers(fields))),
                    Ok(Decoded::End) => break None,
                    Ok(Decoded::Incomplete) => {}
                    Err(malformed) => break Some(Err(malformed.into())),
                }
                match ready!(state.io.poll_fill(context)) {
                    Ok(0) if this.decoder.end_of_input() => break None,
                    Ok(0) => break Some(Err(Error::Ended)),
                    Ok(_) => {}
                    Err(error) => break Some(Err(error.into())),
                }
            }
        };
        if this.decoder.is_done() {
            this.finish();
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.decoder.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        match self.decoder.left() {
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}
