//! The admin interface with Envoy's paths and shapes, and the small servers for health checks and metrics.

mod clusters;
mod dump;
mod metrics;
mod secrets;
mod sessions;
mod status;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use lateen_xds::json::{self, FieldNames};
use lateen_xds::pb::envoy::config::core::v3::Node;
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::agent::AgentState;
use crate::net;
use crate::process::RunError;
use crate::shared::{Leaving, Shared};

/// Connections that one of these servers has at the same time. The oldest makes room for one more, so that whoever
/// leaves connections open does not keep probes out. All servers together stay within what the engine leaves of the
/// process's files.
const MOST_CONNECTIONS: usize = 48;

const TEXT: &str = "text/plain; charset=UTF-8";
const JSON: &str = "application/json";

/// Which paths a server offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// All.
    Admin,
    /// Readiness only.
    Health,
    /// Metrics and readiness.
    Metrics,
    /// What Istio's agent serves: readiness, probes of the application, merged metrics, and the end of the process.
    Status,
}

/// What the servers show and can ask for.
#[derive(Clone)]
pub(crate) struct Control {
    shared: Arc<Shared>,
    node: Arc<Node>,
    agent: Arc<AgentState>,
    quit: Arc<Notify>,
    exit: Arc<Notify>,
}

impl Control {
    pub(crate) fn new(shared: Arc<Shared>, node: Node, agent: Arc<AgentState>) -> Self {
        Self {
            shared,
            node: Arc::new(node),
            agent,
            quit: Arc::default(),
            exit: Arc::default(),
        }
    }

    /// Returns when `/quitquitquit` was called.
    pub(crate) async fn quit_asked(&self) {
        self.quit.notified().await;
    }

    /// Returns when the process is to end at once.
    pub(crate) async fn exit_asked(&self) {
        self.exit.notified().await;
    }

    /// Whether traffic can be served.
    fn is_ready(&self) -> bool {
        self.shared.is_ready() && self.agent.is_ready()
    }
}

/// Starts a server.
pub(crate) fn listen(
    address: SocketAddr,
    role: Role,
    purpose: &'static str,
    control: &Control,
) -> Result<(), RunError> {
    let failed = |source| RunError::Listen {
        address,
        purpose,
        source,
    };
    let listener = net::listen(address)
        .and_then(tokio::net::TcpListener::from_std)
        .map_err(failed)?;
    let control = control.clone();
    tokio::spawn(async move {
        let mut open: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            let Ok((stream, peer)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let control = control.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let control = control.clone();
                async move {
                    let response = match role {
                        Role::Status => status::answer(&control, peer, &request).await,
                        _ => answer(&control, role, &request),
                    };
                    Ok::<_, Infallible>(response)
                }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(30))
                .serve_connection(TokioIo::new(stream), service);
            // A client that goes away is its own affair.
            let task = tokio::spawn(async move { drop(connection.await) });
            open.retain(|other| !other.is_finished());
            if open.len() >= MOST_CONNECTIONS
                && let Some(oldest) = open.pop_front()
            {
                oldest.abort();
            }
            open.push_back(task.abort_handle());
        }
    });
    Ok(())
}

/// All statistics in the Prometheus text format.
pub(crate) fn all_metrics(shared: &Shared) -> String {
    metrics::prometheus(shared, &Query("")).unwrap_or_default()
}

/// Paths that change something, and must be asked for with POST.
const MUTATING: [&str; 7] = [
    "/drain_listeners",
    "/healthcheck/fail",
    "/healthcheck/ok",
    "/logging",
    "/quitquitquit",
    "/reopen_logs",
    "/reset_counters",
];

const HELP: &str = "admin commands are:\n  \
    /certs: print certs on machine\n  \
    /clusters: upstream cluster status\n  \
    /config_dump: dump current configuration (?resource=, ?mask=, ?name_regex=, ?include_eds)\n  \
    /drain_listeners (POST): drain listeners (?inboundonly, ?graceful, ?graceful&skip_exit)\n  \
    /healthcheck/fail (POST): cause the server to fail health checks\n  \
    /healthcheck/ok (POST): cause the server to pass health checks\n  \
    /help: print out list of admin commands\n  \
    /init_dump: dump what initialisation waits for\n  \
    /listeners: print listener info\n  \
    /logging (POST): query/change logging levels (?level=, ?paths=)\n  \
    /memory: print current memory usage\n  \
    /quitquitquit (POST): exit the server\n  \
    /ready: print server state, return 200 if LIVE, otherwise return 503\n  \
    /reopen_logs (POST): reopen access logs\n  \
    /reset_counters (POST): reset all counters to zero\n  \
    /runtime: print runtime values\n  \
    /server_info: print server version/status information\n  \
    /stats: print server stats (?usedonly, ?filter=, ?invert_filter, ?format=, ?type=, ?histogram_buckets=)\n  \
    /stats/prometheus: print server stats in prometheus format\n  \
    /sticky_sessions: print which keys belong to which endpoints (?cluster=, ?limit=, ?format=json)\n";

