//! What the paths answer.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::json;

use super::drain::drain;
use super::query::Query;
use super::reply::{JSON, TEXT, pretty, reply, stats_reply};
use super::server::{init_dump, memory, server_info, state};
use super::{Control, Role, clusters, dump, metrics, secrets, sessions};

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

/// Answers a request to one of the servers but that of Istio's agent.
pub(super) fn answer(
    control: &Control,
    role: Role,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
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
pub(super) fn readiness(control: &Control) -> Response<Full<Bytes>> {
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
