//! The kubelet's HTTP endpoint, over a Unix socket: what the API server passes on.
//!
//! | path | |
//! |---|---|
//! | `GET /containerLogs/{namespace}/{pod}/{container}` | `follow tailLines previous sinceTime sinceSeconds timestamps limitBytes` |
//! | `GET /exec/{namespace}/{pod}/{container}?command=..` | WebSocket or SPDY; `input output error tty` |
//! | `GET /attach/{namespace}/{pod}/{container}` | the same with the container's own streams |
//! | `GET /portForward/{namespace}/{pod}` | WebSocket or SPDY, see [`forward`] |
//! | `GET /stats/usage` | processor time and memory of pods and the node, see [`crate::usage`] |
//! | `POST /run/{namespace}/{pod}/{container}?command=..` | runs a command to its end, returns its output |

mod channels;
mod exec;
mod forward;
mod logs;
mod session;
mod spdy;
mod upgrade;

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};

use crate::pods::shared::Shared;
use crate::pods::{Pods, exec::output};
use crate::usage::Usages;

/// How long a command of `/run` may take.
const RUN_TIME: Duration = Duration::from_secs(120);

/// A body of an answer.
type Body = BoxBody<Bytes, io::Error>;

/// The endpoint, listening.
#[derive(Debug)]
pub(crate) struct Server {
    listener: UnixListener,
    pods: Arc<Pods>,
    usages: Arc<Usages>,
}

impl Server {
    /// Listens at the path, for this user only; a socket left there is replaced.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub(crate) fn bind(path: &Path, pods: Arc<Pods>, usages: Arc<Usages>) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self {
            listener,
            pods,
            usages,
        })
    }

    /// Serves for ever.
    pub(crate) async fn serve(self) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (pods, usages) = (self.pods.clone(), self.usages.clone());
                    tokio::spawn(converse(stream, pods, usages));
                }
                Err(error) => {
                    tracing::debug!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

async fn converse(stream: UnixStream, pods: Arc<Pods>, usages: Arc<Usages>) {
    let service = service_fn(move |request| {
        let (pods, usages) = (pods.clone(), usages.clone());
        async move { Ok::<_, Infallible>(answer(request, &pods, &usages).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    // The API server is gone, or gave up: nothing to tell anyone.
    let _ = connection.await;
}

async fn answer(request: Request<Incoming>, pods: &Pods, usages: &Usages) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    match (parts.as_slice(), request.method()) {
        (["containerLogs", namespace, pod, container], &Method::GET) => {
            match find(pods, namespace, pod) {
                Ok(shared) => logs::answer(&shared, container, &query).await,
                Err(refusal) => *refusal,
            }
        }
        (["exec", namespace, pod, container], &Method::POST | &Method::GET) => {
            match find(pods, namespace, pod) {
                Ok(shared) => exec::answer(request, &shared, container, &query),
                Err(refusal) => *refusal,
            }
        }
        (["attach", namespace, pod, container], &Method::POST | &Method::GET) => {
            match find(pods, namespace, pod) {
                Ok(shared) => exec::attach(request, &shared, container, &query),
                Err(refusal) => *refusal,
            }
        }
        (["portForward", namespace, pod], &Method::POST | &Method::GET) => {
            match find(pods, namespace, pod) {
                Ok(shared) => forward::answer(request, &shared, &query),
                Err(refusal) => *refusal,
            }
        }
        (["run", namespace, pod, container], &Method::POST | &Method::GET) => {
            match find(pods, namespace, pod) {
                Ok(shared) => run(&shared, container, &query).await,
                Err(refusal) => *refusal,
            }
        }
        (["stats", "usage"], &Method::GET) => {
            let report = usages.report(pods.node(), pods);
            match serde_json::to_vec(&report) {
                Ok(json) => bytes(StatusCode::OK, json),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            }
        }
        (["healthz"], _) => text(StatusCode::OK, "ok"),
        _ => text(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

fn find(pods: &Pods, namespace: &str, pod: &str) -> Result<Arc<Shared>, Box<Response<Body>>> {
    let missing = || {
        let message = format!("pod \"{namespace}/{pod}\" not found");
        Box::new(text(StatusCode::NOT_FOUND, message))
    };
    pods.find(namespace, pod).ok_or_else(missing)
}

async fn run(shared: &Shared, container: &str, query: &Query) -> Response<Body> {
    let Some(run) = shared.run(container) else {
        return text(
            StatusCode::NOT_FOUND,
            format!("container not found (\"{container}\")"),
        );
    };
    let command = query.all("command").map(str::to_owned).collect();
    match tokio::time::timeout(RUN_TIME, output(&run, command)).await {
        Ok(Ok((0, output))) => bytes(StatusCode::OK, output),
        Ok(Ok((code, output))) => {
            let mut message = format!("command terminated with exit code {code}\n").into_bytes();
            message.extend(output);
            bytes(StatusCode::INTERNAL_SERVER_ERROR, message)
        }
        Ok(Err(error)) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        Err(_) => text(StatusCode::GATEWAY_TIMEOUT, "the command took too long"),
    }
}

fn text(status: StatusCode, message: impl Into<String>) -> Response<Body> {
    bytes(status, message.into().into_bytes())
}

fn bytes(status: StatusCode, bytes: Vec<u8>) -> Response<Body> {
    let body = Full::new(Bytes::from(bytes))
        .map_err(|never| match never {})
        .boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("text/plain"),
    );
    response
}

/// The parameters of a request, decoded.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let decoded = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        Self(decoded.collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    fn is_true(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1"))
    }
}

/// Undoes percent encoding and `+`; bytes that are no text are replaced.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = (*first == b'%').then(|| tail.get(..2)).flatten();
        let value = escaped
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        rest = match (first, value) {
            (_, Some(value)) => {
                bytes.push(value);
                &tail[2..]
            }
            (b'+', None) => {
                bytes.push(b' ');
                tail
            }
            (other, None) => {
                bytes.push(*other);
                tail
            }
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_may_repeat() {
        let query = Query::parse("command=sh&command=-c&command=echo%20a%2Bb+c&follow=true&x");
        assert_eq!(
            query.all("command").collect::<Vec<_>>(),
            ["sh", "-c", "echo a+b c"]
        );
        assert!(query.is_true("follow") && !query.is_true("x"));
        assert_eq!(query.get("%"), None);
        assert_eq!(decode("%zz%4"), "%zz%4");
    }
}
