//! Sessions that several proxies share in a real Redis server, and what happens without it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lateen_xds::ResourceType;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Client, Proxy, Upstream, eventually, free_address, get, merge, to};
use crate::tls_support::{Authority, Identity};

/// A Redis server on loopback that ends with this value.
struct Redis {
    address: SocketAddr,
    child: Child,
    folder: TempDir,
}

impl Redis {
    fn start(more: &[&str]) -> Self {
        Self::start_at(free_address(), more)
    }

    fn start_at(address: SocketAddr, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = address.port().to_string();
        // With TLS the plain port is closed, and `more` has the other.
        let port = if more.contains(&"--tls-port") {
            "0"
        } else {
            port.as_str()
        };
        let child = Command::new("redis-server")
            .args([
                "--port",
                port,
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .args(more)
            .arg("--dir")
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server (Debian package redis-server) is installed");
        eventually(|| std::net::TcpStream::connect(address).is_ok());
        Self {
            address,
            child,
            folder,
        }
    }

    /// What the server answers to a command without arguments of its own kind.
    fn ask(&self, words: &[&str]) -> String {
        let mut stream = std::net::TcpStream::connect(self.address).unwrap();
        stream
            .write_all(format!("{}\r\nQUIT\r\n", words.join(" ")).as_bytes())
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The option of a cluster whose sessions are shared in the server at this address.
fn shared(server: SocketAddr, idle: &str, more: Value) -> Value {
    let mut redis = json!({ "host": server.ip().to_string(), "port": server.port() });
    merge(&mut redis, more);
    json!({ "typedExtensionProtocolOptions": { "lateen.sticky_session": {
        "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
        "typeUrl": "type.googleapis.com/lateen.sticky_session.v1.StickySession",
        "value": { "key": { "header": "x-user" }, "idle_timeout": idle, "redis": redis },
    }}})
}

fn upstreams(count: usize) -> (Vec<Upstream>, Vec<SocketAddr>) {
    let all: Vec<_> = (0..count)
        .map(|n| Upstream::start(&n.to_string()))
        .collect();
    let addresses = all.iter().map(|upstream| upstream.address).collect();
    (all, addresses)
}

/// A proxy with a cluster, and where it listens.
struct Gateway {
    proxy: Proxy,
    address: SocketAddr,
}

impl Gateway {
    fn start(endpoints: &[SocketAddr], more: Value) -> Self {
        let mut proxy = Proxy::start(2);
        proxy.cluster("c", endpoints, more);
        let address = proxy.http(json!([to("c", json!({}))]), json!({}));
        Self { proxy, address }
    }

    /// A proxy whose workers have reached the store.
    fn connected(endpoints: &[SocketAddr], more: Value) -> Self {
        let gateway = Self::start(endpoints, more);
        gateway.until("store_connected", 2);
        gateway
    }

    fn stat(&self, name: &str) -> u64 {
        let start = format!("envoy_cluster_sticky_session_{name}{{");
        let metrics = self.proxy.engine.metrics();
        let line = metrics.lines().find(|line| line.starts_with(&start));
        let value = line.and_then(|line| line.rsplit_once(' '));
        value.map_or(0, |(_, value)| value.parse().unwrap())
    }

    #[track_caller]
    fn until(&self, stat: &str, wanted: u64) {
        eventually(|| self.stat(stat) == wanted);
    }

    /// Where each user's next request goes, once the store has answered for all of them in its few milliseconds: on a
    /// busy machine some go on without it.
    fn shared_places(&self, users: usize) -> Vec<String> {
        let deadline = Instant::now() + crate::support::PATIENCE;
        loop {
            let (places, all_shared) = self.try_shared_places(users);
            if all_shared {
                return places;
            }
            assert!(Instant::now() < deadline, "the store never answers in time");
        }
    }

    /// The same once, and whether the store has answered for all.
    fn try_shared_places(&self, users: usize) -> (Vec<String>, bool) {
        let unshared = || self.stat("store_errors") + self.stat("store_timeouts");
        let before = unshared();
        let places = self.places(users);
        (places, unshared() == before)
    }

    /// Where each user's next request goes.
    fn places(&self, users: usize) -> Vec<String> {
        let mut client = Client::connect(self.address);
        let mut place = |user| {
            let answer = client.get("/", &[&format!("x-user: user-{user}")]).unwrap();
            assert_eq!(answer.status, 200);
            answer.name()
        };
        (0..users).map(&mut place).collect()
    }
}

#[test]
fn two_proxies_agree_while_endpoints_come_and_go() {
    let redis = Redis::start(&[]);
    let (_upstreams, all) = upstreams(5);
    let option = || shared(redis.address, "600s", json!({}));
    let mut one = Gateway::connected(&all[..3], option());
    let before = one.shared_places(300);
    // The other one learns of the new endpoints first; its own ring would send two of five users there.
    let mut other = Gateway::connected(&all, option());
    assert_eq!(other.shared_places(300), before);
    assert!(other.stat("store_adopted") > 50);
    one.proxy.cluster("c", &all, option());
    assert_eq!(one.shared_places(300), before);
    // An endpoint goes: its users move, and both proxies know where to.
    one.proxy.cluster("c", &all[1..], option());
    other.proxy.cluster("c", &all[1..], option());
    let after = other.shared_places(300);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before == after, before != "0", "{before} to {after}");
    }
    assert_eq!(one.shared_places(300), after);
}

#[test]
fn a_session_that_any_proxy_renews_lives_and_ends_when_all_are_idle() {
    let redis = Redis::start(&[]);
    let (_upstreams, all) = upstreams(4);
    let option = || shared(redis.address, "2s", json!({}));
    let one = Gateway::connected(&all[..1], option());
    assert!(one.shared_places(40).iter().all(|name| name == "0"));
    let mut last = Instant::now();
    let other = Gateway::connected(&all, option());
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        let (places, all_shared) = other.try_shared_places(40);
        let stayed = places.iter().all(|name| name == "0");
        // On a machine that stood still for the time, the sessions have ended rightly.
        let is_late = last.elapsed() > Duration::from_millis(1900);
        assert!(stayed || !all_shared || is_late, "{places:?}");
        if is_late {
            return;
        }
        if all_shared {
            last = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    std::thread::sleep(Duration::from_millis(2100));
    assert!(other.places(40).iter().any(|name| name != "0"));
}

#[test]
fn requests_go_on_when_the_server_is_away_and_agree_again_when_it_is_back() {
    let redis = Redis::start(&[]);
    let (_upstreams, all) = upstreams(3);
    let option = || shared(redis.address, "600s", json!({}));
    let one = Gateway::connected(&all, option());
    let other = Gateway::connected(&all, option());
    let before = one.shared_places(100);
    assert_eq!(other.shared_places(100), before);
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, address) = (stop.clone(), one.address);
    let load = std::thread::spawn(move || {
        let mut client = Client::connect(address);
        let (mut user, mut slowest) = (0_usize, Duration::ZERO);
        while !stopped.load(Ordering::Relaxed) {
            user = (user + 1) % 100;
            let start = Instant::now();
            let answer = client.get("/", &[&format!("x-user: user-{user}")]).unwrap();
            slowest = slowest.max(start.elapsed());
            assert_eq!(answer.status, 200);
        }
        slowest
    });
    let address = redis.address;
    drop(redis);
    one.until("store_connected", 0);
    // Everybody stays where both proxies knew them to be.
    assert_eq!(one.places(100), before);
    assert_eq!(other.places(100), before);
    assert!(one.stat("store_errors") > 0);
    let redis = Redis::start_at(address, &[]);
    one.until("store_connected", 2);
    other.until("store_connected", 2);
    stop.store(true, Ordering::Relaxed);
    let slowest = load.join().unwrap();
    // Milliseconds on a quiet machine; nothing that waited for the server would be below this.
    assert!(slowest < Duration::from_millis(800), "{slowest:?}");
    assert_eq!(one.shared_places(100), before);
    let third = Gateway::connected(&all[..1], shared(redis.address, "600s", json!({})));
    // It knows one endpoint only: those of the others move to it, the rest stay.
    assert!(third.shared_places(100).iter().all(|name| name == "0"));
    assert!(one.shared_places(100).iter().all(|name| name == "0"));
}

/// Requests are answered in time, and those with a key are counted as not shared.
fn check_goes_on(server: SocketAddr, more: Value) {
    let (_upstreams, all) = upstreams(3);
    let gateway = Gateway::start(&all, shared(server, "600s", more));
    let before = gateway.places(30);
    let start = Instant::now();
    assert_eq!(gateway.places(30), before);
    // Each waits for 5 ms until the server is known to be away. Longer on a busy machine, but never for the server.
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    eventually(|| {
        gateway.places(1);
        gateway.stat("store_errors") > 0
    });
    assert_eq!(gateway.stat("store_adopted"), 0);
}

#[test]
fn a_server_that_does_not_do_what_it_should_holds_nobody_up() {
    // Nobody there.
    check_goes_on(free_address(), json!({}));
    // Takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    check_goes_on(silent.local_addr().unwrap(), json!({}));
    // Speaks something else, or announces more than anybody would want.
    for answer in [
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "$99999999999\r\n",
        "+PONG\r\n+PONG\r\n",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let (mut reader, mut writer) = (&stream, &stream);
                    let mut buffer = [0; 4096];
                    while reader.read(&mut buffer).is_ok_and(|count| count > 0)
                        && writer.write_all(answer.as_bytes()).is_ok()
                    {}
                });
            }
        });
        check_goes_on(address, json!({}));
    }
}

