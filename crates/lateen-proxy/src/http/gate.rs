//! Waiting for what rarely happens beside something that is polled all the time.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// A future that is polled only when it was woken itself, rather than whenever its task was.
pub(super) struct Gated<F> {
    future: F,
    gate: Arc<Gate>,
    waker: Waker,
}

struct Gate {
    woken: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Gate {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl<F: Future> Gated<Pin<&mut F>> {
    pub(super) fn new(future: Pin<&mut F>) -> Gated<Pin<&mut F>> {
        let gate = Arc::new(Gate {
            woken: AtomicBool::new(true),
            task: AtomicWaker::new(),
        });
        let waker = Waker::from(gate.clone());
        Gated {
            future,
            gate,
            waker,
        }
    }
}

impl<F: Future> Future for Gated<Pin<&mut F>> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        this.gate.task.register(context.waker());
        if !this.gate.woken.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        this.future
            .as_mut()
            .poll(&mut Context::from_waker(&this.waker))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::pin::pin;

    use super::*;

    #[test]
    fn it_is_polled_only_when_it_was_woken() {
        let polls = Cell::new(0);
        let waker = Cell::new(None);
        let future = std::future::poll_fn(|context| {
            polls.set(polls.get() + 1);
            waker.set(Some(context.waker().clone()));
            if polls.get() < 3 {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        });
        let future = pin!(future);
        let mut gated = Gated::new(future);
        let mut poll = || Pin::new(&mut gated).poll(&mut Context::from_waker(Waker::noop()));
        for expected in [1, 1, 2, 2] {
            if polls.get() == 1 && expected == 2 {
                waker.take().unwrap().wake();
            }
            assert!(poll().is_pending());
            assert_eq!(polls.get(), expected);
        }
        waker.take().unwrap().wake();
        assert!(poll().is_ready());
    }
}
