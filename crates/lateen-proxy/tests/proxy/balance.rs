//! Load balancing through the whole proxy.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use lateen_xds::ResourceType;
use serde_json::{Value, json};

use crate::http1::script::{Script, read_head};
use crate::support::{Client, PATIENCE, Proxy, Upstream, eventually, get, to};

fn upstreams(count: usize) -> (Vec<Upstream>, Vec<SocketAddr>) {
    let all: Vec<_> = (0..count)
        .map(|n| Upstream::start(&n.to_string()))
        .collect();
    let addresses = all.iter().map(|upstream| upstream.address).collect();
    (all, addresses)
}

/// How often each upstream answers.
fn tally(address: SocketAddr, requests: usize) -> BTreeMap<String, usize> {
    let mut client = Client::connect(address);
    let mut tally = BTreeMap::new();
    for _ in 0..requests {
        *tally
            .entry(client.get("/", &[]).unwrap().name())
            .or_default() += 1;
    }
    tally
}

#[test]
fn a_user_stays_with_one_endpoint_and_users_are_spread() {
    let (_upstreams, addresses) = upstreams(4);
    let mut proxy = Proxy::start(2);
    let more = json!({ "lbPolicy": "RING_HASH", "ringHashLbConfig": { "minimumRingSize": 1024 } });
    proxy.cluster("c", &addresses, more);
    let hash = json!({ "hashPolicy": [{ "header": { "headerName": "x-user" } }] });
    let address = proxy.http(json!([to("c", hash)]), json!({}));
    let mut used = BTreeMap::new();
    for user in 0..40 {
        let header = format!("x-user: user-{user}");
        // Connections of their own, so that both workers take part.
        let first = get(address, "/", &[&header]).name();
        for _ in 0..5 {
            assert_eq!(
                get(address, "/", &[&header]).name(),
                first,
                "user {user} moved"
            );
        }
        *used.entry(first).or_insert(0) += 1;
    }
    assert_eq!(used.len(), 4, "{used:?}");
}

#[test]
fn round_robin_takes_turns() {
    let (_upstreams, addresses) = upstreams(3);
    let mut proxy = Proxy::start(1);
    proxy.cluster("c", &addresses, json!({}));
    let address = proxy.http(json!([to("c", json!({}))]), json!({}));
    let tally = tally(address, 30);
    assert!(
        tally.len() == 3 && tally.values().all(|count| *count == 10),
        "{tally:?}"
    );
}

#[test]
fn weights_of_clusters_are_kept() {
    let (_upstreams, addresses) = upstreams(2);
    let mut proxy = Proxy::start(1);
    for (index, name) in ["a", "b"].iter().enumerate() {
        proxy.cluster(name, &addresses[index..=index], json!({}));
    }
    let route = json!({ "match": { "prefix": "/" }, "route": { "weightedClusters": { "clusters": [
        { "name": "a", "weight": 80 }, { "name": "b", "weight": 20 },
    ]}}});
    let address = proxy.http(json!([route]), json!({}));
    let tally = tally(address, 500);
    // Four standard deviations around 100.
    assert!((64..=136).contains(&tally["1"]), "{tally:?}");
}

#[test]
fn endpoints_that_are_not_healthy_get_nothing() {
    let (_upstreams, addresses) = upstreams(2);
    let mut proxy = Proxy::start(1);
    let mut cluster = crate::support::cluster(
        "c",
        &addresses,
        json!({ "commonLbConfig": {
            "healthyPanicThreshold": {},
        }}),
    );
    let endpoint = |cluster: &mut Value, index: usize, health: &str| {
        cluster["loadAssignment"]["endpoints"][0]["lbEndpoints"][index]["healthStatus"] =
            json!(health);
    };
    endpoint(&mut cluster, 0, "UNHEALTHY");
    proxy.accept(ResourceType::Cluster, &[cluster.clone()]);
    let address = proxy.http(json!([to("c", json!({}))]), json!({}));
    assert_eq!(tally(address, 10), BTreeMap::from([("1".to_owned(), 10)]));
    endpoint(&mut cluster, 1, "DRAINING");
    proxy.accept(ResourceType::Cluster, &[cluster]);
    assert_eq!(get(address, "/", &[]).body, "no healthy upstream");
}

#[test]
fn connection_and_pending_limits_hold_for_all_workers() {
    let (seen, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(())));
    // Answers when the gate is open.
    let upstream = Script::start({
        let (seen, gate) = (seen.clone(), gate.clone());
        move |mut stream, _| {
            loop {
                read_head(&mut stream)?;
                seen.fetch_add(1, Ordering::SeqCst);
                drop(gate.lock().unwrap());
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
            }
        }
    });
    let mut proxy = Proxy::start(2);
    proxy.cluster(
        "c",
        &[upstream.address],
        json!({ "circuitBreakers": { "thresholds": [
            { "maxConnections": 1, "maxPendingRequests": 1 },
        ]}}),
    );
    let address = proxy.http(json!([to("c", json!({}))]), json!({}));
    std::thread::scope(|scope| {
        let closed = gate.lock().unwrap();
        let (sender, statuses) = channel();
        let ask = || {
            let sender = sender.clone();
            scope.spawn(move || sender.send(get(address, "/", &[]).status).unwrap());
        };
        // One has the connection, one waits for it; whoever finds both taken is turned away.
        ask();
        eventually(|| seen.load(Ordering::SeqCst) == 1);
        (0..7).for_each(|_| ask());
        let next = |count| -> Vec<u16> {
            (0..count)
                .map(|_| statuses.recv_timeout(PATIENCE).unwrap())
                .collect()
        };
        assert_eq!(next(6), [503; 6]);
        drop(closed);
        assert_eq!(next(2), [200; 2]);
    });
    assert_eq!(seen.load(Ordering::SeqCst), 2);
    // Whichever worker takes it, the one connection is found or freed.
    for _ in 0..6 {
        assert_eq!(get(address, "/", &[]).status, 200);
    }
}

#[test]
fn requests_without_an_original_destination_are_answered() {
    let mut proxy = Proxy::start(1);
    let cluster = json!({
        "name": "c", "type": "ORIGINAL_DST", "lbPolicy": "CLUSTER_PROVIDED", "connectTimeout": "1s",
    });
    proxy.accept(ResourceType::Cluster, &[cluster]);
    let address = proxy.http(json!([to("c", json!({}))]), json!({}));
    let mut client = Client::connect(address);
    for _ in 0..2 {
        assert_eq!(client.get("/", &[]).unwrap().status, 503);
    }
}
