//! The admin interface with Envoy's paths and shapes, and the small servers for health checks and metrics.

mod clusters;
mod dump;
mod metrics;
mod status;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
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
use tokio::sync::{Notify, Semaphore};

use crate::agent::AgentState;
use crate::net;
use crate::process::RunError;
use crate::shared::Shared;

/// Connections that one of these servers serves at the same time.
const MOST_CONNECTIONS: usize = 256;

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
        self.shared.is_live() && !self.shared.is_draining() && self.agent.is_ready()
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
        let permits = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else {
                return;
            };
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
            tokio::spawn(async move {
                // A client that goes away is its own affair.
                let _ = connection.await;
                drop(permit);
            });
        }
    });
    Ok(())
}

/// All statistics in the Prometheus text format.
pub(crate) fn all_metrics(shared: &Shared) -> String {
    metrics::prometheus(shared, &Query(""))
}

/// Paths that change something, and must be asked for with POST.
const MUTATING: [&str; 5] = [
    "/reopen_logs",
    "/quitquitquit",
    "/logging",
    "/healthcheck/fail",
    "/drain_listeners",
];

const HELP: &str = "admin commands are:\n  \
    /clusters: upstream cluster status (?format=json)\n  \
    /config_dump: dump current configuration (?include_eds, ?resource=, ?name_regex=)\n  \
    /drain_listeners: stop accepting and drain (POST)\n  \
    /help: print out list of admin commands\n  \
    /listeners: print listener info (?format=json)\n  \
    /logging: query log levels (POST)\n  \
    /quitquitquit: drain and exit (POST)\n  \
    /ready: print server state, return 200 if LIVE, otherwise 503\n  \
    /server_info: print server version and status\n  \
    /stats: print statistics (?filter=, ?usedonly, ?format=json|prometheus)\n  \
    /stats/prometheus: print statistics in the Prometheus format\n";

fn answer(control: &Control, role: Role, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let query = Query(request.uri().query().unwrap_or_default());
    let shared = &control.shared;
    match (role, path) {
        (Role::Health | Role::Metrics, "/healthz/ready") => return readiness(control),
        (Role::Metrics, "/stats/prometheus" | "/metrics") => {
            return reply(StatusCode::OK, TEXT, metrics::prometheus(shared, &query));
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
            let live = shared.is_live() && !shared.is_draining();
            let status = if live {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            reply(status, TEXT, format!("{}\n", state(shared)))
        }
        "/server_info" => reply(StatusCode::OK, JSON, server_info(control)),
        "/stats/prometheus" => reply(StatusCode::OK, TEXT, metrics::prometheus(shared, &query)),
        "/stats" if query.get("format") == Some("prometheus") => {
            reply(StatusCode::OK, TEXT, metrics::prometheus(shared, &query))
        }
        "/stats" if json => reply(StatusCode::OK, JSON, metrics::json(shared, &query)),
        "/stats" => reply(StatusCode::OK, TEXT, metrics::text(shared, &query)),
        "/config_dump" => match dump::config_dump(control, &query) {
            Ok(text) => reply(StatusCode::OK, JSON, text),
            Err(error) => reply(StatusCode::BAD_REQUEST, TEXT, error),
        },
        "/clusters" if json => reply(StatusCode::OK, JSON, clusters::json(shared)),
        "/clusters" => reply(StatusCode::OK, TEXT, clusters::text(shared)),
        "/listeners" if json => reply(StatusCode::OK, JSON, clusters::listeners_json(shared)),
        "/listeners" => reply(StatusCode::OK, TEXT, clusters::listeners_text(shared)),
        "/logging" => reply(
            StatusCode::OK,
            TEXT,
            "active loggers:\n  all: info\n".to_owned(),
        ),
        "/healthcheck/fail" | "/drain_listeners" => {
            shared.draining.send_replace(true);
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
    if shared.is_draining() {
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
