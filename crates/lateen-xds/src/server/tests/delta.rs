//! The incremental protocol.

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use envoy_types::pb::google::rpc::Status as RpcStatus;

use super::*;

/// A delta stream under test.
pub(super) struct DeltaClient {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    pub(super) responses: Streaming<DeltaDiscoveryResponse>,
}

impl DeltaClient {
    pub(super) async fn open(client: &mut Client) -> Self {
        let (requests, sent) = mpsc::channel(16);
        let responses = client
            .delta_aggregated_resources(ReceiverStream::new(sent))
            .await
            .unwrap();
        Self {
            requests,
            responses: responses.into_inner(),
        }
    }

    pub(super) async fn ask(
        &self,
        kind: ResourceType,
        subscribe: &[&str],
        unsubscribe: &[&str],
        held: &[(&str, &str)],
    ) {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let request = DeltaDiscoveryRequest {
            node: Some(node()),
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: owned(subscribe),
            resource_names_unsubscribe: owned(unsubscribe),
            initial_resource_versions: held
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect(),
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(request).await.unwrap();
    }

    /// The next response, acknowledged, as `TYPE +name@version -name`.
    pub(super) async fn next(&mut self) -> String {
        let response = self.next_raw().await;
        let ack = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(ack).await.unwrap();
        let mut line = ResourceType::from_type_url(&response.type_url)
            .unwrap()
            .to_string();
        for resource in &response.resources {
            line.push_str(&format!(" +{}@{}", resource.name, resource.version));
        }
        for name in &response.removed_resources {
            line.push_str(&format!(" -{name}"));
        }
        line
    }

    pub(super) async fn next_raw(&mut self) -> DeltaDiscoveryResponse {
        next_of(&mut self.responses).await
    }

    /// Nothing more comes for a while.
    pub(super) async fn silence(&mut self) {
        silence_of(&mut self.responses).await;
    }

    /// Acknowledges a response, or rejects it.
    pub(super) async fn answer(&self, response: &DeltaDiscoveryResponse, error: Option<&str>) {
        let error_detail = error.map(|message| RpcStatus {
            code: 13,
            message: message.to_owned(),
            ..RpcStatus::default()
        });
        let answer = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail,
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(answer).await.unwrap();
    }
}

#[tokio::test]
async fn delta_serves_wildcards_names_and_changes_in_order() {
    let (store, mut client) = start(Limits::default()).await;
    store.put(&[
        (Cds, "a", 1),
        (Cds, "b", 1),
        (Eds, "a", 1),
        (Lds, "l", 1),
        (Rds, "r", 1),
    ]);
    let mut stream = DeltaClient::open(&mut client).await;
    stream.ask(Cds, &[], &[], &[]).await;
    assert_eq!(stream.next().await, "cluster +a@1 +b@1");
    stream.ask(Eds, &["a", "b"], &[], &[]).await;
    assert_eq!(stream.next().await, "endpoint +a@1 -b");
    stream.ask(Lds, &["*"], &[], &[]).await;
    assert_eq!(stream.next().await, "listener +l@1");
    stream.ask(Rds, &["r"], &[], &[]).await;
    assert_eq!(stream.next().await, "route +r@1");
    // A change of everything: cluster first with its unchanged endpoint, removals last.
    store.put(&[(Rds, "r", 2), (Lds, "l", 2), (Cds, "b", 0), (Cds, "a", 2)]);
    assert_eq!(stream.next().await, "cluster +a@2");
    assert_eq!(stream.next().await, "endpoint +a@1");
    assert_eq!(stream.next().await, "listener +l@2");
    assert_eq!(stream.next().await, "route +r@2");
    assert_eq!(stream.next().await, "cluster -b");
    // What nobody subscribed to, and what did not change in content, is not sent.
    store.put(&[(Rds, "other", 1), (Cds, "a", 2), (Lds, "l", 3)]);
    assert_eq!(stream.next().await, "listener +l@3");
    // A resource that comes into being is sent to who waits for it.
    store.put(&[(Eds, "b", 1)]);
    assert_eq!(stream.next().await, "endpoint +b@1");
}

#[tokio::test]
async fn delta_subscription_rules() {
    let (store, mut client) = start(Limits::default()).await;
    store.put(&[(Cds, "a", 1), (Rds, "r", 1), (Rds, "s", 1)]);
    let mut stream = DeltaClient::open(&mut client).await;
    stream.ask(Rds, &["r"], &[], &[]).await;
    assert_eq!(stream.next().await, "route +r@1");
    // Asked for again: sent again.
    stream.ask(Rds, &["r"], &[], &[]).await;
    assert_eq!(stream.next().await, "route +r@1");
    // Unsubscribed: no longer sent.
    stream.ask(Rds, &["s"], &["r"], &[]).await;
    assert_eq!(stream.next().await, "route +s@1");
    store.put(&[(Rds, "r", 2), (Rds, "s", 2)]);
    assert_eq!(stream.next().await, "route +s@2");
    // Unsubscribed while a wildcard covers it: answered with what it is.
    stream.ask(Cds, &["*"], &[], &[]).await;
    assert_eq!(stream.next().await, "cluster +a@1");
    stream.ask(Cds, &[], &["a", "gone"], &[]).await;
    assert_eq!(stream.next().await, "cluster +a@1 -gone");
    // The wildcard itself given back: nothing more comes.
    stream.ask(Cds, &[], &["*"], &[]).await;
    stream.ask(Rds, &["s"], &[], &[]).await;
    assert_eq!(stream.next().await, "route +s@2");
    store.put(&[(Cds, "a", 2), (Rds, "s", 3)]);
    assert_eq!(stream.next().await, "route +s@3");
}

#[tokio::test]
async fn delta_reconnect_sends_the_difference() {
    let (store, mut client) = start(Limits::default()).await;
    store.put(&[(Cds, "a", 1), (Cds, "b", 2), (Eds, "a", 1), (Eds, "b", 1)]);
    let mut stream = DeltaClient::open(&mut client).await;
    // Envoy asks for endpoints first when it comes back.
    stream
        .ask(
            Eds,
            &["a", "b", "c"],
            &[],
            &[("a", "1"), ("b", "0"), ("c", "1")],
        )
        .await;
    assert_eq!(stream.next().await, "endpoint +b@1 -c");
    stream
        .ask(Cds, &[], &[], &[("a", "1"), ("b", "1"), ("c", "1")])
        .await;
    assert_eq!(stream.next().await, "cluster +b@2");
    assert_eq!(stream.next().await, "endpoint +b@1");
    // A first request is answered even when there is nothing new.
    stream.ask(Lds, &[], &[], &[]).await;
    assert_eq!(stream.next().await, "listener");
    // What is gone follows when no route can name it any more.
    stream.ask(Rds, &["r"], &[], &[("r", "1")]).await;
    assert_eq!(stream.next().await, "route -r");
    assert_eq!(stream.next().await, "cluster -c");
}

#[tokio::test]
async fn nack_is_reported_and_not_answered() {
    let (store, mut client) = start(Limits::default()).await;
    store.put(&[(Cds, "a", 1)]);
    let mut stream = DeltaClient::open(&mut client).await;
    stream.ask(Cds, &[], &[], &[]).await;
    let response = stream.next_raw().await;
    stream.answer(&response, Some("bad ring")).await;
    stream.ask(Lds, &[], &[], &[]).await;
    assert_eq!(stream.next().await, "listener");
    assert_eq!(
        *store.log.lock(),
        [
            "cluster sent 1 0",
            "cluster nacked bad ring",
            "listener sent 0 0"
        ]
    );
}
