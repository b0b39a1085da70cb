//! Questions and answers as bytes, the way a client sees them.

use std::str::FromStr;

use hickory_proto::op::Query;
use hickory_proto::rr::{Name, RecordType};
use serde_json::{Value, json};

use super::*;

fn world() -> Arc<World> {
    let services = json!([
        {"metadata": {"name": "web", "namespace": "lab"},
         "spec": {"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80}]}},
        {"metadata": {"name": "db", "namespace": "lab"},
         "spec": {"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]}},
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

fn ask(name: &str, kind: RecordType) -> (String, Vec<String>) {
    let zone = Zone::new(world(), "cluster.local");
    let mut query = Message::query();
    query.add_query(Query::query(Name::from_str(name).unwrap(), kind));
    let bytes = answer(&zone, &query.to_vec().unwrap(), true).unwrap();
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
}

#[test]
fn what_is_no_question_gets_no_answer() {
    let zone = Zone::new(world(), "cluster.local");
    assert_eq!(answer(&zone, b"\x00\x01garbage", false), None);
    let response = Message::response(1, OpCode::Query).to_vec().unwrap();
    assert_eq!(answer(&zone, &response, false), None);
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
    let zone = Zone::new(world, "cluster.local");
    let mut query = Message::query();
    let name = Name::from_str("big.lab.svc.cluster.local.").unwrap();
    query.add_query(Query::query(name, RecordType::A));
    let query = query.to_vec().unwrap();
    let small = Message::from_vec(&answer(&zone, &query, false).unwrap()).unwrap();
    assert!(small.metadata.truncation);
    let whole = Message::from_vec(&answer(&zone, &query, true).unwrap()).unwrap();
    assert_eq!(whole.answers.len(), 199);
}
