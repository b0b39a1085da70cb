//! A small HTTP/1.1 client for the requests that demos send to a gateway.

use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Largest answer, in bytes.
const BODY_LIMIT: usize = 1 << 20;

/// Longest wait for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A connection to one server, opened when needed and reopened when it ended.
pub(crate) struct HttpClient {
    address: SocketAddr,
    connection: Option<SendRequest<Full<Bytes>>>,
}

/// An answer with its body read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    /// The server cannot be reached.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// The server.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The exchange broke off.
    #[error("the exchange with {address} failed: {why}")]
    Exchange {
        /// The server.
        address: SocketAddr,
        /// How.
        why: String,
    },
}

impl HttpClient {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            connection: None,
        }
    }

    /// The server that requests go to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, HttpError> {
        let exchange = |why: String| HttpError::Exchange {
            address: self.address,
            why,
        };
        let mut request = Request::new(Full::new(body.into()));
        *request.method_mut() = method;
        *request.uri_mut() = path
            .parse()
            .map_err(|error| exchange(format!("{path}: {error}")))?;
        let host = HeaderValue::from_str(&self.address.to_string())
            .map_err(|error| exchange(error.to_string()))?;
        request.headers_mut().insert(header::HOST, host);
        for (name, value) in headers {
            let value = HeaderValue::from_str(value)
                .map_err(|error| exchange(format!("{name}: {error}")))?;
            request.headers_mut().insert(name.clone(), value);
        }
        let answer = tokio::time::timeout(ANSWER_WITHIN, self.exchange(request)).await;
        if !matches!(answer, Ok(Ok(_))) {
            self.connection = None;
        }
        answer.unwrap_or_else(|_| {
            let why = format!("no answer within {} s", ANSWER_WITHIN.as_secs());
            Err(HttpError::Exchange {
                address: self.address,
                why,
            })
        })
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, HttpError> {
        let address = self.address;
        let exchange = |error: &dyn std::fmt::Display| HttpError::Exchange {
            address,
            why: error.to_string(),
        };
        let usable = match &mut self.connection {
            Some(connection) => connection.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            self.connection = Some(connect(address).await?);
        }
        let Some(connection) = &mut self.connection else {
            unreachable!("just connected")
        };
        let response = connection
            .send_request(request)
            .await
            .map_err(|error| exchange(&error))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, BODY_LIMIT)
            .collect()
            .await
            .map_err(|error| exchange(&error))?;
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.to_bytes(),
        })
    }
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>, HttpError> {
    let connect = |source| HttpError::Connect { address, source };
    let stream = TcpStream::connect(address).await.map_err(connect)?;
    stream.set_nodelay(true).map_err(connect)?;
    let (sender, connection) =
        handshake(TokioIo::new(stream))
            .await
            .map_err(|error| HttpError::Exchange {
                address,
                why: error.to_string(),
            })?;
    tokio::spawn(async move {
        // Its end shows at the next request.
        let _ = connection.await;
    });
    Ok(sender)
}
