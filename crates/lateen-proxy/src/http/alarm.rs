//! A timer that the requests of a connection use one after the other.
//!
//! Most deadlines are far away and never reached, and each is later than the one before. So the timer stays set for an
//! earlier moment and is set anew only then, rather than set and removed for every request.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::time::{Instant, Sleep, sleep_until};

/// The timer, made when it is first needed.
#[derive(Default)]
pub(super) struct Alarm(RefCell<Option<Timer>>);

struct Timer {
    sleep: Pin<Box<Sleep>>,
    /// Whom it wakes.
    waker: Waker,
}

impl Alarm {
    /// Returns at this moment. One at a time may wait.
    pub(super) async fn until(&self, at: Instant) {
        std::future::poll_fn(|context| self.poll(at, context)).await;
    }

    fn poll(&self, at: Instant, context: &mut Context<'_>) -> Poll<()> {
        let mut timer = self.0.borrow_mut();
        let timer = timer.get_or_insert_with(|| Timer {
            sleep: Box::pin(sleep_until(at)),
            waker: Waker::noop().clone(),
        });
        let is_set = timer.sleep.deadline() <= at && !timer.sleep.is_elapsed();
        if is_set && timer.waker.will_wake(context.waker()) {
            return Poll::Pending;
        }
        if !is_set {
            timer.sleep.as_mut().reset(at);
        }
        while timer.sleep.as_mut().poll(context).is_ready() {
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            timer.sleep.as_mut().reset(at);
        }
        timer.waker.clone_from(context.waker());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_rings_in_time_whatever_it_was_set_for() {
        let alarm = Alarm::default();
        let started = Instant::now();
        let after = |millis| started + Duration::from_millis(millis);
        // Left by a request that was answered; earlier than the next, later than the one after it, and past.
        for (left, at) in [(40, 80), (5000, 120), (130, 160), (100, 100)] {
            let never = alarm.until(after(left));
            let _ = tokio::time::timeout(Duration::from_millis(1), never).await;
            alarm.until(after(at)).await;
            let rang = started.elapsed();
            assert!(rang >= Duration::from_millis(at), "{at} ms: {rang:?}");
            assert!(rang < Duration::from_millis(at + 1000), "{at} ms: {rang:?}");
        }
    }

    #[tokio::test]
    async fn it_wakes_who_waits_now() {
        let alarm = std::rc::Rc::new(Alarm::default());
        let at = Instant::now() + Duration::from_millis(50);
        let local = tokio::task::LocalSet::new();
        let set = async {
            let _ = tokio::time::timeout(Duration::from_millis(1), alarm.until(at)).await;
        };
        set.await;
        let other = alarm.clone();
        let waiting = local.spawn_local(async move { other.until(at).await });
        let rang = local.run_until(tokio::time::timeout(Duration::from_secs(5), waiting));
        rang.await.expect("the other task is woken").unwrap();
    }
}
