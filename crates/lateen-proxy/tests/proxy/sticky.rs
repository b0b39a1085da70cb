//! Sticky sessions through the whole proxy: keys stay while endpoints come and go.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lateen_xds::ResourceType;
use serde_json::{Value, json};

use crate::outlier::Scripted;
use crate::support::{Client, Proxy, Upstream, cluster, get, to};

/// The option of a cluster, as a struct with its type beside it.
fn sessions(key: Value, idle: &str) -> Value {
    json!({ "typedExtensionProtocolOptions": { "lateen.sticky_session": {
        "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
        "typeUrl": "type.googleapis.com/lateen.sticky_session.v1.StickySession",
        "value": { "key": key, "idle_timeout": idle },
    }}})
}

fn by_user(idle: &str) -> Value {
    sessions(json!({ "header": "x-user" }), idle)
}

fn upstreams(count: usize) -> Vec<Upstream> {
    (0..count)
        .map(|n| Upstream::start(&n.to_string()))
        .collect()
}

fn addresses(upstreams: &[Upstream]) -> Vec<SocketAddr> {
    upstreams.iter().map(|upstream| upstream.address).collect()
}

/// Where each user's next request goes.
fn places(address: SocketAddr, users: usize) -> Vec<String> {
    let mut client = Client::connect(address);
    let mut place = |user| {
        let header = format!("x-user: user-{user}");
        client.get("/", &[&header]).unwrap().name()
    };
    (0..users).map(&mut place).collect()
}

#[test]
fn users_stay_while_endpoints_come_and_go() {
    let all = upstreams(5);
    let addresses = addresses(&all);
    let mut proxy = Proxy::start(2);
    proxy.cluster("c", &addresses[..3], by_user("600s"));
    let address = proxy.http(json!([to("c", json!({}))]), json!({}));
    let users = 2000;
    let before = places(address, users);
    let spread: BTreeMap<&String, usize> = before.iter().fold(BTreeMap::new(), |mut all, name| {
        *all.entry(name).or_default() += 1;
        all
    });
    assert!(
        spread.values().all(|count| *count > users / 6),
        "{spread:?}"
    );
    proxy.cluster("c", &addresses, by_user("600s"));
    assert_eq!(
        places(address, users),
        before,
        "nobody moves to new endpoints"
    );
    // Another worker knows the same.
    for user in [1, 77, 1999] {
        assert_eq!(
            get(address, "/", &[&format!("x-user: user-{user}")]).name(),
            before[user]
        );
    }
    proxy.cluster("c", &addresses[1..], by_user("600s"));
    let after = places(address, users);
    for (user, (before, after)) in before.iter().zip(&after).enumerate() {
        assert_eq!(
            before == after,
            before != "0",
            "user {user}: {before} to {after}"
        );
    }
    proxy.cluster("c", &addresses, by_user("600s"));
    assert_eq!(places(address, users), after, "nobody moves back");
}

#[test]
fn a_user_is_free_when_idle() {
    let all = upstreams(4);
    let mut proxy = Proxy::start(1);
    let addresses = addresses(&all);
    proxy.cluster("c", &addresses[..1], by_user("1s"));
    let address = proxy.http(json!([to("c", json!({}))]), json!({}));
    // The session of the first user began after this.
    let mut last = Instant::now();
    assert!(places(address, 40).iter().all(|name| name == "0"));
    proxy.cluster("c", &addresses, by_user("1s"));
    // Requests within the second keep the session for longer than the second.
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1500) {
        let before = Instant::now();
        let name = places(address, 1).remove(0);
        // On a machine that stood still for the second, the session has ended rightly.
        let is_late = last.elapsed() > Duration::from_millis(900);
        assert!(name == "0" || is_late, "{name}");
        if name != "0" {
            return;
        }
        last = before;
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_millis(1050));
    assert!(
        places(address, 40).iter().any(|name| name != "0"),
        "free users spread"
    );
}

#[test]
fn a_session_moves_once_from_an_endpoint_that_fails() {
    let mut all = upstreams(2);
    let mut proxy = Proxy::start(1);
    let addresses = addresses(&all);
    proxy.cluster("c", &addresses, by_user("600s"));
    let retry = json!({ "retryPolicy": { "retryOn": "connect-failure,reset", "numRetries": 2 } });
    let address = proxy.http(json!([to("c", retry)]), json!({}));
    let before = places(address, 20);
    assert!(before.iter().any(|name| name == "0"));
    let first = all.remove(0);
    let at = first.address;
    drop(first);
    assert!(
        places(address, 20).iter().all(|name| name == "1"),
        "nobody fails"
    );
    let back = Upstream::start_at("0", at);
    assert!(back.is_some(), "the address is free again");
    assert!(
        places(address, 20).iter().all(|name| name == "1"),
        "nobody moves back"
    );
}

