//! The state-of-the-world protocol.

use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};

use super::*;

/// A state-of-the-world stream under test.
pub(super) struct WorldClient {
    requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
}

impl WorldClient {
    pub(super) async fn open(client: &mut Client) -> Self {
        let (requests, sent) = mpsc::channel(16);
        let responses = client
            .stream_aggregated_resources(ReceiverStream::new(sent))
            .await
            .unwrap();
        Self {
            requests,
            responses: responses.into_inner(),
        }
    }

    pub(super) async fn ask(&self, kind: ResourceType, names: &[&str], nonce: &str) {
        let request = DiscoveryRequest {
            node: Some(node()),
            type_url: kind.type_url().to_owned(),
            resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
            response_nonce: nonce.to_owned(),
            ..DiscoveryRequest::default()
        };
        self.requests.send(request).await.unwrap();
    }

    /// The next response as `TYPE name name`, and its nonce.
    pub(super) async fn next(&mut self) -> (String, String) {
        let response = next_of(&mut self.responses).await;
        let mut line = ResourceType::from_type_url(&response.type_url)
            .unwrap()
            .to_string();
        for resource in &response.resources {
            let cluster: Cluster = prost::Message::decode(resource.value.as_slice()).unwrap();
            line.push_str(&format!(" {}", cluster.name));
        }
        (line, response.nonce)
    }

    /// Nothing more comes for a while.
    pub(super) async fn silence(&mut self) {
        silence_of(&mut self.responses).await;
    }
}

#[tokio::test]
async fn world_sends_whole_clusters_and_partial_endpoints() {
    let (store, mut client) = start(Limits::default()).await;
    store.put(&[(Cds, "a", 1), (Cds, "b", 1), (Eds, "a", 1), (Eds, "b", 1)]);
    let mut stream = WorldClient::open(&mut client).await;
    stream.ask(Cds, &[], "").await;
    let (line, cds) = stream.next().await;
    assert_eq!(line, "cluster a b");
    stream.ask(Eds, &["a", "b"], "").await;
    let (line, eds) = stream.next().await;
    assert_eq!(line, "endpoint a b");
    stream.ask(Cds, &[], &cds).await;
    stream.ask(Eds, &["a", "b"], &eds).await;
    // A superset with an empty nonce is answered whole; one that only drops a name is not answered.
    stream.ask(Eds, &["a"], &eds).await;
    stream.ask(Rds, &["r"], "").await;
    assert_eq!(stream.next().await.0, "route");
    store.put(&[(Eds, "b", 2), (Cds, "b", 0)]);
    assert_eq!(stream.next().await.0, "cluster a");
    // A name that is added again is sent although its version was sent before.
    stream.ask(Eds, &["a", "b"], &eds).await;
    let (line, eds) = stream.next().await;
    assert_eq!(line, "endpoint b");
    // A request with an old nonce is ignored; an empty list means nothing from now on.
    stream.ask(Eds, &["a", "b", "c"], "old").await;
    stream.ask(Eds, &[], &eds).await;
    stream.ask(Rds, &["r"], "").await;
    assert_eq!(stream.next().await.0, "route");
    store.put(&[(Eds, "a", 3), (Cds, "a", 2)]);
    assert_eq!(stream.next().await.0, "cluster a");
}
