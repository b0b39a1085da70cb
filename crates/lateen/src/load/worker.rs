//! A worker: one connection, which sends its requests one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, sleep_until, timeout};

use super::connection::{CallError, Connection};
use super::plan::Plan;

/// Longest time that is told apart, in microseconds: ten minutes.
const LONGEST: u64 = 600_000_000;
/// Digits of times that are kept.
const DIGITS: u8 = 3;

/// What the workers share.
pub(super) struct Shared {
    plan: Arc<Plan>,
    started: Instant,
    /// Number of the next request.
    next: AtomicU64,
    stopped: AtomicBool,
}

/// What a worker has seen.
pub(super) struct Outcome {
    /// Microseconds of each answer.
    pub(super) times: Histogram<u64>,
    /// Answers by status code.
    pub(super) codes: BTreeMap<u16, u64>,
    /// Failures by their reason.
    pub(super) errors: BTreeMap<String, u64>,
    /// Bytes of answers' bodies.
    pub(super) bytes: u64,
    /// Connections that were opened.
    pub(super) connections: u64,
}

impl Default for Outcome {
    fn default() -> Self {
        Self {
            times: times(),
            codes: BTreeMap::new(),
            errors: BTreeMap::new(),
            bytes: 0,
            connections: 0,
        }
    }
}

/// An empty histogram of times.
pub(super) fn times() -> Histogram<u64> {
    // The bounds are constants that the library takes.
    Histogram::new_with_bounds(1, LONGEST, DIGITS).unwrap_or_else(|_| unreachable!("valid bounds"))
}

impl Shared {
    pub(super) fn new(plan: Arc<Plan>) -> Self {
        Self {
            plan,
            started: Instant::now(),
            next: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        }
    }

    /// Lets the requests that are on their way be the last ones.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// How far it is, in requests or seconds.
    pub(super) fn position(&self) -> u64 {
        match self.plan.requests {
            Some(requests) => self.next.load(Ordering::Relaxed).min(requests),
            None => self.elapsed().as_secs(),
        }
    }

    /// When the next request is due; nothing when there is none.
    fn due(&self) -> Option<Instant> {
        if self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if self.plan.requests.is_some_and(|most| number >= most) {
            return None;
        }
        let at = match self.plan.rate {
            Some(rate) => self.started + Duration::from_secs_f64(number as f64 / rate),
            None => Instant::now(),
        };
        (at.saturating_duration_since(self.started) < self.plan.time).then_some(at)
    }
}

/// Sends requests until there are no more.
pub(super) async fn run(shared: Arc<Shared>) -> Outcome {
    let mut outcome = Outcome::default();
    let mut connection: Option<Connection> = None;
    while let Some(due) = shared.due() {
        sleep_until(due).await;
        let called = timeout(
            shared.plan.patience,
            call(&shared.plan, &mut connection, &mut outcome),
        )
        .await
        .unwrap_or(Err(CallError::Late));
        match called {
            Ok(code) => {
                let micros = u64::try_from(due.elapsed().as_micros()).unwrap_or(LONGEST);
                outcome.times.saturating_record(micros);
                *outcome.codes.entry(code).or_default() += 1;
            }
            Err(error) => {
                connection = None;
                *outcome.errors.entry(error.to_string()).or_default() += 1;
            }
        }
    }
    outcome
}

/// One request with its whole answer.
async fn call(
    plan: &Plan,
    connection: &mut Option<Connection>,
    outcome: &mut Outcome,
) -> Result<u16, CallError> {
    let usable = match connection {
        Some(connection) => connection.ready().await,
        None => false,
    };
    if !usable {
        *connection = None;
    }
    let open = match connection {
        Some(open) => open,
        None => {
            let opened = Connection::open(plan).await?;
            outcome.connections += 1;
            connection.insert(opened)
        }
    };
    let mut answer = open.send(plan.request()).await?;
    while let Some(frame) = answer.body_mut().frame().await {
        if let Some(data) = frame?.data_ref() {
            outcome.bytes += data.len() as u64;
        }
    }
    Ok(answer.status().as_u16())
}
