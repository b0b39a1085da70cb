//! Questions and answers as bytes, the way a client sees them.

use std::panic::AssertUnwindSafe;
use std::str::FromStr;

use hickory_proto::rr::Name;
use serde_json::{Value, json};

use super::*;

fn world() -> Arc<World> {
    let services = json!([
        {"metadata": {"name": "web", "namespace": "lab"},
         "spec": {"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80}]}},
        {"metadata": {"name": "db", "namespace": "lab"},
         "spec": {"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]}},
        {"metadata": {"name": "away", "namespace": "lab"},
         "spec": {"type": "ExternalName", "externalName": "example.com"}},
        {"metadata": {"name": "alias", "namespace": "lab"},
         "spec": {"type": "ExternalName", "externalName": "web.lab.svc.cluster.local"}},
    ]);
    let slices = json!([
        {"metadata": {"name": "db-1", "namespace": "lab", "labels": {"kubernetes.io/service-name": "db"}},
         "addressType": "IPv4", "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
         "endpoints": [{"addresses": ["10.244.0.8"], "hostname": "db-0"},
                       {"addresses": ["10.244.0.9"]},
                       {"addresses": ["10.244.0.10"], "conditions": {"ready": false}}]},
    ]);
    World::with(
        serde_json::from_value(services).unwrap(),
        serde_json::from_value(slices).unwrap(),
    )
}

/// Knows no nameserver.
fn resolver(world: Arc<World>) -> Resolver {
    Resolver {
        zone: Zone::new(world, "cluster.local"),
        forwarder: None,
    }
}

#[tokio::main(flavor = "current_thread")]
async fn answer(resolver: &Resolver, bytes: &[u8], stream: bool) -> Option<Vec<u8>> {
    resolver.answer(bytes, stream).await
}

fn ask(name: &str, kind: RecordType) -> (String, Vec<String>) {
    let resolver = resolver(world());
    let mut query = Message::query();
    query.add_query(Query::query(Name::from_str(name).unwrap(), kind));
    let bytes = answer(&resolver, &query.to_vec().unwrap(), true).unwrap();
    let answer = Message::from_vec(&bytes).unwrap();
    let mut data: Vec<_> = answer
        .answers
        .iter()
        .map(|record| record.data.to_string())
        .collect();
    data.sort();
    (format!("{:?}", answer.metadata.response_code), data)
}

fn check(name: &str, kind: RecordType, code: &str, expected: &[&str]) {
    let (seen, data) = ask(name, kind);
    assert_eq!(
        (
            seen.as_str(),
            data.iter().map(String::as_str).collect::<Vec<_>>()
        ),
        (code, expected.to_vec()),
        "{name} {kind}"
    );
}

#[test]
fn services_and_pods_have_addresses() {
    check(
        "web.lab.svc.cluster.local.",
        RecordType::A,
        "NoError",
        &["10.96.0.7"],
    );
    check(
        "WEB.Lab.svc.Cluster.local.",
        RecordType::A,
        "NoError",
        &["10.96.0.7"],
    );
    check(
        "web.lab.svc.cluster.local.",
        RecordType::AAAA,
        "NoError",
        &[],
    );
    check(
        "db.lab.svc.cluster.local.",
        RecordType::A,
        "NoError",
        &["10.244.0.8", "10.244.0.9"],
    );
    check(
        "db-0.db.lab.svc.cluster.local.",
        RecordType::A,
        "NoError",
        &["10.244.0.8"],
    );
    check(
        "10-244-0-9.db.lab.svc.cluster.local.",
        RecordType::A,
        "NoError",
        &["10.244.0.9"],
    );
    check(
        "10-244-0-9.lab.pod.cluster.local.",
        RecordType::A,
        "NoError",
        &["10.244.0.9"],
    );
    let alias = ["10.96.0.7", "web.lab.svc.cluster.local."];
    check(
        "alias.lab.svc.cluster.local.",
        RecordType::A,
        "NoError",
        &alias,
    );
}

#[test]
fn ports_have_service_records_and_addresses_have_names() {
    let web = ["0 100 80 web.lab.svc.cluster.local."];
    check(
        "_http._tcp.web.lab.svc.cluster.local.",
        RecordType::SRV,
        "NoError",
        &web,
    );
    check(
        "_none._tcp.web.lab.svc.cluster.local.",
        RecordType::SRV,
        "NXDomain",
        &[],
    );
    let db = [
        "0 50 5432 10-244-0-9.db.lab.svc.cluster.local.",
        "0 50 5432 db-0.db.lab.svc.cluster.local.",
    ];
    check(
        "_sql._tcp.db.lab.svc.cluster.local.",
        RecordType::SRV,
        "NoError",
        &db,
    );
    let name = ["web.lab.svc.cluster.local."];
    check("7.0.96.10.in-addr.arpa.", RecordType::PTR, "NoError", &name);
    check("99.0.96.10.in-addr.arpa.", RecordType::PTR, "NXDomain", &[]);
}

#[test]
fn unknown_names_do_not_exist_and_foreign_ones_are_refused() {
    check(
        "none.lab.svc.cluster.local.",
        RecordType::A,
        "NXDomain",
        &[],
    );
    check(
        "db-7.db.lab.svc.cluster.local.",
        RecordType::A,
        "NXDomain",
        &[],
    );
    check(
        "example.com.lab.svc.cluster.local.",
        RecordType::A,
        "NXDomain",
        &[],
    );
    check("example.com.", RecordType::A, "Refused", &[]);
    check("1.1.1.1.in-addr.arpa.", RecordType::PTR, "Refused", &[]);
    let alias = ["example.com."];
    check(
        "away.lab.svc.cluster.local.",
        RecordType::A,
        "NoError",
        &alias,
    );
}

/// A nameserver that has one address for every name but `none.example.com`, and answers wrongly before it answers.
fn nameserver() -> SocketAddr {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let query = Message::from_vec(&buffer[..length]).unwrap();
            let mut answer = Message::response(query.metadata.id, OpCode::Query);
            let question = &query.queries[0];
            answer.add_query(question.clone());
            if question.name().to_ascii() == "none.example.com." {
                answer.metadata.response_code = ResponseCode::NXDomain;
            } else {
                let data = RData::A(Ipv4Addr::new(192, 0, 2, 7).into());
                answer.add_answer(Record::from_rdata(question.name().clone(), 60, data));
            }
            let mut forged = answer.clone();
            forged.metadata.id = query.metadata.id.wrapping_add(1);
            for answer in [forged, answer] {
                socket.send_to(&answer.to_vec().unwrap(), client).unwrap();
            }
        }
    });
    address
}

async fn check_outside(
    nameservers: Vec<SocketAddr>,
    name: &str,
    code: ResponseCode,
    expected: &[&str],
) {
    let (inner, outer) = lateen_sys::socket::message_pair().unwrap();
    let server = crate::OutsideServer::new(outer).with_nameservers(nameservers.clone());
    tokio::spawn(server.serve(|_| ()));
    let resolver = Resolver {
        zone: Zone::new(world(), "cluster.local"),
        forwarder: Some(Forwarder::new(Outside::start(inner).unwrap())),
    };
    let mut query = Message::query();
    query.add_query(Query::query(Name::from_str(name).unwrap(), RecordType::A));
    let answer = resolver.answer(&query.to_vec().unwrap(), false).await;
    let answer = Message::from_vec(&answer.unwrap()).unwrap();
    assert_eq!(answer.metadata.id, query.metadata.id, "{name}");
    let data = answer.answers.iter().map(|record| record.data.to_string());
    assert_eq!(
        (
            answer.metadata.response_code,
            data.collect::<Vec<_>>(),
            answer.queries
        ),
        (
            code,
            expected.iter().map(|text| (*text).to_owned()).collect(),
            query.queries
        ),
        "{name} {nameservers:?}"
    );
}

#[tokio::test]
async fn names_of_the_outside_are_asked_of_the_hosts_nameservers() {
    let works = nameserver();
    let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let dead = closed.local_addr().unwrap();
    drop(closed);
    let (fine, none) = (ResponseCode::NoError, ResponseCode::NXDomain);
    check_outside(vec![works], "example.com.", fine, &["192.0.2.7"]).await;
    check_outside(vec![dead, works], "example.com.", fine, &["192.0.2.7"]).await;
    check_outside(vec![works], "none.example.com.", none, &[]).await;
    check_outside(vec![dead], "example.com.", ResponseCode::ServFail, &[]).await;
    check_outside(vec![], "example.com.", ResponseCode::Refused, &[]).await;
    let both = ["example.com.", "192.0.2.7"];
    check_outside(vec![works], "away.lab.svc.cluster.local.", fine, &both).await;
    check_outside(
        vec![works],
        "web.lab.svc.cluster.local.",
        fine,
        &["10.96.0.7"],
    )
    .await;
}

#[test]
fn what_is_no_question_gets_no_answer() {
    let resolver = resolver(world());
    assert_eq!(answer(&resolver, b"\x00\x01garbage", false), None);
    let response = Message::response(1, OpCode::Query).to_vec().unwrap();
    assert_eq!(answer(&resolver, &response, false), None);
}

#[test]
fn an_answer_that_does_not_fit_says_so() {
    let endpoints: Vec<Value> = (1..200)
        .map(|n| json!({"addresses": [format!("10.244.1.{n}")]}))
        .collect();
    let services = json!([{"metadata": {"name": "big", "namespace": "lab"},
        "spec": {"clusterIP": "None"}}]);
    let slices = json!([{"metadata": {"name": "big-1", "namespace": "lab",
        "labels": {"kubernetes.io/service-name": "big"}}, "addressType": "IPv4", "endpoints": endpoints}]);
    let world = World::with(
        serde_json::from_value(services).unwrap(),
        serde_json::from_value(slices).unwrap(),
    );
    let resolver = resolver(world);
    let mut query = Message::query();
    let name = Name::from_str("big.lab.svc.cluster.local.").unwrap();
    query.add_query(Query::query(name, RecordType::A));
    let query = query.to_vec().unwrap();
    let small = Message::from_vec(&answer(&resolver, &query, false).unwrap()).unwrap();
    assert!(small.metadata.truncation);
    let whole = Message::from_vec(&answer(&resolver, &query, true).unwrap()).unwrap();
    assert_eq!(whole.answers.len(), 199);
}

/// Fuzzed: a message is answered with a message that has its number, or not at all; by UDP with no more than the client takes.
#[test]
fn any_message_is_answered_or_passed_over() {
    let resolver = AssertUnwindSafe(resolver(world()));
    bolero::check!(name = "dns-messages")
        .with_iterations(0)
        .for_each(|bytes: &[u8]| {
            for stream in [false, true] {
                let Some(reply) = answer(&resolver, bytes, stream) else {
                    continue;
                };
                assert!(stream || reply.len() <= LARGE_ANSWER);
                let reply = Message::from_vec(&reply).expect("a message");
                assert_eq!(reply.metadata.message_type, MessageType::Response);
                assert_eq!(Some(&reply.metadata.id.to_be_bytes()[..]), bytes.get(..2));
            }
        });
}
