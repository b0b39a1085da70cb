//! The protocol over real sockets, with a source whose resources the tests change.

mod delta;
mod order;
mod serving;
mod source;
mod world;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::*;
use ResourceType::{Cluster as Cds, Endpoint as Eds, Listener as Lds, Route as Rds};
use delta::DeltaClient;
use source::{Store, StoreSource, node, start};
use world::WorldClient;

type Client = AggregatedDiscoveryServiceClient<tonic::transport::Channel>;

/// The next response of an open stream.
async fn next_of<M>(responses: &mut Streaming<M>) -> M {
    let message = tokio::time::timeout(Duration::from_secs(5), responses.message());
    message
        .await
        .expect("a response within 5 s")
        .unwrap()
        .expect("an open stream")
}

/// Nothing more comes for a while.
async fn silence_of<M: std::fmt::Debug>(responses: &mut Streaming<M>) {
    let message = tokio::time::timeout(Duration::from_millis(100), responses.message());
    let message = message.await;
    assert!(message.is_err(), "unexpected: {message:?}");
}
