//! Configuration changes while traffic flows.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use lateen_xds::ResourceType;
use serde_json::json;

use crate::support::{
    Client, Proxy, Upstream, assignment, cluster, eventually, free_address, get, http_listener, to,
    wait_for_listener,
};

#[test]
fn changes_under_load_fail_no_request() {
    let (one, two) = (Upstream::start("one"), Upstream::start("two"));
    let mut proxy = Proxy::start(2);
    proxy.cluster("c", &[one.address], json!({}));
    let address = proxy.http(json!([to("c", json!({}))]), json!({}));
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let loads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = Client::connect(address);
                    while !stop.load(Ordering::Relaxed) {
                        let answer = client.get("/", &[]).expect("a connection broke");
                        assert_eq!(answer.status, 200, "{answer:?}");
                        served.fetch_add(1, Ordering::Relaxed);
                        // Told to close, a client opens another connection.
                        if answer.header("connection") == Some("close") {
                            client = Client::connect(address);
                        }
                    }
                })
            })
            .collect();
        for round in 0..60 {
            let upstream = if round % 2 == 0 { &two } else { &one };
            proxy.accept(
                ResourceType::Cluster,
                &[cluster("c", &[upstream.address], json!({}))],
            );
            let route = to("c", json!({ "timeout": format!("{}s", 10 + round) }));
            let hosts = json!([{ "name": "all", "domains": ["*"], "routes": [route] }]);
            proxy.accept(
                ResourceType::Route,
                &[json!({ "name": "r", "virtualHosts": hosts })],
            );
            // Every other listener state replaces the filter chain.
            let name = format!("server-{}", round / 2);
            let listener = http_listener("l", address, json!({ "serverName": name }));
            proxy.accept(ResourceType::Listener, &[listener]);
            let before = served.load(Ordering::Relaxed);
            eventually(|| {
                served.load(Ordering::Relaxed) > before + 8 || loads.iter().any(|l| l.is_finished())
            });
        }
        stop.store(true, Ordering::Relaxed);
        for load in loads {
            load.join().expect("a request failed");
        }
    });
    assert!(one.count() > 0 && two.count() > 0);
}

/// A request that chose its route just before it changed still finds the cluster.
#[test]
fn clusters_that_no_route_names_any_more_are_removed_without_loss() {
    let upstream = Upstream::start("one");
    let mut proxy = Proxy::start(2);
    proxy.cluster("c0", &[upstream.address], json!({}));
    let address = proxy.http(json!([to("c0", json!({}))]), json!({}));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let loads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = Client::connect(address);
                    while !stop.load(Ordering::Relaxed) {
                        let answer = client.get("/", &[]).expect("a connection broke");
                        assert_eq!(answer.status, 200, "{answer:?}");
                    }
                })
            })
            .collect();
        for round in 1..=400 {
            let (before, after) = (format!("c{}", round - 1), format!("c{round}"));
            proxy.cluster(&after, &[upstream.address], json!({}));
            let hosts =
                json!([{ "name": "all", "domains": ["*"], "routes": [to(&after, json!({}))] }]);
            proxy.accept(
                ResourceType::Route,
                &[json!({ "name": "r", "virtualHosts": hosts })],
            );
            proxy.remove(ResourceType::Cluster, &before);
            if loads.iter().any(|load| load.is_finished()) {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        for load in loads {
            load.join().expect("a request failed");
        }
    });
}

#[test]
fn kept_connections_leave_for_a_chain_that_fits_better() {
    let upstream = Upstream::start("one");
    let mut proxy = Proxy::start(1);
    proxy.cluster("c", &[upstream.address], json!({}));
    let address = proxy.http(json!([to("c", json!({}))]), json!({}));
    let plain = http_listener("l", address, json!({}));
    // What is told when a chain for this destination port appears beside the catch-all.
    for (port, told) in [(address.port() ^ 1, None), (address.port(), Some("close"))] {
        let mut client = Client::connect(address);
        assert_eq!(client.get("/", &[]).unwrap().header("connection"), None);
        let mut chain = plain["filterChains"][0].clone();
        chain["name"] = json!("port");
        chain["filterChainMatch"] = json!({ "destinationPort": port });
        let mut listener = plain.clone();
        listener["filterChains"].as_array_mut().unwrap().push(chain);
        proxy.accept(ResourceType::Listener, &[listener]);
        let mut answer = client.get("/", &[]).unwrap();
        if told.is_some() && answer.header("connection").is_none() {
            // The connection hears of the change in its own time.
            eventually(|| {
                answer = client.get("/", &[]).unwrap();
                answer.header("connection").is_some()
            });
        }
        assert_eq!(answer.header("connection"), told, "{port}");
    }
}

