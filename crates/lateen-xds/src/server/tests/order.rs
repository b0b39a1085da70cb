//! Make before break: what waits for the client, for how long, and what does not.

use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, Rds as RdsConfig,
};
use envoy_types::util::pack_any;

use super::source::resource;
use super::*;

/// Longer than anything is held back.
const PATIENCE: Duration = Duration::from_secs(8);

/// A client that holds cluster `a` with its endpoints, listener `l`, and route `r`.
async fn settled(limits: Limits) -> (Arc<Store>, DeltaClient) {
    let (store, mut client) = start(limits).await;
    store.put(&[(Cds, "a", 1), (Eds, "a", 1), (Lds, "l", 1), (Rds, "r", 1)]);
    let mut stream = DeltaClient::open(&mut client).await;
    stream.ask(Cds, &[], &[], &[]).await;
    assert_eq!(stream.next().await, "cluster +a@1");
    stream.ask(Eds, &["a"], &[], &[]).await;
    assert_eq!(stream.next().await, "endpoint +a@1");
    stream.ask(Lds, &[], &[], &[]).await;
    assert_eq!(stream.next().await, "listener +l@1");
    stream.ask(Rds, &["r"], &[], &[]).await;
    assert_eq!(stream.next().await, "route +r@1");
    (store, stream)
}

#[tokio::test]
async fn routes_wait_for_the_endpoints_of_new_clusters() {
    let (store, mut stream) = settled(Limits::default()).await;
    store.put(&[(Cds, "b", 1), (Eds, "b", 1), (Lds, "l", 2), (Rds, "r", 2)]);
    assert_eq!(stream.next().await, "cluster +b@1");
    // Neither the acknowledged cluster nor the subscription nor the sent endpoints suffice.
    stream.silence().await;
    stream.ask(Eds, &["b"], &[], &[]).await;
    let endpoints = stream.next_raw().await;
    assert_eq!(endpoints.type_url, Eds.type_url());
    stream.silence().await;
    stream.answer(&endpoints, None).await;
    assert_eq!(stream.next().await, "listener +l@2");
    assert_eq!(stream.next().await, "route +r@2");
    assert!(
        !store
            .log
            .lock()
            .iter()
            .any(|line| line.starts_with("overdue"))
    );
}

#[tokio::test]
async fn changes_that_come_while_routes_wait_are_merged() {
    let (store, mut stream) = settled(Limits::default()).await;
    store.put(&[(Cds, "b", 1), (Eds, "b", 1), (Rds, "r", 2)]);
    assert_eq!(stream.next().await, "cluster +b@1");
    // Endpoints of what the client has are not held back.
    store.put(&[(Eds, "a", 2)]);
    assert_eq!(stream.next().await, "endpoint +a@2");
    // Another new cluster prolongs the wait; a route that is asked for meanwhile waits, too.
    store.put(&[(Cds, "c", 1), (Eds, "c", 1), (Rds, "r", 3), (Rds, "s", 1)]);
    assert_eq!(stream.next().await, "cluster +c@1");
    stream.ask(Rds, &["s"], &[], &[]).await;
    stream.ask(Eds, &["b"], &[], &[]).await;
    assert_eq!(stream.next().await, "endpoint +b@1");
    stream.silence().await;
    stream.ask(Eds, &["c"], &[], &[]).await;
    assert_eq!(stream.next().await, "endpoint +c@1");
    assert_eq!(stream.next().await, "route +r@3 +s@1");
}

#[tokio::test]
async fn removed_clusters_stay_until_routes_are_acknowledged() {
    let (store, mut stream) = settled(Limits::default()).await;
    store.put(&[
        (Cds, "a", 0),
        (Eds, "a", 0),
        (Cds, "b", 1),
        (Eds, "b", 1),
        (Rds, "r", 2),
    ]);
    assert_eq!(stream.next().await, "cluster +b@1");
    stream.ask(Eds, &["b"], &[], &[]).await;
    assert_eq!(stream.next().await, "endpoint +b@1");
    let route = stream.next_raw().await;
    assert_eq!(route.type_url, Rds.type_url());
    stream.silence().await;
    stream.answer(&route, None).await;
    assert_eq!(stream.next().await, "cluster -a");
    assert_eq!(stream.next().await, "endpoint -a");
    // Without any route in the push there is nothing to wait for.
    store.put(&[(Cds, "b", 0)]);
    assert_eq!(stream.next().await, "cluster -b");
}

#[tokio::test]
async fn removed_clusters_wait_for_the_routes_of_a_changed_listener() {
    let (store, mut stream) = settled(Limits::default()).await;
    let mut listener = resource(Lds, "l", 2);
    let manager = HttpConnectionManager {
        route_specifier: Some(RouteSpecifier::Rds(RdsConfig {
            route_config_name: "new".to_owned(),
            ..RdsConfig::default()
        })),
        ..HttpConnectionManager::default()
    };
    listener.body = pack_any(Listener {
        filter_chains: vec![FilterChain {
            filters: vec![Filter {
                config_type: Some(filter::ConfigType::TypedConfig(pack_any(manager))),
                ..Filter::default()
            }],
            ..FilterChain::default()
        }],
        ..Listener::default()
    });
    store.put_resource(Lds, listener);
    store.put(&[(Cds, "a", 0), (Rds, "new", 1)]);
    assert_eq!(stream.next().await, "listener +l@2");
    stream.silence().await;
    stream.ask(Rds, &["new"], &["r"], &[]).await;
    assert_eq!(stream.next().await, "route +new@1");
    assert_eq!(stream.next().await, "cluster -a");
}

