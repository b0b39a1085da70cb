//! Bodies of responses on their way back to the client.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::finish::Tail;
use super::incoming::Incoming;
use super::stall;
use super::throttle::Throttled;

/// Errors of bodies, as the codecs want them.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a response to the client. When it ends or is dropped, the request is over.
pub(crate) struct ResponseBody {
    pub(crate) content: Content,
    /// Nothing when the request goes on after the response, as a tunnel.
    pub(crate) tail: Option<Box<Tail>>,
}

/// Where its bytes come from.
pub(crate) enum Content {
    Full(Bytes),
    Upstream(Incoming),
    /// At a limited rate.
    Slow(Box<Throttled<Incoming>>),
    Done,
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let patience = this.patience();
        let polled = this.poll_content(context);
        if let Some(patience) = patience {
            stall::tell(match &polled {
                Poll::Ready(Some(Ok(_))) => stall::Body::Gave(patience),
                _ => stall::Body::Waits,
            });
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Full(bytes) => bytes.is_empty(),
            Content::Upstream(body) => body.is_end_stream(),
            Content::Slow(body) => body.is_end_stream(),
            Content::Done => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Upstream(body) => body.size_hint(),
            Content::Slow(body) => body.size_hint(),
            Content::Done => SizeHint::with_exact(0),
        }
    }
}

impl ResponseBody {
    /// How long a client of HTTP/2 may take for a part; nothing inside: any time. Nothing at all in HTTP/1.1, whose codec
    /// looks itself.
    fn patience(&self) -> Option<Option<Duration>> {
        let tail = self.tail.as_ref().filter(|tail| tail.connection.http2)?;
        Some(match &self.content {
            Content::Full(_) | Content::Done => tail.connection.manager.stream_idle_timeout,
            Content::Upstream(_) | Content::Slow(_) => tail.idle.as_ref().map(|(limit, _)| *limit),
        })
    }

    fn poll_content(&mut self, context: &mut Context<'_>) -> Polled {
        let this = self;
        match &mut this.content {
            Content::Done => Poll::Ready(None),
            Content::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.content = Content::Done;
                if bytes.is_empty() {
                    return Poll::Ready(None);
                }
                if let Some(tail) = &mut this.tail {
                    tail.record.bytes_sent += bytes.len() as u64;
                }
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Content::Upstream(body) => {
                let (polled, ended) = relay(body, this.tail.as_deref_mut(), context);
                if ended {
                    this.content = Content::Done;
                }
                polled
            }
            Content::Slow(body) => {
                let (polled, ended) = relay(&mut **body, this.tail.as_deref_mut(), context);
                if ended {
                    this.content = Content::Done;
                }
                polled
            }
        }
    }
}

type Polled = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

/// Passes on what comes from an upstream. The second value says that nothing follows.
fn relay<B>(body: &mut B, tail: Option<&mut Tail>, context: &mut Context<'_>) -> (Polled, bool)
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    let Some(tail) = tail else {
        return (Poll::Ready(None), true);
    };
    let late = || {
        let error = "the time for the response is over".into();
        (Poll::Ready(Some(Err(error))), true)
    };
    match Pin::new(&mut *body).poll_frame(context) {
        Poll::Pending if tail.expired(context) => late(),
        Poll::Pending => (Poll::Pending, false),
        Poll::Ready(None) => {
            tail.upstream_complete();
            (Poll::Ready(None), true)
        }
        Poll::Ready(Some(Err(error))) => {
            tail.upstream_broken();
            (Poll::Ready(Some(Err(error.into()))), true)
        }
        Poll::Ready(Some(Ok(frame))) => {
            tail.progress();
            if let Some(data) = frame.data_ref() {
                tail.record.bytes_sent += data.len() as u64;
            } else if let Some(trailers) = frame.trailers_ref() {
                tail.record.trailers = trailers.clone();
            }
            let ended = body.is_end_stream();
            if ended {
                tail.upstream_complete();
            } else if tail.is_late() {
                return late();
            }
            (Poll::Ready(Some(Ok(frame))), ended)
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        let unread = match &self.content {
            Content::Upstream(body) => !body.is_end_stream(),
            Content::Slow(body) => !body.is_end_stream(),
            Content::Full(_) | Content::Done => false,
        };
        if let Some(tail) = &mut self.tail {
            if stall::is_given_up() {
                tail.finish_stalled();
            } else {
                tail.finish(unread);
            }
        }
    }
}
