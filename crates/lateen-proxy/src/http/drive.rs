//! Running the codec of a client's connection until it ends by itself, or has to.

use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::connection::HttpConnection;
use super::gate::Gated;
use crate::listener::{FilterChain, ListenerSlot};

/// How long an idle HTTP/1.1 connection of a replaced filter chain may wait for its next request, on whose response
/// the client is told to close.
const CHAIN_DRAIN: Duration = Duration::from_secs(45);

/// The same when the process ends.
const PROCESS_DRAIN: Duration = Duration::from_secs(1);

/// Least time for a client to take what is left when its connection ends: Envoy's `delayed_close_timeout`.
const FAREWELL: Duration = Duration::from_secs(1);

/// What ends a connection sooner or later.
enum Event {
    /// The listener changed.
    Changed,
    /// The process wants connections to end within this time.
    Drain(Duration),
    /// It has served as many requests as it may.
    UsedUp,
    /// It is as old as it may be.
    OfAge,
    /// The client makes it work for nothing.
    Abused,
    /// It is time to look at limits.
    Wake,
}

/// Runs the codec; drains when another filter chain is for the connection now or the process ends; ends when idle for too long.
/// `shut_down` asks the codec to end after what is in progress. Nothing when it was not waited for.
pub(super) async fn drive<C: Future>(
    mut codec: Pin<&mut C>,
    shut_down: impl Fn(Pin<&mut C>),
    state: &HttpConnection,
    slot: &ListenerSlot,
    chain: &FilterChain,
) -> Option<C::Output> {
    let mut changed = slot.subscribe();
    let mut draining = state.worker.shared.draining.subscribe();
    let mut leaving = state.worker.shared.leaving.subscribe();
    let inbound = state.info.inbound;
    let came_late = leaving.borrow().concerns(inbound);
    let age = state.manager.limits.connection;
    let mut of_age = age.and_then(|age| Instant::now().checked_add(age));
    let mut shut_down_at: Option<Instant> = None;
    let mut is_shut_down = false;
    // What had been sent, and when.
    let (mut sent, mut seen_at) = (0, Instant::now());
    loop {
        let idle_end = state
            .manager
            .limits
            .idle
            .map(|limit| state.last_end.get() + limit);
        let stall_end = state
            .manager
            .stream_idle_timeout
            .filter(|_| state.http2)
            .map(|limit| seen_at + limit);
        let wake = if is_shut_down {
            Some(Instant::now() + state.manager.limits.drain.max(FAREWELL))
        } else {
            [shut_down_at, idle_end, stall_end]
                .into_iter()
                .flatten()
                .min()
        };
        // Polled only when one of these happens, which is not once in a request.
        let (goes_on, age_end) = (shut_down_at.is_none(), of_age);
        let events = pin!(async {
            tokio::select! {
                Ok(()) = changed.changed(), if goes_on => Event::Changed,
                Ok(_) = draining.wait_for(|draining| *draining), if goes_on => {
                    Event::Drain(PROCESS_DRAIN)
                }
                Ok(_) = leaving.wait_for(|leaving| leaving.concerns(inbound)), if !came_late && goes_on => {
                    Event::Drain(state.worker.shared.drain_time)
                }
                () = state.told_to_end.notified() => match state.is_abusive() {
                    true => Event::Abused,
                    false => Event::UsedUp,
                },
                () = sleep_until(age_end), if age_end.is_some() && goes_on => Event::OfAge,
                () = sleep_until(wake) => Event::Wake,
            }
        });
        let event = tokio::select! {
            biased;
            output = codec.as_mut() => return Some(output),
            event = Gated::new(events) => event,
        };
        // How long it goes on, and whether the proxy wants it to end rather than the connection's own limits.
        let (drain_in, told) = match event {
            Event::Changed if slot.keeps(chain, &state.info.facts()) => continue,
            Event::Changed => (CHAIN_DRAIN, true),
            Event::Drain(time) => (time, true),
            Event::UsedUp if !goes_on => continue,
            Event::UsedUp => (state.manager.limits.drain, false),
            Event::OfAge => {
                of_age = None;
                state.manager.stats.here().cx_max_duration.inc();
                (state.manager.limits.drain, false)
            }
            Event::Abused => {
                // It finds out when it reads, and tells the client.
                std::future::poll_fn(|context| {
                    Poll::Ready(codec.as_mut().poll(context).is_ready())
                })
                .await;
                return None;
            }
            Event::Wake if is_shut_down => {
                // Nothing is in progress, and what is left waits for a client that takes nothing.
                let now_sent = state.outgoing.get().1;
                if state.requests.get() == 0 && now_sent == sent {
                    return None;
                }
                sent = now_sent;
                continue;
            }
            Event::Wake => {
                let now = Instant::now();
                let drained = shut_down_at.is_some_and(|at| at <= now);
                let idle_ended = idle_end.is_some_and(|end| end <= now);
                let idle = idle_ended && state.requests.get() == 0;
                let mut stalled = false;
                if stall_end.is_some_and(|end| end <= now) {
                    stalled = state.sent_to_stalled() == Some(sent);
                    (sent, seen_at) = (state.outgoing.get().1, now);
                }
                if drained || idle || stalled {
                    if idle && !drained {
                        state.manager.stats.here().cx_idle_timeout.inc();
                    }
                    shut_down(codec.as_mut());
                    is_shut_down = true;
                } else if idle_ended {
                    // Requests are in progress: look again after the limit.
                    state.last_end.set(now);
                }
                continue;
            }
        };
        if told {
            state.manager.stats.here().cx_drain_close.inc();
        }
        state.closing.set(true);
        shut_down_at = Some(Instant::now() + drain_in);
        if state.http2 {
            // The client is told which streams are served, so nothing is lost.
            shut_down(codec.as_mut());
            is_shut_down = true;
        }
    }
}

pub(super) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