#[tokio::test]
async fn a_cluster_that_comes_back_is_not_removed() {
    let (store, mut stream) = settled(Limits::default()).await;
    store.put(&[(Cds, "a", 0), (Rds, "r", 2)]);
    let route = stream.next_raw().await;
    store.put(&[(Cds, "a", 1), (Lds, "l", 2)]);
    let listener = stream.next_raw().await;
    assert_eq!(listener.type_url, Lds.type_url());
    stream.answer(&route, None).await;
    stream.answer(&listener, None).await;
    stream.silence().await;
}

#[tokio::test]
async fn waits_are_bounded() {
    // What the client does with the new cluster before it is silent.
    let check = async |reject: bool, subscribe: bool, overdue: &str| {
        let (store, mut stream) = settled(Limits::default()).await;
        store.put(&[(Cds, "b", 1), (Eds, "b", 1), (Rds, "r", 2)]);
        let began = tokio::time::Instant::now();
        let cluster = stream.next_raw().await;
        let error = reject.then_some("bad cluster");
        stream.answer(&cluster, error).await;
        if subscribe {
            stream.ask(Eds, &["b"], &[], &[]).await;
            assert_eq!(stream.next_raw().await.type_url, Eds.type_url());
        }
        let route = tokio::time::timeout(PATIENCE, stream.responses.message());
        let route = route.await.unwrap().unwrap().unwrap();
        assert_eq!(route.type_url, Rds.type_url());
        let waited = began.elapsed();
        let expected = if reject { 1 } else { 5 };
        assert!(
            waited >= Duration::from_secs(expected) - Duration::from_millis(50),
            "{waited:?}"
        );
        assert!(!reject || waited < Duration::from_secs(4), "{waited:?}");
        assert!(
            store.log.lock().iter().any(|line| line == overdue),
            "{:?}",
            store.log.lock()
        );
    };
    tokio::join!(
        check(true, false, "overdue b"),
        check(false, false, "overdue b"),
        check(false, true, "overdue "),
    );
}

#[tokio::test]
async fn rejected_endpoints_and_routes_end_the_wait() {
    let (store, mut stream) = settled(Limits::default()).await;
    store.put(&[(Cds, "b", 1), (Eds, "b", 1), (Cds, "a", 0), (Rds, "r", 2)]);
    assert_eq!(stream.next().await, "cluster +b@1");
    stream.ask(Eds, &["b"], &[], &[]).await;
    let endpoints = stream.next_raw().await;
    stream.answer(&endpoints, Some("bad endpoint")).await;
    let route = stream.next_raw().await;
    assert_eq!(route.type_url, Rds.type_url());
    stream.answer(&route, Some("bad route")).await;
    assert_eq!(stream.next().await, "cluster -a");
}

#[tokio::test]
async fn a_client_that_comes_back_gets_the_same_order() {
    let (store, mut client) = start(Limits::default()).await;
    store.put(&[(Cds, "b", 1), (Eds, "b", 1), (Lds, "l", 1), (Rds, "r", 2)]);
    let mut stream = DeltaClient::open(&mut client).await;
    stream.ask(Cds, &[], &[], &[("a", "1")]).await;
    stream.ask(Eds, &["a"], &[], &[("a", "1")]).await;
    stream.ask(Lds, &[], &[], &[("l", "1")]).await;
    stream.ask(Rds, &["r"], &[], &[("r", "1")]).await;
    assert_eq!(stream.next().await, "cluster +b@1");
    assert_eq!(stream.next().await, "endpoint -a");
    stream.silence().await;
    stream.ask(Eds, &["b"], &["a"], &[]).await;
    assert_eq!(stream.next().await, "endpoint +b@1");
    assert_eq!(stream.next().await, "listener");
    assert_eq!(stream.next().await, "route +r@2");
    assert_eq!(stream.next().await, "cluster -a");
}

#[tokio::test]
async fn world_keeps_the_same_order() {
    let (store, mut client) = start(Limits::default()).await;
    store.put(&[(Cds, "a", 1), (Eds, "a", 1), (Lds, "l", 1), (Rds, "r", 1)]);
    let mut stream = WorldClient::open(&mut client).await;
    stream.ask(Cds, &[], "").await;
    let (_, cds) = stream.next().await;
    stream.ask(Cds, &[], &cds).await;
    stream.ask(Eds, &["a"], "").await;
    let (_, eds) = stream.next().await;
    stream.ask(Eds, &["a"], &eds).await;
    stream.ask(Rds, &["r"], "").await;
    let (_, rds) = stream.next().await;
    stream.ask(Rds, &["r"], &rds).await;

    store.put(&[(Cds, "a", 0), (Cds, "b", 1), (Eds, "b", 1), (Rds, "r", 2)]);
    // The old cluster is repeated while a route may name it.
    let (line, cds) = stream.next().await;
    assert_eq!(line, "cluster b a");
    stream.ask(Cds, &[], &cds).await;
    stream.ask(Eds, &["a", "b"], &eds).await;
    let (line, eds) = stream.next().await;
    assert_eq!(line, "endpoint b");
    stream.silence().await;
    stream.ask(Eds, &["a", "b"], &eds).await;
    let (line, rds) = stream.next().await;
    assert_eq!(line, "route r");
    stream.silence().await;
    stream.ask(Rds, &["r"], &rds).await;
    let (line, _) = stream.next().await;
    assert_eq!(line, "cluster b");
}
