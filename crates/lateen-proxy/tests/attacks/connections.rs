//! More connections than there may be: the proxy keeps files for itself.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use lateen_proxy::{EngineConfig, ProxyConfig};
use lateen_xds::ResourceType;
use lateen_xds::client::Target;
use lateen_xds::pb::envoy::config::core::v3::Node;
use serde_json::{Value, json};

use crate::discovery::{Fixed, serve};
use crate::endpoint::Endpoint;
use crate::frames::{self, Connection};
use crate::stage::{Stage, beside_others, serves_others};
use crate::support::{
    Client, Upstream, cluster, eventually, free_address, get, http_listener, to, wait_for_listener,
};

/// R11: who comes when all places are taken is told so at once, and the places are given back.
#[test]
fn there_are_so_many_connections() {
    let endpoint = Endpoint::start();
    let config = EngineConfig {
        most_connections: 5,
        ..EngineConfig::default()
    };
    let stage = Stage::with(config, endpoint.address, json!({}), json!({}));
    // Whoever came before is counted by then.
    serves_others(stage.address);
    for _ in 0..3 {
        eventually(|| stage.proxy.engine.connections() == 0);
        let mut clients: Vec<Client> = (0..5).map(|_| Client::connect(stage.address)).collect();
        for client in &mut clients {
            assert_eq!(client.get("/direct", &[]).unwrap().status, 200);
        }
        let mut one_more = Client::connect(stage.address);
        assert!(one_more.is_closed());
        for client in &mut clients {
            assert_eq!(client.get("/direct", &[]).unwrap().status, 200);
        }
    }
    let metrics = stage.proxy.engine.metrics();
    let mut lines = metrics.lines();
    let overflow = |line: &&str| line.starts_with("envoy_listener_downstream_cx_overflow{");
    assert!(lines.find(overflow).unwrap().ends_with(" 3"));
}

/// R11: streams of one client do not open more connections to endpoints than there may be, of either kind of request.
#[test]
fn there_are_so_many_connections_to_endpoints() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = EngineConfig {
        most_endpoint_connections: 5,
        ..EngineConfig::default()
    };
    let address = silent.local_addr().unwrap();
    let stage = Stage::with(config, address, json!({}), json!({}));
    let mut client = Connection::open(stage.address, &[]);
    for number in 0..20 {
        client.send(&frames::get(2 * number + 1, "/"));
    }
    let refused = |seen: &frames::Seen| {
        let refused = seen.streams.values().filter(|it| it.is_over());
        refused.count() == 15
    };
    assert!(client.until(refused), "{:?}", client.seen);
    serves_others(stage.address);
    let overflow = "envoy_cluster_upstream_cx_overflow{cluster_name=\"one\"} 15";
    assert!(stage.proxy.engine.metrics().contains(overflow));
    drop(client);
    let gauge = "envoy_cluster_upstream_cx_active{cluster_name=\"one\"} 0";
    eventually(|| stage.proxy.engine.metrics().contains(gauge));
    // They can be opened again.
    let mut client = Connection::open(stage.address, &[]);
    client.send(&frames::get(1, "/"));
    assert!(client.goes_on() && !client.seen.stream(1).is_over());
}

/// R11: connections that nobody uses make room for those that somebody needs.
#[test]
fn idle_connections_to_endpoints_leave_for_others() {
    let endpoints = ["a", "b", "c", "d"].map(Upstream::start);
    let config = EngineConfig {
        most_endpoint_connections: 2,
        ..EngineConfig::default()
    };
    let mut stage = Stage::with(config, endpoints[0].address, json!({}), json!({}));
    let addresses = endpoints.each_ref().map(|endpoint| endpoint.address);
    stage.proxy.cluster("one", &addresses, json!({}));
    let mut client = Client::connect(stage.address);
    for number in 0..20 {
        assert_eq!(client.get("/", &[]).unwrap().status, 200, "{number}");
    }
    assert!(endpoints.iter().all(|endpoint| endpoint.count() == 5));
}

/// What the process below is told.
const SOCKET: &str = "LATEEN_TEST_DISCOVERY";
const ADMIN: &str = "LATEEN_TEST_ADMIN";

