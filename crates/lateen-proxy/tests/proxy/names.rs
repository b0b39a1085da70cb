//! Clusters whose endpoints are names: a name server on loopback answers, changes its mind, and fails.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{RData, Record, RecordType};
use lateen_xds::ResourceType;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::support::{Proxy, Upstream, eventually, get, merge, to};

/// A name server that knows one name.
struct NameServer {
    address: SocketAddr,
    answer: Arc<Mutex<Result<Vec<IpAddr>, ResponseCode>>>,
    questions: Arc<AtomicUsize>,
}

impl NameServer {
    fn start(addresses: &[&str]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: socket.local_addr().unwrap(),
            answer: Arc::new(Mutex::new(Ok(parse(addresses)))),
            questions: Arc::default(),
        };
        let (answer, questions) = (server.answer.clone(), server.questions.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                questions.fetch_add(1, Ordering::SeqCst);
                let reply = reply(&buffer[..length], &answer.lock());
                let _ = socket.send_to(&reply, from);
            }
        });
        server
    }

    fn say(&self, addresses: &[&str]) {
        *self.answer.lock() = Ok(parse(addresses));
    }

    fn fail(&self, code: ResponseCode) {
        *self.answer.lock() = Err(code);
    }

    /// Waits until more questions were answered with what is said now.
    fn wait(&self) {
        let before = self.questions.load(Ordering::SeqCst);
        eventually(|| self.questions.load(Ordering::SeqCst) > before + 1);
    }

    /// A cluster that asks it.
    fn cluster(&self, name: &str, port: u16, more: Value) -> Value {
        let mut cluster = json!({
            "name": "c", "type": "STRICT_DNS", "connectTimeout": "1s",
            "dnsRefreshRate": "0.05s", "dnsFailureRefreshRate": { "baseInterval": "0.05s" },
            "dnsLookupFamily": "V4_ONLY", "respectDnsTtl": false,
            "typedDnsResolverConfig": { "name": "cares", "typedConfig": {
                "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                "resolvers": [crate::support::socket_address(self.address)],
                "dnsResolverOptions": { "noDefaultSearchDomain": true },
                "udpMaxQueries": 100,
                "queryTries": 1,
            }},
            "loadAssignment": { "clusterName": "c", "endpoints": [{ "lbEndpoints": [{
                "endpoint": { "address": { "socketAddress": { "address": name, "portValue": port } } },
            }]}]},
        });
        merge(&mut cluster, more);
        cluster
    }
}

fn parse(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|text| text.parse().unwrap()).collect()
}

fn reply(question: &[u8], answer: &Result<Vec<IpAddr>, ResponseCode>) -> Vec<u8> {
    let question = Message::from_vec(question).unwrap();
    let mut reply = Message::response(question.metadata.id, question.metadata.op_code);
    let query = question.queries[0].clone();
    match answer {
        Err(code) => reply.metadata.response_code = *code,
        Ok(addresses) => {
            for address in addresses {
                let data = match (address, query.query_type()) {
                    (IpAddr::V4(ip), RecordType::A) => RData::A(A(*ip)),
                    (IpAddr::V6(ip), RecordType::AAAA) => RData::AAAA(AAAA(*ip)),
                    _ => continue,
                };
                reply.add_answer(Record::from_rdata(query.name().clone(), 60, data));
            }
        }
    }
    reply.add_query(query);
    reply.to_vec().unwrap()
}

/// A proxy with the cluster, once it is in effect.
fn proxy(cluster: Value) -> (Proxy, SocketAddr) {
    let mut proxy = Proxy::start(1);
    proxy.accept(ResourceType::Cluster, &[cluster]);
    let address = proxy.http(json!([to("c", json!({}))]), json!({}));
    (proxy, address)
}

/// Two upstreams at different addresses with the same port.
fn pair() -> [Upstream; 2] {
    loop {
        let one = Upstream::start("one");
        let port = one.address.port();
        if let Some(two) = Upstream::start_at("two", SocketAddr::new([127, 0, 0, 2].into(), port)) {
            return [one, two];
        }
    }
}

#[test]
fn every_address_of_a_name_is_an_endpoint() {
    let upstreams = pair();
    let server = NameServer::start(&["127.0.0.1"]);
    let port = upstreams[0].address.port();
    let (_proxy, address) = proxy(server.cluster("backend.test", port, json!({})));
    eventually(|| get(address, "/", &[]).status == 200);
    for _ in 0..4 {
        assert_eq!(get(address, "/", &[]).name(), "one");
    }
    server.say(&["127.0.0.1", "127.0.0.2"]);
    eventually(|| get(address, "/", &[]).name() == "two");
    // What cannot be resolved any more stays as it was known.
    server.fail(ResponseCode::ServFail);
    server.wait();
    let names: Vec<_> = (0..4).map(|_| get(address, "/", &[]).name()).collect();
    assert!(
        names.contains(&"one".to_owned()) && names.contains(&"two".to_owned()),
        "{names:?}"
    );
    // That a name has no address is an answer.
    server.fail(ResponseCode::NXDomain);
    eventually(|| get(address, "/", &[]).body == "no healthy upstream");
    server.say(&["127.0.0.2"]);
    eventually(|| get(address, "/", &[]).status == 200);
    assert_eq!(get(address, "/", &[]).name(), "two");
}

