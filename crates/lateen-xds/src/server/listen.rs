//! The server's sockets.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use futures_util::{Stream, TryStreamExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::service::Routes;
use tonic::transport::server::{Router, TcpIncoming};
use tonic::{Request, Response, Status, Streaming};

use super::authority::Repaired;
use super::delta::Delta;
use super::stream::{Protocol, run};
use super::world::World;
use super::{Caller, Server, Source};

/// Responses waiting for the transport, per stream. More wait as marks in the session.
const WAITING_RESPONSES: usize = 1;
/// Streams of one connection. A proxy needs one; an agent that multiplexes proxies some more.
const STREAMS_PER_CONNECTION: u32 = 128;
/// How long streams may take to end after [`Server::stop`].
const GRACE: Duration = Duration::from_secs(2);

/// The transport failed.
#[derive(Debug, thiserror::Error)]
#[error("discovery server: {source}")]
pub struct ServeError {
    #[from]
    source: tonic::transport::Error,
}

impl<S: Source> Server<S> {
    /// Serves on a TCP socket until [`Server::stop`].
    ///
    /// # Errors
    /// When the transport fails as a whole; a connection that fails is only closed.
    pub async fn serve_tcp(&self, listener: TcpListener) -> Result<(), ServeError> {
        let incoming = TcpIncoming::from(listener)
            .with_nodelay(Some(true))
            .map_ok(Repaired::new);
        self.until_stopped(
            self.router()
                .serve_with_incoming_shutdown(incoming, self.stopped()),
        )
        .await
    }

    /// Serves on a unix socket until [`Server::stop`]. Who may connect is up to the mode of its file.
    ///
    /// # Errors
    /// As [`Server::serve_tcp`].
    pub async fn serve_unix(&self, listener: UnixListener) -> Result<(), ServeError> {
        let incoming = UnixListenerStream::new(listener).map_ok(Repaired::new);
        self.until_stopped(
            self.router()
                .serve_with_incoming_shutdown(incoming, self.stopped()),
        )
        .await
    }

    fn router(&self) -> Router {
        self.router_beside(Routes::default())
    }

    /// Discovery and other services on one socket.
    pub(super) fn router_beside(&self, others: Routes) -> Router {
        let limits = &self.inner.limits;
        let service = AggregatedDiscoveryServiceServer::new(self.clone())
            .max_decoding_message_size(limits.request_bytes);
        tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(limits.keepalive))
            .http2_keepalive_timeout(Some(limits.keepalive / 3))
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            .add_routes(others.add_service(service))
    }

    pub(super) fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stopped = self.inner.stopped.subscribe();
        async move {
            // Fails when every server is gone, which is a stop as well.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        }
    }

    /// Connections get a moment to end by themselves; one that a client holds open does not hold up the stop.
    pub(super) async fn until_stopped(
        &self,
        served: impl Future<Output = Result<(), tonic::transport::Error>>,
    ) -> Result<(), ServeError> {
        let expired = async {
            self.stopped().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            served = served => Ok(served?),
            () = expired => Ok(()),
        }
    }

    fn open<P: Protocol>(
        &self,
        request: Request<Streaming<P::Request>>,
    ) -> Result<Response<ReplyStream<P::Response>>, Status> {
        let inner = Arc::clone(&self.inner);
        if inner.streams.fetch_add(1, Ordering::Relaxed) >= inner.limits.streams {
            inner.streams.fetch_sub(1, Ordering::Relaxed);
            return Err(Status::resource_exhausted("too many discovery streams"));
        }
        let caller = Caller::of(&request);
        let (replies, answered) = mpsc::channel(WAITING_RESPONSES);
        tokio::spawn(run::<P, S>(inner, caller, request.into_inner(), replies));
        Ok(Response::new(Box::pin(ReceiverStream::new(answered))))
    }
}

type ReplyStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl<S: Source> AggregatedDiscoveryService for Server<S> {
    type StreamAggregatedResourcesStream = ReplyStream<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = ReplyStream<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        self.open::<World>(request)
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.open::<Delta>(request)
    }
}
