//! Users that call in the background, each a second after the last answer at most, and where they were answered.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::asking::{Hit, hit};
use crate::http_client::{HttpClient, HttpError};

/// Users that share a connection, one after the other.
const USERS_PER_CONNECTION: usize = 10;

/// What the crowd has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The pods of each user, in the order of its calls, without repetitions.
    pub(super) pods: BTreeMap<String, Vec<String>>,
    /// Answers so far.
    pub(super) answers: usize,
    /// Moves so far: a user's answer came from another pod than the one before.
    pub(super) moves: usize,
    /// What went wrong, if anything.
    pub(super) failures: Vec<String>,
}

impl Seen {
    fn note(&mut self, user: &str, answer: Result<Hit, HttpError>) {
        match answer {
            Ok(hit) if hit.is_answer() => {
                self.answers += 1;
                let pods = self.pods.entry(user.to_owned()).or_default();
                if pods.last() != Some(&hit.pod) {
                    pods.push(hit.pod);
                    self.moves += usize::from(pods.len() > 1);
                }
            }
            Ok(hit) => self.failures.push(format!("{user}: {}", hit.service)),
            Err(error) => self.failures.push(format!("{user}: {error}")),
        }
    }
}

/// Users that go on calling until the value is dropped.
pub(super) struct Crowd {
    pub(super) seen: Rc<RefCell<Seen>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Users with these names, each of whom calls `backend` once in `period`; without a pause when it is zero.
    pub(super) fn start(
        gateway: SocketAddr,
        backend: &'static str,
        users: &[String],
        period: Duration,
    ) -> Self {
        let seen = Rc::new(RefCell::new(Seen::default()));
        let groups = users.chunks(USERS_PER_CONNECTION).map(<[String]>::to_vec);
        let tasks = groups.map(|users| {
            let seen = Rc::clone(&seen);
            tokio::task::spawn_local(call(gateway, backend, users, period, seen))
        });
        Self {
            tasks: tasks.collect(),
            seen,
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn call(
    gateway: SocketAddr,
    backend: &'static str,
    users: Vec<String>,
    period: Duration,
    seen: Rc<RefCell<Seen>>,
) {
    let mut client = HttpClient::new(gateway);
    loop {
        let next = Instant::now() + period;
        for user in &users {
            let answer = hit(&mut client, backend, Some(user)).await;
            seen.borrow_mut().note(user, answer);
            if !period.is_zero() {
                // Spread over the period, so that calls are no burst themselves.
                sleep(period / (2 * users.len() as u32)).await;
            }
        }
        sleep_until(next).await;
    }
}
