//! HTTPS requests to webhooks over connections that are kept for the next one.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::store::Store;

use super::endpoint::Endpoint;

/// Most bytes of an answer.
const MAX_ANSWER: usize = 4 << 20;
/// Idle connections that are kept for one server.
const MAX_IDLE: usize = 4;
/// Servers for which connections are kept.
const MAX_SERVERS: usize = 64;

type Connection = SendRequest<Full<Bytes>>;

/// Idle connections by server.
#[derive(Default)]
pub(crate) struct Connections {
    idle: Mutex<HashMap<String, Vec<Connection>>>,
}

impl Connections {
    /// Posts `body` and returns the body of the answer.
    ///
    /// # Errors
    /// Why there is no good answer within `timeout`.
    pub(crate) async fn post(
        &self,
        store: &Store,
        endpoint: &Endpoint,
        timeout: Duration,
        body: Vec<u8>,
    ) -> Result<Bytes, String> {
        let separator = if endpoint.path.contains('?') {
            '&'
        } else {
            '?'
        };
        let path = format!("{}{separator}timeout={}s", endpoint.path, timeout.as_secs());
        let url = format!("https://{}{path}", endpoint.authority);
        let body = Bytes::from(body);
        let asked = self.ask(store, endpoint, &path, body);
        match tokio::time::timeout(timeout, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Fault::Transport(why))) => Err(format!("Post {url:?}: {why}")),
            Ok(Err(Fault::Answer(why))) => Err(why),
            Err(_elapsed) => Err(format!("Post {url:?}: context deadline exceeded")),
        }
    }

    async fn ask(
        &self,
        store: &Store,
        endpoint: &Endpoint,
        path: &str,
        body: Bytes,
    ) -> Result<Bytes, Fault> {
        // The server may have closed an idle connection at this very moment; a new one tells.
        if let Some(mut connection) = self.take(&endpoint.key)
            && connection.ready().await.is_ok()
        {
            match send(&mut connection, endpoint, path, body.clone()).await {
                Err(Fault::Transport(_)) => {}
                other => {
                    self.keep(&endpoint.key, connection);
                    return other;
                }
            }
        }
        let mut connection = connect(store, endpoint).await.map_err(Fault::Transport)?;
        let answer = send(&mut connection, endpoint, path, body).await;
        if !matches!(answer, Err(Fault::Transport(_))) {
            self.keep(&endpoint.key, connection);
        }
        answer
    }

    fn take(&self, key: &str) -> Option<Connection> {
        let mut idle = self.idle.lock();
        let connections = idle.get_mut(key)?;
        connections.retain(|connection| !connection.is_closed());
        connections.pop()
    }

    fn keep(&self, key: &str, connection: Connection) {
        let mut idle = self.idle.lock();
        if idle.len() >= MAX_SERVERS && !idle.contains_key(key) {
            idle.clear();
        }
        let connections = idle.entry(key.to_owned()).or_default();
        if connections.len() < MAX_IDLE && !connection.is_closed() {
            connections.push(connection);
        }
    }
}

/// Why a request got no answer.
enum Fault {
    /// The connection failed.
    Transport(String),
    /// The server answered, but not as it should.
    Answer(String),
}

async fn connect(store: &Store, endpoint: &Endpoint) -> Result<Connection, String> {
    let mut last = String::new();
    for address in endpoint.addresses(store).await? {
        let stream = match TcpStream::connect(address).await {
            Ok(stream) => stream,
            Err(error) => {
                last = format!("dial tcp {address}: connect: {}", reason(&error));
                continue;
            }
        };
        let connector = TlsConnector::from(endpoint.tls.clone());
        let secured = connector
            .connect(endpoint.server_name.clone(), stream)
            .await;
        let secured =
            secured.map_err(|error| format!("tls: failed to verify certificate: {error}"))?;
        let (connection, driver) = http1::handshake(TokioIo::new(secured))
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "a connection to a webhook ended");
            }
        });
        return Ok(connection);
    }
    Err(last)
}

async fn send(
    connection: &mut Connection,
    endpoint: &Endpoint,
    path: &str,
    body: Bytes,
) -> Result<Bytes, Fault> {
    let request = Request::post(path)
        .header(header::HOST, &endpoint.authority)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json, */*")
        .header(header::USER_AGENT, "kube-apiserver-admission")
        .body(Full::new(body))
        .map_err(|error| Fault::Transport(error.to_string()))?;
    let response = connection
        .send_request(request)
        .await
        .map_err(|error| Fault::Transport(error.to_string()))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await;
    let body = body
        .map_err(|error| Fault::Answer(format!("cannot read the answer: {error}")))?
        .to_bytes();
    match status.as_u16() {
        200..300 => Ok(body),
        404 => Err(Fault::Answer(
            "the server could not find the requested resource".to_owned(),
        )),
        400 => Err(Fault::Answer(
            "the server rejected our request for an unknown reason".to_owned(),
        )),
        _ => {
            let text = String::from_utf8_lossy(&body);
            let text: String = text.trim().chars().take(256).collect();
            Err(Fault::Answer(format!(
                "an error on the server ({text:?}) has prevented the request from succeeding"
            )))
        }
    }
}

/// The system's own words, without the number that Rust adds.
fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    }
}
