//! Calls from one workload to another: one connection a call, one deadline for all of it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::identity::variable;

/// Largest answer that is read, in bytes.
const ANSWER_LIMIT: usize = 1 << 20;

/// A service that a workload calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upstream {
    /// Name or address.
    pub(crate) host: String,
    /// Its port.
    pub(crate) port: u16,
}

impl Upstream {
    /// A host and a port that variables may change. A port that is none is ignored, as Kubernetes sets variables such as
    /// `DB_PORT=tcp://...` of its own accord.
    pub(crate) fn from_variables(host: (&str, String), port: (&str, u16)) -> Self {
        Self {
            host: variable(host.0).unwrap_or(host.1),
            port: variable(port.0)
                .and_then(|given| given.parse().ok())
                .unwrap_or(port.1),
        }
    }

    /// The address as URLs and the host header spell it.
    pub(crate) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// `GET path` with `headers`, answered in full within `within`.
    pub(crate) async fn get(
        &self,
        path: &str,
        headers: HeaderMap,
        within: Duration,
    ) -> Result<Response<Bytes>, Failure> {
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = path.parse::<Uri>().map_err(Failure::new)?;
        *request.headers_mut() = headers;
        let host = HeaderValue::from_str(&self.authority()).map_err(Failure::new)?;
        request.headers_mut().insert(header::HOST, host);
        request
            .headers_mut()
            .entry(header::ACCEPT)
            .or_insert(HeaderValue::from_static("*/*"));
        tokio::time::timeout(within, self.exchange(request))
            .await
            .map_err(|_| Failure(format!("no answer within {within:?}")))?
    }

    async fn exchange(&self, request: Request<Empty<Bytes>>) -> Result<Response<Bytes>, Failure> {
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(Failure::new)?;
        let _ = stream.set_nodelay(true);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(Failure::new)?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(Failure::new)?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_LIMIT)
                .collect()
                .await
                .map_err(|error| Failure(error.to_string()))?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        };
        tokio::pin!(exchange, connection);
        tokio::select! {
            answer = &mut exchange => answer,
            // The connection may end first, with the answer already handed over.
            _ = &mut connection => exchange.await,
        }
    }
}

/// Why a call got no answer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failure(String);

impl Failure {
    /// A failure in the caller's words, such as an answer that makes no sense.
    pub(crate) fn said(why: String) -> Self {
        Self(why)
    }

    fn new(error: impl std::error::Error) -> Self {
        Self(error.to_string())
    }
}