fn answer(control: &Control, role: Role, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let query = Query(request.uri().query().unwrap_or_default());
    let shared = &control.shared;
    match (role, path) {
        (Role::Health | Role::Metrics, "/healthz/ready") => return readiness(control),
        (Role::Metrics, "/stats/prometheus" | "/metrics") => {
            return stats_reply(TEXT, metrics::prometheus(shared, &query));
        }
        (Role::Health | Role::Metrics | Role::Status, _) => {
            return reply(StatusCode::NOT_FOUND, TEXT, "not found\n".to_owned());
        }
        (Role::Admin, _) => {}
    }
    if MUTATING.contains(&path) && request.method() != Method::POST {
        let text = format!("Method {} not allowed, POST required.", request.method());
        return reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, text);
    }
    let json = query.get("format") == Some("json");
    match path {
        "/ready" => {
            let live = shared.is_ready();
            let status = if live {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            reply(status, TEXT, format!("{}\n", state(shared)))
        }
        "/server_info" => {
            shared.worked.notify_one();
            reply(StatusCode::OK, JSON, server_info(control))
        }
        "/stats/prometheus" => stats_reply(TEXT, metrics::prometheus(shared, &query)),
        "/stats" => match query.get("format") {
            Some("prometheus") => stats_reply(TEXT, metrics::prometheus(shared, &query)),
            Some("json") => stats_reply(JSON, metrics::json(shared, &query)),
            None | Some("" | "text") => stats_reply(TEXT, metrics::text(shared, &query)),
            Some(_) => {
                let usage = "usage: /stats?format=(json|prometheus|text)\n\n";
                reply(StatusCode::BAD_REQUEST, TEXT, usage.to_owned())
            }
        },
        "/config_dump" => {
            shared.worked.notify_one();
            match dump::config_dump(control, &query) {
                Ok(text) => reply(StatusCode::OK, JSON, text),
                Err((status, text)) => reply(status, TEXT, text),
            }
        }
        "/certs" => reply(StatusCode::OK, JSON, secrets::certificates(shared)),
        "/clusters" if json => reply(StatusCode::OK, JSON, clusters::json(shared)),
        "/clusters" => reply(StatusCode::OK, TEXT, clusters::text(shared)),
        "/listeners" if json => reply(StatusCode::OK, JSON, clusters::listeners_json(shared)),
        "/listeners" => reply(StatusCode::OK, TEXT, clusters::listeners_text(shared)),
        "/sticky_sessions" => {
            let cluster = query.decoded("cluster");
            match sessions::Selection::of(cluster.as_deref(), query.get("limit")) {
                Ok(selection) if json => {
                    reply(StatusCode::OK, JSON, sessions::json(shared, &selection))
                }
                Ok(selection) => reply(StatusCode::OK, TEXT, sessions::text(shared, &selection)),
                Err(text) => reply(StatusCode::BAD_REQUEST, TEXT, text),
            }
        }
        "/logging" => logging(&query),
        "/memory" => reply(StatusCode::OK, JSON, memory()),
        "/init_dump" => reply(StatusCode::OK, JSON, init_dump(shared)),
        // There is no runtime: nothing is configured by its keys.
        "/runtime" => {
            let runtime = json!({ "layers": [], "entries": {} });
            reply(StatusCode::OK, JSON, pretty(&runtime))
        }
        "/healthcheck/fail" | "/healthcheck/ok" => {
            let failing = path == "/healthcheck/fail";
            shared.health_failed.store(failing, Ordering::Relaxed);
            reply(StatusCode::OK, TEXT, "OK\n".to_owned())
        }
        "/drain_listeners" => drain(&control.shared, &query),
        "/reset_counters" => {
            metrics::reset_counters(shared);
            reply(StatusCode::OK, TEXT, "OK\n".to_owned())
        }
        "/reopen_logs" => {
            shared.names.logs.reopen();
            reply(StatusCode::OK, TEXT, "OK\n".to_owned())
        }
        "/quitquitquit" => {
            control.quit.notify_one();
            reply(StatusCode::OK, TEXT, "OK\n".to_owned())
        }
        "/help" | "/" => reply(StatusCode::OK, TEXT, HELP.to_owned()),
        _ => reply(StatusCode::NOT_FOUND, TEXT, format!("invalid path. {HELP}")),
    }
}

/// The answer to `/healthz/ready`.
fn readiness(control: &Control) -> Response<Full<Bytes>> {
    if control.is_ready() {
        return reply(StatusCode::OK, TEXT, String::new());
    }
    let why = if control.agent.is_ready() {
        state(&control.shared)
    } else {
        "the proxy has no certificate yet"
    };
    reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, why.to_owned())
}