#[test]
fn a_retry_because_of_an_answer_moves_no_session() {
    // Where a retry goes without a predicate, and with one that avoids the endpoint that answered.
    let check = |predicate: Value, retried: u16| {
        let scripted = Scripted::start(200);
        let other = Upstream::start("1");
        let mut proxy = Proxy::start(1);
        proxy.cluster("c", &[scripted.address, other.address], by_user("600s"));
        let retry = json!({ "retryPolicy": {
            "retryOn": "retriable-status-codes", "retriableStatusCodes": [503], "numRetries": 1,
            "retryHostPredicate": predicate, "hostSelectionRetryMaxAttempts": 3,
        }});
        let address = proxy.http(json!([to("c", retry)]), json!({}));
        let mut client = Client::connect(address);
        let mut ask = |user: usize| {
            let answer = client.get("/", &[&format!("x-user: user-{user}")]).unwrap();
            (answer.status, answer.body.is_empty())
        };
        // Only the scripted endpoint answers without a body.
        let user = (0..100)
            .find(|user| ask(*user).1)
            .expect("somebody is there");
        scripted.answer(503);
        assert_eq!(ask(user).0, retried, "{predicate}");
        scripted.answer(200);
        assert_eq!(ask(user), (200, true), "{predicate}: the session has moved");
    };
    check(json!([]), 503);
    let name = "envoy.retry_host_predicates.previous_hosts";
    let config = json!({ "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate" });
    check(json!([{ "name": name, "typedConfig": config }]), 200);
}

#[test]
fn an_endpoint_is_found_however_much_of_the_ring_belongs_to_the_one_that_failed() {
    let mut all = upstreams(2);
    let mut proxy = Proxy::start(1);
    let mut resource = cluster("c", &addresses(&all), by_user("600s"));
    resource["loadAssignment"]["endpoints"][0]["lbEndpoints"][0]["loadBalancingWeight"] =
        json!(500);
    resource["loadAssignment"]["endpoints"][0]["lbEndpoints"][1]["loadBalancingWeight"] = json!(1);
    proxy.accept(ResourceType::Cluster, &[resource]);
    let retry = json!({ "retryPolicy": { "retryOn": "connect-failure", "numRetries": 1 } });
    let address = proxy.http(json!([to("c", retry)]), json!({}));
    all.remove(0);
    let mut client = Client::connect(address);
    for user in 0..50 {
        let answer = client.get("/", &[&format!("x-user: user-{user}")]).unwrap();
        assert_eq!(answer.status, 200, "user {user}");
    }
}

#[test]
fn sessions_survive_another_limit() {
    let all = upstreams(4);
    let addresses = addresses(&all);
    let mut proxy = Proxy::start(1);
    let with = |most: u32| {
        let mut option = by_user("600s");
        option["typedExtensionProtocolOptions"]["lateen.sticky_session"]["value"]["max_entries"] =
            json!(most);
        option
    };
    proxy.cluster("c", &addresses[..1], with(1000));
    let address = proxy.http(json!([to("c", json!({}))]), json!({}));
    places(address, 100);
    proxy.cluster("c", &addresses, with(1_000_000));
    assert!(places(address, 100).iter().all(|name| name == "0"));
    proxy.cluster("c", &addresses, with(200));
    assert!(places(address, 100).iter().all(|name| name == "0"));
}

#[test]
fn keys_come_from_where_they_are_said_to_be() {
    let check = |key: Value, request: &dyn Fn(usize) -> (String, String), sticks: bool| {
        let all = upstreams(3);
        let mut proxy = Proxy::start(1);
        proxy.cluster("c", &addresses(&all), sessions(key.clone(), "60s"));
        let address = proxy.http(json!([to("c", json!({}))]), json!({}));
        let mut client = Client::connect(address);
        let mut place = |user| {
            let (path, header) = request(user);
            client.get(&path, &[&header]).unwrap().name()
        };
        let rounds: Vec<Vec<String>> = (0..3).map(|_| (0..4).map(&mut place).collect()).collect();
        let same = rounds.iter().all(|round| *round == rounds[0]);
        assert_eq!(same, sticks, "{key}: {rounds:?}");
    };
    let plain = |header: String| ("/".to_owned(), header);
    check(
        json!({ "cookie": "id" }),
        &|user| plain(format!("cookie: a=b; id={user}")),
        true,
    );
    check(
        json!({ "query": "user" }),
        &|user| (format!("/?user={user}"), "a: b".to_owned()),
        true,
    );
    check(
        json!({ "source_ip": true }),
        &|_| plain("a: b".to_owned()),
        true,
    );
    // Requests without a key are balanced as the cluster says: four turns over three endpoints.
    check(
        json!({ "header": "x-user" }),
        &|_| plain("a: b".to_owned()),
        false,
    );
}

#[test]
fn options_that_are_wrong_are_rejected_by_path() {
    let all = upstreams(1);
    let mut proxy = Proxy::start(1);
    let mut check = |value: Value, expected: &str| {
        let mut more = by_user("60s");
        more["typedExtensionProtocolOptions"]["lateen.sticky_session"]["value"] = value.clone();
        let rejected = proxy.send(
            ResourceType::Cluster,
            &[cluster("c", &addresses(&all), more)],
        );
        let reason = rejected.first().map(|rejection| rejection.reason.clone());
        let reason = reason.unwrap_or_default();
        assert!(reason.contains(expected), "{value}: {reason:?}");
    };
    check(json!({ "idle_timeout": "1s" }), "key: is required");
    check(
        json!({ "key": {}, "idle_timeout": "1s" }),
        "key: exactly one",
    );
    check(
        json!({ "key": { "header": "a b" }, "idle_timeout": "1s" }),
        "key.header",
    );
    check(
        json!({ "key": { "header": "a" } }),
        "idle_timeout: is required",
    );
    check(
        json!({ "key": { "header": "a" }, "idle_timeout": "0s" }),
        "idle_timeout",
    );
    check(
        json!({ "key": { "header": "a" }, "idle_timeout": "1s", "max_entries": 0 }),
        "max_entries",
    );
    check(
        json!({ "key": { "header": "a" }, "idle_timeout": "1s", "more": 1 }),
        "more",
    );
}