#[test]
fn a_logical_cluster_uses_the_first_address() {
    let upstreams = pair();
    let server = NameServer::start(&["127.0.0.2", "127.0.0.1"]);
    let port = upstreams[0].address.port();
    let logical = json!({ "type": "LOGICAL_DNS" });
    let (_proxy, address) = proxy(server.cluster("backend.test", port, logical));
    eventually(|| get(address, "/", &[]).status == 200);
    for _ in 0..4 {
        assert_eq!(get(address, "/", &[]).name(), "two");
    }
}

#[test]
fn a_cluster_waits_for_the_first_answer_only() {
    let upstream = Upstream::start("one");
    let server = NameServer::start(&[]);
    server.fail(ResponseCode::ServFail);
    let port = upstream.address.port();
    let (mut proxy, address) = proxy(server.cluster("backend.test", port, json!({})));
    eventually(|| get(address, "/", &[]).body == "no healthy upstream");
    server.say(&["127.0.0.1"]);
    eventually(|| get(address, "/", &[]).status == 200);
    // A change of the cluster begins with what is known.
    server.fail(ResponseCode::ServFail);
    server.wait();
    let changed = server.cluster("backend.test", port, json!({ "connectTimeout": "3s" }));
    proxy.accept(ResourceType::Cluster, &[changed]);
    assert_eq!(get(address, "/", &[]).name(), "one");
}

#[test]
fn the_host_is_rewritten_to_the_name() {
    let upstream = Upstream::start("one");
    let server = NameServer::start(&["127.0.0.1"]);
    let mut proxy = Proxy::start(1);
    let cluster = server.cluster("backend.test", upstream.address.port(), json!({}));
    proxy.accept(ResourceType::Cluster, &[cluster]);
    let routes = json!([to("c", json!({ "autoHostRewrite": true }))]);
    let address = proxy.http(routes, json!({}));
    eventually(|| get(address, "/", &[]).status == 200);
    let seen = get(address, "/", &[]).seen();
    assert_eq!(seen["headers"]["host"], "backend.test");
}

#[test]
fn families_are_asked_in_the_order_that_is_wanted() {
    let upstream = Upstream::start("one");
    let port = upstream.address.port();
    for (family, answer, served) in [
        ("V4_ONLY", &["127.0.0.1"][..], true),
        ("V4_ONLY", &["::1"], false),
        ("V6_ONLY", &["127.0.0.1"], false),
        ("AUTO", &["127.0.0.1"], true),
        ("V4_PREFERRED", &["127.0.0.1", "::9"], true),
        ("ALL", &["127.0.0.1"], true),
    ] {
        let server = NameServer::start(answer);
        let cluster = server.cluster("backend.test", port, json!({ "dnsLookupFamily": family }));
        let (_proxy, address) = proxy(cluster);
        let status = if served { 200 } else { 503 };
        let body = |answer: &crate::support::Answer| answer.body != "no healthy upstream";
        eventually(|| {
            let answer = get(address, "/", &[]);
            answer.status == status && body(&answer) == served
        });
    }
}

#[test]
fn what_cannot_be_resolved_this_way_is_refused() {
    let server = NameServer::start(&[]);
    for (more, path) in [
        (json!({ "dnsRefreshRate": "0s" }), "dns_refresh_rate"),
        (
            json!({ "dnsFailureRefreshRate": {} }),
            "dns_failure_refresh_rate.base_interval",
        ),
        (
            json!({ "dnsFailureRefreshRate": { "baseInterval": "2s", "maxInterval": "1s" } }),
            "dns_failure_refresh_rate.max_interval",
        ),
        (
            json!({ "type": "LOGICAL_DNS", "loadAssignment": { "clusterName": "c" } }),
            "load_assignment",
        ),
        (
            json!({ "typedDnsResolverConfig": { "name": "apple", "typedConfig": {
                "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.apple.v3.AppleDnsResolverConfig",
            }}}),
            "typed_dns_resolver_config.typed_config",
        ),
        (
            json!({ "typedDnsResolverConfig": { "name": "cares", "typedConfig": {
                "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                "filterUnroutableFamilies": true,
            }}}),
            "typed_dns_resolver_config.typed_config.filter_unroutable_families",
        ),
    ] {
        let cluster = server.cluster("backend.test", 80, more);
        let rejected = Proxy::start(1).send(ResourceType::Cluster, &[cluster]);
        assert_eq!(rejected.len(), 1, "{path}");
        assert!(
            rejected[0].reason.starts_with(path),
            "{}",
            rejected[0].reason
        );
    }
}
