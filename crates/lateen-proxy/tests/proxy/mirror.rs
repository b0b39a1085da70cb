//! Mirroring through the whole proxy: what the mirror sees, and that the client never notices it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use lateen_xds::ResourceType;
use serde_json::{Value, json};

use crate::support::{Client, PATIENCE, Proxy, Upstream, eventually, free_address, get, to};

/// Bytes of a body that is too large to be copied.
const TOO_LARGE: usize = (1 << 20) + 1;

fn policy(cluster: &str, more: Value) -> Value {
    let mut policy = json!({ "cluster": cluster });
    crate::support::merge(&mut policy, more);
    policy
}

fn mirrored_to(policies: Value) -> Value {
    json!([to("main", json!({ "requestMirrorPolicies": policies }))])
}

/// A mirror that keeps what it is sent, byte by byte.
struct Recorder {
    listener: TcpListener,
    address: SocketAddr,
}

impl Recorder {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    /// The next request, whose body ends with `end`; it is answered with an error.
    fn request(&self, end: &str) -> String {
        let (mut stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(end.as_bytes()) {
            stream.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        let answer = b"HTTP/1.1 500 Broken\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        stream.write_all(answer).unwrap();
        String::from_utf8(request).unwrap()
    }
}

#[test]
fn a_copy_has_the_request_with_a_shadow_host() {
    for (more, host) in [
        (json!({}), "host: test-shadow:8000\r\n"),
        (
            json!({ "disableShadowHostSuffixAppend": true }),
            "host: test:8000\r\n",
        ),
    ] {
        let (main, recorder) = (Upstream::start("main"), Recorder::start());
        let mut proxy = Proxy::start(1);
        proxy.cluster("main", &[main.address], json!({}));
        proxy.cluster("mirror", &[recorder.address], json!({}));
        let address = proxy.http(mirrored_to(json!([policy("mirror", more)])), json!({}));
        let answer = Client::connect(address)
            .send("POST /a?b=1 HTTP/1.1\r\nhost: test:8000\r\nx-own: 1\r\ncontent-length: 7\r\n\r\npayload")
            .unwrap();
        assert_eq!((answer.status, answer.name().as_str()), (200, "main"));
        assert_eq!(answer.seen()["headers"]["host"], "test:8000");
        assert_eq!(answer.seen()["headers"]["x-envoy-internal"], Value::Null);
        let copy = recorder.request("payload");
        assert!(copy.starts_with("POST /a?b=1 HTTP/1.1\r\n"), "{copy}");
        for line in [
            host,
            "x-own: 1\r\n",
            "x-envoy-internal: true\r\n",
            "content-length: 7\r\n",
        ] {
            assert!(copy.contains(line), "{line} is missing in {copy}");
        }
    }
}

#[test]
fn every_policy_takes_its_share() {
    let main = Upstream::start("main");
    let mirrors: Vec<_> = ["all", "half", "none"].map(Upstream::start).into();
    let mut proxy = Proxy::start(2);
    proxy.cluster("main", &[main.address], json!({}));
    for (name, upstream) in ["all", "half", "none"].iter().zip(&mirrors) {
        proxy.cluster(name, &[upstream.address], json!({}));
    }
    let share = |percent: u32| {
        json!({ "runtimeFraction": { "defaultValue": {
            "numerator": percent * 10_000, "denominator": "MILLION",
        }}})
    };
    let policies = json!([
        policy("all", json!({})),
        policy("half", share(50)),
        policy("none", share(0)),
        policy("unknown", json!({})),
    ]);
    let address = proxy.http(mirrored_to(policies), json!({}));
    let mut client = Client::connect(address);
    for _ in 0..400 {
        assert_eq!(client.get("/", &[]).unwrap().name(), "main");
    }
    eventually(|| mirrors[0].count() == 400);
    assert_eq!((main.count(), mirrors[2].count()), (400, 0));
    // Four standard deviations of 10 around 200.
    let half = mirrors[1].count();
    assert!((160..=240).contains(&half), "{half}");
}

#[test]
fn a_mirror_that_is_slow_or_down_does_not_change_the_answer() {
    let (main, slow) = (Upstream::start("main"), Upstream::start("slow"));
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut proxy = Proxy::start(1);
    proxy.cluster("main", &[main.address], json!({}));
    proxy.cluster("hanging", &[hanging.local_addr().unwrap()], json!({}));
    proxy.cluster("down", &[free_address()], json!({}));
    proxy.cluster("empty", &[], json!({}));
    proxy.cluster("slow", &[slow.address], json!({}));
    let policies: Vec<_> = ["hanging", "down", "empty", "slow"]
        .map(|name| policy(name, json!({})))
        .into();
    let address = proxy.http(mirrored_to(json!(policies)), json!({}));
    let started = Instant::now();
    let mut client = Client::connect(address);
    for _ in 0..20 {
        assert_eq!(client.get("/", &[]).unwrap().name(), "main");
    }
    assert!(started.elapsed() < Duration::from_secs(2));
    eventually(|| slow.count() == 20);
}

#[test]
fn large_and_broken_bodies_are_not_mirrored() {
    let (main, mirror) = (Upstream::start("main"), Upstream::start("mirror"));
    let mut proxy = Proxy::start(1);
    proxy.cluster("main", &[main.address], json!({}));
    proxy.cluster("mirror", &[mirror.address], json!({}));
    let address = proxy.http(mirrored_to(json!([policy("mirror", json!({}))])), json!({}));
    let body = "x".repeat(TOO_LARGE);
    let (length, chunk) = (
        format!("content-length: {TOO_LARGE}\r\n\r\n{body}"),
        format!("transfer-encoding: chunked\r\n\r\n{TOO_LARGE:x}\r\n{body}\r\n0\r\n\r\n"),
    );
    for rest in [length, chunk] {
        let answer = Client::connect(address)
            .send(&format!("POST / HTTP/1.1\r\nhost: test\r\n{rest}"))
            .unwrap();
        assert_eq!(answer.seen()["body"], TOO_LARGE);
    }
    // A client that goes away in the middle of its body.
    let mut client = Client::connect(address);
    client
        .0
        .write_all(b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nhalf")
        .unwrap();
    eventually(|| main.count() == 3);
    drop(client);
    // What comes later is mirrored, and nothing of the above before it.
    let small = Client::connect(address)
        .send("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n")
        .unwrap();
    assert_eq!(small.seen()["body"], 4);
    eventually(|| mirror.count() == 1);
    assert_eq!(get(address, "/", &[]).status, 200);
    eventually(|| mirror.count() == 2);
}

#[test]
fn unsupported_parts_of_a_policy_are_refused() {
    let mut proxy = Proxy::start(1);
    for (policy, path) in [
        (json!({ "clusterHeader": "x" }), "cluster_header"),
        (
            json!({ "cluster": "c", "hostRewriteLiteral": "x" }),
            "host_rewrite_literal",
        ),
    ] {
        let routes = mirrored_to(json!([policy]));
        let hosts = json!([{ "name": "all", "domains": ["*"], "routes": routes }]);
        let rejected = proxy.send(
            ResourceType::Route,
            &[json!({ "name": "r", "virtualHosts": hosts })],
        );
        let path = format!("virtual_hosts[0].routes[0].route.request_mirror_policies[0].{path}");
        assert_eq!(rejected.len(), 1);
        assert!(
            rejected[0].reason.starts_with(&path),
            "{}",
            rejected[0].reason
        );
    }
}
