//! What is to be done: the command line, checked.

use std::time::Duration;

use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;
use hyper::body::Bytes;
use tokio_rustls::TlsConnector;

use super::connection::{self, TlsError};
use crate::cli::LoadArguments;

/// Most connections at once.
const MOST_CONNECTIONS: usize = 10_000;

/// Why the command line makes no sense.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlanError {
    #[error("{0:?} is no URL to call: write http://HOST[:PORT]/PATH")]
    Url(String),
    #[error("--connections {0}: 1 to {MOST_CONNECTIONS} are possible")]
    Connections(usize),
    #[error("--header {0:?}: write NAME: VALUE")]
    Header(String),
    #[error("--method {0:?} is no method")]
    Method(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What is to be done.
pub(crate) struct Plan {
    pub(super) url: Uri,
    /// Where connections go.
    pub(super) authority: Authority,
    pub(super) port: u16,
    /// Nothing for plaintext.
    pub(super) tls: Option<TlsConnector>,
    pub(super) http2: bool,
    pub(super) connections: usize,
    /// Requests a second, all connections together; nothing: as fast as answers come.
    pub(super) rate: Option<f64>,
    /// Nothing: as many as fit into the time.
    pub(super) requests: Option<u64>,
    pub(super) time: Duration,
    /// Longest wait for an answer.
    pub(super) patience: Duration,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
}

impl Plan {
    /// Checks the command line.
    pub(super) fn of(arguments: LoadArguments) -> Result<Self, PlanError> {
        let bad = || PlanError::Url(arguments.url.clone());
        let url: Uri = arguments.url.parse().map_err(|_| bad())?;
        let (scheme, authority) = (url.scheme(), url.authority());
        let (Some(scheme), Some(authority)) = (scheme, authority.cloned()) else {
            return Err(bad());
        };
        let encrypted = match scheme {
            scheme if *scheme == Scheme::HTTP => false,
            scheme if *scheme == Scheme::HTTPS => true,
            _ => return Err(bad()),
        };
        if !(1..=MOST_CONNECTIONS).contains(&arguments.connections) {
            return Err(PlanError::Connections(arguments.connections));
        }
        let mut headers = HeaderMap::new();
        for text in &arguments.headers {
            let (name, value) = header(text).ok_or_else(|| PlanError::Header(text.clone()))?;
            headers.append(name, value);
        }
        if !headers.contains_key(header::HOST)
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            headers.insert(header::HOST, host);
        }
        let method = arguments.method.unwrap_or_else(|| {
            let method = if arguments.data.is_some() {
                "POST"
            } else {
                "GET"
            };
            method.to_owned()
        });
        let tls = encrypted
            .then(|| connection::tls(arguments.ca.as_deref(), arguments.insecure, arguments.http2));
        Ok(Self {
            port: authority
                .port_u16()
                .unwrap_or(if encrypted { 443 } else { 80 }),
            authority,
            tls: tls.transpose()?,
            http2: arguments.http2,
            connections: arguments.connections,
            rate: (arguments.rate > 0.0).then_some(arguments.rate),
            requests: arguments.requests,
            time: match arguments.requests {
                // A number of requests takes as long as it takes.
                Some(_) => Duration::MAX,
                None => arguments.duration.0,
            },
            patience: arguments.timeout.0,
            method: Method::from_bytes(method.as_bytes()).map_err(|_| PlanError::Method(method))?,
            headers,
            body: arguments.data.unwrap_or_default().into(),
            url,
        })
    }

    /// A request.
    pub(super) fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = self.headers.clone();
        if self.http2 {
            *request.uri_mut() = self.url.clone();
            request.headers_mut().remove(header::HOST);
        } else if let Some(path) = self.url.path_and_query() {
            *request.uri_mut() = path.clone().into();
        }
        request
    }
}

fn header(text: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':')?;
    let name = HeaderName::try_from(name.trim()).ok()?;
    Some((name, HeaderValue::from_str(value.trim()).ok()?))
}