/// A proxy as a process of its own, which has few files.
struct Process(Child);

impl Process {
    fn start(files: usize, socket: &std::path::Path, admin: SocketAddr) -> Self {
        let limit = format!("ulimit -n {files} && exec \"$0\" \"$@\"");
        let child = Command::new("sh")
            .args(["-c", &limit])
            .arg(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "connections::a_proxy_with_few_files",
            ])
            .env(SOCKET, socket)
            .env(ADMIN, admin.to_string())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The process itself.
#[test]
#[ignore = "the test below runs it"]
fn a_proxy_with_few_files() {
    let (Ok(socket), Ok(admin)) = (std::env::var(SOCKET), std::env::var(ADMIN)) else {
        return;
    };
    let node = Node {
        id: "test-node".to_owned(),
        ..Node::default()
    };
    let target = Target::Unix(socket.into());
    let config = ProxyConfig::new(node, target, admin.parse().unwrap());
    lateen_proxy::run(config).unwrap();
}

fn post(address: SocketAddr, path: &str) -> u16 {
    let request = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
    Client::connect(address).send(&request).unwrap().status
}

/// The number of the first line of the admin interface's metrics that begins so.
fn metric(admin: SocketAddr, name: &str) -> u64 {
    let text = get(admin, "/stats/prometheus", &[]).body;
    let mut lines = text.lines().filter(|line| line.starts_with(name));
    let number = lines.next().and_then(|line| line.rsplit(' ').next());
    number.unwrap_or_else(|| panic!("{name}")).parse().unwrap()
}

/// R11: however many connections clients and their requests want, the admin interface answers.
#[test]
fn files_are_kept_for_the_admin_interface() {
    let _turn = beside_others();
    let upstream = Upstream::start("one");
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("xds.sock");
    let (admin, address) = (free_address(), free_address());
    let source = Fixed::default();
    source.set(
        ResourceType::Cluster,
        "one",
        cluster("one", &[upstream.address], json!({})),
    );
    source.set(
        ResourceType::Listener,
        "l",
        http_listener("l", address, json!({})),
    );
    let routes: Value =
        json!([{ "name": "all", "domains": ["*"], "routes": [to("one", json!({}))] }]);
    source.set(
        ResourceType::Route,
        "r",
        json!({ "name": "r", "virtualHosts": routes }),
    );
    let _server = serve(source, &socket);
    let process = Process::start(256, &socket, admin);
    wait_for_listener(admin);
    wait_for_listener(address);
    eventually(|| get(address, "/", &[]).status == 200);
    // Clients that say nothing, as many as the process has files.
    let idle: Vec<TcpStream> = (0..300)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    eventually(|| metric(admin, "envoy_listener_downstream_cx_overflow") > 100);
    let active = metric(admin, "envoy_listener_downstream_cx_active");
    assert_eq!(active, 96, "half of what is not kept");
    assert_eq!(get(admin, "/ready", &[]).status, 200);
    drop(idle);
    eventually(|| metric(admin, "envoy_listener_downstream_cx_active") == 0);
    // A few clients whose streams want a connection each.
    let mut clients: Vec<Connection> = (0..4).map(|_| Connection::open(address, &[])).collect();
    for client in &mut clients {
        for number in 0..100 {
            client.send(&frames::get(2 * number + 1, "/?sleep=3000"));
        }
    }
    eventually(|| metric(admin, "envoy_cluster_upstream_cx_overflow") > 100);
    let active = metric(admin, "envoy_cluster_upstream_cx_active");
    assert!((90..=96).contains(&active), "{active}");
    assert_eq!(get(admin, "/ready", &[]).status, 200);
    // Somebody leaves connections to the interface itself open.
    let idle: Vec<TcpStream> = (0..300)
        .map(|_| TcpStream::connect(admin).unwrap())
        .collect();
    assert_eq!(get(admin, "/ready", &[]).status, 200);
    drop((clients, idle));
    eventually(|| get(address, "/", &[]).status == 200);
    assert_eq!(post(admin, "/quitquitquit"), 200);
    let mut process = process;
    eventually(|| process.0.try_wait().unwrap().is_some());
}
