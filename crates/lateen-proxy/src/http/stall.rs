//! Streams of HTTP/2 whose clients take nothing. The codec asks a body for its next part when the client has taken the one
//! before, so that who opens no window would hold all that belongs to a request for ever. Envoy's `stream_idle_timeout`
//! resets such streams, and so is done here: by the executor of the streams, as nothing else sees that nobody asks.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

/// Runs the streams of a client's connection on the thread of its worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for StreamExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(Watched {
            stream: Some(future),
            due: None,
            timer: None,
        });
    }
}

/// What a body last did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// It was not asked.
    Silent,
    /// It has nothing, or nothing any more.
    Waits,
    /// It gave a part. The client has so much time to take it; nothing: any time.
    Gave(Option<Duration>),
    /// Its client has taken nothing for too long.
    GivenUp,
}

thread_local! {
    /// Of the stream that runs.
    static BODY: Cell<Body> = const { Cell::new(Body::Silent) };
}

/// To be told by the body of a stream, whenever it is asked.
pub(super) fn tell(body: Body) {
    BODY.set(body);
}

/// Whether the body that is dropped was not taken.
pub(super) fn is_given_up() -> bool {
    BODY.get() == Body::GivenUp
}

pin_project! {
    /// A stream, and the time since its client took something.
    struct Watched<F> {
        #[pin]
        stream: Option<F>,
        // When the part that the codec has must have been taken.
        due: Option<Instant>,
        timer: Option<Pin<Box<Sleep>>>,
    }
}

impl<F: Future> Future for Watched<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(stream) = this.stream.as_mut().as_pin_mut() else {
            return Poll::Ready(());
        };
        BODY.set(Body::Silent);
        if stream.poll(context).is_ready() {
            return Poll::Ready(());
        }
        match BODY.get() {
            // The codec still has what it had.
            Body::Silent => {}
            Body::Gave(limit) => {
                *this.due = limit.and_then(|limit| Instant::now().checked_add(limit));
            }
            Body::Waits | Body::GivenUp => *this.due = None,
        }
        let Some(due) = *this.due else {
            return Poll::Pending;
        };
        let timer = this
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        // It is set anew when it rings, rather than for every part.
        while timer.as_mut().poll(context).is_ready() {
            if Instant::now() >= due {
                BODY.set(Body::GivenUp);
                // The client sees a reset.
                this.stream.set(None);
                BODY.set(Body::Silent);
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    }
}
