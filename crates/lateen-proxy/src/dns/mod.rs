//! Clusters whose endpoints are names: resolves them again and again, and tells when addresses change.
//!
//! A thread with a runtime of its own does it. It starts with the first name and ends when nobody is left to be told,
//! so that proxies without such clusters do not pay for it.

mod client;
mod expand;
mod system;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

pub(crate) use expand::{expand, names};

use client::{Answer, Client, ResolveError};

/// Shortest time between two questions for one name, whatever its time to live says.
const SHORTEST_REFRESH: Duration = Duration::from_secs(1);

/// How the names of a cluster are resolved. Defaults are those of Envoy's `Cluster`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DnsSettings {
    /// There is one endpoint, at whichever address comes first; else every address is one.
    pub(crate) logical: bool,
    /// Time between an answer and the next question.
    pub(crate) refresh: Duration,
    /// The same after failures: the first, and the longest.
    pub(crate) failure: (Duration, Duration),
    /// Most random time that is added, so that proxies do not ask in step.
    pub(crate) jitter: Duration,
    /// The answer's time to live takes the place of `refresh`.
    pub(crate) respect_ttl: bool,
    pub(crate) family: Family,
    pub(crate) resolver: ResolverSettings,
}

/// Which kinds of addresses are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// IPv6, and IPv4 when there are none.
    Auto,
    V4Only,
    V6Only,
    /// IPv4, and IPv6 when there are none.
    V4Preferred,
    /// Both.
    All,
}

/// Whom to ask, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResolverSettings {
    /// Servers in place of the system's.
    pub(crate) servers: Vec<SocketAddr>,
    /// They are used only when the system names none.
    pub(crate) only_without_system: bool,
    /// Questions go over TCP at once.
    pub(crate) tcp: bool,
    /// The search list of the system is not used.
    pub(crate) no_search: bool,
    /// Time for one question to one server; nothing: the system's.
    pub(crate) timeout: Option<Duration>,
    /// How often each server is asked; nothing: the system's.
    pub(crate) tries: Option<u32>,
}

/// Addresses by name.
pub(crate) type Addresses = BTreeMap<String, Vec<IpAddr>>;

/// Told of every answer: the addresses of a name; nothing when it could not be resolved.
pub(crate) type Tell = Arc<dyn Fn(&str, Option<Vec<IpAddr>>) + Send + Sync>;

/// Resolves names for as long as its watches live.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    thread: Option<mpsc::UnboundedSender<Job>>,
    /// Sockets carry the mark that exempts them from redirection.
    mark: bool,
}

/// Dropping it ends the resolution of the names.
#[derive(Debug)]
pub(crate) struct Watch {
    _end: oneshot::Sender<()>,
}

struct Job {
    settings: DnsSettings,
    names: BTreeSet<String>,
    mark: bool,
    tell: Tell,
    end: oneshot::Receiver<()>,
}

impl Resolver {
    pub(crate) fn new(mark: bool) -> Self {
        Self { thread: None, mark }
    }

    /// Resolves names from now on until the watch is dropped.
    ///
    /// # Errors
    /// When the thread for it cannot be started.
    pub(crate) fn watch(
        &mut self,
        settings: DnsSettings,
        names: BTreeSet<String>,
        tell: Tell,
    ) -> std::io::Result<Watch> {
        let (end, ended) = oneshot::channel();
        let mut job = Job {
            settings,
            names,
            mark: self.mark,
            tell,
            end: ended,
        };
        if let Some(thread) = &self.thread {
            match thread.send(job) {
                Ok(()) => return Ok(Watch { _end: end }),
                Err(unsent) => job = unsent.0,
            }
        }
        let (jobs, received) = mpsc::unbounded_channel();
        let _ = jobs.send(job);
        std::thread::Builder::new()
            .name("dns".to_owned())
            .spawn(move || serve(received))?;
        self.thread = Some(jobs);
        Ok(Watch { _end: end })
    }
}

fn serve(mut jobs: mpsc::UnboundedReceiver<Job>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "names cannot be resolved"),
    };
    runtime.block_on(async {
        while let Some(job) = jobs.recv().await {
            tokio::spawn(run(job));
        }
    });
}

/// Resolves the names of one cluster until its watch is dropped.
async fn run(job: Job) {
    let Job {
        settings,
        names,
        mark,
        tell,
        end,
    } = job;
    let client = Client::new(settings.resolver.clone(), mark);
    let all = names
        .iter()
        .map(|name| refresh(&client, &settings, name, &tell));
    tokio::select! {
        _ = futures_util::future::join_all(all) => {}
        // It is never sent, but ends with the watch.
        _ = end => {}
    }
}

/// Resolves one name for ever.
async fn refresh(client: &Client, settings: &DnsSettings, name: &str, tell: &Tell) {
    let mut failure = settings.failure.0;
    loop {
        let pause = match resolve(client, settings.family, name).await {
            Ok(answer) => {
                failure = settings.failure.0;
                let ttl = answer.ttl.filter(|_| settings.respect_ttl);
                let pause = ttl.map_or(settings.refresh, |ttl| ttl.max(SHORTEST_REFRESH));
                tell(name, Some(answer.addresses));
                pause.saturating_add(settings.jitter.mul_f64(fastrand::f64()))
            }
            Err(error) => {
                tracing::warn!(name, %error, "name cannot be resolved");
                tell(name, None);
                // Up to the whole back-off at random, but never at once again.
                let pause = failure.mul_f64(fastrand::f64()).max(failure / 4);
                failure = failure.saturating_mul(2).min(settings.failure.1);
                pause
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// The addresses of a name in the families that are wanted.
async fn resolve(client: &Client, family: Family, name: &str) -> Result<Answer, ResolveError> {
    match family {
        Family::V4Only => client.lookup(name, false).await,
        Family::V6Only => client.lookup(name, true).await,
        Family::All => {
            let (v4, v6) = tokio::join!(client.lookup(name, false), client.lookup(name, true));
            match (v4, v6) {
                (Ok(v4), Ok(v6)) => Ok(v4.with(v6)),
                (Ok(answer), Err(_)) | (Err(_), Ok(answer)) => Ok(answer),
                (Err(error), Err(_)) => Err(error),
            }
        }
        Family::Auto | Family::V4Preferred => {
            let v6_first = family == Family::Auto;
            let first = client.lookup(name, v6_first).await;
            match first {
                Ok(answer) if !answer.addresses.is_empty() => Ok(answer),
                first => match client.lookup(name, !v6_first).await {
                    Ok(answer) => Ok(answer),
                    // No address of the first kind is an answer; none of the second is not known.
                    Err(error) => first.map_err(|_| error),
                },
            }
        }
    }
}
