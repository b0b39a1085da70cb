//! One worker's connection to a store: a task that keeps it open, and requests that are answered in order.
//!
//! Nobody waits for a server that is away: requests are refused at once until it has answered a first question again.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::resp::{self, Malformed, Reply};
use super::store::{Store, StoreSettings};
use crate::cluster::Host;
use crate::net::{self, ConnectOptions};
use crate::stats::PerWorker;
use crate::stream::Stream;
use crate::tls::HandshakeError;
use crate::tls::client::AskedOfTls;
use crate::worker::Worker;

/// Requests that may wait for their answers. Beyond it the server is slower than the traffic.
const QUEUE: usize = 1024;
/// Time for a connection, with everything that comes before the first request.
const CONNECT_TIME: Duration = Duration::from_secs(1);
/// A server that leaves a request unanswered for so long is away.
const SILENCE: Duration = Duration::from_millis(250);
/// Pause before the next connection: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Received bytes are taken in steps of this size.
const STEP: usize = 4096;

/// Why the store does not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error("the name of the server cannot be resolved: {0}")]
    Resolve(#[source] io::Error),
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("TLS: {0}")]
    Tls(#[source] HandshakeError),
    #[error("secret `{0}` with the password is not there")]
    NoPassword(String),
    #[error("the server refuses: {0}")]
    Refused(String),
    #[error("{0}")]
    Malformed(#[from] Malformed),
    #[error("connection lost: {0}")]
    Lost(#[from] io::Error),
    #[error("no answer in time")]
    Silent,
}

/// How a request fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// The server is away, or busier than it can be.
    Away,
    /// It took too long.
    Late,
}

/// A worker's end of the connection. It is closed when this is dropped.
pub(crate) struct Connection {
    requests: mpsc::Sender<Request>,
    is_away: Rc<Cell<bool>>,
}

struct Request {
    bytes: Vec<u8>,
    answer: Answer,
}

/// Replies that are still to come, and who waits for them.
struct Answer {
    missing: usize,
    replies: Vec<Reply>,
    to: oneshot::Sender<Vec<Reply>>,
    asked: Instant,
}

impl Connection {
    /// Opens the connection in the background.
    pub(crate) fn open(worker: &Rc<Worker>, store: Arc<Store>) -> Rc<Self> {
        let (requests, queue) = mpsc::channel(QUEUE);
        // The first requests wait for the connection, within their own time.
        let is_away = Rc::new(Cell::new(false));
        let mark = worker.shared.mark_sockets;
        tokio::task::spawn_local(keep(store, mark, queue, is_away.clone()));
        Rc::new(Self { requests, is_away })
    }

    /// Sends requests that have `replies` replies, and waits for them for at most `time`.
    pub(super) async fn ask(
        &self,
        bytes: Vec<u8>,
        replies: usize,
        time: Duration,
    ) -> Result<Vec<Reply>, Unanswered> {
        if self.is_away.get() {
            return Err(Unanswered::Away);
        }
        let (to, answer) = oneshot::channel();
        let request = Request {
            bytes,
            answer: Answer {
                missing: replies,
                replies: Vec::with_capacity(replies),
                to,
                asked: Instant::now(),
            },
        };
        self.requests
            .try_send(request)
            .map_err(|_| Unanswered::Away)?;
        match timeout(time, answer).await {
            Ok(Ok(replies)) => Ok(replies),
            Ok(Err(_)) => Err(Unanswered::Away),
            Err(_) => Err(Unanswered::Late),
        }
    }
}

/// Keeps a connection open until nobody asks any more.
async fn keep(
    store: Arc<Store>,
    mark: bool,
    mut queue: mpsc::Receiver<Request>,
    is_away: Rc<Cell<bool>>,
) {
    let mut pause = PAUSE.0;
    loop {
        let opened = timeout(CONNECT_TIME, open(&store.settings, mark)).await;
        let failed = match opened.unwrap_or(Err(ConnectionError::Silent)) {
            Ok(stream) => {
                is_away.set(false);
                store.troubles.lock().clear();
                pause = PAUSE.0;
                store.counts.connected.fetch_add(1, Ordering::Relaxed);
                let ended = serve(stream, &mut queue).await;
                store.counts.connected.fetch_sub(1, Ordering::Relaxed);
                match ended {
                    Ok(()) => return,
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        is_away.set(true);
        let text = failed.to_string();
        // Every worker meets the same trouble, and again with every attempt.
        if store.troubles.lock().insert(text.clone()) {
            let server = &store.settings.server;
            tracing::warn!(
                server,
                error = text,
                "sessions are not shared: their store does not answer"
            );
        }
        if refuse(&mut queue, pause).await {
            return;
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Refuses requests for some time. Returns whether nobody asks any more.
async fn refuse(queue: &mut mpsc::Receiver<Request>, time: Duration) -> bool {
    let over = Instant::now() + time;
    loop {
        tokio::select! {
            request = queue.recv() => if request.is_none() {
                return true;
            },
            () = sleep_until(over) => return false,
        }
    }
}

/// A connection whose server has answered.
async fn open(settings: &StoreSettings, mark: bool) -> Result<Stream, ConnectionError> {
    let target = (settings.host.as_str(), settings.port);
    let resolved = tokio::net::lookup_host(target)
        .await
        .map_err(ConnectionError::Resolve)?;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in resolved {
        let options = ConnectOptions {
            timeout: CONNECT_TIME,
            bind: None,
            keepalive: None,
            mark,
        };
        match net::connect(address, options).await {
            Ok(stream) => {
                let mut stream = match &settings.tls {
                    None => Stream::from(stream),
                    Some(tls) => {
                        let stats = PerWorker::new(1);
                        let host = Host::at(address);
                        tls.connect(stream, &host, &AskedOfTls::default(), &[], &stats)
                            .await
                            .map_err(ConnectionError::Tls)?
                            .0
                    }
                };
                greet(&mut stream, settings).await?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(ConnectionError::Connect(last))
}

/// Says who we are and which database is meant, and waits for the server to agree.
async fn greet(stream: &mut Stream, settings: &StoreSettings) -> Result<(), ConnectionError> {
    let mut out = Vec::new();
    let mut missing = 1;
    if let Some(slot) = &settings.password {
        let password = slot
            .generic()
            .ok_or_else(|| ConnectionError::NoPassword(slot.name.clone()))?;
        resp::write(&mut out, &[b"AUTH", &password]);
        missing += 1;
    }
    if settings.database != 0 {
        resp::write(
            &mut out,
            &[b"SELECT", settings.database.to_string().as_bytes()],
        );
        missing += 1;
    }
    resp::write(&mut out, &[b"PING"]);
    stream.write_all(&out).await?;
    stream.flush().await?;
    let mut input = BytesMut::new();
    while missing > 0 {
        match resp::read(&mut input)? {
            Some(Reply::Error(text)) => return Err(ConnectionError::Refused(text)),
            Some(_) => missing -= 1,
            None if stream.read_buf(&mut input).await? == 0 => {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            None => {}
        }
    }
    Ok(())
}

/// Passes requests on and answers back. Ends well when nobody asks any more.
async fn serve(stream: Stream, queue: &mut mpsc::Receiver<Request>) -> Result<(), ConnectionError> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut waiting: VecDeque<Answer> = VecDeque::new();
    let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
    loop {
        input.reserve(STEP);
        let silent = waiting.front().map(|answer| answer.asked + SILENCE);
        tokio::select! {
            request = queue.recv(), if waiting.len() < QUEUE => match request {
                None => return Ok(()),
                Some(request) => {
                    out.extend_from_slice(&request.bytes);
                    waiting.push_back(request.answer);
                }
            },
            written = writer.write_buf(&mut out), if !out.is_empty() => {
                written?;
                writer.flush().await?;
            }
            read = reader.read_buf(&mut input) => {
                if read? == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                while let Some(reply) = resp::read(&mut input)? {
                    answered(&mut waiting, reply)?;
                }
            }
            () = until(silent) => return Err(ConnectionError::Silent),
        }
    }
}

fn answered(waiting: &mut VecDeque<Answer>, reply: Reply) -> Result<(), Malformed> {
    let answer = waiting.front_mut().ok_or(Malformed)?;
    answer.replies.push(reply);
    answer.missing -= 1;
    if answer.missing == 0
        && let Some(answer) = waiting.pop_front()
    {
        // Whoever asked may have stopped waiting.
        let _ = answer.to.send(answer.replies);
    }
    Ok(())
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
