//! Tunnels that the proxy opens itself, for TCP connections whose clients know nothing of HTTP.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, Method, Response, StatusCode, Version};
use http_body_util::BodyExt;
use lateen_route::format::Template;
use lateen_route::mutate::HeaderMutations;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio_util::io::{ReaderStream, StreamReader};

use super::attempt::{AttemptError, Choice, Outgoing, send};
use super::finish::{Lease, UpstreamHold};
use super::head::Head;
use super::incoming::Incoming;
use super::request_body::RequestBody;
use super::upgrade::{Duplex, agreed};
use crate::cluster::{ActiveRequest, Cluster, Host, Limited, Priority};
use crate::http1::Opens;
use crate::record::Record;
use crate::worker::Worker;

/// Bytes that wait in the pipe for a request's body.
const PIPE_BYTES: usize = 64 << 10;

/// How tunnels are asked for.
#[derive(Debug)]
pub(crate) struct TunnelSettings {
    /// Where they lead.
    pub(crate) host: Template,
    /// The path of the `POST` that asks for them; nothing: they are asked for by `CONNECT`.
    pub(crate) post: Option<String>,
    /// More that the request says.
    pub(crate) headers: HeaderMutations,
}

/// A tunnel.
pub(crate) struct Tunnelled {
    pub(crate) stream: Box<dyn Duplex>,
    /// The connection counts until it is dropped.
    pub(crate) hold: UpstreamHold,
    /// The address of its near end.
    pub(crate) local: Option<SocketAddr>,
}

/// Why there is no tunnel.
pub(crate) enum TunnelError {
    /// A circuit breaker is open.
    Overflow,
    /// The endpoint did not answer, or its answer was no.
    Refused(String),
}

impl From<AttemptError> for TunnelError {
    fn from(error: AttemptError) -> Self {
        Self::Refused(error.text)
    }
}

impl TunnelSettings {
    /// Opens a tunnel through an endpoint for the connection that `record` is about.
    ///
    /// # Errors
    /// When the endpoint cannot be reached, or does not agree.
    pub(crate) async fn open(
        &self,
        worker: &Rc<Worker>,
        cluster: &Arc<Cluster>,
        host: &Arc<Host>,
        record: &Record,
    ) -> Result<Tunnelled, TunnelError> {
        let permit = cluster.permit(Priority::Default, Limited::Requests);
        let permit = permit.ok_or(TunnelError::Overflow)?;
        let active = ActiveRequest::start(host, &cluster.shared, permit);
        let head = self.head(cluster, host, record);
        // There is no request whose version could be taken.
        let version = cluster.protocol.version(false);
        // What goes through a tunnel of `POST` is the bodies of an exchange like any other.
        let (body, near, opens) = if self.post.is_some() {
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            let far = ReaderStream::with_capacity(far, PIPE_BYTES);
            let body = RequestBody::Piped(Box::new(far));
            (body, Some(near), Opens::Nothing)
        } else {
            (RequestBody::Empty, None, Opens::Tunnel)
        };
        let outgoing = Outgoing {
            head: &head,
            body,
            version,
            opens,
        };
        let told = cluster.transports.of(host).proxy_protocol.is_some();
        let choice = Choice {
            priority: Priority::Default,
            protocols: None,
            client: told.then(|| record.connection.ends()),
        };
        let mut local = None;
        let sent = send(worker, cluster, host, choice, outgoing, &mut local).await;
        let (mut response, mut lease) = sent?;
        let (status, is_http1) = (response.status(), matches!(lease, Lease::Http1(_)));
        let refused = || TunnelError::Refused(format!("tunnel_response:{}", status.as_u16()));
        let stream: Box<dyn Duplex> = match near {
            None => {
                let side = agreed(Opens::Tunnel, &mut response, &mut lease).await;
                side.ok_or_else(refused)?.stream
            }
            Some(near) if status == StatusCode::OK || (is_http1 && status.is_success()) => {
                Box::new(tokio::io::join(reader(response), Pipe(near)))
            }
            Some(_) => return Err(refused()),
        };
        Ok(Tunnelled {
            stream,
            hold: UpstreamHold {
                lease,
                cluster: cluster.clone(),
                worker: worker.clone(),
                active,
            },
            local,
        })
    }

    fn head(&self, cluster: &Cluster, host: &Host, record: &Record) -> Head {
        let mut authority = String::new();
        self.host.write(record, "", &mut authority);
        let mut headers = HeaderMap::new();
        self.headers.add(&mut headers, record);
        let is_tls = cluster.transports.of(host).tls.is_some();
        Head {
            method: match self.post {
                Some(_) => Method::POST,
                None => Method::CONNECT,
            },
            scheme: if is_tls { "https" } else { "http" },
            authority,
            path: self.post.clone().unwrap_or_default(),
            headers,
            version: Version::HTTP_11,
        }
    }
}

/// The near end of a pipe. To shut it down takes until the far end is gone, as what is in the pipe would be lost with the
/// tunnel otherwise.
struct Pipe(DuplexStream);

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.0).poll_shutdown(context))?;
        // Nothing ever comes from there but the end.
        let mut byte = [0];
        Pin::new(&mut self.0).poll_read(context, &mut ReadBuf::new(&mut byte))
    }
}

/// The bytes of a response's body.
fn reader(response: Response<Incoming>) -> impl AsyncRead + Unpin {
    let body = response.into_body().map_err(io::Error::other);
    StreamReader::new(body.into_data_stream())
}