#[test]
fn a_password_comes_from_a_secret_of_the_discovery_stream() {
    let redis = Redis::start(&["--requirepass", "open sesame"]);
    let (_upstreams, all) = upstreams(2);
    let option = |more: Value| shared(redis.address, "600s", more);
    let with = || option(json!({ "password_secret": "pass", "database": 3 }));
    check_goes_on(redis.address, json!({}));
    check_goes_on(redis.address, json!({ "password_secret": "pass" }));
    let mut gateway = Gateway::start(&all, with());
    assert!(gateway.proxy.wanted(ResourceType::Secret).contains("pass"));
    let secret = |text: &str| json!({ "name": "pass", "genericSecret": { "secret": { "inlineString": text } } });
    gateway
        .proxy
        .accept(ResourceType::Secret, &[secret("wrong")]);
    gateway.places(1);
    gateway
        .proxy
        .accept(ResourceType::Secret, &[secret("open sesame")]);
    gateway.until("store_connected", 2);
    gateway.shared_places(5);
    let keys = redis.ask(&["AUTH", "\"open sesame\"\r\nSELECT 3\r\nDBSIZE"]);
    assert_eq!(keys, "+OK\r\n+OK\r\n:5\r\n+OK\r\n");
}

#[test]
fn a_server_with_tls_is_checked_by_authority_and_name() {
    let authority = Authority::new("stores");
    let Identity { chain, key } = authority.issue(&["redis.example"]);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (chain, key) = (file("chain", &chain), file("key", &key));
    let address = free_address();
    let port = address.port().to_string();
    let redis = Redis::start_at(
        address,
        &[
            "--tls-port",
            &port,
            "--tls-cert-file",
            &chain,
            "--tls-key-file",
            &key,
            "--tls-auth-clients",
            "no",
            "--tls-ca-cert-file",
            &chain,
        ],
    );
    let (_upstreams, all) = upstreams(2);
    let trust = |authority: &Authority| json!({ "name": "roots", "validationContext": { "trustedCa": { "inlineString": authority.pem } } });
    let check = |name: &str, roots: &Authority, connects: bool| {
        let tls = json!({ "tls": { "ca_secret": "roots", "server_name": name } });
        let mut gateway = Gateway::start(&all, shared(redis.address, "600s", tls));
        gateway.proxy.accept(ResourceType::Secret, &[trust(roots)]);
        if connects {
            gateway.until("store_connected", 2);
            gateway.shared_places(3);
        } else {
            eventually(|| {
                gateway.places(1);
                gateway.stat("store_errors") > 0
            });
            assert_eq!(gateway.stat("store_connected"), 0);
        }
    };
    check("redis.example", &authority, true);
    check("other.example", &authority, false);
    check("redis.example", &Authority::new("others"), false);
    assert!(redis.folder.path().exists());
}

#[test]
fn the_option_is_refused_by_path_when_it_is_wrong() {
    let (_upstreams, all) = upstreams(1);
    let mut proxy = Proxy::start(1);
    let mut check = |more: Value, expected: &str| {
        let server = "127.0.0.1:6379".parse().unwrap();
        let option = shared(server, "60s", more.clone());
        let cluster = crate::support::cluster("c", &all, option);
        let rejected = proxy.send(ResourceType::Cluster, &[cluster]);
        let reason = rejected.first().map(|rejection| rejection.reason.clone());
        let reason = reason.unwrap_or_default();
        assert!(reason.contains(expected), "{more}: {reason:?}");
    };
    check(json!({ "host": "" }), "redis.host");
    check(json!({ "port": 0 }), "redis.port");
    check(json!({ "port": 70000 }), "redis.port");
    check(json!({ "database": -1 }), "redis.database");
    check(json!({ "password_secret": "" }), "redis.password_secret");
    check(json!({ "tls": {} }), "redis.tls.ca_secret");
    check(json!({ "more": 1 }), "redis.more");
    assert!(get(proxy.http(json!([]), json!({})), "/", &[]).status == 404);
}