/// Stops listeners: all, or those for the workload beside the proxy. Open connections are asked to end. A graceful drain
/// asks for that first, for some time in which new connections are still served, and may leave it at that.
fn drain(shared: &Arc<Shared>, query: &Query<'_>) -> Response<Full<Bytes>> {
    let inbound_only = query.has("inboundonly");
    let stops = !query.has("skip_exit");
    if !query.has("graceful") {
        if !stops {
            let text = "skip_exit requires graceful\n";
            return reply(StatusCode::BAD_REQUEST, TEXT, text.to_owned());
        }
        stop_listeners(shared, inbound_only);
        return reply(StatusCode::OK, TEXT, "OK\n".to_owned());
    }
    let whom = if inbound_only {
        Leaving::Inbound
    } else {
        Leaving::All
    };
    // One that has begun goes on.
    let begun = shared.leaving.send_if_modified(|leaving| {
        let begins = *leaving == Leaving::Nobody;
        if begins {
            *leaving = whom;
        }
        begins
    });
    if begun && stops {
        let shared = shared.clone();
        tokio::spawn(async move {
            tokio::time::sleep(shared.drain_time).await;
            stop_listeners(&shared, inbound_only);
        });
    }
    reply(StatusCode::OK, TEXT, "OK\n".to_owned())
}

fn stop_listeners(shared: &Shared, inbound_only: bool) {
    if inbound_only {
        for slot in shared.listeners.load().by_name.values() {
            if slot.load().is_some_and(|listener| listener.inbound) {
                slot.store(None);
            }
        }
    } else {
        shared.draining.send_replace(true);
    }
}

fn logging(query: &Query<'_>) -> Response<Full<Bytes>> {
    let wanted = query.decoded("level").or_else(|| query.decoded("paths"));
    match crate::logging::change(wanted.as_deref()) {
        Ok(active) => {
            let text = format!("active loggers:\n  {}\n", active.replace(',', "\n  "));
            reply(StatusCode::OK, TEXT, text)
        }
        Err(error) => reply(StatusCode::BAD_REQUEST, TEXT, format!("error: {error}\n")),
    }
}

/// Memory of the process, from the system.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        (kilobytes.unwrap_or(0) * 1024).to_string()
    };
    pretty(&json!({
        "allocated": bytes("RssAnon:"),
        "heap_size": bytes("VmData:"),
        "pageheap_unmapped": "0",
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": bytes("VmRSS:"),
    }))
}

/// What the first configuration still waits for.
fn init_dump(shared: &Shared) -> String {
    let dump = shared.dump.lock();
    let mut waiting = Vec::new();
    for (kind, entries) in &dump.kinds {
        let names: Vec<_> = entries
            .iter()
            .filter(|(_, entry)| entry.warming)
            .map(|(name, _)| name)
            .collect();
        if !names.is_empty() {
            waiting.push(json!({ "name": kind.type_url(), "target_names": names }));
        }
    }
    if waiting.is_empty() {
        return pretty(&json!({}));
    }
    pretty(&json!({ "unready_targets_dumps": waiting }))
}

fn stats_reply(kind: &'static str, text: Result<String, &'static str>) -> Response<Full<Bytes>> {
    match text {
        Ok(text) => reply(StatusCode::OK, kind, text),
        Err(refused) => reply(StatusCode::BAD_REQUEST, TEXT, refused.to_owned()),
    }
}

fn reply(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, max-age=0"),
    );
    headers.insert(
        "x-content-type-options",
        HeaderValue::from_static("nosniff"),
    );
    response
}

fn state(shared: &Shared) -> &'static str {
    if shared.is_draining() || shared.is_failing() {
        "DRAINING"
    } else if shared.is_live() {
        "LIVE"
    } else {
        "PRE_INITIALIZING"
    }
}

fn server_info(control: &Control) -> String {
    let uptime = format!("{}s", control.shared.started.elapsed().as_secs());
    let node = json::from_message(&*control.node, FieldNames::Proto).unwrap_or_default();
    let info = json!({
        "version": format!("lateen/{}", env!("CARGO_PKG_VERSION")),
        "state": state(&control.shared),
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "command_line_options": { "concurrency": control.shared.workers.len() },
        "node": node,
    });
    pretty(&info)
}

fn pretty(value: &serde_json::Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// The query of a request. Values are used as they are: they are names and simple patterns.
struct Query<'q>(&'q str);

impl<'q> Query<'q> {
    fn get(&self, name: &str) -> Option<&'q str> {
        self.0.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then_some(value)
        })
    }

    fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// A value with its percent escapes resolved.
    fn decoded(&self, name: &str) -> Option<String> {
        let value = self.get(name)?.replace('+', " ");
        let mut bytes = Vec::with_capacity(value.len());
        let mut rest = value.as_bytes();
        while let Some((first, tail)) = rest.split_first() {
            let digit = |offset: usize| char::from(*tail.get(offset)?).to_digit(16);
            if let (b'%', Some(high), Some(low)) = (*first, digit(0), digit(1)) {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'%'));
                rest = &tail[2..];
            } else {
                bytes.push(*first);
                rest = tail;
            }
        }
        String::from_utf8(bytes).ok()
    }
}