#[test]
fn a_bad_change_leaves_the_good_state() {
    let upstream = Upstream::start("one");
    let mut proxy = Proxy::start(1);
    proxy.cluster("c", &[upstream.address], json!({}));
    let address = proxy.http(json!([to("c", json!({}))]), json!({}));
    let bad = json!([{ "name": "a", "domains": ["*"], "routes": [{ "match": {}, "route": { "cluster": "c" } }] }]);
    let rejected = proxy.send(
        ResourceType::Route,
        &[json!({ "name": "r", "virtualHosts": bad })],
    );
    assert_eq!(rejected.len(), 1);
    assert_eq!(get(address, "/", &[]).status, 200);
}

#[test]
fn clusters_wait_for_endpoints_and_listeners_for_routes() {
    let upstream = Upstream::start("one");
    let mut proxy = Proxy::start(1);
    let address = free_address();
    proxy.accept(
        ResourceType::Cluster,
        &[json!({
            "name": "c", "type": "EDS", "connectTimeout": "1s",
            "edsClusterConfig": { "edsConfig": { "ads": {} } },
        })],
    );
    proxy.accept(
        ResourceType::Listener,
        &[http_listener("l", address, json!({}))],
    );
    assert!(!proxy.engine.is_ready());
    assert!(
        std::net::TcpStream::connect(address).is_err(),
        "the listener must wait for its routes"
    );
    proxy.accept(
        ResourceType::Endpoint,
        &[assignment("c", &[upstream.address])],
    );
    assert!(!proxy.engine.is_ready());
    let hosts = json!([{ "name": "all", "domains": ["*"], "routes": [to("c", json!({}))] }]);
    proxy.accept(
        ResourceType::Route,
        &[json!({ "name": "r", "virtualHosts": hosts })],
    );
    wait_for_listener(address);
    assert!(proxy.engine.is_ready());
    assert_eq!(get(address, "/", &[]).name(), "one");
    // An endpoint update alone takes effect, too.
    proxy.accept(ResourceType::Endpoint, &[assignment("c", &[])]);
    assert_eq!(get(address, "/", &[]).body, "no healthy upstream");
}

#[test]
fn a_cluster_that_comes_back_waits_for_its_endpoints_again() {
    let (one, two) = (Upstream::start("one"), Upstream::start("two"));
    let mut proxy = Proxy::start(1);
    let eds = json!({
        "name": "c", "type": "EDS", "connectTimeout": "1s",
        "edsClusterConfig": { "edsConfig": { "ads": {} } },
    });
    proxy.accept(ResourceType::Cluster, std::slice::from_ref(&eds));
    proxy.accept(ResourceType::Endpoint, &[assignment("c", &[one.address])]);
    let address = proxy.http(json!([to("c", json!({}))]), json!({}));
    assert_eq!(get(address, "/", &[]).name(), "one");
    proxy.remove(ResourceType::Cluster, "c");
    assert!(proxy.wanted(ResourceType::Endpoint).is_empty());
    proxy.accept(ResourceType::Cluster, &[eds]);
    assert!(proxy.wanted(ResourceType::Endpoint).contains("c"));
    assert_eq!(get(address, "/", &[]).status, 503);
    proxy.accept(ResourceType::Endpoint, &[assignment("c", &[two.address])]);
    assert_eq!(get(address, "/", &[]).name(), "two");
}

#[test]
fn a_removed_listener_finishes_what_it_began() {
    let upstream = Upstream::start("one");
    let mut proxy = Proxy::start(1);
    proxy.cluster("c", &[upstream.address], json!({}));
    let address = proxy.http(json!([to("c", json!({}))]), json!({}));
    let request = std::thread::spawn(move || get(address, "/?sleep=300", &[]));
    eventually(|| upstream.count() > 0);
    proxy.remove(ResourceType::Listener, "l");
    eventually(|| std::net::TcpStream::connect(address).is_err());
    let answer = request.join().unwrap();
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
}

#[test]
fn draining_ends_when_connections_end() {
    let upstream = Upstream::start("one");
    let mut proxy = Proxy::start(1);
    proxy.cluster("c", &[upstream.address], json!({}));
    let address = proxy.http(json!([to("c", json!({}))]), json!({}));
    let request = std::thread::spawn(move || get(address, "/?sleep=300", &[]));
    eventually(|| upstream.count() > 0);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let before = std::time::Instant::now();
    runtime.block_on(proxy.engine.drain(Duration::from_secs(20)));
    assert!(before.elapsed() < Duration::from_secs(10));
    assert_eq!(
        (request.join().unwrap().status, proxy.engine.connections()),
        (200, 0)
    );
    assert!(!proxy.engine.is_ready());
}
